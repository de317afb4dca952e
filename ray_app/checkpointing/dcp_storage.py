"""torch.distributed.checkpoint (DCP) on a Store.

DCP plans which rank writes and reads which part of a tensor. The stored form is our own, because DCP stores a pickle:
everyone who can write to the bucket could run code in every reader. A rank writes one file of fp32 values, piece after
piece. The checkpoint's manifest says which values each piece holds and has their CRC-32, so a rank checks exactly the
bytes that it reads.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future
from zlib_ng.zlib_ng import crc32

from data_io.errors import NotFoundInStore
from data_io.storage.errors import ObjectTooShort
from data_io.storage.ranged_reads import split_runs
from data_io.storage.store import Store
from ray_app.errors import CheckpointDamaged
from ray_app.run_directory.checkpoint_manifest import VALUE_BYTES, CheckpointFile, CheckpointItem

_VALUE = np.dtype("<f4")
_READ_THREADS = 8
_MOST_BYTES_A_READ = 16 * 2**20


@dataclass(frozen=True)
class _Written:
    """A rank's report on a piece that it wrote."""

    file: str
    item: CheckpointItem


class StoreWriter(StorageWriter):
    """Writes one file per rank. After `dcp.save`, `files` on the coordinating rank lists all written files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.files: dict[str, CheckpointFile] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        self.files = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [replace(plan, storage_data=f"rank-{rank}.bin") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        done: Future[list[WriteResult]] = Future()
        done.set_result(self._write(plan, planner) if plan.items else [])
        return done

    def _write(self, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
        name = str(plan.storage_data)
        results = []
        offset = 0
        with self._store.open_writer(name) as out:
            for item in plan.items:
                [start] = item.index.offset or (0,)
                content = _bytes_of(planner, item)
                out.write(content)
                piece = CheckpointItem(
                    tensor=item.index.fqn,
                    start=start,
                    count=len(content) // VALUE_BYTES,
                    offset=offset,
                    crc32=crc32(content),
                )
                results.append(
                    WriteResult(index=item.index, size_in_bytes=len(content), storage_data=_Written(name, piece))
                )
                offset += len(content)
        return results

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        written: list[_Written] = [result.storage_data for rank in results for result in rank]
        for name in sorted({each.file for each in written}):
            items = sorted((each.item for each in written if each.file == name), key=lambda item: item.offset)
            self.files[name] = CheckpointFile(size=sum(item.length for item in items), items=tuple(items))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class StoreReader(StorageReader):
    """Reads the pieces that a rank needs, in parallel. Checks each against the manifest's CRC before it is used."""

    def __init__(self, store: Store, files: Mapping[str, CheckpointFile]) -> None:
        self._store = store
        self._place_of = {
            MetadataIndex(item.tensor, torch.Size([item.start])): _Place(name, item.offset, item.length, item.crc32)
            for name, file in files.items()
            for item in file.items
        }
        self._metadata = _metadata(item for file in files.values() for item in file.items)

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The manifest in DCP's terms."""
        return self._metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[_Place, list[ReadItem]] = {}
        for item in plan.items:
            wanted.setdefault(self._place_of[item.storage_index], []).append(item)

        def restore(places: list[_Place]) -> None:
            for place, content in zip(places, self._read(places), strict=True):
                stored = np.frombuffer(content, _VALUE)
                for item in wanted[place]:
                    _copy(stored, item, planner)

        with ThreadPoolExecutor(_READ_THREADS) as pool:
            for _ in pool.map(restore, _neighbors(wanted)):
                pass
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read(self, places: "list[_Place]") -> Iterator[memoryview]:
        """The content of adjacent places of a file, read in one request. Checks each place."""
        name, start = places[0].name, places[0].offset
        with self._damage_of(name):
            content = self._store.get_range(name, start, places[-1].end - start).data
        for place in places:
            yield self._checked(place, content[place.offset - start : place.end - start])

    def _checked(self, place: "_Place", content: memoryview) -> memoryview:
        if crc32(content) != place.crc32:
            raise CheckpointDamaged(
                f"{place.name} of checkpoint {self._store.uri} is damaged: bytes {place.offset} to {place.end} "
                "do not match their checksum"
            )
        return content

    @contextmanager
    def _damage_of(self, name: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundInStore, ObjectTooShort) as error:  # all other errors are the store's, not damage
            raise CheckpointDamaged(f"{name} of checkpoint {self._store.uri} is damaged: {error.message}") from error

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


@dataclass(frozen=True, order=True)
class _Place:
    """The file and byte range of a piece, and the CRC-32 of its bytes."""

    name: str
    offset: int
    length: int
    crc32: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def _metadata(items: Iterable[CheckpointItem]) -> Metadata:
    chunks: dict[str, list[ChunkStorageMetadata]] = {}
    for item in items:
        place = torch.Size([item.start]), torch.Size([item.count])
        chunks.setdefault(item.tensor, []).append(ChunkStorageMetadata(offsets=place[0], sizes=place[1]))
    properties = TensorProperties(dtype=torch.float32)
    return Metadata(
        {
            name: TensorStorageMetadata(properties, torch.Size([sum(c.sizes.numel() for c in found)]), found)
            for name, found in chunks.items()
        }
    )


def _neighbors(places: Iterable[_Place]) -> list[list[_Place]]:
    """Groups of adjacent places, each small enough for one request."""

    def joins(run: list[_Place], place: _Place) -> bool:
        follows = (run[-1].name, run[-1].end) == (place.name, place.offset)
        return follows and place.end - run[0].offset <= _MOST_BYTES_A_READ

    return split_runs(sorted(places), joins)


def _bytes_of(planner: SavePlanner, item: WriteItem) -> memoryview:
    """The values of a piece, little-endian fp32."""
    assert item.tensor_data is not None
    values = planner.resolve_data(item)
    assert isinstance(values, torch.Tensor)
    piece = values.detach().cpu()[: item.tensor_data.chunk.sizes.numel()].contiguous()
    return piece.numpy().astype(_VALUE, copy=False).data.cast("B")


def _copy(stored: npt.NDArray[np.float32], item: ReadItem, planner: LoadPlanner) -> None:
    [start], [length] = item.storage_offsets, item.lengths
    wanted = stored[start : start + length]
    target = planner.resolve_tensor(item).detach()
    if target.device.type == "cpu":
        target.numpy()[:] = wanted
    else:
        target.copy_(torch.from_numpy(wanted.copy()))  # torch needs writable memory
    planner.commit_tensor(item, target)
