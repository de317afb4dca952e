from pathlib import Path
from typing import Any

import pytest

from data_io.errors import StorageError
from data_io.storage.probe import probe_store
from data_io.storage.store import Blob, Store


class Cached(Store):
    """Always returns the first content of each object."""

    def get(self, key: str) -> bytes:
        return b"what was there before"


class Blind(Store):
    def list(self, prefix: str = "") -> list[Any]:
        return []


class Careless(Store):
    """Ignores If-Match."""

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None, once: bool = False) -> Blob:
        return super().get_range(key, start, length, once=once)


@pytest.mark.parametrize(
    ("kind", "lacks"), [(Cached, "read after overwrite"), (Blind, "list after write"), (Careless, "If-Match")]
)
def test_a_missing_store_feature_is_named_and_no_object_is_left(tmp_path: Path, kind: type[Store], lacks: str) -> None:
    with pytest.raises(StorageError, match=f"lacks an ability that a run needs: {lacks}"):
        probe_store(kind(str(tmp_path)))

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
