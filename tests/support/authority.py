"""A certificate authority, as cert-manager or an administrator makes it, in the files of a Secret."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def write_authority(
    directory: Path, *, key: Key | None = None, is_ca: bool = True, days: int = 365, parent: Path | None = None
) -> Path:
    """Write tls.crt and tls.key to `directory`, valid until `days` from now. With `parent`, the directory of another
    authority, it is an intermediate one. Returns the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, directory.name)])
    end = datetime.now(UTC) + timedelta(days=days)
    issuer, signs = name, key
    if parent is not None:
        issuer = x509.load_pem_x509_certificate((parent / "tls.crt").read_bytes()).subject
        signs = serialization.load_pem_private_key((parent / "tls.key").read_bytes(), password=None)  # type: ignore[assignment]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=400))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(signs, None if isinstance(signs, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory
