"""The only module for object stores: S3-compatible services and local directories with the same few calls, on obstore.

Rules because of obstore: its clients are created at first use, one set per process, and are neither pickled nor kept
across a fork (they hang there); a writer keeps the caller's buffer, so it gets copies; a range past the end returns
fewer bytes without an error, so lengths are checked. obstore's own retries cover 5xx, 429, cut and stalled bodies. This
module adds two: a new client after a refusal, because credentials may have expired; and a second bulk delete after a
timeout, because obstore does not repeat a POST whose answer was lost.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from data_io.data_spec import S3Options
from data_io.errors import F2LLMError, NotFoundInStore, StorageError, StoreAccessError
from data_io.storage.address import (
    allow_http,
    check_credentials,
    check_endpoint,
    check_region,
    endpoint_of,
    parse_uri,
    region_of,
    service_of,
    without_credentials,
)
from data_io.storage.errors import (
    ObjectTooLarge,
    ObjectTooShort,
    credentials_may_have_expired,
    is_of_the_node,
    out_of_range,
    translate,
    unusable_settings,
)
from data_io.wording import shown

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

T = TypeVar("T")

FIRST_ANSWER_SECONDS = 15.0
"""Time limit for a store that has never answered this process: a wrong URL should not cost minutes."""
OUTAGE_SECONDS = 150.0
"""Time limit for a store that has answered before. Below the five minutes for which a signature is valid."""
READ_SECONDS = 5.0
"""Maximum wait for the start of an answer, and for more data during an answer."""
REQUEST_SECONDS = 30.0
"""Maximum time from a request to the last byte of its answer, for callers that retry by themselves."""
MOST_BYTES = 2**24
"""Size limit of an object that is read as a whole: a file of settings, states or results. Whoever can write to a store
could otherwise fill the memory of every reader.
"""
BULK_BYTES = 2**30
"""The same for objects that hold data: lines of every step, tables, tokenizers."""
_KEYS_A_DELETE = 100
"""Objects per bulk delete. A store deletes them one by one and must answer within the read timeout."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a listing. `key` is relative to the store."""

    key: str
    size: int
    etag: str | None
    modified: datetime


@dataclass(frozen=True)
class Level:
    """The content of one directory without subdirectories' content, as sorted keys relative to the store."""

    folders: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Blob:
    """Bytes of a range, with the ETag and the size of the whole object."""

    data: memoryview
    etag: str | None
    size: int


class Writer:
    """An object that is being written. It appears under its key only if the `with` block ends without an exception."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append a copy of `data`; returns its length in bytes."""
        copy = bytes(data)
        self._write(copy)
        return len(copy)


