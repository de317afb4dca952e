"""torch.distributed.checkpoint (DCP) on a Store.

Files have DCP's own layout (`__<rank>_0.distcp`, `.metadata`), so that torch's tools can read a local copy of them. In
addition, the checkpoint's manifest has a CRC of every stored item. So a rank checks exactly the bytes that it reads.
"""

import io
import pickle
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future
from zlib_ng.zlib_ng import crc32

from data_io.errors import NotFoundInStore
from data_io.storage.errors import ObjectTooShort
from data_io.storage.ranged_reads import split_runs
from data_io.storage.store import Store
from ray_app.errors import CheckpointDamaged, CheckpointError
from ray_app.run_directory.checkpoint_manifest import CheckpointFile, CheckpointItem

# torch's own checksums took as long as the rest of a save, and the manifest has checksums of the same bytes.
torch.serialization.set_crc32_options(compute_crc32=False)

METADATA_FILE = ".metadata"
_READ_THREADS = 8
_MOST_BYTES_A_READ = 16 * 2**20


@dataclass
class _ItemInfo(_StorageInfo):
    """A rank's report on an item that it wrote: its location in DCP's terms, and our checksum."""

    crc32: int = 0


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
                with _serialize(planner, item) as content:
                    out.write(content)
                    length, checksum = len(content), crc32(content)
                info = _ItemInfo(relative_path=name, offset=offset, length=length, crc32=checksum)
                results.append(WriteResult(index=item.index, size_in_bytes=length, storage_data=info))
                offset += length
        return results

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        infos: dict[MetadataIndex, _ItemInfo] = {r.index: r.storage_data for rank in results for r in rank}
        metadata.storage_data = {
            index: _StorageInfo(info.relative_path, info.offset, info.length) for index, info in infos.items()
        }
        for name in sorted({info.relative_path for info in infos.values()}):
            mine = sorted((i for i in infos.values() if i.relative_path == name), key=lambda info: info.offset)
            items = tuple(CheckpointItem(offset=i.offset, length=i.length, crc32=i.crc32) for i in mine)
            self.files[name] = CheckpointFile(size=sum(item.length for item in items), items=items)
        content = pickle.dumps(metadata)
        self._store.put(METADATA_FILE, content)
        whole = CheckpointItem(offset=0, length=len(content), crc32=crc32(content))
        self.files[METADATA_FILE] = CheckpointFile(size=len(content), items=(whole,))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class StoreReader(StorageReader):
    """Reads the items that a rank needs, in parallel. Checks each against the manifest's CRC before it is used."""

    def __init__(self, store: Store, files: Mapping[str, CheckpointFile]) -> None:
        self._store = store
        self._crc = {(name, item.offset): item.crc32 for name, file in files.items() for item in file.items}
        self._places: dict[MetadataIndex, _StorageInfo] = {}
        self._metadata: Metadata | None = None

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata, fetched only once."""
        if self._metadata is None:
            self._metadata = self._fetch_metadata()
        return self._metadata

    def _fetch_metadata(self) -> Metadata:
        # This is a pickle: load it only after the checksum shows that its bytes are unchanged.
        with self._damage_of(METADATA_FILE):
            content = self._checked(METADATA_FILE, 0, memoryview(self._store.get(METADATA_FILE)))
        try:
            return pickle.loads(content)  # type: ignore[no-any-return]
        except (pickle.UnpicklingError, AttributeError, ImportError) as error:
            raise CheckpointError(
                f"{METADATA_FILE} of checkpoint {self._store.uri} is not damaged, but torch {torch.__version__} "
                f"cannot read it: {error}",
                remedy="resume with the version of torch that wrote it",
            ) from error

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[_Place, list[ReadItem]] = {}
        for item in plan.items:
            info = self._places[item.storage_index]
            wanted.setdefault(_Place(info.relative_path, info.offset, info.length), []).append(item)

        def restore(places: list[_Place]) -> None:
            for place, content in zip(places, self._read(places), strict=True):
                stored = _values(content)
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
            yield self._checked(name, place.offset, content[place.offset - start : place.end - start])

    def _checked(self, name: str, offset: int, content: memoryview) -> memoryview:
        if crc32(content) != self._crc.get((name, offset)):
            raise CheckpointDamaged(
                f"{name} of checkpoint {self._store.uri} is damaged: bytes {offset} to {offset + len(content)} "
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
    """The file and byte range of an item."""

    name: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def _neighbors(places: Iterable[_Place]) -> list[list[_Place]]:
    """Groups of adjacent places, each small enough for one request."""

    def joins(run: list[_Place], place: _Place) -> bool:
        follows = (run[-1].name, run[-1].end) == (place.name, place.offset)
        return follows and place.end - run[0].offset <= _MOST_BYTES_A_READ

    return split_runs(sorted(places), joins)


def _serialize(planner: SavePlanner, item: WriteItem) -> memoryview:
    data = planner.resolve_data(item)
    if isinstance(data, io.BytesIO):
        return data.getbuffer()
    assert item.tensor_data is not None
    piece = data.detach().cpu()[: item.tensor_data.chunk.sizes.numel()]
    buffer = io.BytesIO()
    # Clone a view: torch.save would write all of the tensor that it is a view of.
    torch.save(piece if piece.nbytes == piece.untyped_storage().nbytes() else piece.clone(), buffer)
    return buffer.getbuffer()


def _values(content: memoryview) -> npt.NDArray[np.float32]:
    """The values in the output of torch.save, float32 [n], read-only. torch.load would copy them three times and load a
    pickle.
    """
    with ZipFile(_File(content)) as archive:
        [record] = [info for info in archive.infolist() if info.filename.endswith("/data/0")]
    name_length, extra_length = struct.unpack_from("<HH", content, record.header_offset + 26)
    start = record.header_offset + 30 + name_length + extra_length
    return np.frombuffer(content, np.float32, offset=start, count=record.file_size // 4)


class _File(io.RawIOBase):
    """A memoryview as a readable file."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._content)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        end = len(self._content) if size < 0 else min(len(self._content), self._at + size)
        found = bytes(self._content[self._at : end])
        self._at = end
        return found


def _copy(stored: npt.NDArray[np.float32], item: ReadItem, planner: LoadPlanner) -> None:
    [start], [length] = item.storage_offsets, item.lengths
    wanted = stored[start : start + length]
    target = planner.resolve_tensor(item).detach()
    if target.device.type == "cpu":
        target.numpy()[:] = wanted
    else:
        target.copy_(torch.from_numpy(wanted.copy()))  # torch needs writable memory
    planner.commit_tensor(item, target)
