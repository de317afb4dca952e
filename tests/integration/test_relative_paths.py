"""Paths in a document are relative to the current folder, for the workers too."""

import shutil
from pathlib import Path

import pytest

from data_io.storage import open_store
from tests.support.command import f2llm
from tests.support.small_training import read_lines, small_document, write_document, write_small_dataset

pytestmark = pytest.mark.integration


def test_workers_find_what_a_relative_path_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_dataset(open_store("data"))
    shutil.move("data/tokenizer", "tokenizer")  # so that there is no other
    document = small_document("data", "runs")
    document["spec"]["model"]["tokenizer"] = "tokenizer"
    document["spec"] |= {"evaluation": {"enabled": False}, "workers": {"replicas": 1}}
    write_document(tmp_path / "job.yaml", document)

    done = f2llm("run", "job.yaml", "--steps", "1", "--quiet")

    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in read_lines(tmp_path / "runs" / "small" / "metrics.jsonl")] == [1]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "job.yaml", "runs", "tokenizer"}
