"""torch.distributed.checkpoint on the one door to object stores.

Files are in DCP's own layout (`__<rank>_0.distcp`, `.metadata`), so that torch's tools read them from a local copy. On
top of it every stored item has a CRC, kept in the checkpoint's manifest: a rank checks exactly the bytes that it
reads.
"""

import io
import pickle
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from data_io.errors import F2LLMError
from data_io.storage import Store
from ray_app.checkpoint_manifest import StoredFile, StoredItem
from ray_app.errors import CheckpointError

METADATA_FILE = ".metadata"
_READ_THREADS = 8


@dataclass
class _ItemInfo(_StorageInfo):
    """What a rank reports of an item it wrote: DCP's place, and our checksum."""

    crc32: int = 0


class StoreWriter(StorageWriter):
    """Writes one file a rank. After `dcp.save`, `files` on the coordinating rank lists everything that was written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.files: dict[str, StoredFile] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        self.files = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [replace(plan, storage_data=f"__{rank}_0.distcp") for rank, plan in enumerate(plans)]

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
                content = _serialise(planner, item)
                out.write(content)
                info = _ItemInfo(relative_path=name, offset=offset, length=len(content), crc32=zlib.crc32(content))
                results.append(WriteResult(index=item.index, size_in_bytes=len(content), storage_data=info))
                offset += len(content)
        return results

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        infos: dict[MetadataIndex, _ItemInfo] = {r.index: r.storage_data for rank in results for r in rank}
        metadata.storage_data = {
            index: _StorageInfo(info.relative_path, info.offset, info.length) for index, info in infos.items()
        }
        for name in sorted({info.relative_path for info in infos.values()}):
            mine = sorted((i for i in infos.values() if i.relative_path == name), key=lambda info: info.offset)
            items = tuple(StoredItem(offset=i.offset, length=i.length, crc32=i.crc32) for i in mine)
            self.files[name] = StoredFile(size=sum(item.length for item in items), items=items)
        content = pickle.dumps(metadata)
        self._store.put(METADATA_FILE, content)
        whole = StoredItem(offset=0, length=len(content), crc32=zlib.crc32(content))
        self.files[METADATA_FILE] = StoredFile(size=len(content), items=(whole,))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class StoreReader(StorageReader):
    """Reads the items that a rank needs, in parallel, each checked against the manifest's CRC before it is used."""

    def __init__(self, store: Store, files: Mapping[str, StoredFile]) -> None:
        self._store = store
        self._crc = {(name, item.offset): item.crc32 for name, file in files.items() for item in file.items}
        self._places: dict[MetadataIndex, _StorageInfo] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        # A pickle: it is only opened once its bytes are known to be the ones that were written.
        content = self._checked(METADATA_FILE, 0, None)
        return pickle.loads(content)  # type: ignore[no-any-return]

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_place: dict[tuple[str, int, int], list[ReadItem]] = {}
        for item in plan.items:
            place = self._places[item.storage_index]
            by_place.setdefault((place.relative_path, place.offset, place.length), []).append(item)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            for items, content in zip(by_place.values(), pool.map(lambda p: self._checked(*p), by_place), strict=True):
                stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                for item in items:
                    _copy(stored, item, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _checked(self, name: str, offset: int, length: int | None) -> bytes:
        try:
            content = (
                self._store.get(name) if length is None else bytes(self._store.get_range(name, offset, length).data)
            )
        except F2LLMError as error:
            raise CheckpointError(f"cannot read {name} of checkpoint {self._store.uri}: {error.message}") from error
        if zlib.crc32(content) != self._crc.get((name, offset)):
            raise CheckpointError(
                f"{name} of checkpoint {self._store.uri} is damaged: bytes {offset} to {offset + len(content)} "
                "do not have the checksum they were written with"
            )
        return content

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


def _serialise(planner: SavePlanner, item: WriteItem) -> bytes:
    data = planner.resolve_data(item)
    if isinstance(data, io.BytesIO):
        return data.getvalue()
    buffer = io.BytesIO()
    # A clone, or torch.save would write the whole flat partition that this fragment is a view of.
    torch.save(data.detach().cpu().clone(), buffer)
    return buffer.getvalue()


def _copy(stored: torch.Tensor, item: ReadItem, planner: LoadPlanner) -> None:
    for dimension, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
        stored = stored.narrow(dimension, start, length)
    target = planner.resolve_tensor(item).detach()
    target.copy_(stored)
    planner.commit_tensor(item, target)
