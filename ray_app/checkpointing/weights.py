"""The weights of a model by name, read in parts: only the requested tensors are in memory.

Checkpoints and exported directories are read like this, and averages are computed like this. So `f2llm export` and
`f2llm merge` need the memory of one part, for any size of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_io.bounded_json import read_json
from data_io.storage.store import Store
from ray_app.checkpointing.checkpoint import StoredWeights
from ray_app.errors import CheckpointError, ModelError
from ray_app.run_directory.checkpoint_manifest import CheckpointName

Shapes = Mapping[str, tuple[int, ...]]
# (bytes of fp32 done, total)
OnBytes = Callable[[int, int], None]

_AT_ONCE = 2**28
"""Bytes of fp32 that are read together: many small tensors, or one large tensor."""


class Weights(Protocol):
    """Tensors by name."""

    @property
    def shapes(self) -> Shapes: ...

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The named tensors, in their stored precision."""
        ...


class CheckpointWeights:
    """The fp32 master weights of a run's checkpoint, in the shapes of the run's model."""

    def __init__(self, run: Store, name: CheckpointName, shapes: Shapes) -> None:
        """Raises CheckpointError if the checkpoint is damaged or of another model than `shapes`."""
        self.shapes = shapes
        self._stored = StoredWeights(run, name)
        wanted = {_stored_name(key): torch.Size(shape).numel() for key, shape in shapes.items()}
        different = [
            key for key in {**wanted, **self._stored.counts} if wanted.get(key) != self._stored.counts.get(key)
        ]
        if different:
            raise CheckpointError(
                f"checkpoint {name} of {run.uri} does not match the model of its job spec. Parameters that differ: "
                f"{len(different)}; for example, {different[0]}",
                remedy="restore the run's original job.yaml and data set",
            )

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        found = self._stored.read([_stored_name(name) for name in names])
        return {name: found[_stored_name(name)].view(self.shapes[name]) for name in names}


class FolderWeights:
    """The weights of an exported directory."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError if the directory's weights cannot be read."""
        self._folder = folder
        try:
            index = folder / "model.safetensors.index.json"
            files = _files_in(read_json(index.read_bytes())) if index.exists() else ["model.safetensors"]
            self._file_of: dict[str, str] = {}
            shapes: dict[str, tuple[int, ...]] = {}
            for file in files:
                with self._open(file) as tensors:
                    for name in tensors.keys():  # noqa: SIM118 - `tensors` is not a mapping
                        self._file_of[name] = file
                        shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"the weights in {folder} cannot be read: {error}",
                remedy="export the model again, or restore its files",
            ) from error
        self.shapes: Shapes = shapes

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for file in dict.fromkeys(self._file_of[name] for name in names):
            with self._open(file) as tensors:
                mine = [name for name in names if self._file_of[name] == file]
                found |= {name: tensors.get_tensor(name) for name in mine}
        return found

    def _open(self, file: str) -> Any:
        return safe_open(self._folder / file, framework="pt", device="cpu")


@dataclass(frozen=True)
class WeightedModel:
    """One of the models of an average, and its weight in the average. The shares of all models add up to 1."""

    name: str
    weights: Weights
    share: float


class AveragedWeights:
    """The weighted mean of models of one architecture, computed in fp32 (model soup, arXiv 2203.05482)."""

    def __init__(self, parts: Sequence[WeightedModel], *, on_bytes: OnBytes = lambda done, total: None) -> None:
        """Raises ModelError if two models differ in their parameters."""
        for one, other in pairwise(parts):
            _refuse_other_shapes(one, other)
        self._parts = tuple(parts)
        self.shapes = parts[0].weights.shapes
        self._on_bytes = on_bytes
        self._done, self._total = 0, 4 * sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Raises ModelError, with the model and the parameter, for a value that is not finite."""
        total: dict[str, Tensor] = {}
        for part in self._parts:
            for name, values in part.weights.read(names).items():
                if not torch.isfinite(values).all():
                    raise ModelError(
                        f"{part.name}: {name} has values that are not finite",
                        remedy="leave this model out: its training diverged, or its files are damaged",
                    )
                counted = part.share * values.float()
                total[name] = counted if name not in total else total[name].add_(counted)
        self._done += sum(values.nbytes for values in total.values())
        self._on_bytes(self._done, self._total)
        return total


def _files_in(index: Any) -> list[str]:
    """The files of an index. Raises ValueError for one outside of the directory."""
    files = sorted(set(index["weight_map"].values()))
    for file in files:
        if Path(file).name != file:
            raise ValueError(f"the index names a file outside of the directory: {file}")
    return files


def groups(names: Sequence[str], shapes: Shapes) -> list[list[str]]:
    """The names in their order, in groups that are read together."""
    made: list[list[str]] = []
    room = 0
    for name in names:
        size = 4 * torch.Size(shapes[name]).numel()
        if not made or size > room:
            made.append([])
            room = _AT_ONCE
        made[-1].append(name)
        room -= size
    return made


def _stored_name(name: str) -> str:
    """The name of a backbone parameter in a checkpoint."""
    return f"backbone.{name}"


def _refuse_other_shapes(one: WeightedModel, other: WeightedModel) -> None:
    mine, theirs = one.weights.shapes, other.weights.shapes
    different = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    if different:
        first = different[0]

        def shown(shapes: Shapes) -> str:
            return "x".join(map(str, shapes[first])) if first in shapes else "missing"

        raise ModelError(
            f"{one.name} and {other.name} are different models. Parameters that differ: {len(different)}; for example, "
            f"{first} is {shown(mine)} in {one.name} and {shown(theirs)} in {other.name}",
            remedy="average models of one architecture, such as checkpoints of one run",
        )
