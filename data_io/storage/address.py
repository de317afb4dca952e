"""What an address of a store means: local path, file://, s3:// or (in tests) memory://, and the endpoint behind s3://."""

import os
import re
from urllib.parse import unquote, urlsplit

from data_io.config import S3Options
from data_io.errors import ConfigError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):/")
_SUPPORTED = "a local folder, file:///folder or s3://bucket/prefix"


def parse_uri(uri: str) -> tuple[str, str]:
    """Root (an absolute folder, `s3://bucket` or `memory://name`) and prefix of a URI. Raises ConfigError."""
    scheme, rest = _split_scheme(uri)
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket or (":" in bucket and "@" in prefix):
            raise ConfigError(
                f"the URI {without_credentials(uri)} has credentials in it",
                remedy="put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        if not bucket:
            raise ConfigError(f"{uri!r} names no bucket", remedy="write s3://bucket/prefix")
        return f"s3://{bucket}", _clean_prefix(uri, prefix)
    if scheme == "memory":
        name, _, prefix = rest.partition("/")
        return f"memory://{name}", _clean_prefix(uri, prefix)
    path = unquote(rest.removeprefix("localhost")) if scheme == "file" else os.path.expanduser(uri)
    if scheme == "file" and not path.startswith("/"):
        raise ConfigError(f"{uri!r} is not a path on this machine", remedy="write file:///folder, with three slashes")
    if not path.strip():
        raise ConfigError("the URI of the store is empty", remedy=f"write {_SUPPORTED}")
    return os.path.abspath(path), ""


def _split_scheme(uri: str) -> tuple[str | None, str]:
    match = _SCHEME.match(uri)
    if match is None:
        return None, uri
    scheme = match.group(1).lower()
    rest = uri[match.end() :]
    if scheme not in {"s3", "file", "memory"} or not rest.startswith("/"):
        raise ConfigError(
            f"{without_credentials(uri)!r} is not an address that can be opened", remedy=f"write {_SUPPORTED}"
        )
    return scheme, rest[1:]


def _clean_prefix(uri: str, prefix: str) -> str:
    parts = [part for part in prefix.split("/") if part]
    if "." in parts or ".." in parts:
        raise ConfigError(f"{uri!r} has '.' or '..' in its prefix", remedy="write the prefix out")
    return "/".join(parts)


def endpoint_of(s3: S3Options) -> str | None:
    """Address of the S3 service, None for AWS itself."""
    return s3.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def allow_http(s3: S3Options) -> bool:
    """Whether an endpoint without TLS may be used."""
    return s3.allow_http or os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true"}


def check_endpoint(s3: S3Options) -> None:
    """Raises ConfigError where the endpoint is no address, holds credentials, or has no TLS without leave."""
    endpoint = endpoint_of(s3)
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    shown = without_credentials(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"endpoint_url {shown!r} is not an address", remedy="write https://host:port")
    if parts.username or parts.password:
        raise ConfigError(
            f"endpoint_url {shown!r} has credentials in it",
            remedy="put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if parts.scheme == "http" and not allow_http(s3):
        raise ConfigError(
            f"endpoint_url {shown!r} has no TLS and allow_http is false",
            remedy="use https://, or allow it: storage.s3 with allow_http: true, --allow-http or AWS_ALLOW_HTTP=true",
        )


def without_credentials(url: str) -> str:
    """The URL as it may be printed."""
    # A secret may hold slashes: after a colon, everything up to the last @ goes.
    return re.sub(r"(?<=://)([^/@]*|[^@]*:.*)@", "", url)
