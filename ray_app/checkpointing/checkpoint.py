"""Checkpoints that any number of workers can read (docs/developers/design.md#checkpoints).

`checkpoints/step-00001234.attempt-2/` holds one file of values per rank, then `manifest.json`. A checkpoint exists only
if its manifest exists, so nothing depends on renames or conditional writes. Each rank presents its ZeRO-2 fragments as
one-dimensional chunks of the flattened parameters, which are stored in pieces. On a resume, DCP reads only the stored
pieces that overlap a rank's own chunks.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from data_io.errors import F2LLMError
from data_io.loading.fingerprint import Fingerprint
from data_io.storage.store import Store
from ray_app.checkpointing.dcp_storage import StoreReader, StoreWriter
from ray_app.errors import CheckpointDamaged, CheckpointError
from ray_app.run_directory.checkpoint_manifest import (
    FOLDER,
    MANIFEST_FILE,
    CheckpointManifest,
    CheckpointName,
    TrainingProgress,
    list_checkpoints,
    read_manifest,
)

T = TypeVar("T")

STATES = ("weight", "exp_avg", "exp_avg_sq")
"""The stored states of a parameter: the fp32 master weight and Adam's two moments."""

_PIECE = 2**20
"""Values in a stored piece. A piece has one checksum and is always read as a whole.

It is small, so that after a change of the number of workers a rank reads few values of other ranks.
"""


@dataclass(frozen=True)
class Fragment:
    """This rank's part of one state of one parameter: elements [start, start + len) of the flattened parameter.

    `values` is a view, fp32 [n], into the optimizer's own memory: writing to it restores the state.
    """

    name: str
    state: str
    values: Tensor
    start: int
    numel: int


class TrainingState(Protocol):
    """The state that a checkpoint saves on this rank. The training engine implements it."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are saved."""
        ...

    def fragments(self) -> Iterable[Fragment]:
        """This rank's part of the model and optimizer state, as views."""
        ...

    def finish_restore(self, *, updates: int) -> None:
        """Called after every fragment is restored. `updates`: the number of updates the optimizer state has seen."""
        ...


class _Chunk(torch.Tensor):
    """One fragment as DCP sees it: a chunk of a one-dimensional tensor of `numel` elements."""

    fragment: Fragment

    @staticmethod
    def of(fragment: Fragment) -> "_Chunk":
        chunk = fragment.values.detach().as_subclass(_Chunk)
        chunk.fragment = fragment
        return chunk

    def size(self, dim: int | None = None) -> Any:
        whole = torch.Size([self.fragment.numel])
        return whole if dim is None else whole[dim]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        place = torch.Size([self.fragment.start]), torch.Size([len(self.fragment.values)])
        return [ChunkStorageMetadata(offsets=place[0], sizes=place[1])]

    def __create_write_items__(self, fqn: str, _: object) -> list[WriteItem]:
        items = []
        for first in range(0, len(self.fragment.values), _PIECE):
            offsets = torch.Size([self.fragment.start + first])
            sizes = torch.Size([min(_PIECE, len(self.fragment.values) - first)])
            data = TensorWriteData(
                chunk=ChunkStorageMetadata(offsets=offsets, sizes=sizes),
                properties=TensorProperties(dtype=self.fragment.values.dtype),
                size=torch.Size([self.fragment.numel]),
            )
            index = MetadataIndex(fqn, offsets)
            items.append(WriteItem(index=index, type=WriteItemType.SHARD, tensor_data=data))
        return items

    def __get_tensor_shard__(self, index: MetadataIndex) -> Tensor:
        """The values from the index to the end of the fragment: DCP reads all of them, or writes one piece."""
        first = index.offset[0] - self.fragment.start if index.offset else 0
        return self.fragment.values[first:]


@dataclass(frozen=True)
class SavedCheckpoint:
    """A finished save. `stall_seconds`: the total time that training waited for it."""

    name: CheckpointName
    stall_seconds: float
    save_seconds: float


