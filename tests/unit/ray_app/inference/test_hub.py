"""Models of the Hugging Face Hub: which names are Hub ids, and the class of each error of a download."""

import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from data_io.data_spec import S3Options
from data_io.errors import StorageError
from ray_app.errors import ModelError
from ray_app.inference.encoder import Cut
from ray_app.inference.hub import download, is_hub_id, split_revision
from ray_app.inference.model_source import find_model, find_named, model_store, open_encoder
from tests.support.exported import export_small_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["how to join paths", "a long text about files and directories " * 20]


class FakeHub:
    """Stands in for `snapshot_download`: one repository, or an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.error: Exception | None = None
        self.calls: list[tuple[str, str | None]] = []

    def __call__(self, repository: str, *, revision: str | None, **_: Any) -> str:
        self.calls.append((repository, revision))
        if self.error is not None:
            raise self.error
        return str(self.folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory."""
    return export_small_model(tmp_path_factory.mktemp("model") / "small", TEXTS)


@pytest.fixture
def hub(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A Hub that is online and has the model as team/embedder."""
    folder = tmp_path / "cache" / COMMIT
    shutil.copytree(exported, folder)
    found = FakeHub(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    return found


def failed(kind: type[Any], status: int) -> Any:
    """An error of an HTTP request to the Hub."""
    return kind("said no", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub")))


def unreachable(cause: Exception) -> Exception:
    """The error of the Hub's client for a request that failed and a cache without the model."""
    error = LocalEntryNotFoundError("Got: an error")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("place", "is_id"),
    [
        ("team/embedder", True),
        ("team/embedder@v1.0", True),
        (f"team/embedder@{COMMIT}", True),
        ("team/embedder@refs/pr/1", True),
        ("embedder", False),
        ("runs/a/model", False),
        ("/runs/a", False),
        ("./a", False),
        ("../a/b", False),
        ("s3://bucket/run", False),
        ("team/embedder@", False),
    ],
)
def test_a_hub_id_is_an_organization_and_a_name_and_may_pin_a_revision(place: str, is_id: bool) -> None:
    assert is_hub_id(place) is is_id


def test_an_existing_path_is_not_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)

    assert not is_hub_id("runs/a")


def test_a_revision_is_separate_from_the_id() -> None:
    assert split_revision("team/embedder") == ("team/embedder", None)
    assert split_revision("team/embedder@v1") == ("team/embedder", "v1")


def test_a_model_of_the_hub_is_the_exported_model_and_its_uri_pins_the_commit(hub: FakeHub, exported: Path) -> None:
    found = find_model("team/embedder@v1", S3Options())

    assert hub.calls == [("team/embedder", "v1")]
    assert (found.name, found.uri) == ("team/embedder", f"team/embedder@{COMMIT}")
    assert found.fingerprint == find_model(str(exported), S3Options()).fingerprint
    assert find_model("team/embedder", S3Options(), name="search").name == "search"
    assert model_store("team/embedder", S3Options()).uri == str(hub.folder)


def test_a_path_keeps_its_own_uri(exported: Path) -> None:
    assert find_model(str(exported), S3Options()).uri == str(exported)


def test_a_worker_without_the_files_downloads_the_same_commit(hub: FakeHub, tmp_path: Path) -> None:
    found = find_model("team/embedder", S3Options())
    hub.folder = hub.folder.rename(tmp_path / "other-node")
    hub.calls.clear()

    encoder = open_encoder(found, Cut())

    assert hub.calls == [("team/embedder", COMMIT)]
    assert encoder.encode(["a text"]).shape == (1, 48)


def test_mining_takes_a_pinned_revision(hub: FakeHub) -> None:
    found = find_named("team/embedder@v1", query_prompt=None, max_tokens=None, batch_tokens=64)

    assert hub.calls == [("team/embedder", "v1")]
    assert (found.name, found.revision) == ("team/embedder", COMMIT)


@pytest.mark.parametrize(
    "error",
    [
        failed(RepositoryNotFoundError, 401),
        failed(RepositoryNotFoundError, 404),
        failed(RevisionNotFoundError, 404),
        HFValidationError("not a valid id"),
    ],
    ids=["private or missing", "missing", "no such revision", "not an id"],
)
def test_an_id_that_the_hub_refuses_is_an_error_of_the_user(hub: FakeHub, error: Exception) -> None:
    hub.error = error

    with pytest.raises(ModelError, match="team/other is not a directory here, and the Hugging Face Hub refused") as got:
        download("team/other")

    assert (got.value.exit_code, got.value.retryable) == (8, False)
    assert "HF_TOKEN" in str(got.value.remedy)


@pytest.mark.parametrize(
    "error",
    [
        unreachable(httpx2.ConnectError("no route")),
        unreachable(failed(RepositoryNotFoundError, 503)),
        httpx2.ProxyError("no proxy"),
        TimeoutError(),
    ],
    ids=["no route", "server error", "proxy", "timeout"],
)
def test_a_hub_that_cannot_be_reached_is_an_error_that_a_retry_can_fix(hub: FakeHub, error: Exception) -> None:
    hub.error = error

    with pytest.raises(StorageError, match=r"team/other is not a directory here, and .* could not be reached") as got:
        download("team/other")

    assert (got.value.exit_code, got.value.retryable) == (5, True)
    assert "HF_ENDPOINT" in str(got.value.remedy)


def test_an_offline_process_without_the_model_says_how_to_download_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.error = unreachable(OfflineModeIsEnabled("offline"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set") as got:
        download("team/other")

    assert "unset HF_HUB_OFFLINE" in str(got.value.remedy)


def test_a_repository_without_a_model_is_refused(hub: FakeHub) -> None:
    (hub.folder / "config_sentence_transformers.json").unlink()

    with pytest.raises(ModelError, match="has no model"):
        find_model("team/embedder", S3Options())
