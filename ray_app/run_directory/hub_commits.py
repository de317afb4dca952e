"""`hub.json`: the commits of the models on the Hugging Face Hub that a run started with.

A branch on the Hub moves. Every worker, and every later start of the run, uses these commits.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from data_io.bounded_json import read_model
from data_io.errors import ConfigError, NotFoundInStore
from data_io.storage.store import Store
from ray_app.job_spec import JobSpec

HUB = "hub.json"
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class HubCommits(BaseModel):
    """None for a model that does not come from the Hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Commit | None = None
    tokenizer: Commit | None = None
    """Of model.tokenizer. A tokenizer that the model brings has the model's commit."""
    teacher: Commit | None = None


def read_hub_commits(run: Store) -> HubCommits:
    """The recorded commits; none before the first start. Raises ConfigError if the file is damaged."""
    try:
        text = run.get(HUB)
    except NotFoundInStore:
        return HubCommits()
    try:
        return read_model(HubCommits, text)
    except ValueError as error:
        raise ConfigError(
            f"{run.uri}/{HUB} is damaged; expected the commits of the run's models, 40 hex digits each",
            remedy="restore it from a backup, or delete it to use the newest commits",
        ) from error


def save_hub_commits(run: Store, commits: HubCommits) -> None:
    """Write hub.json, unless no model comes from the Hub."""
    if commits != HubCommits():
        run.put(HUB, commits.model_dump_json(indent=1, exclude_none=True).encode())


def at_commits(spec: JobSpec, commits: HubCommits) -> JobSpec:
    """The job spec with these commits as the revisions of its models."""
    model, teacher = spec.model, spec.train.teacher
    if commits.model is not None:
        model = model.model_copy(update={"revision": commits.model})
    if commits.tokenizer is not None:
        name, _ = model.tokenizer_source
        model = model.model_copy(update={"tokenizer": f"{name}@{commits.tokenizer}"})
    if teacher is not None and commits.teacher is not None:
        teacher = teacher.model_copy(update={"revision": commits.teacher})
    train = spec.train.model_copy(update={"teacher": teacher})
    return spec.model_copy(update={"model": model, "train": train})


def spec_of_run(spec: JobSpec, run: Store) -> JobSpec:
    """The job spec of a run with the commits that it started with. Raises ConfigError as `read_hub_commits` does."""
    return at_commits(spec, read_hub_commits(run))
