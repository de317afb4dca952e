"""Which checkpoints a run has, and what each is made of. Standard library, pydantic and the store only."""

import re
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from data_io.errors import NotFoundInStore
from data_io.fingerprint import Fingerprint
from data_io.storage import Store
from ray_app.attempts import is_fenced_off, list_attempts
from ray_app.errors import CheckpointError

FORMAT_VERSION = 1
FOLDER = "checkpoints"
MANIFEST_FILE = "manifest.json"
_NAME = re.compile(r"step-(\d{8})\.attempt-(\d+)")


class StoredItem(BaseModel):
    """One item of a file: where it starts, how long it is, and the CRC-32 of its bytes."""

    model_config = ConfigDict(frozen=True)

    offset: int
    length: int
    crc32: int


class StoredFile(BaseModel):
    """One file of a checkpoint and what is in it."""

    model_config = ConfigDict(frozen=True)

    size: int
    items: tuple[StoredItem, ...]


class Progress(BaseModel):
    """All the state of training that is not weights and moments: the data order needs one integer."""

    model_config = ConfigDict(frozen=True)

    step: int
    micro_batches_consumed: int
    fingerprint: Fingerprint


class CheckpointManifest(BaseModel):
    """Written last; what it lists is complete."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    progress: Progress
    attempt: int
    workers: int
    created: datetime
    files: dict[str, StoredFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, order=True)
class CheckpointName:
    """Sorts by step, then by attempt: the newest is the greatest."""

    step: int
    attempt: int

    def __str__(self) -> str:
        return f"step-{self.step:08d}.attempt-{self.attempt}"

    @property
    def folder(self) -> str:
        """Where it is in the run directory."""
        return f"{FOLDER}/{self}"

    @classmethod
    def of_key(cls, key: str) -> "CheckpointName | None":
        """The checkpoint that a key of the run directory belongs to, None where it is no part of one."""
        parts = key.split("/")
        match = _NAME.fullmatch(parts[1]) if len(parts) > 2 and parts[0] == FOLDER else None
        return cls(int(match[1]), int(match[2])) if match else None


def list_checkpoints(run: Store) -> list[CheckpointName]:
    """Complete checkpoints of a run directory, newest first; one without a manifest does not exist, and one that a
    replaced attempt has written beyond the start of a later one is not the run's.
    """
    keys = (info.key for info in run.list(f"{FOLDER}/"))
    found = {CheckpointName.of_key(key) for key in keys if key.endswith(f"/{MANIFEST_FILE}")}
    attempts = list_attempts(run)
    names = (name for name in found if name is not None and not is_fenced_off(name.attempt, name.step, attempts))
    return sorted(names, reverse=True)


def read_manifest(run: Store, name: CheckpointName) -> CheckpointManifest:
    """Raises CheckpointError where the manifest is missing, damaged or of a newer format."""
    try:
        manifest = CheckpointManifest.model_validate_json(run.get(f"{name.folder}/{MANIFEST_FILE}"))
    except (NotFoundInStore, ValidationError) as error:
        raise CheckpointError(f"checkpoint {name} of {run.uri} has no readable {MANIFEST_FILE}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {name} of {run.uri} has format {manifest.format_version}, this version reads {FORMAT_VERSION}",
            remedy="resume with the version of f2llm-ray that wrote it",
        )
    return manifest


def trained_steps(run: Store) -> int:
    """Steps that are safe in a complete checkpoint; status.json may be ahead of it."""
    names = list_checkpoints(run)
    return names[0].step if names else 0
