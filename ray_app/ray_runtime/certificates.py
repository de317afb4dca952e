"""The certificate of a pod, with which Ray's processes encrypt their connections and recognize each other:
`python -m ray_app.ray_runtime.certificates CA_DIRECTORY DIRECTORY NAME...`.

It runs in an init container, the only container with the key of the certificate authority (CA).
"""

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from data_io.errors import ConfigError

CERTIFICATE, KEY, CA_CERTIFICATE = "tls.crt", "tls.key", "ca.crt"
"""Names of the files. A Secret of the type kubernetes.io/tls has the first two."""
_OWN_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names by which the processes of a pod connect to each other."""
_CLOCKS_DIFFER = timedelta(minutes=5)
_CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def write_certificate(ca: Path, directory: Path, names: Sequence[str]) -> datetime:
    """Write a new key, its certificate for `names` (IP addresses and host names) and the certificate of the CA to
    `directory`. The directory `ca` has the certificate and the key of the CA. Returns the end of validity.

    The certificate is valid as long as that of the CA: processes of Ray read it when they start, and never again.

    Raises ConfigError if the CA cannot sign now.
    """
    issuer, issuer_key = _read_ca(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ray")]))  # names are too long for this field
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _CLOCKS_DIFFER)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_name(each) for each in (*_OWN_NAMES, *names)]), critical=False)
        # A process of Ray is a server and a client.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / KEY).touch(mode=0o600)
    (directory / KEY).write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (directory / CERTIFICATE).write_bytes(certificate.public_bytes(pem))
    (directory / CA_CERTIFICATE).write_bytes(issuer.public_bytes(pem))
    return issuer.not_valid_after_utc


def _read_ca(directory: Path) -> tuple[x509.Certificate, _CaKey]:
    try:
        certificate = x509.load_pem_x509_certificate((directory / CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((directory / KEY).read_bytes(), password=None)
        is_ca = _is_ca(certificate)
    except OSError as error:
        raise _refused(f"no readable {Path(error.filename).name}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # whose texts could quote the key
        raise _refused("content that is not a certificate and its key without a password") from None
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not is_ca:
        raise _refused("a certificate that is not that of a CA")
    if not start - _CLOCKS_DIFFER <= datetime.now(UTC) < end:
        raise _refused(f"a certificate that is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}")
    if not isinstance(key, _CaKey):
        raise _refused("a key of another kind, expected RSA or an elliptic curve of NIST")
    if key.public_key() != certificate.public_key():
        raise _refused("a key that does not belong to the certificate")
    return certificate, key


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _refused(found: str) -> ConfigError:
    return ConfigError(
        f"Secret of the CA: found {found}",
        remedy="store the certificate and the key of a CA as tls.crt and tls.key in the Secret",
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a certificate for Ray's connections, signed by a CA.")
    parser.add_argument("ca", type=Path, help="directory with tls.crt and tls.key of the CA")
    parser.add_argument("directory", type=Path, help="directory to write tls.crt, tls.key and ca.crt to")
    parser.add_argument("names", nargs="+", help="IP addresses and host names of the pod")
    given = parser.parse_args()
    try:
        end = write_certificate(given.ca, given.directory, given.names)
    except ConfigError as error:
        # One line, since the status of the job shows the last line of a container that failed.
        sys.exit(f"error: {error.message}; {error.remedy}")
    sys.stdout.write(f"certificate for {', '.join(given.names)}, valid until {end:%Y-%m-%d}\n")


if __name__ == "__main__":
    main()
