"""The report of complete, unfinished, damaged and hostile runs."""

import html
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.offline
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_io.storage.store import Store, open_store
from ray_app.reporting.charts import MOST_SOURCES, checkpoints_chart, loss_chart, series, smooth, source_loss_chart
from ray_app.reporting.run_record import RunRecord, read_run, save_data_facts
from ray_app.reporting.run_report import render_report, write_report
from ray_app.run_directory.evaluation_curve import MeasuredCheckpoint
from ray_app.run_directory.evaluation_report import (
    EvaluationReport,
    QueryExample,
    RankingMetrics,
    RelevantDocument,
    RetrievalResult,
    RetrievedDocument,
    StsResult,
)
from ray_app.run_directory.metrics import SourceMetrics, StepMetrics
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.datasets import write_example

SECTIONS = ["evaluation", "queries", "loss", "speed", "workers", "optimizer", "data", "events", "job-spec"]
HOSTILE = "<script>alert('x')</script><img src=http://example.org/x.png onerror=alert(1)>"


def step(number: int, *, in_batch: bool = True, **fields: Any) -> StepMetrics:
    sources = {
        "docs": SourceMetrics(examples=40, loss=4 / number, hard_negative_loss=1.0, in_batch_loss=0.5),
        "labels": SourceMetrics(examples=24, loss=1.0, hard_negative_loss=1.0, in_batch_loss=None),
    }
    standard = {
        "step": number, "epoch": 0, "loss": 3 / number, "hard_negative_loss": 1.5 / number,
        "in_batch_loss": 1.5 / number if in_batch else None, "learning_rate": 1e-4, "grad_norm": 0.9, "examples": 64,
        "tokens": 4096, "micro_batches_consumed": 4 * number, "workers": 2, "seconds": 0.5, "data_wait_seconds": 0.01,
        "data_requests": 3, "data_bytes": 250_000, "data_retries": 0,
        "sources": sources,
    }  # fmt: skip
    return StepMetrics.model_validate({**standard, **fields})


def evaluation(ndcg: float, *, rank: int | None, query: str = "join paths", name: str = "held-out") -> EvaluationReport:
    example = QueryExample(
        query_id="q1",
        query=query,
        relevant=(RelevantDocument(document_id="d1", text="the expected text", grade=1.0),),
        retrieved=(RetrievedDocument(document_id="d9", text=f"found at {ndcg}", score=0.81, grade=float(rank == 1)),),
        first_relevant_rank=rank,
    )
    metrics = RankingMetrics(ndcg_at_10=ndcg, recall_at_10=ndcg)
    baseline = RankingMetrics(ndcg_at_10=0.4321, recall_at_10=0.5)
    return EvaluationReport(
        sets=(
            RetrievalResult(
                name=name, instruction="", queries=7, documents=99, model=metrics, bm25=baseline, examples=(example,),
                seconds=1.0,
            ),
            StsResult(name="pairs", instruction="", pairs=5, spearman=ndcg, seconds=1.0),
        )
    )  # fmt: skip


def write_run(folder: Path, text: str = "demo") -> Store:
    """A complete run. `text` is used for every text that a run can contain."""
    run = open_store(str(folder))
    job = {
        "kind": "EmbeddingJob",
        "metadata": {"name": text},
        "spec": {"model": {"architecture": {"num_hidden_layers": 2, "hidden_size": 64}}, "data": {"uri": text}},
    }
    run.put("job.yaml", yaml.safe_dump(job).encode())
    status = RunStatus(name=text, phase=Phase.SUCCEEDED, step=30, total_steps=30, message=text, seconds={text: 12.0})
    run.put("status.json", status.model_dump_json().encode())
    sources = {text: SourceMetrics(examples=64, loss=1.0, hard_negative_loss=1.0, in_batch_loss=None)}
    lines = [step(number, sources=step(number).sources | sources).model_dump_json() for number in range(1, 31)]
    run.put("metrics.jsonl", "\n".join(lines).encode() + b"\n")
    run.put("events.jsonl", json.dumps({"time": "2026-01-02T03:04:05.678+00:00", "event": text, text: text}).encode())
    run.put("evaluation/before.json", evaluation(0.0512, rank=None, query=text, name=text).model_dump_json().encode())
    run.put("evaluation/after.json", evaluation(0.6134, rank=1, query=text, name=text).model_dump_json().encode())
    entry = {"kind": "retrieval", "rows": 1000, "negatives": 3, "instruction": text, "license": text, "origin": text}
    evaluations = [{"name": text, "type": "retrieval", "instruction": text, "license": text, "origin": text}]
    data = {"format": "f2llm-dataset", "version": "0123456789abcdef", "sources": [{"name": "docs", **entry}]}
    run.put("data.json", json.dumps({**data, "evaluations": evaluations}).encode())
    return run


