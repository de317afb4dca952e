"""Mining with a real model on real Ray: the negatives equal those of sentence-transformers, with or without kills."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_io.dataset.manifest import load_manifest
from data_io.inspection.verify import verify_dataset
from data_io.storage.store import open_store
from ray_app.mining.inputs import source_rows
from ray_app.mining.report import MiningReport
from tests.support.command import Running
from tests.support.datasets import example_rows
from tests.support.mining import MODEL, documented, mine_documented, write_documented
from tests.support.stored import stored

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SCORE_NOISE = 1e-5
"""The largest change of a score that comes from computing an embedding in another batch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, and mined/ of one undisturbed run."""
    return tmp_path_factory.mktemp("mining")


@pytest.fixture(scope="module")
def report(folder: Path) -> MiningReport:
    write_documented(open_store(str(folder / "data")))
    return mine_documented(str(folder / "data"), str(folder / "mined"))


def test_the_negatives_are_those_of_sentence_transformers(folder: Path, report: MiningReport) -> None:
    mined = {(row.query, row.positive): set(row.negatives) for row in rows_of(folder / "mined", "docs")}

    expected, at_a_limit = theirs()

    different = {pair[0] for pair in mined.keys() | expected.keys() if mined.get(pair) != expected.get(pair)}
    assert len(expected) > 250
    assert different <= at_a_limit
    assert len(at_a_limit) < 5


def test_the_mined_data_set_is_complete_and_keeps_everything_else(folder: Path, report: MiningReport) -> None:
    data, out = open_store(str(folder / "data")), open_store(str(folder / "mined"))
    before, after = load_manifest(data), load_manifest(out)

    assert verify_dataset(out).ok
    assert after.version == report.version
    assert after.source("docs").negatives == 24
    assert after.source("docs").instruction == "Find it."
    assert after.source("labels") == before.source("labels")
    assert after.evaluations == before.evaluations
    assert {(r.query, r.positive, tuple(r.negatives)) for r in rows_of(folder / "mined", "labels")} == {
        (r.query, r.positive, tuple(r.negatives)) for r in example_rows(40, negatives=1)
    }
    assert [key for key in stored(open_store(str(folder / "mined"))) if key.startswith(("mining", "tokenizer"))] == [
        "mining/report.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ]


def test_the_report_counts_every_row_and_query(folder: Path, report: MiningReport) -> None:
    (source,) = report.sources
    rows = list(documented())

    assert source.rows == len(rows) == source.kept_rows + source.dropped_rows
    assert source.queries == len({row.query for row in rows}) == sum(source.histograms["positive"])
    assert source.documents == len({row.positive for row in rows})
    assert source.mined_negatives == 24 * source.kept_rows
    assert source.own_negatives == 0
    assert 0 < len(source.samples) <= 5
    for sample in source.samples:
        assert all(each.score < 0.8 and each.score < 0.95 * sample.positive_score for each in sample.negatives)


def test_the_same_call_does_not_change_a_mined_data_set(folder: Path, report: MiningReport) -> None:
    before = stored(open_store(str(folder / "mined")))

    assert mine_documented(str(folder / "data"), str(folder / "mined")) == report

    assert stored(open_store(str(folder / "mined"))) == before


def test_a_job_killed_repeatedly_writes_the_same_bytes_with_any_number_of_workers(
    folder: Path, report: MiningReport, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    arguments = ("-m", "tests.support.mining", folder / "data", out)

    def marks() -> list[Path]:
        return list(out.glob("mining/*/**/*.json"))

    finished: dict[Path, int] = {}
    for number, reached in enumerate((2, 9)):
        with Running(*arguments, log=tmp_path / f"log-{number}", program=(sys.executable,)) as job:
            job.wait_until(lambda reached=reached: len(marks()) >= reached)  # type: ignore[misc]
            job.kill_all()
        assert not (out / "manifest.json").exists()
        assert [path for path, time in finished.items() if path.stat().st_mtime_ns != time] == []
        objects = [path for mark in marks() for path in mark.parent.glob(f"{mark.stem}*")]
        finished = {path: path.stat().st_mtime_ns for path in objects}
        assert len(finished) > reached

    mine_documented(str(folder / "data"), str(out), workers=1)

    assert load_manifest(open_store(str(out))).version == report.version
    assert without_etags(out) == without_etags(folder / "mined")


def without_etags(folder: Path) -> dict[str, bytes]:
    """All files except the two with ETags, which depend on inode and time on a local disk. The version covers them."""
    return {
        key: data
        for key, data in stored(open_store(str(folder))).items()
        if key not in ("manifest.json", "manifest.arrow")
    }


def rows_of(folder: Path, source: str) -> list[Any]:
    store = open_store(str(folder))
    return list(source_rows(store, source, 0, len(load_manifest(store).row_groups(source))))


def theirs() -> tuple[dict[tuple[str, str], set[str]], set[str]]:
    """The negatives that mine_hard_negatives selects, and the queries whose selection noise decides.

    These are queries with a text whose score equals the limit or the score of the next text.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    model: Any = SentenceTransformer(MODEL, device="cpu")
    model.max_seq_length = 64
    rows = list(documented())
    dataset = Dataset.from_dict({"query": [row.query for row in rows], "positive": [row.positive for row in rows]})
    mined = mine_hard_negatives(
        dataset, model, range_min=5, range_max=100, max_score=0.8, relative_margin=0.05, num_negatives=24,
        sampling_strategy="top", output_format="n-tuple", verbose=False,
    )  # fmt: skip
    found = {(row["query"], row["positive"]): {row[f"negative_{i}"] for i in range(1, 25)} for row in mined.to_list()}
    documents = list(dict.fromkeys(row.positive for row in rows))
    queries = list(dict.fromkeys(row.query for row in rows))
    scores = model.similarity(model.encode(queries), model.encode(documents)).numpy()
    at_a_limit = set()
    for query, of_query in zip(queries, scores, strict=True):
        answers = [documents.index(row.positive) for row in rows if row.query == query]
        limit = min(0.8, 0.95 * of_query[answers].min())
        allowed = np.sort(of_query[of_query < limit + SCORE_NOISE])[::-1]
        gaps = [*abs(allowed[:1] - limit), *(allowed[4:5] - allowed[5:6]), *(allowed[28:29] - allowed[29:30])]
        if min(gaps, default=1.0) < SCORE_NOISE:
            at_a_limit.add(query)
    return found, at_a_limit
