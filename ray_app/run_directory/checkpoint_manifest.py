"""The checkpoints of a run, and the files of each. Imports only the standard library, pydantic and the store."""

import json
import re
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError, model_validator

from data_io.bounded_json import read_json
from data_io.errors import NotFoundInStore
from data_io.loading.fingerprint import Fingerprint
from data_io.storage.errors import ObjectTooLarge
from data_io.storage.store import Store
from ray_app.errors import CheckpointDamaged, CheckpointError
from ray_app.run_directory.attempts import is_fenced_off, list_attempts

FORMAT_VERSION = 3
FOLDER = "checkpoints"
MANIFEST_FILE = "manifest.json"
VALUE_BYTES = 4
"""Bytes of a stored value, which is fp32."""
_MANIFEST_BYTES = 2**26
_NAME = re.compile(r"step-(\d{8})\.attempt-(\d{1,9})")


class CheckpointItem(BaseModel):
    """A stored piece: `count` fp32 values of a flattened tensor from `start` on, at `offset` in its file, and the
    CRC-32 of their bytes.
    """

    model_config = ConfigDict(frozen=True)

    tensor: str
    start: NonNegativeInt
    count: PositiveInt
    offset: NonNegativeInt
    crc32: int

    @property
    def length(self) -> int:
        """Bytes."""
        return self.count * VALUE_BYTES


class CheckpointFile(BaseModel):
    """One file of a checkpoint, and its pieces in their order."""

    model_config = ConfigDict(frozen=True)

    size: int
    items: tuple[CheckpointItem, ...]

    @model_validator(mode="after")
    def _is_filled(self) -> Self:
        end = 0
        for item in self.items:
            if item.offset != end:
                raise ValueError(f"the piece after byte {end} starts at byte {item.offset}")
            end += item.length
        if end != self.size:
            raise ValueError(f"its pieces have {end} bytes, and the file has {self.size}")
        return self


class TrainingProgress(BaseModel):
    """The state of training apart from weights and moments. The data order needs only one integer."""

    model_config = ConfigDict(frozen=True)

    step: int
    micro_batches_consumed: int
    fingerprint: Fingerprint


class CheckpointManifest(BaseModel):
    """The manifest of a checkpoint. It is written last, so all files that it lists are complete."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    progress: TrainingProgress
    attempt: int
    workers: int
    created: datetime
    files: dict[str, CheckpointFile]

    @model_validator(mode="after")
    def _holds_whole_tensors(self) -> Self:
        pieces: dict[str, list[tuple[int, int]]] = {}
        for file in self.files.values():
            for item in file.items:
                pieces.setdefault(item.tensor, []).append((item.start, item.count))
        for tensor, found in pieces.items():
            end = 0
            for start, count in sorted(found):
                if start != end:
                    raise ValueError(f"{tensor}: the piece after value {end} starts at value {start}")
                end += count
        return self

    @property
    def size(self) -> int:
        """The size of all files, in bytes."""
        return sum(file.size for file in self.files.values())

    def to_json(self) -> bytes:
        """JSON with its own checksum: without it, an extra digit in `micro_batches_consumed` would skip examples."""
        values = self.model_dump(mode="json")
        return json.dumps(values | {"crc32": _checksum(values)}, indent=1).encode()


class _Envelope(BaseModel):
    """The fields that a manifest of any format has. They are checked before the rest is parsed."""

    model_config = ConfigDict(strict=True)

    format_version: int
    crc32: int


@dataclass(frozen=True, order=True)
class CheckpointName:
    """Sorts by step, then by attempt: the newest is the greatest."""

    step: int
    attempt: int

    def __str__(self) -> str:
        return f"step-{self.step:08d}.attempt-{self.attempt}"

    @property
    def folder(self) -> str:
        """The checkpoint's path in the run directory."""
        return f"{FOLDER}/{self}"

    @classmethod
    def of_key(cls, key: str) -> "CheckpointName | None":
        """The checkpoint that a key of the run directory belongs to; None if it does not belong to a checkpoint."""
        parts = key.split("/")
        match = _NAME.fullmatch(parts[1]) if len(parts) > 2 and parts[0] == FOLDER else None
        return cls(int(match[1]), int(match[2])) if match else None


