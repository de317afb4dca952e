"""What the workflows on data sets and stores answer, and how they fail."""

from pathlib import Path

import pytest

from data_io.curation.tokenizer_training import save_tokenizer, train_tokenizer
from data_io.data_spec import S3Options
from data_io.errors import ConfigError, DataError, NotFoundInStore, StorageError
from data_io.storage.store import open_store
from jobs.workflows.data import data_size, probe_store
from jobs.workflows.runs import read_status
from tests.support.datasets import write_example


def test_a_data_set_is_sized_by_its_manifest(tmp_path: Path) -> None:
    manifest = write_example(open_store(str(tmp_path)))

    size = data_size(str(tmp_path), S3Options())

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

    assert data_size(str(tmp_path), S3Options()).vocabulary_size == 257


def test_no_data_set_and_no_run_are_errors_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        data_size(str(tmp_path), S3Options())
    with pytest.raises(NotFoundInStore, match="no run at"):
        read_status(str(tmp_path), S3Options())


def test_probing_a_store_leaves_no_object(tmp_path: Path) -> None:
    steps = probe_store(str(tmp_path), S3Options())

    assert steps[0] == "read after write"
    assert steps[-1] == "delete"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_probing_a_store_that_refuses_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")

    with pytest.raises(StorageError):
        probe_store(str(tmp_path / "file"), S3Options())


def test_probing_an_address_that_is_none_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="https://host"):
        probe_store("https://host/bucket", S3Options())
