"""The figures of several runs, and the page that shows them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_io.errors import ConfigError
from data_io.storage.store import Store, open_store
from ray_app.reporting.run_record import RunRecord, read_run
from ray_app.reporting.runs_page import render_runs, write_runs_page
from ray_app.reporting.runs_table import figures_of, read_runs
from ray_app.run_directory.status import Phase
from tests.support.written_runs import write_run

GPUS = {"workers": {"replicas": 2, "gpus": 1}}
NOW = datetime.now(UTC)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def place(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "runs"))


def written(place: Store, name: str = "run", **options: Any) -> RunRecord:
    write_run(place.child(name), **options)
    return read_run(place.child(name))


class Page(HTMLParser):
    """Tags with their attributes, text outside scripts, and the figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self.text, self._inside = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and data.startswith("{"):
            self.figures.append(json.loads(data))
        elif self._inside not in ("script", "style"):
            self.text += data


def test_runs_are_found_at_any_depth_but_not_inside_a_run(place: Store) -> None:
    for name in ("a", "team/b", "team/deep/c"):
        write_run(place.child(name))
    write_run(place.child("a/copies/old"))
    write_run(place.child(".trash/d"))
    place.put("data/manifest.json", b"{}")

    names = [name for name, _ in read_runs(place)]

    assert names == ["a", "team/b", "team/deep/c"]


def test_a_run_directory_itself_contains_one_run(place: Store) -> None:
    write_run(place.child("a"))

    assert [(name, record.name) for name, record in read_runs(place.child("a"))] == [("", "a")]


def test_a_missing_directory_has_no_runs(place: Store) -> None:
    assert read_runs(place) == []


def test_hours_are_those_between_the_start_and_the_end_of_workers_and_gpus_are_counted(place: Store) -> None:
    found = figures_of("run", written(place, spec=GPUS, workers=3, hours=2.0), gpu_price=2.5, now=NOW)

    assert found.worker_hours == pytest.approx(6.0)
    assert found.gpu_hours == pytest.approx(6.0)
    assert found.cost == pytest.approx(15.0)


def test_without_gpus_there_are_worker_hours_and_no_cost(place: Store) -> None:
    found = figures_of("run", written(place, hours=2.0), gpu_price=2.5, now=NOW)

    assert (found.gpu_hours, found.cost) == (None, None)
    assert found.worker_hours == pytest.approx(4.0)


def test_without_events_worker_hours_come_from_the_steps(place: Store) -> None:
    record = replace(written(place, steps=36), events=())

    assert figures_of("run", record, gpu_price=None, now=NOW).worker_hours == pytest.approx(36 * 0.5 * 2 / 3600)


def test_an_active_run_counts_until_its_last_update(place: Store) -> None:
    record = written(place, phase=Phase.TRAINING, steps=9, ndcg=None, hours=1.0)
    assert record.status is not None
    later = replace(record, status=record.status.model_copy(update={"updated": datetime.now(UTC) + timedelta(hours=1)}))

    assert figures_of("run", later, gpu_price=None, now=NOW).worker_hours == pytest.approx(4.0, rel=0.01)


def test_the_loss_is_the_mean_of_the_last_twentieth_of_the_steps(place: Store) -> None:
    record = written(place)

    expected = sum(step.loss or 0 for step in record.steps[-2:]) / 2

    assert figures_of("run", record, gpu_price=None, now=NOW).loss == pytest.approx(expected)


def test_a_damaged_run_has_a_row_with_a_note(place: Store) -> None:
    write_run(place.child("good"))
    write_run(place.child("bad"))
    place.put("bad/status.json", b'{"name": "ba')
    place.put("bad/evaluation/after.json", b"[]")
    place.put("new/job.yaml", b"kind: EmbeddingJob")

    bad, good, new = (figures_of(name, record, gpu_price=None, now=NOW) for name, record in read_runs(place))

    assert good.notes == ()
    assert bad.notes == (
        "status.json is damaged and was left out.",
        "evaluation/after.json is damaged and was left out.",
    )
    assert (bad.phase, bad.step, bad.ndcg_at_10_after) == (None, 40, None)
    assert "not started" in new.notes[0]


def test_a_run_without_heartbeats_has_lost_contact_in_its_row_and_on_the_page(place: Store) -> None:
    record = written(place, phase=Phase.TRAINING, steps=9, ndcg=None)
    later = datetime.now(UTC) + timedelta(minutes=7, seconds=5)

    lost = figures_of("run", record, gpu_price=None, now=later)
    alive = figures_of("run", replace(record, heartbeat=later), gpu_price=None, now=later)

    assert lost.notes == ("no heartbeat from the driver for 7 min; `f2llm run` starts from step 0.",)
    assert lost.stale_seconds == pytest.approx(425, abs=5)
    assert (alive.notes, alive.stale_seconds) == ((), None)
    assert "Training (lost contact)" in Page(render_runs("runs", [(lost, record)], [], price="")).text


def test_the_page_shows_every_run_its_curves_and_differences(place: Store, tmp_path: Path) -> None:
    write_run(place.child("first"), spec=GPUS)
    write_run(place.child("second"), spec=GPUS, ndcg=(0.05, 0.7123))
    runs = [(figures_of(name, record, gpu_price=2.0, now=NOW), record) for name, record in read_runs(place)]
    differences = [("train.seed", {"first": "0", "second": "7"})]

    write_runs_page(place.uri, runs, differences, tmp_path / "page" / "runs.html", price="2 for an hour of one H100")

    page = Page((tmp_path / "page" / "runs.html").read_text())
    assert [len(figure["data"]) for figure in page.figures] == [4, 4, 2, 1, 1]  # faint and smooth; before, after; ...
    assert {"first", "second"} <= {trace["name"] for trace in page.figures[0]["data"]}
    assert all(text in page.text for text in ("0.712", "12.00", "2 for an hour of one H100", "train.seed"))


def test_the_page_fetches_and_runs_nothing_for_any_names_of_runs(place: Store) -> None:
    record = replace(written(place), uri=f"s3://bucket/{HOSTILE}", notes=(HOSTILE,))
    figures = figures_of(HOSTILE, record, gpu_price=None, now=NOW)

    page = Page(render_runs(HOSTILE, [(figures, record)], [(HOSTILE, {HOSTILE: HOSTILE})], price=HOSTILE))

    assert [tag for tag, _ in page.tags].count("script") == len(page.figures) + 2
    assert not [attributes for _, attributes in page.tags if attributes.keys() & {"src", "onerror"}]
    assert page.text.count(HOSTILE) >= 6


def test_a_page_that_cannot_be_written_is_named(place: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_runs_page(place.uri, [], [], tmp_path, price="")
