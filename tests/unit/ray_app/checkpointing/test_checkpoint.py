"""Any set of workers can read the pieces that another set stored: each worker reads exactly its own values."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from data_io.storage.store import Store, open_store
from ray_app.checkpointing import checkpoint
from ray_app.checkpointing import dcp_storage as checkpoint_storage
from ray_app.checkpointing.checkpoint import STATES, Fragment, _Chunk, _raising_the_cause
from ray_app.checkpointing.dcp_storage import StoreReader, StoreWriter
from ray_app.errors import CheckpointDamaged

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SIZES = {"embedding": 100, "norm": 3, "projection": 41}
PIECE = 7
_number = itertools.count()


def values(name: str, state: str) -> torch.Tensor:
    return (
        torch.arange(SIZES[name], dtype=torch.float32) + 1000 * STATES.index(state) + 10_000 * list(SIZES).index(name)
    )


def save() -> tuple[Store, StoreReader]:
    """Save as a single rank that has all values, in pieces of PIECE values."""
    store = open_store(f"memory://pieces-{next(_number)}")
    everything = {
        f"{state}/{name}": _Chunk.of(Fragment(name, state, values(name, state), 0, size))
        for name, size in SIZES.items()
        for state in STATES
    }
    writer = StoreWriter(store)
    dcp_save(everything, storage_writer=writer, no_dist=True)
    return store, StoreReader(store, writer.files)


def read(reader: StoreReader, first: int, end: int) -> dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]:
    """Values [first, end) of the concatenated parameters, as ZeRO partitions them: the read ones, the expected ones."""
    chunks, expected, offset = {}, {}, 0
    for name, size in SIZES.items():
        start, stop = max(first - offset, 0), min(end - offset, size)
        for state in STATES if start < stop else ():
            fragment = Fragment(name, state, torch.full((stop - start,), -1.0), start, size)
            chunks[f"{state}/{name}"] = _Chunk.of(fragment)
            expected[name, state] = fragment.values, values(name, state)[start:stop]
        offset += size
    with _raising_the_cause():
        dcp_load(chunks, storage_reader=reader, no_dist=True)
    return expected


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_PIECE", PIECE)


@given(cut=st.tuples(st.integers(0, sum(SIZES.values()) - 1), st.integers(1, sum(SIZES.values()))))
def test_every_part_is_read_as_it_was_written(cut: tuple[int, int]) -> None:
    first, length = cut
    _, reader = save()

    found = read(reader, first, min(first + length, sum(SIZES.values())))

    assert found
    assert all(torch.equal(mine, theirs) for mine, theirs in found.values())


@pytest.mark.parametrize("most", [1, 5000, 10**9])
def test_requests_are_as_long_as_the_limit_allows(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_storage, "_MOST_BYTES_A_READ", most)
    store, reader = save()
    requests: list[int] = []
    get_range = Store.get_range

    def counted(self: Store, key: str, start: int, length: int) -> object:
        requests.append(length)
        return get_range(self, key, start, length)

    monkeypatch.setattr(Store, "get_range", counted)
    read(reader, 0, sum(SIZES.values()))

    [file] = [info for info in store.list() if info.key.endswith(".bin")]
    pieces = 3 * sum(-(-size // PIECE) for size in SIZES.values())
    assert sum(requests) == file.size
    if most == 1:
        assert len(requests) == pieces
    elif most == 5000:
        assert max(requests) <= most
        assert len(requests) < pieces / 2
    else:
        assert requests == [file.size]


def test_damage_is_an_error_only_for_ranks_that_read_it() -> None:
    store, reader = save()
    [file] = [info for info in store.list() if info.key.endswith(".bin")]
    content = bytearray(store.get(file.key))
    content[-100] ^= 1  # in the last parameter
    store.put(file.key, bytes(content))

    read(reader, 0, SIZES["embedding"])
    with pytest.raises(CheckpointDamaged, match="do not match their checksum"):
        read(reader, 0, sum(SIZES.values()))
