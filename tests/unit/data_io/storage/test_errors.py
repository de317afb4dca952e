"""The user's errors if S3-compatible storage refuses, fails or is unreachable: real answers over a real socket."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from data_io.data_spec import S3Options
from data_io.errors import F2LLMError, NotFoundInStore, StorageError, StoreAccessError
from data_io.storage import store as storage
from data_io.storage.errors import translate
from data_io.storage.store import open_store
from tests.support.http_server import serving_in_a_thread
from tests.support.s3_server import free_port

SECRET = "the-secret-of-this-test"
Answer = tuple[int, bytes]


class _Server(ThreadingHTTPServer):
    """Expects clients that disconnect before they have read the answer, because some tests give them little time."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Service:
    """An HTTP server that answers every request with `answer` of its credentials and path."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str], Answer] = lambda key_id, path: (200, b"hello")
        self.requests = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                credential = (self.headers.get("Authorization") or "").partition("Credential=")[2]
                status, body = service.answer(credential.partition("/")[0], self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"1"')
                self.send_header("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_PUT = do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)

    @property
    def options(self) -> S3Options:
        return S3Options(endpoint_url=f"http://127.0.0.1:{self.server.server_port}", allow_http=True)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(storage, "FIRST_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(storage, "OUTAGE_SECONDS", 0.6)
    service = Service()
    with serving_in_a_thread(service.server):
        yield service


def s3_error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message><AWSAccessKeyId>{SECRET}</AWSAccessKeyId></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (403, s3_error("AccessDenied"), StoreAccessError, "access denied (AccessDenied)"),
        (403, s3_error("SignatureDoesNotMatch"), StoreAccessError, "access denied (SignatureDoesNotMatch)"),
        (403, b"", StoreAccessError, "access denied (HTTP 403)"),
        (401, b"", StoreAccessError, "access denied (HTTP 401)"),
        (400, s3_error("ExpiredToken"), StoreAccessError, "access denied (ExpiredToken)"),
        (404, s3_error("NoSuchBucket"), StoreAccessError, "there is no bucket 'photos'"),
        (404, s3_error("NoSuchKey"), NotFoundInStore, "no such object"),
        (301, s3_error("PermanentRedirect"), StoreAccessError, "in another region"),
        (400, s3_error("AuthorizationHeaderMalformed"), StoreAccessError, "in another region"),
        (405, b"", StoreAccessError, "HTTP 405"),
        (503, s3_error("SlowDown"), StorageError, "HTTP 503, SlowDown"),
        (500, b"", StorageError, "HTTP 500"),
        (501, s3_error("NotImplemented"), StoreAccessError, "HTTP 501, NotImplemented"),
        (400, s3_error("RequestTimeout"), StorageError, "HTTP 400, RequestTimeout"),
        (409, s3_error("OperationAborted"), StorageError, "HTTP 409, OperationAborted"),
    ],
)
def test_each_refusal_has_its_own_error(
    service: Service, status: int, body: bytes, kind: type[F2LLMError], message: str
) -> None:
    service.answer = lambda key_id, path: (status, body)
    store = open_store("s3://photos/2026", service.options)

    for action in (lambda: store.get("a/b"), lambda: store.get_range("a/b", 0, 1), lambda: store.put("a/b", b"1")):
        with pytest.raises(kind) as caught:
            action()
        assert type(caught.value) is kind
        assert caught.value.retryable == (kind is StorageError)
        assert f"s3://photos/2026/a/b (endpoint {service.options.endpoint_url})" in caught.value.message
        assert message in caught.value.message
        assert kind is NotFoundInStore or caught.value.remedy
        assert SECRET not in str(caught.value)


def test_a_listing_asks_for_a_folder_with_its_slash_as_the_platforms_bucket_policies_allow_it(service: Service) -> None:
    prefixes: list[str] = []

    def answer(_key_id: str, path: str) -> Answer:
        prefixes.extend(parse_qs(urlsplit(path).query)["prefix"])
        return 200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

    service.answer = answer
    team = open_store("s3://photos/team", service.options)

    team.list()
    team.list("runs/")
    team.list_level("runs")

    assert prefixes == ["team/", "team/runs/", "team/runs/"]


def test_an_unreachable_store_is_reported_quickly(service: Service) -> None:
    options = S3Options(endpoint_url=f"http://127.0.0.1:{free_port()}", allow_http=True)

    with pytest.raises(StorageError, match="cannot connect") as caught:
        open_store("s3://photos", options).get("a")

    assert caught.value.retryable
    assert options.endpoint_url is not None
    assert options.endpoint_url in caught.value.message
    assert "endpoint_url" in str(caught.value.remedy)


def test_a_store_that_has_answered_gets_more_time_than_one_that_never_has(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "OUTAGE_SECONDS", 60.0)  # a limit that is not reached
    store = open_store("s3://photos", service.options)
    service.answer = lambda key_id, path: (503, b"")
    with pytest.raises(StorageError):
        store.get("a")
    before_it_answered = service.requests
    service.answer = lambda key_id, path: (200, b"hello")
    store.get("a")
    service.requests = 0

    service.answer = lambda key_id, path: (503, b"") if service.requests <= before_it_answered else (200, b"hello")

    assert store.get("a") == b"hello"


def test_credentials_that_were_renewed_are_used_after_a_refusal(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = "old"
    service.answer = lambda key_id, path: (200, b"hello") if key_id == valid else (403, s3_error("ExpiredToken"))
    store = open_store("s3://photos", service.options)
    assert store.get("a") == b"hello"

    valid = "new"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")

    assert store.get("a") == b"hello"


def test_an_identity_that_cannot_be_renewed_is_waited_for_and_one_that_never_was_is_not() -> None:
    error = OSError("Error getting credentials from http://169.254.169.254/latest: status code: 503")
    place = {"place": "s3://photos/a", "bucket": "photos"}

    never, renewed = (translate(error, has_answered=known, **place) for known in (False, True))

    assert (type(never), never.retryable) == (StoreAccessError, False)
    assert "has no identity" in never.message
    assert (type(renewed), renewed.retryable) == (StorageError, True)
    assert "identity service does not answer" in renewed.message


def test_a_refused_request_is_repeated_only_once(service: Service) -> None:
    service.answer = lambda key_id, path: (403, s3_error("AccessDenied"))

    with pytest.raises(StoreAccessError):
        open_store("s3://photos", service.options).get("a")

    assert service.requests == 2


def test_a_truncated_body_is_an_error_and_never_short_data(service: Service) -> None:
    service.answer = lambda key_id, path: (200, b"hello")
    store = open_store("s3://photos", service.options)

    with pytest.raises(StorageError):  # the service ignores ranges and sends the whole object
        store.get_range("a", 1, 3)


def test_a_bulk_delete_whose_answer_is_lost_is_repeated(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "READ_SECONDS", 0.2)
    monkeypatch.setattr(storage, "FIRST_ANSWER_SECONDS", 60.0)  # a limit that is not reached
    woken = threading.Event()

    def answer(key_id: str, path: str) -> Answer:
        if service.requests == 1:
            woken.wait(10)
        return 200, b"<DeleteResult><Deleted><Key>a</Key></Deleted><Deleted><Key>b</Key></Deleted></DeleteResult>"

    service.answer = answer

    open_store("s3://photos", service.options).delete(["a", "b"])

    woken.set()
    assert service.requests == 2


def test_a_machine_without_credentials_gets_an_error_that_says_so() -> None:
    error = OSError(
        "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 3s, after 2 retries, "
        "max_retries: 100, retry_timeout: 15s - HTTP error: error sending request"
    )

    translated = translate(error, place="s3://photos/a", bucket="photos")

    assert isinstance(translated, StoreAccessError)
    assert "no credentials" in translated.message
    assert "AWS_ACCESS_KEY_ID" in str(translated.remedy)
