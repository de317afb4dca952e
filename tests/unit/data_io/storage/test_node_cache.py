"""The cache keeps to its limit, distinguishes intact from damaged entries, and never raises."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_io.storage.node_cache import NodeCache

LIMIT = 100_000


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", LIMIT)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_entry_is_found_intact_by_another_process_too(cache: NodeCache, tmp_path: Path, parts: list[bytes]) -> None:
    cache.put("key", parts)

    assert bytes(NodeCache(tmp_path / "cache", LIMIT).get("key") or b"") == b"".join(parts)
    assert cache.get("another key") is None


def test_the_directory_keeps_to_its_limit_and_evicts_the_least_recently_used(cache: NodeCache, tmp_path: Path) -> None:
    for number in range(8):
        cache.put(f"key {number}", [b"x" * 10_000])
    for age, number in enumerate((7, 6, 5, 4, 3, 2, 1, 0)):  # 0 was used last
        os.utime(cache._path(f"key {number}"), (1_000_000 + age, 1_000_000 + age))

    for number in range(8, 12):
        cache.put(f"key {number}", [b"x" * 10_000])

    assert sum(path.stat().st_size for path in entries(tmp_path)) <= LIMIT
    assert cache.get("key 7") is None
    assert cache.get("key 0") is not None
    assert cache.stats.removed > 0
    assert cache.stats.failures == 0


def test_an_entry_larger_than_the_cache_is_not_kept(cache: NodeCache, tmp_path: Path) -> None:
    cache.put("key", [b"x" * LIMIT])

    assert cache.get("key") is None
    assert entries(tmp_path) == []


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_every_flipped_or_missing_byte_makes_an_entry_missing(cache: NodeCache, at: int) -> None:
    for keep in (False, True):
        cache.put("key", [b"twenty-four bytes of it."])
        path = cache._path("key")
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content if keep else content[:at])

        assert cache.get("key") is None
        assert not path.exists()
    assert cache.stats.failures == 2


@pytest.mark.parametrize("obstacle", ["file", "missing parent is a file", "read-only", "no space"])
def test_an_unusable_directory_is_counted_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    folder = tmp_path / "cache"
    if obstacle == "file":
        folder.write_text("")
    elif obstacle == "missing parent is a file":
        (tmp_path / "parent").write_text("")
        folder = tmp_path / "parent" / "cache"
    else:

        def refuse(*args: object, **options: object) -> None:
            raise OSError(30 if obstacle == "read-only" else 28, "refused")

        monkeypatch.setattr(Path, "open", refuse)
    cache = NodeCache(folder, LIMIT)

    cache.put("key", [b"data"])

    assert cache.get("key") is None
    assert cache.stats.failures > 0
    assert cache.stats.written == 0


def test_processes_that_share_it_leave_no_incomplete_entry(tmp_path: Path) -> None:
    caches = [NodeCache(tmp_path, LIMIT) for _ in range(4)]

    def use(number: int) -> None:
        cache = caches[number % 4]
        content = bytes([number % 8]) * 20_000
        if (found := cache.get(f"key {number % 8}")) is not None:
            assert bytes(found) == content
        else:
            cache.put(f"key {number % 8}", [content])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(200)))

    assert [path for path in entries(tmp_path) if path.suffix != ".entry"] == []
    assert sum(cache.stats.failures for cache in caches) == 0