def list_checkpoints(run: Store) -> list[CheckpointName]:
    """Complete checkpoints of a run directory, newest first.

    Left out: checkpoints without a manifest, and checkpoints that a replaced attempt wrote beyond the step from which a
    later attempt resumed.
    """
    keys = [info.key for info in run.list(f"{FOLDER}/")]
    found = [(key, name) for key in keys if (name := CheckpointName.of_key(key)) is not None]
    attempts = list_attempts(run)
    return sorted(
        (
            name
            for key, name in found
            if key == f"{name.folder}/{MANIFEST_FILE}" and not is_fenced_off(name.attempt, name.step, attempts)
        ),
        reverse=True,
    )


def read_manifest(run: Store, name: CheckpointName) -> CheckpointManifest:
    """Raises CheckpointDamaged if the manifest is missing, damaged, or does not match the files in its directory.

    Raises CheckpointError if it has another format version.
    """
    manifest = _parse(run, name, _content(run, name))
    written = CheckpointName(manifest.progress.step, manifest.attempt)
    if written != name:
        raise _damaged(run, name, f"belongs to checkpoint {written}")
    sizes = {info.key: info.size for info in run.list(name.folder)}
    for file, stored in manifest.files.items():
        found = sizes.get(f"{name.folder}/{file}")
        if found is None:
            raise CheckpointDamaged(f"{file} of checkpoint {run.uri}/{name.folder} is missing")
        if found != stored.size:
            raise CheckpointDamaged(
                f"{file} of checkpoint {run.uri}/{name.folder} has a size of {found} bytes, expected {stored.size}"
            )
    return manifest


def _content(run: Store, name: CheckpointName) -> bytes:
    try:
        return run.get(f"{name.folder}/{MANIFEST_FILE}", most=_MANIFEST_BYTES)
    except NotFoundInStore as error:
        raise _damaged(run, name, "is missing") from error
    except ObjectTooLarge as error:
        raise _damaged(run, name, f"is too large; {error.message}") from error


def _parse(run: Store, name: CheckpointName, content: bytes) -> CheckpointManifest:
    try:
        envelope = _Envelope.model_validate_json(content)
        # Checked before the checksum, because another format can have a different checksum.
        if envelope.format_version != FORMAT_VERSION:
            newer = envelope.format_version > FORMAT_VERSION
            raise CheckpointError(
                f"checkpoint {name} of {run.uri} has format {envelope.format_version}, but this version of f2llm-ray "
                f"reads format {FORMAT_VERSION}",
                remedy=f"resume with the {'newer' if newer else 'older'} version of f2llm-ray that wrote it",
            )
        if envelope.crc32 != _checksum(read_json(content)):
            raise _damaged(run, name, "does not match its checksum")
        return CheckpointManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(run, name, f"cannot be read: {where + ': ' if where else ''}{first['msg']}") from error
    except ValueError as error:  # of read_json
        raise _damaged(run, name, f"cannot be read: {error}") from error


def _checksum(values: dict[str, Any]) -> int:
    """CRC-32 of a manifest's values, independent of the spacing of its JSON."""
    content = {key: value for key, value in values.items() if key != "crc32"}
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _damaged(run: Store, name: CheckpointName, what: str) -> CheckpointDamaged:
    return CheckpointDamaged(f"{MANIFEST_FILE} of checkpoint {run.uri}/{name.folder} {what}")


def trained_steps(run: Store) -> int:
    """The step of the newest complete checkpoint, 0 without a checkpoint. status.json can be ahead of it."""
    names = list_checkpoints(run)
    return names[0].step if names else 0
