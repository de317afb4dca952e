"""The caller's errors if a store denies access, does not exist, or does not answer."""

import time
from collections.abc import Callable

import pytest

from data_io.data_spec import S3Options
from data_io.errors import StorageError, StoreAccessError
from data_io.storage.store import Store, open_store
from tests.support.s3_server import S3Server, free_port

Call = Callable[[Store], object]


def write(store: Store, size: int = 4) -> None:
    with store.open_writer("directory/key") as writer:
        writer.write(bytes(size))


CALLS: dict[str, Call] = {
    "get": lambda store: store.get("directory/key"),
    "get_range": lambda store: store.get_range("directory/key", 0, 1),
    "head": lambda store: store.head("directory/key"),
    "put": lambda store: store.put("directory/key", b"data"),
    "list": lambda store: store.list("folder"),
    "delete": lambda store: store.delete(["directory/key"]),
    "open_writer": write,
    "open_writer, in parts": lambda store: write(store, 30 << 20),
}
EVERY_CALL = pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))


@pytest.fixture
def refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Store]:
    """A bucket on the S3 server that belongs to the root user, opened with the given credentials."""

    def with_credentials(access_key: str, secret_key: str) -> Store:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
        # A process keeps one client per bucket, with the credentials of its first use. So each test has its own bucket.
        return open_store(f"s3://{s3.make_bucket()}", s3.options)

    return with_credentials


@EVERY_CALL
def test_missing_permissions_are_reported_without_the_secret(
    s3: S3Server, refused: Callable[[str, str], Store], call: Call
) -> None:
    store = refused(s3.stranger_access_key, s3.stranger_secret_key)

    with pytest.raises(StoreAccessError, match=r"s3://bucket-.*access denied") as caught:
        call(store)

    assert s3.stranger_secret_key not in str(caught.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("wrong", ["secret", "key"])
def test_wrong_credentials_are_reported_without_the_secret(
    s3: S3Server, refused: Callable[[str, str], Store], wrong: str
) -> None:
    secret = "a-secret-that-is-wrong"
    store = refused(s3.access_key if wrong == "secret" else "nobody", secret)

    with pytest.raises(StoreAccessError, match=r"directory/key.*access denied") as caught:
        store.get("directory/key")

    assert secret not in str(caught.value)
    assert "Signature=" not in str(caught.value)


@pytest.mark.parametrize("call", [CALLS[name] for name in CALLS if name != "head"])  # its response has no reason
def test_a_bucket_that_does_not_exist_is_named(s3: S3Server, call: Call) -> None:
    store = open_store("s3://no-such-bucket/prefix", s3.options)

    with pytest.raises(StoreAccessError, match=r"no bucket 'no-such-bucket'") as caught:
        call(store)

    assert not caught.value.retryable


@EVERY_CALL
def test_an_endpoint_without_a_server_is_named_within_the_timeout(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr("data_io.storage.store.FIRST_ANSWER_SECONDS", 1.0)
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = open_store("s3://bucket/prefix", S3Options(endpoint_url=endpoint, allow_http=True))
    started = time.monotonic()

    with pytest.raises(StorageError, match=r"cannot connect(.|\n)*AWS_ENDPOINT_URL") as caught:
        call(store)

    assert time.monotonic() - started < 10
    assert endpoint in str(caught.value)
    assert caught.value.retryable
