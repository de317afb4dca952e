"""The door to heavy modules: what is behind it is there, and a missing library is named with the extra it comes in."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from data_io.config import S3Options
from data_io.errors import DataError, NotFoundInStore, StorageError
from data_io.sources.tokenizer_training import save_tokenizer, train_tokenizer
from data_io.storage import open_store
from jobs import backend
from jobs.errors import ConfigError
from tests.support.datasets import write_example


@pytest.mark.parametrize("target", backend.TARGETS)
def test_every_target_is_where_the_door_looks_for_it(target: backend.Target) -> None:
    spec = find_spec(backend.TARGETS[target])

    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    # Read, not imported: half of them load torch or Ray.
    assert any(f"\n{start}" in source for start in (f"def {target}(", f"class {target}:", f"class {target}("))


@pytest.mark.parametrize(
    ("library", "target", "extra"),
    [("obstore", "open_store", "data"), ("ray", "run", "train"), ("torch", "export_run", "train")],
)
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    library: str, target: str, extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"  # an import of it now fails as if it were not there
        "from jobs import backend\nfrom jobs.errors import ConfigError\n"
        f"try: backend.function({target!r})\nexcept ConfigError as error: print(error)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert library in done.stdout
    assert f"pip install 'f2llm-ray[{extra}]'" in done.stdout


def test_a_module_of_ours_that_is_missing_is_a_bug_and_not_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "TARGETS", {"run": "ray_app.nowhere"})

    with pytest.raises(ModuleNotFoundError):
        backend.function("run")


def test_a_data_set_is_sized_by_its_manifest(tmp_path: Path) -> None:
    manifest = write_example(open_store(str(tmp_path)))

    size = backend.data_size(str(tmp_path), S3Options())

    assert [(source.name, source.kind, source.rows, source.negatives) for source in size.sources] == [
        ("questions", "retrieval", 150, 5),
        ("labels", "classification", 21, 1),
    ]
    assert size.evaluations == ("held-out", "pairs")
    assert size.metrics == ("ndcg_at_10", "recall_at_10", "spearman")
    assert size.version == manifest.version
    assert size.vocabulary_size is None


def test_a_tokenizer_counts_its_ids_with_the_added_ones(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_example(store)
    save_tokenizer(store, train_tokenizer(["nothing is merged"], vocabulary_size=257))

    assert backend.data_size(str(tmp_path), S3Options()).vocabulary_size == 257


def test_no_data_set_and_no_run_are_errors_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        backend.data_size(str(tmp_path), S3Options())
    with pytest.raises(NotFoundInStore, match="no run at"):
        backend.read_status(str(tmp_path), S3Options())


def test_probing_a_store_leaves_no_object(tmp_path: Path) -> None:
    steps = backend.probe_store(str(tmp_path), S3Options())

    assert steps[0] == "read after write"
    assert steps[-1] == "delete"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_probing_a_store_that_refuses_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(StorageError):
        backend.probe_store(str(tmp_path / "file"), S3Options())


def test_probing_an_address_that_is_none_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="https://host"):
        backend.probe_store("https://host/bucket", S3Options())
