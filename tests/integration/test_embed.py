"""`f2llm embed` with real workers: kill -9 at any moment loses only the unfinished shards."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from data_io.demo.docstrings import Deduplicator, Limits, read_package
from data_io.demo.packages import installed_packages
from data_io.storage.store import open_store
from tests.support.command import Running, f2llm
from tests.support.exported import export_small_model
from tests.support.stored import stored

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

SHARD_ROWS = 20


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Summaries and bodies of docstrings, some of them long."""
    limits = Limits(per_package=300, body_max=600)
    (package,) = installed_packages(("networkx",))
    docs = read_package(package.name, package.root, limits=limits, seen=Deduplicator())
    return [text for d in docs for text in (d.summary, d.body)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """model/, and texts.parquet with a number for each text."""
    out = tmp_path_factory.mktemp("embed")
    export_small_model(out / "model", texts, max_tokens=128)
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), out / "texts.parquet", row_group_size=90)
    return out


def arguments(folder: Path, out: Path, workers: int) -> list[str]:
    asked = ("embed", folder / "model", folder / "texts.parquet", out, "--shard-rows", SHARD_ROWS, "--workers", workers)
    return [str(argument) for argument in asked]


@pytest.fixture(scope="module")
def straight(folder: Path) -> Path:
    """The vectors of one undisturbed process."""
    done = f2llm(*arguments(folder, folder / "straight", workers=1))
    assert done.returncode == 0, done.stderr
    return folder / "straight"


def test_vectors_are_those_of_sentence_transformers_one_per_row_in_order(
    folder: Path, texts: list[str], straight: Path
) -> None:
    expected = SentenceTransformer(str(folder / "model"), device="cpu").encode(texts)

    table = pa.concat_tables(pq.read_table(path) for path in sorted(straight.glob("part-*.parquet")))

    assert table.column("id").to_pylist() == list(range(len(texts)))
    assert table.column("text").to_pylist() == texts
    np.testing.assert_allclose(np.array(table.column("embedding").to_pylist()), expected, atol=1e-5)


def test_a_job_that_is_killed_three_times_leaves_the_bytes_of_one_that_was_not(
    folder: Path, texts: list[str], straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = arguments(folder, out, workers=2)
    moments = sorted(random.Random(5).sample(range(1, len(texts) // SHARD_ROWS), 3))

    def parts() -> list[Path]:
        return sorted(out.glob("part-*.parquet"))

    for number, moment in enumerate(moments):
        with Running(*command, log=tmp_path / f"log-{number}") as job:
            job.wait_until(lambda moment=moment: len(parts()) >= moment)  # type: ignore[misc]
            job.kill_all()
    kept = {path: path.stat().st_mtime_ns for path in parts()}
    done = f2llm(*command)

    assert done.returncode == 0, done.stderr
    assert stored(open_store(str(out))) == stored(open_store(str(straight))), moments
    again = [path for path, changed in kept.items() if path.stat().st_mtime_ns != changed]
    assert len(again) <= 2, "only unfinished shards are computed again"