class Page(HTMLParser):
    """The page as a browser parses it: elements with attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(script) for script in self.scripts if script.startswith("{")]


def rendered(run: Store) -> Page:
    return Page(render_report(read_run(run)))


def test_a_complete_run_fills_every_section(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path / "demo"))

    assert [attributes.get("id") for tag, attributes in page.elements if tag == "section"] == ["figures", *SECTIONS]
    assert "missing" not in {attributes.get("class") for _, attributes in page.elements}
    assert len(page.figures) == len([1 for _, attributes in page.elements if attributes.get("class") == "chart"]) == 10
    text = " ".join(page.text.split())
    for expected in (
        "demo", "small Qwen3 from scratch (2 layers, 64 wide)", "version 0123456789ab", "before 0.051", "0.613",
        "0.4321", "0.0512", "0.6134", "expected text not in the first 100", "expected text at rank 1",
        "the expected text", "720", "123 k tokens", "2026-01-02 03:04:05", "kind: EmbeddingJob", "2.0 %", "Spearman",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path / "run", HOSTILE))

    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, name, attributes[name])
        assert tag not in ("link", "iframe", "object", "img", "base")
        assert not any(name.startswith("on") for name in attributes)
    styles = re.findall(r"<style>(.*?)</style>", render_report(RunRecord(uri="x")), re.DOTALL)
    assert styles
    assert not any("url(" in style or "@import" in style for style in styles)
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_texts_of_a_run_are_shown_and_stay_inert(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path / "run", HOSTILE))
    harmless = rendered(write_run(tmp_path / "other", "demo"))

    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    # Title, heading, message, phase, three times the set, query, its own source, license, ..., event, key and value.
    assert page.text.count(HOSTILE) == harmless.text.count("demo") >= 15
    names = {trace["name"] for figure in page.figures for trace in figure["data"]}
    assert html.escape(HOSTILE) in names
    assert HOSTILE not in names


def test_plotly_is_in_the_page_once(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path / "run"))

    assert [script == plotly.offline.get_plotlyjs() for script in page.scripts].count(True) == 1


def test_every_section_of_an_empty_run_names_its_missing_files(tmp_path: Path) -> None:
    page = rendered(open_store(str(tmp_path / "nothing")))

    assert [attributes.get("id") for tag, attributes in page.elements if tag == "section"] == SECTIONS
    for missing in (
        "This run has no evaluation", "No example queries", "metrics.jsonl is missing", "data.json is missing",
        "events.jsonl is missing", "job.yaml is missing",
    ):  # fmt: skip
        assert missing in page.text
    assert page.figures == []


def test_a_run_of_one_step_without_evaluation_has_its_charts(tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    run.put("metrics.jsonl", step(1, in_batch=False).model_dump_json().encode())

    page = rendered(run)

    assert len(page.figures) == 8
    (total, hard) = page.figures[0]["data"]
    assert [trace["name"] for trace in (total, hard)] == ["total", "hard negatives"]
    assert total["mode"] == "markers"
    assert "This run has no evaluation" in page.text


@pytest.mark.parametrize("left_out", ["before", "after"])
def test_one_evaluation_is_shown_without_the_other(tmp_path: Path, left_out: str) -> None:
    run = write_run(tmp_path / "run")
    run.delete([f"evaluation/{left_out}.json"])

    page = rendered(run)

    assert f"evaluation/{left_out}.json is missing" in page.text
    assert "not evaluated" in page.text
    drawn = {trace["name"] for figure in page.figures for trace in figure["data"] if trace["type"] == "bar"}
    assert drawn == {"before", "after", "BM25"} - {left_out}


def test_a_damaged_file_leaves_a_note_and_the_rest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.put("metrics.jsonl", run.get("metrics.jsonl") + b'{"step": 31}\n{"step": 32, "epo')
    for key in ("status.json", "evaluation/before.json", "job.yaml"):
        run.put(key, b'{"half": ')

    record = read_run(run)

    assert len(record.steps) == 30
    assert record.after is not None
    assert sorted(note.split(" and ")[0].split(" with missing")[0] for note in record.notes) == [
        "1 line of metrics.jsonl",
        "1 line of metrics.jsonl without a complete JSON object left out.",
        "evaluation/before.json is damaged",
        "job.yaml is damaged",
        "status.json is damaged",
    ]
    assert all(note in rendered(run).text for note in record.notes)


def test_a_recomputed_step_counts_once_with_its_last_result(tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    lines = [step(1), step(2, loss=9.0), step(3), step(2, loss=1.0, workers=3), step(3)]
    run.put("metrics.jsonl", "\n".join(line.model_dump_json() for line in lines).encode())

    record = read_run(run)

    assert [(each.step, each.workers) for each in record.steps] == [(1, 2), (2, 3), (3, 2)]
    assert record.steps[1].loss == 1.0
    assert record.notes == ("2 steps recomputed after a restart. The report shows the last result of each step.",)


def test_the_report_goes_into_the_run_or_into_a_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")

    write_report(tmp_path / "run")
    write_report(run, tmp_path / "elsewhere" / "page.html")

    assert run.get("report.html").decode() == (tmp_path / "elsewhere" / "page.html").read_text(encoding="utf-8")


def test_sources_without_manifest_entry_and_without_examples_are_both_listed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    data = json.loads(run.get("data.json"))
    data["sources"].append({**data["sources"][0], "name": "never-drawn"})
    run.put("data.json", json.dumps(data).encode())

    page = rendered(run)

    assert "never-drawn" in page.text
    assert "labels" in page.text
    assert "unknown" in page.text


def test_the_description_of_the_data_set_is_kept_with_the_run(tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    data = open_store(str(tmp_path / "data"))
    manifest = write_example(data)

    save_data_facts(run, manifest)
    from_facts = read_run(run).data
    run.put("data.json", data.get("manifest.json"))

    assert from_facts is not None
    assert from_facts == read_run(run).data
    assert from_facts.version == manifest.version
    assert [source.license for source in from_facts.sources] == [source.license for source in manifest.sources]


def test_a_long_run_of_many_sources_stays_small() -> None:
    names = [f"source-{i:03}" for i in range(60)]
    metrics = SourceMetrics(examples=8, loss=1.0, hard_negative_loss=0.5, in_batch_loss=0.5)
    steps = [step(i, sources={names[i % 60]: metrics, names[0]: metrics}) for i in range(1, 20001)]

    chart, total = source_loss_chart(steps), loss_chart(steps)

    assert len({trace["name"] for trace in json.loads(chart)["data"]}) == MOST_SOURCES
    assert len(chart) + len(total) < 1_000_000


def test_values_that_are_not_finite_are_gaps() -> None:
    steps = [step(1), step(2, loss=float("nan")), step(3, loss=float("inf")), step(4)]

    assert series(steps, lambda each: each.loss) == [(1, 3.0), (4, 0.75)]
    assert "NaN" not in loss_chart(steps)


def test_checkpoint_evaluations_are_a_curve_per_set_and_their_mean() -> None:
    measured = tuple(
        MeasuredCheckpoint(
            step=step,
            attempt=1,
            score=score,
            sets={"held-out": score, "<b>": score},
            seconds=1.0,
            time=datetime.now(UTC),
        )
        for step, score in ((10, 0.25), (20, 0.75), (30, 0.5))
    )

    page = render_report(RunRecord(uri="run", before=evaluation(0.2, rank=1), measured=measured))

    assert "Best: step 20 with 0.7500, kept as the model best/." in page
    curves = json.loads(checkpoints_chart(measured))["data"]
    assert [(each["name"], each["x"], each["y"]) for each in curves] == [
        (name, [10, 20, 30], [0.25, 0.75, 0.5]) for name in ("mean", "held-out", "&lt;b&gt;")
    ]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200))
def test_a_running_mean_stays_between_the_extremes_and_on_the_steps(values: list[float]) -> None:
    points = list(enumerate(values))

    smoothed = smooth(points)

    assert [number for number, _ in smoothed] == [number for number, _ in points]
    assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for _, value in smoothed)