class CheckpointSaver:
    """Saves in the background: training continues after the fragments are copied to host memory.

    All ranks must call `start` at the same steps. The saver has its own process group, so that its collectives never
    mix with those of training.
    """

    def __init__(
        self,
        run: Store,
        training: TrainingState,
        *,
        attempt: int,
        keep: int,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_commit` is called on rank 0, in the background, before a checkpoint is committed.

        It must store everything that belongs to earlier steps, because a resume does not compute these steps again.
        """
        self._run, self._training = run, training
        self._attempt, self._keep = attempt, keep
        self._before_commit = before_commit
        self._group = dist.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[CheckpointName, float, ThreadFuture[float]] | None = None

    def start(self, progress: TrainingProgress) -> SavedCheckpoint | None:
        """Start a save. First waits for the previous save, and returns it if there was one."""
        begin = monotonic()
        finished = self.finish()
        name = CheckpointName(progress.step, self._attempt)
        staged = {
            _key(f): _Chunk.of(Fragment(f.name, f.state, f.values.to("cpu", copy=True), f.start, f.numel))
            for f in self._training.fragments()
        }
        self._pending = (name, monotonic() - begin, self._thread.submit(self._save, name, progress, staged))
        return finished

    def poll(self) -> SavedCheckpoint | None:
        """The running save if it is complete, returned once; otherwise None. Each rank may call this at any time."""
        return self.finish() if self._pending is not None and self._pending[2].done() else None

    def finish(self) -> SavedCheckpoint | None:
        """Wait until the running save is complete. None if no save is running. Raises the save's error if it failed."""
        if self._pending is None:
            return None
        name, stall, future = self._pending
        self._pending = None
        return SavedCheckpoint(name, stall, future.result())

    def _save(self, name: CheckpointName, progress: TrainingProgress, staged: dict[str, _Chunk]) -> float:
        begin = monotonic()
        folder = self._run.child(name.folder)
        writer = StoreWriter(folder)
        with _raising_the_cause():
            dcp_save(staged, storage_writer=writer, process_group=self._group)

        def commit() -> None:
            self._before_commit()
            manifest = CheckpointManifest(
                progress=progress,
                attempt=self._attempt,
                workers=dist.get_world_size(),
                created=datetime.now(UTC),
                files=writer.files,
            )
            folder.put(MANIFEST_FILE, manifest.to_json())
            self._remove_old(name)

        # No rank reports the checkpoint before its manifest is written.
        _from_rank_zero(commit, self._group)
        return monotonic() - begin

    def _remove_old(self, newest: CheckpointName) -> None:
        """Keep the newest complete checkpoints. Of all others, the manifests go first, so that none looks complete."""
        kept = list_checkpoints(self._run)[: self._keep]
        names = {info.key: CheckpointName.of_key(info.key) for info in self._run.list(f"{FOLDER}/")}
        doomed = [key for key, name in names.items() if name is not None and name not in kept and name < newest]
        self._run.delete(key for key in doomed if key.endswith(f"/{MANIFEST_FILE}"))
        self._run.delete(key for key in doomed if not key.endswith(f"/{MANIFEST_FILE}"))


@dataclass(frozen=True)
class Restored:
    """The checkpoint that training resumes from, and one line for each newer checkpoint that was damaged."""

    progress: TrainingProgress
    name: CheckpointName
    skipped: tuple[str, ...]


def restore(run: Store, training: TrainingState, fingerprint: Fingerprint) -> Restored | None:
    """Load the newest undamaged checkpoint into this rank's fragments. Every rank must call this.

    Only damaged checkpoints are skipped. Returns None if the run has no checkpoint yet. Raises CheckpointError if all
    are damaged, or if the newest undamaged one has another version, data order or model: resuming from an older one
    would lose work. Raises StorageError if the store stays unreachable.
    """
    skipped: list[str] = []
    for name in _from_rank_zero(lambda: list_checkpoints(run)):
        try:
            manifest = _from_rank_zero(partial(read_manifest, run, name))
            _refuse_other_order(run, name, fingerprint, manifest.progress.fingerprint)
            reader = StoreReader(run.child(name.folder), manifest.files)
            _refuse_other_model(run, name, training.model, reader.read_metadata())
            chunks = {_key(fragment): _Chunk.of(fragment) for fragment in training.fragments()}
            with _raising_the_cause():
                dcp_load(chunks, storage_reader=reader)
        except CheckpointDamaged as damage:
            skipped.append(f"checkpoint {name} is skipped: {damage.message}")
            continue
        training.finish_restore(updates=manifest.progress.step)
        return Restored(manifest.progress, name, tuple(skipped))
    if skipped:
        raise CheckpointError(
            f"no checkpoint of {run.uri} can be used:\n  " + "\n  ".join(skipped),
            remedy="restore the damaged files from a backup, or start a new run under another metadata.name",
        )
    return None


class StoredWeights:
    """The fp32 master weights of a checkpoint, each flattened and read on request. Needs no process group."""

    def __init__(self, run: Store, name: CheckpointName) -> None:
        """Raises CheckpointError if the checkpoint is damaged or of another version."""
        self._reader = StoreReader(run.child(name.folder), read_manifest(run, name).files)
        self.counts = _weight_counts(self._reader.read_metadata())
        """Number of values of each parameter, by name."""

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named weights, fp32, by name. Raises CheckpointDamaged."""
        weights = {name: torch.empty(self.counts[name]) for name in names}
        with _raising_the_cause():
            dcp_load(
                {f"weight/{n}": values for n, values in weights.items()}, storage_reader=self._reader, no_dist=True
            )
        return weights


@contextmanager
def _raising_the_cause() -> Iterator[None]:
    """Raise the error of a failed rank instead of torch's report on all ranks.

    Raises CheckpointDamaged only if no rank failed with another error.
    """
    try:
        yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        raise min(causes, key=lambda cause: isinstance(cause, CheckpointDamaged)) from error


def _from_rank_zero(ask: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """The result of rank 0's call, on every rank. An error of rank 0 is raised on every rank, so that none waits."""
    answer: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            answer[0] = ask()
        except F2LLMError as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0, group=group)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]  # type: ignore[no-any-return]


def _refuse_other_order(run: Store, name: CheckpointName, mine: Fingerprint, theirs: Fingerprint) -> None:
    if different := mine.differences(theirs):
        same_planner = mine.planner_version == theirs.planner_version
        usual = "use the data and the settings of the run, or start a new run under another metadata.name"
        raise CheckpointError(
            f"checkpoint {name} of {run.uri} was made with another data order: {'; '.join(different)}",
            remedy=usual if same_planner else "resume with the version of f2llm-ray that wrote it",
        )


def _refuse_other_model(run: Store, name: CheckpointName, model: nn.Module, metadata: Metadata) -> None:
    stored = _weight_counts(metadata)
    mine = {parameter: values.numel() for parameter, values in model.named_parameters()}
    different = [key for key in {**mine, **stored} if mine.get(key) != stored.get(key)]
    if different:
        first = different[0]
        raise CheckpointError(
            f"checkpoint {name} of {run.uri} is of another model. Parameters that differ: {len(different)}; for "
            f"example, {first} has {mine.get(first, 'no')} values here and {stored.get(first, 'no')} in the checkpoint",
            remedy="train the model of the run (spec.model), or start a new run under another metadata.name",
        )


def _weight_counts(metadata: Metadata) -> dict[str, int]:
    """Number of values of each parameter, by name."""
    return {
        key.removeprefix("weight/"): entry.size.numel()
        for key, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and key.startswith("weight/")
    }


def _key(fragment: Fragment) -> str:
    return f"{fragment.state}/{fragment.name}"
