"""Parses the URI of a store (local path, file://, s3:// or, in tests, memory://) and finds the endpoint of s3://."""

import os
import re
from urllib.parse import unquote, urlsplit

from data_io.data_spec import S3Options
from data_io.errors import ConfigError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):/")
_SUPPORTED = "a local directory, file:///directory or s3://bucket/prefix"
_BUCKET = re.compile(r"[\w.:-]+", re.ASCII)
_REGION = re.compile(r"[\w.-]+", re.ASCII)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # the last is obstore's own name
_KEY_PAIR = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def parse_uri(uri: str) -> tuple[str, str]:
    """Root (an absolute directory, `s3://bucket` or `memory://name`) and prefix of a URI. Raises ConfigError."""
    scheme, rest = _split_scheme(uri)
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket or (":" in bucket and "@" in prefix):
            raise ConfigError(
                f"the URI {without_credentials(uri)} contains credentials",
                remedy="put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        if not bucket:
            raise ConfigError(f"{uri!r} has no bucket", remedy="write s3://bucket/prefix")
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(
                f"{uri!r}: {bucket!r} is not a valid bucket name",
                remedy="write s3://bucket/prefix, the bucket with letters, digits, '-', '.' and '_'",
            )
        return f"s3://{bucket}", _clean_prefix(uri, prefix)
    if scheme == "memory":
        name, _, prefix = rest.partition("/")
        return f"memory://{name}", _clean_prefix(uri, prefix)
    path = unquote(rest.removeprefix("localhost")) if scheme == "file" else os.path.expanduser(uri)
    if scheme == "file" and not path.startswith("/"):
        raise ConfigError(
            f"{uri!r} is not a path on this machine", remedy="write file:///directory, with three slashes"
        )
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
        raise ConfigError(f"{uri!r} has '.' or '..' in its prefix", remedy="write the prefix without them")
    return "/".join(parts)


def endpoint_of(s3: S3Options) -> str | None:
    """URL of the S3 service, None for AWS."""
    return s3.endpoint_url or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def region_of(s3: S3Options) -> str:
    """Region for request signatures, and for AWS also the region of the service."""
    return s3.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def service_of(s3: S3Options) -> str:
    """URL that requests go to: the endpoint, or AWS's URL for the region."""
    region = region_of(s3)
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return endpoint_of(s3) or f"https://s3.{region}.{domain}"


def allow_http(s3: S3Options) -> bool:
    """Whether an endpoint without TLS may be used."""
    return s3.allow_http or os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true"}


def check_region(s3: S3Options) -> None:
    """Raises ConfigError for an invalid region: it becomes part of AWS's URL and of every signature."""
    if not _REGION.fullmatch(region_of(s3)):
        raise ConfigError(
            f"{region_of(s3)!r} is not a region",
            remedy="set storage.s3.region, --region or AWS_REGION to a region, such as us-east-1",
        )


def check_endpoint(s3: S3Options) -> None:
    """Raises ConfigError if the endpoint is not a URL, contains credentials, or has no TLS without permission."""
    endpoint = endpoint_of(s3)
    if endpoint is None:
        return
    shown = without_credentials(endpoint)
    if not _is_address(endpoint):
        raise ConfigError(f"endpoint_url {shown!r} is not a URL", remedy="write https://host:port")
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise ConfigError(
            f"endpoint_url {shown!r} contains credentials",
            remedy="put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if parts.scheme == "http" and not allow_http(s3):
        raise ConfigError(
            f"endpoint_url {shown!r} has no TLS and allow_http is false",
            remedy="use https://, or allow it: storage.s3 with allow_http: true, --allow-http or AWS_ALLOW_HTTP=true",
        )


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        return False
    return has_host and parts.scheme in {"http", "https"} and not _has_space(endpoint)


def check_credentials() -> None:
    """Raises ConfigError for keys in the environment that no store accepts: only one of the pair, an empty one, or one
    with white space, at which obstore panics.
    """
    for name in (*_KEY_PAIR, "AWS_SESSION_TOKEN"):
        if _has_space(os.environ.get(name, "")):
            raise ConfigError(
                f"{name} contains white space or a line break",
                remedy="set it without; the cause is often a line break from `echo`: use `printf %s`",
            )
    unset = [name for name in _KEY_PAIR if name not in os.environ]
    empty = [name for name in _KEY_PAIR if os.environ.get(name) == ""]
    if empty or len(unset) == 1:
        raise ConfigError(
            f"{empty[0]} is empty" if empty else f"{unset[0]} is not set, but the other key is",
            remedy=f"set {' and '.join(_KEY_PAIR)}, or neither of them on a machine with its own identity",
        )


def _has_space(text: str) -> bool:
    return any(map(str.isspace, text))


def without_credentials(url: str) -> str:
    """The URL without credentials, safe to print."""
    # A secret may contain slashes: remove everything between a colon and the last @.
    return re.sub(r"(?<=://)([^/@]*|[^@]*:.*)@", "", url)
