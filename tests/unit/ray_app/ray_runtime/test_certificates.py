"""Certificates of pods."""

import re
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from data_io.errors import ConfigError
from ray_app.ray_runtime import certificates
from ray_app.ray_runtime.certificates import write_certificate
from tests.support.authority import write_authority

HEAD = f"{'a' * 63}-head-svc.team.svc.cluster.local"  # longer than the subject of a certificate can be


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("kind", ["curve", "rsa", "intermediate"])
def test_a_certificate_has_the_names_of_its_pod_and_is_signed_by_the_authority(tmp_path: Path, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else None
    parent = write_authority(tmp_path / "root") if kind == "intermediate" else None
    ca, pod = write_authority(tmp_path / "ca", key=key, parent=parent), tmp_path

    end = write_certificate(ca, pod, ["10.1.2.3", "fd00::5", HEAD])

    made, authority = certificate(pod / "tls.crt"), certificate(pod / "ca.crt")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    made.verify_directly_issued_by(authority)
    assert authority == certificate(ca / "tls.crt")
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", HEAD}
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        ip_address(each) for each in ("127.0.0.1", "::1", "10.1.2.3", "fd00::5")
    }
    assert made.not_valid_after_utc == authority.not_valid_after_utc == end
    assert load_pem_private_key((pod / "tls.key").read_bytes(), None).public_key() == made.public_key()
    assert (pod / "tls.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda ca: (ca / "tls.key").unlink(), "no readable tls.key"),
        (lambda ca: (ca / "tls.crt").write_text("x"), "content that is not a certificate and its key"),
        (
            lambda ca: (ca / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\nsecret"),
            "content that is not a certificate and its key",
        ),
        (lambda ca: write_authority(ca, key=ed25519.Ed25519PrivateKey.generate()), "a key of another kind"),
        (lambda ca: write_authority(ca, is_ca=False), "a certificate that is not that of a CA"),
        (lambda ca: write_authority(ca, days=-1), r"a certificate that is valid from \S+ to \S+"),
        (lambda ca: write_authority(ca, days=500), r"a certificate that is valid from \S+ to \S+"),
    ],
    ids=["no key", "no certificate", "no such key", "another kind", "not a CA", "ended", "not begun"],
)
def test_an_authority_that_cannot_sign_ends_the_pod_with_the_reason(
    tmp_path: Path,
    damage: object,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca = write_authority(tmp_path / "ca")
    damage(ca)  # type: ignore[operator]
    monkeypatch.setattr(sys, "argv", ["certificates", str(ca), str(tmp_path), "10.1.2.3"])

    with pytest.raises(SystemExit) as ended:
        certificates.main()

    assert re.search(f"error: Secret of the CA: found {found}.*; store the certificate", str(ended.value))
    assert "secret" not in str(ended.value)
    assert not (tmp_path / "tls.crt").exists()


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    ca, other = write_authority(tmp_path / "ca"), write_authority(tmp_path / "other")
    (ca / "tls.key").write_bytes((other / "tls.key").read_bytes())

    with pytest.raises(ConfigError, match="a key that does not belong to the certificate"):
        write_certificate(ca, tmp_path, ["10.1.2.3"])