@dataclass(frozen=True)
class Store:
    """A directory or a bucket prefix. Cheap to create, compare and pickle: the client is created at first use.

    Every method raises StoreAccessError if the store denies access or a key leads out of the directory, and
    StorageError if the store is unreachable.
    """

    root: str
    """An absolute directory, `s3://bucket` or `memory://name`."""
    prefix: str = ""
    s3: S3Options = field(default_factory=S3Options)

    @property
    def uri(self) -> str:
        """The store's URI, without credentials."""
        return f"{self.root.rstrip('/')}/{self.prefix}" if self.prefix else self.root

    @property
    def is_local(self) -> bool:
        return "://" not in self.root

    @property
    def _is_s3(self) -> bool:
        return self.root.startswith("s3://")

    def child(self, prefix: str) -> "Store":
        """The store for the keys below `prefix`."""
        return Store(self.root, _join(self.prefix, prefix.strip("/")), self.s3)

    def get(self, key: str, *, most: int = MOST_BYTES) -> bytes:
        """The whole object, of at most `most` bytes. Raises NotFoundInStore, and ObjectTooLarge before it is read."""

        def fetch(client: ObjectStore, path: str) -> bytes:
            found = obstore.get(client, path)  # only the head; the content is not read yet
            if (size := found.meta["size"]) > most:
                raise ObjectTooLarge(
                    f"{self._place(key)}: has {size:,} bytes, expected at most {most:,}",
                    remedy="check who wrote it; remove it, or restore it from a backup",
                )
            return bytes(found.bytes())

        return self._call(key, fetch)

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None, once: bool = False) -> Blob:
        """`length` > 0 bytes from `start`. Raises NotFoundInStore, ObjectTooShort, and ObjectChanged if the object's
        ETag is not `if_match`. With `once` the first failure is raised, after at most REQUEST_SECONDS, and the caller
        retries.
        """

        def fetch(client: ObjectStore, path: str) -> Blob:
            # get, not get_range, because get_range has no If-Match.
            options: obstore.GetOptions = {"range": (start, start + length)}
            if if_match is not None:
                options["if_match"] = if_match
            result = obstore.get(client, path, options=options)
            return Blob(memoryview(result.bytes()), result.meta["e_tag"], result.meta["size"])

        try:
            blob = self._call(key, self._read_file(start, length, if_match) if self.is_local else fetch, once=once)
        except StorageError as error:
            if not out_of_range(error.__cause__):
                raise
            found = self.head(key)
            raise self._too_short(key, start + length, found.size if found else 0) from error
        if len(blob.data) != length:
            raise self._too_short(key, start + length, blob.size)
        return blob

    def _read_file(self, start: int, length: int, if_match: str | None) -> "Callable[[ObjectStore, str], Blob]":
        """Read a range of a file like obstore, but without its threads, which took longer than decoding."""

        def read(_client: ObjectStore, path: str) -> Blob:
            with open(os.path.join(self.root, path), "rb") as file:
                found = os.fstat(file.fileno())
                etag = f'"{found.st_ino:x}-{found.st_mtime_ns // 1000:x}-{found.st_size:x}"'  # same format as obstore's
                if if_match not in (None, etag):
                    raise PreconditionError(f"{path} is now {etag}")
                file.seek(start)
                return Blob(memoryview(file.read(length)), etag, found.st_size)

        return read

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and ETag. None if it does not exist."""
        try:
            meta = self._call(key, obstore.head)
        except NotFoundInStore:
            return None
        return ObjectInfo(key, meta["size"], meta["e_tag"], meta["last_modified"])

    def exists(self, key: str) -> bool:
        return self.head(key) is not None

    def put(self, key: str, data: bytes, *, in_parts: bool | None = None) -> str | None:
        """Write or replace the object and return its ETag. Readers see all of it or nothing. If `in_parts` is None, the
        size decides whether it is a multipart upload.
        """

        def write(client: ObjectStore, path: str) -> str | None:
            return obstore.put(client, path, data, use_multipart=in_parts)["e_tag"]

        return self._call(key, write, create=True)

    def put_immutable(self, key: str, data: bytes) -> str | None:
        """Write an object whose key contains its content's hash, unless it exists undamaged. Returns its ETag.

        An existing object keeps its ETag, which readers of a running job depend on.
        """
        found = self.head(key)
        if found is not None and found.size == len(data) and self.get(key, most=len(data)) == data:
            return found.etag
        return self.put(key, data)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects under the directory `prefix` (whole path segments), sorted by key. Empty if it does not exist."""
        try:
            found = self._call(prefix, lambda client, path: obstore.list(client, prefix=path or None).collect())
        except NotFoundInStore:
            return []
        cut = len(self.prefix) + 1 if self.prefix else 0
        listed = [ObjectInfo(o["path"][cut:], o["size"], o["e_tag"], o["last_modified"]) for o in found]
        return sorted(listed, key=lambda info: info.key)

    def list_level(self, prefix: str = "") -> Level:
        """The direct content of the directory `prefix`. Empty if it does not exist."""
        try:
            found = self._call(prefix, lambda client, path: obstore.list_with_delimiter(client, prefix=path or None))
        except NotFoundInStore:
            return Level((), ())
        cut = len(self.prefix) + 1 if self.prefix else 0
        folders, objects = found["common_prefixes"], found["objects"]
        return Level(
            tuple(sorted(each[cut:].rstrip("/") for each in folders)),
            tuple(sorted(each["path"][cut:] for each in objects)),
        )

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. A key that does not exist is not an error."""
        keys = list(keys)
        if self._is_s3 and keys:
            for first in range(0, len(keys), _KEYS_A_DELETE):
                self._delete_together([self._path(key) for key in keys[first : first + _KEYS_A_DELETE]])
            return
        for key in keys:
            try:
                self._call(key, obstore.delete)
            except NotFoundInStore:
                continue

    @contextmanager
    def open_writer(self, key: str) -> Iterator[Writer]:
        """Write a large object in pieces. After an exception in the `with` block nothing of it remains."""
        out = self._call(key, obstore.open_writer, create=True)
        try:
            yield Writer(lambda data: self._call(key, lambda _client, _path: out.write(data), again=False))
        except BaseException:
            out.__exit__(*sys.exc_info())
            raise
        self._call(key, lambda _client, _path: out.close(), again=False)

    def _delete_together(self, paths: Sequence[str]) -> None:
        """One request. Repeated if the store does not answer, because deleting twice is harmless."""
        again = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, F2LLMError) and error.retryable),
            stop=stop_after_delay(self.patience_seconds),
            wait=wait_random_exponential(0.1, max=10),
            reraise=True,
        )
        again(self._call, "", lambda client, _: obstore.delete(client, paths))

    def _call(
        self,
        key: str,
        action: Callable[[ObjectStore, str], T],
        *,
        create: bool = False,
        once: bool = False,
        again: bool = True,
    ) -> T:
        """`again`: the action may be repeated with another client."""
        client = _client_of(self, create)
        path = self._path(key)
        try:
            try:
                result = action(client.once if once else client.now, path)
            except BaseError as error:
                if client.is_local or not again or not credentials_may_have_expired(error):
                    raise
                client = _replace_client(self, client)
                result = action(client.once if once else client.now, path)
        except (BaseError, OSError) as error:
            bucket = None if client.is_local else self._bucket
            translated = translate(error, place=self._place(key), bucket=bucket, has_answered=client.has_answered)
            client.has_answered |= not translated.retryable and not is_of_the_node(error)
            raise translated from error
        client.has_answered = True
        return result

    def _path(self, key: str) -> str:
        """Raises StoreAccessError for a key that leads out of this directory. Keys come from files of the store too."""
        if not stays_inside(key):
            raise StoreAccessError(
                f"{self.uri}: refuses the key {shown(key[:200])}, which leads out of it",
                remedy="check who wrote the file that names it",
            )
        return _join(self.prefix, key)

    @property
    def patience_seconds(self) -> float:
        """How long to retry a store that does not answer. Shorter if it has never answered."""
        return _client_of(self, create=False).patience_seconds

    @property
    def _bucket(self) -> str:
        return self.root.partition("://")[2]

    def _place(self, key: str) -> str:
        place = f"{self.uri.rstrip('/')}/{key}" if key else self.uri
        return f"{place} (endpoint {without_credentials(service_of(self.s3))})" if self._is_s3 else place

    def _too_short(self, key: str, needed: int, size: int) -> ObjectTooShort:
        return ObjectTooShort(f"{self._place(key)}: has {size} bytes, but {needed} were expected")


def open_store(uri: str, s3: S3Options | None = None) -> Store:
    """The store at a local path, file://, s3:// or (in tests) memory:// URI. Nothing is opened or created yet.

    Raises ConfigError for another scheme, no bucket, or an endpoint or region that cannot be used.
    """
    s3 = S3Options() if s3 is None else s3
    root, prefix = parse_uri(uri)
    if root.startswith("s3://"):
        check_endpoint(s3)
        check_region(s3)
    return Store(root, prefix, s3)


def stays_inside(key: str) -> bool:
    """Whether a key names something in its store, and not in a directory above it."""
    return not {".", ".."} & set(key.split("/"))


def _join(prefix: str, key: str) -> str:
    return f"{prefix}/{key}" if prefix and key else prefix or key


@dataclass
class _Client:
    """The obstore clients of one process for one root."""

    first: ObjectStore
    later: ObjectStore
    once: ObjectStore
    """The client that does not retry."""
    is_local: bool
    has_answered: bool = False

    @property
    def now(self) -> ObjectStore:
        return self.later if self.has_answered else self.first

    @property
    def patience_seconds(self) -> float:
        return OUTAGE_SECONDS if self.has_answered else FIRST_ANSWER_SECONDS


_clients: dict[tuple[str, S3Options], _Client] = {}
_clients_lock = Lock()
_used_before_fork = False


def _after_fork() -> None:
    global _used_before_fork
    _used_before_fork = _used_before_fork or bool(_clients)


os.register_at_fork(after_in_child=_after_fork)


def _client_of(store: Store, create: bool) -> _Client:
    """`create` makes a missing local directory; without it such a directory reads as NotFoundInStore."""
    if _used_before_fork:
        raise F2LLMError(
            f"{store.uri} is used in a process that was forked after its parent had used a store; that hangs",
            remedy="start processes with spawn or forkserver",
        )
    key = (store.root, store.s3)
    client = _clients.get(key)
    if client is None:
        with _clients_lock:
            client = _clients.get(key) or _open_client(store, create)
            _clients[key] = client
    return client


def _replace_client(store: Store, refused: _Client) -> _Client:
    """A client with fresh credentials in place of a refused one, unless another thread has already made it."""
    key = (store.root, store.s3)
    with _clients_lock:
        if _clients.get(key) is refused:
            _clients[key] = replace(_open_client(store, create=False), has_answered=refused.has_answered)
        return _clients[key]


def _open_client(store: Store, create: bool) -> _Client:
    if store.root.startswith("s3://"):
        check_credentials()
        first, later = _s3_client(store, FIRST_ANSWER_SECONDS), _s3_client(store, OUTAGE_SECONDS)
        return _Client(first, later, _s3_client(store, 0.0, timeout_seconds=REQUEST_SECONDS), is_local=False)
    if store.root.startswith("memory://"):
        memory = MemoryStore()
        return _Client(memory, memory, memory, is_local=True)
    try:
        if os.path.exists(store.root) and not os.path.isdir(store.root):
            raise NotADirectoryError(20, "Not a directory")
        if not create and not os.path.isdir(store.root):
            raise FileNotFoundError(2, "No such file or directory")
        local = LocalStore(store.root, mkdir=create, automatic_cleanup=True)
    except (BaseError, OSError) as error:
        raise translate(error, place=store.uri, bucket=None) from error
    return _Client(local, local, local, is_local=True)


def _s3_client(store: Store, patience_seconds: float, *, timeout_seconds: float = 60.0) -> S3Store:
    """With `patience_seconds` of 0 no request is repeated."""
    timeouts: ClientConfig = {
        "allow_http": allow_http(store.s3),
        "connect_timeout": "3s",
        "read_timeout": timedelta(seconds=READ_SECONDS),
        "timeout": timedelta(seconds=timeout_seconds),
    }
    # So many retries that the time limit decides, not the count.
    retries: RetryConfig = {
        "max_retries": 100 if patience_seconds else 0,
        "retry_timeout": timedelta(seconds=patience_seconds),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=10),
            "base": 2,
        },
    }
    # Always with an endpoint: messages then name it, and an empty AWS_ENDPOINT_URL would make obstore panic.
    config: S3Config = {"region": region_of(store.s3), "endpoint": service_of(store.s3)}
    if endpoint_of(store.s3) is None:
        config["virtual_hosted_style_request"] = False  # AWS's own URL does not contain the bucket
    try:
        return S3Store(store._bucket, config=config, client_options=timeouts, retry_config=retries)
    except BaseError as error:
        raise unusable_settings(error, place=store._place("")) from error
