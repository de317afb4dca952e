"""Models on the Hugging Face Hub: the ids that name them, and their download.

An id is ORG/NAME, or ORG/NAME@REVISION with a branch, tag or commit.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_io.errors import F2LLMError, StorageError
from ray_app.errors import ModelError
from ray_app.job_spec import JobSpec

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WITH_REVISION = re.compile(rf"({HUB_ID.pattern})(?:@([\w./-]+))?")
_OTHER_FORMATS = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack"]
_REFUSED = {401, 403, 404}


def is_hub_id(place: str) -> bool:
    """Whether `place` names a model on the Hub. An existing path is never a Hub id."""
    return _WITH_REVISION.fullmatch(place) is not None and not Path(place).exists()


def split_revision(name: str) -> tuple[str, str | None]:
    """The id and the revision of ORG/NAME@REVISION. The revision is None if the name has none."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def hub_models(spec: JobSpec) -> Iterator[tuple[Literal["model", "tokenizer", "teacher"], str]]:
    """(role, ORG/NAME[@REVISION]) of each model of a job spec that is on the Hub. A tokenizer that the model brings is
    not listed.
    """
    teacher = spec.train.teacher
    sources: dict[Literal["model", "tokenizer", "teacher"], tuple[str | None, str | None]] = {
        "model": (spec.model.name_or_path, spec.model.revision),
        "tokenizer": spec.model.tokenizer_source if spec.model.tokenizer is not None else (None, None),
        "teacher": (teacher.name_or_path, teacher.revision) if teacher is not None else (None, None),
    }
    for role, (name, revision) in sources.items():
        if name is not None and is_hub_id(name):
            yield role, f"{name}@{revision}" if revision else name


def download(name: str) -> Path:
    """The local directory of a model on the Hub, downloaded unless it is in the cache. Its name is the commit.

    Raises StorageError if the Hub cannot be reached: a retry can help. Raises ModelError if the Hub does not have the
    model or denies access to it, and if HF_HUB_OFFLINE is set and the model is not in the cache.
    """
    return _snapshot(name, ignore_patterns=_OTHER_FORMATS)


def commit_of(name: str) -> str:
    """The commit that ORG/NAME[@REVISION] stands for on the Hub, or offline in the cache. Raises as `download` does."""
    return _snapshot(name, allow_patterns=["config.json"]).name


def _snapshot(name: str, **patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    repository, revision = split_revision(name)
    try:
        return Path(snapshot_download(repository, revision=revision, **patterns))
    except Exception as error:  # the Hub's client also raises the errors of its HTTP library
        raise _translate(error, name) from error


def _translate(error: Exception, name: str) -> F2LLMError:
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    # The client reports every failed request as a missing entry of its cache; the cause is the failed request.
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if isinstance(cause, HFValidationError) or status in _REFUSED:
        return ModelError(
            f"the model {name} is not a directory here, and the Hugging Face Hub refused the id: {said}",
            remedy="correct the path or the Hub id (ORG/NAME or ORG/NAME@REVISION); for a private or gated model set "
            "HF_TOKEN",
        )
    if is_offline_mode():
        return ModelError(
            f"the model {name} is not a directory here, and HF_HUB_OFFLINE is set: the Hugging Face Hub is not asked, "
            "and the model is not in the local cache",
            remedy="correct the path, or unset HF_HUB_OFFLINE to download the model",
        )
    return StorageError(
        f"the model {name} is not a directory here, and the Hugging Face Hub could not be reached: {said}",
        remedy="correct the path, or check the network and try again; HF_ENDPOINT names a mirror",
    )
