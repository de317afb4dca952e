"""Finds out what a store can do: writes and reads a few small objects in a separate directory and removes them."""

from collections.abc import Callable, Mapping
from uuid import uuid4

from data_io.errors import ObjectChanged, StorageError
from data_io.storage.store import Store

FOLDER = ".f2llm-probe"
_OLD, _NEW = b"what was there before", b"what is there now, and longer"


def probe_store(store: Store) -> list[str]:
    """The abilities that work, as text. Raises StorageError for an ability that a run needs and the store lacks."""
    key = f"{FOLDER}/{uuid4().hex}"
    worked = []
    try:
        for ability, (works, remedy) in _NEEDED.items():
            if not works(store, key):
                raise StorageError(
                    f"{store.uri}: the store lacks an ability that a run needs: {ability}", remedy=remedy
                )
            worked.append(ability)
    finally:
        store.delete([key])
    return [*worked, "delete"]


def _reads_after_write(store: Store, key: str) -> bool:
    store.put(key, _OLD)
    return store.get(key) == _OLD


def _reads_after_overwrite(store: Store, key: str) -> bool:
    store.put(key, _NEW)
    return store.get(key) == _NEW


def _lists(store: Store, key: str) -> bool:
    return key in {info.key for info in store.list(FOLDER)}


def _reads_ranges(store: Store, key: str) -> bool:
    return bytes(store.get_range(key, 5, 4).data) == _NEW[5:9]


def _refuses_what_changed(store: Store, key: str) -> bool:
    before = store.put(key, _OLD)
    store.put(key, _NEW)
    try:
        store.get_range(key, 0, 4, if_match=before)
    except ObjectChanged:
        return True
    return False


def _writes_in_parts(store: Store, key: str) -> bool:
    store.put(key, _OLD, in_parts=True)
    return store.get(key) == _OLD


_SERVER = "check the server at this URL, and whether there is a cache in front of it"
_NEEDED: Mapping[str, tuple[Callable[[Store, str], bool], str]] = {
    "read after write": (_reads_after_write, _SERVER),
    "read after overwrite": (_reads_after_overwrite, _SERVER),
    "list after write": (_lists, "allow s3:ListBucket, and use a store whose listings are consistent"),
    "ranges": (_reads_ranges, _SERVER),
    "If-Match": (_refuses_what_changed, "use a store that honors it: without it an overwritten shard is not detected"),
    "multipart upload": (_writes_in_parts, "allow s3:AbortMultipartUpload and s3:ListMultipartUploadParts"),
}
