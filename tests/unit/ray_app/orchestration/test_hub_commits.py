"""A run uses one commit of each model on the Hub: that of its first start, also after the branch has moved."""

from pathlib import Path
from typing import Any

import pytest

from data_io.errors import ConfigError, F2LLMError
from data_io.storage.store import Store, open_store
from ray_app.job_spec import JobSpec
from ray_app.orchestration import driver
from ray_app.orchestration.active_run import ActiveRun
from ray_app.run_directory.hub_commits import HUB, HubCommits, at_commits, read_hub_commits, spec_of_run
from tests.support.small_training import small_job_spec, write_small_dataset

OLD, NEW = "a" * 40, "b" * 40


class Hub:
    """Stands in for `snapshot_download`. `branch` is the commit of every default branch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.branch = folder, OLD
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, repository: str, *, revision: str | None, **_: Any) -> str:
        self.asked.append((repository, revision))
        return str(self.folder / (revision or self.branch))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


def spec_with(folder: Path, model: dict[str, Any], teacher: dict[str, Any] | None = None) -> JobSpec:
    values = small_job_spec(str(folder / "data"), str(folder / "runs"))["spec"]
    values["model"] = model
    values["train"]["teacher"] = teacher
    values["evaluation"] = {"enabled": False}
    return JobSpec.model_validate(values)


def start(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    """The job spec with which the driver would start its workers."""
    started: list[JobSpec] = []

    def seen(run: ActiveRun, *_: Any, **__: Any) -> None:
        started.append(run.spec)
        raise F2LLMError("enough seen")

    monkeypatch.setattr(driver, "_run", seen)
    with pytest.raises(F2LLMError, match="enough seen"):
        driver.run("small", spec, job_spec_yaml="the job spec", differences=lambda _: [], changes=lambda _: [])
    return started[0]


def run_of(folder: Path) -> Store:
    return open_store(str(folder / "runs" / "small"))


def test_a_run_keeps_the_commits_of_its_first_start(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_dataset(open_store(str(tmp_path / "data")))
    model = {"name_or_path": "org/base", "tokenizer": "org/words"}
    spec = spec_with(tmp_path, model, {"name_or_path": "org/teacher"})

    first = start(spec, monkeypatch)
    hub.branch = NEW
    second = start(spec, monkeypatch)

    assert hub.asked == [("org/base", None), ("org/words", None), ("org/teacher", None)]
    assert read_hub_commits(run_of(tmp_path)) == HubCommits(model=OLD, tokenizer=OLD, teacher=OLD)
    for each in (first, second, spec_of_run(spec, run_of(tmp_path))):
        assert (each.model.revision, each.model.tokenizer) == (OLD, f"org/words@{OLD}")
        assert each.train.teacher is not None
        assert each.train.teacher.revision == OLD


def test_a_branch_or_tag_in_the_job_spec_becomes_its_commit(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_dataset(open_store(str(tmp_path / "data")))

    started = start(spec_with(tmp_path, {"name_or_path": "org/base", "revision": NEW}), monkeypatch)

    assert (hub.asked, started.model.revision) == ([("org/base", NEW)], NEW)


def test_a_model_in_a_directory_has_no_commit(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_dataset(open_store(str(tmp_path / "data")))
    (tmp_path / "org" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    spec = spec_with(tmp_path, {"name_or_path": "org/base"})

    assert start(spec, monkeypatch) == spec
    assert hub.asked == []
    assert not run_of(tmp_path).exists(HUB)


@pytest.mark.parametrize("text", [b"{", b'{"model": "main"}', b'{"model": "../../x"}', b'{"other": 1}', b"[" * 9999])
def test_a_damaged_record_is_an_error(tmp_path: Path, text: bytes) -> None:
    run = run_of(tmp_path)
    run.put(HUB, text)

    with pytest.raises(ConfigError, match=r"hub\.json is damaged"):
        read_hub_commits(run)


def test_a_tokenizer_has_a_revision_of_its_own(tmp_path: Path) -> None:
    spec = spec_with(tmp_path, {"name_or_path": "org/base", "revision": OLD, "tokenizer": "org/words@v1"})

    assert spec.model.tokenizer_source == ("org/words", "v1")
    assert at_commits(spec, HubCommits(model=OLD, tokenizer=NEW)).model.tokenizer_source == ("org/words", NEW)
    assert spec_with(tmp_path, {"name_or_path": "org/base", "revision": OLD}).model.tokenizer_source == (
        "org/base",
        OLD,
    )
