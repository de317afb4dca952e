"""URIs that can be opened, and the errors for all others."""

import pytest

from data_io.data_spec import S3Options
from data_io.errors import ConfigError
from data_io.storage.address import check_credentials, without_credentials
from data_io.storage.store import open_store


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("gs://bucket/x", "gs://bucket/x' is not an address that can be opened"),
        ("http://host/x", "not an address"),
        ("s3:/bucket/x", "not an address"),
        ("file:/tmp/x", "not an address"),
        ("file://host/tmp/x", "not a path on this machine"),
        ("s3://", "has no bucket"),
        ("s3:///prefix", "has no bucket"),
        ("s3://bucket/a/../b", "'.' or '..'"),
        ("s3://user:secret@bucket/x", "s3://bucket/x contains credentials"),
        ("s3://user:sec/secret@bucket/x", "s3://bucket/x contains credentials"),
        ("ftp://user:secret@host/x", "ftp://host/x' is not an address"),
    ],
)
def test_an_address_that_cannot_be_opened_is_refused_with_a_way_out(uri: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(uri)

    assert message in caught.value.message
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (S3Options(endpoint_url="http://127.0.0.1:9000"), "no TLS and allow_http is false"),
        (S3Options(endpoint_url="127.0.0.1:9000"), "is not a URL"),
        (S3Options(endpoint_url="ftp://host"), "is not a URL"),
        (S3Options(endpoint_url="https://user:secret@host"), "'https://host' contains credentials"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_with_a_way_out(options: S3Options, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket/x", options)

    assert message in caught.value.message
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


def test_an_endpoint_of_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://storage.local:9000")

    with pytest.raises(ConfigError, match=r"http://storage\.local:9000"):
        open_store("s3://bucket")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    assert open_store("s3://bucket").uri == "s3://bucket"


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket//a/b/", "s3://bucket/a/b"),
        ("memory://name/a", "memory://name/a"),
        ("/data/./x", "/data/x"),
        ("/", "/"),
        ("file:///data/x", "/data/x"),
        ("file://localhost/data/x", "/data/x"),
    ],
)
def test_one_path_has_one_spelling(uri: str, printed: str) -> None:
    assert open_store(uri).uri == printed


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("https://user:pass@host/x", "https://host/x"),
        ("https://token@host", "https://host"),
        ("https://host/a@b", "https://host/a@b"),
        ("s3://key:a/b+c@bucket/x", "s3://bucket/x"),
    ],
)
def test_credentials_of_a_url_are_not_printed(url: str, printed: str) -> None:
    assert without_credentials(url) == printed


def test_keys_are_used_as_a_pair_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    check_credentials()  # a machine with an identity has none

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID is not set") as caught:
        check_credentials()

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["my bucket", "<bucket>", "my?bucket", "my#bucket", "my%20bucket"])
def test_an_invalid_bucket_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid bucket name"):
        open_store(f"s3://{name}/x")
