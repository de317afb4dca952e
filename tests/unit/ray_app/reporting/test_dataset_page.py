import json
import re
from pathlib import Path

import pytest

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import ConfigError
from data_io.inspection.statistics import DatasetStatistics, dataset_statistics
from data_io.storage.store import open_store
from data_io.task import Kind
from ray_app.reporting.dataset_page import render_data_report, write_data_report


@pytest.fixture
def found() -> DatasetStatistics:
    store = open_store("memory://data-report")
    info = SourceInfo(name="facts", kind=Kind.RETRIEVAL, negatives=1, license="</script><b>MIT")
    rows = [Row("q" * (i % 9 + 1), f"answer {i}", ("no",)) for i in range(50)]
    return dataset_statistics(store, write_dataset(store, [(info, rows)]))


def test_the_charts_show_the_numbers_of_the_statistics(found: DatasetStatistics) -> None:
    page = render_data_report(found)

    rows, lengths = (
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    )
    assert rows["data"][0]["x"] == [50]
    counts = {each["name"]: sum(number for number, _ in each["customdata"]) for each in lengths["data"]}
    assert counts == {"query": 50, "positive": 50, "negative": 50}


def test_every_text_is_counted_at_its_length(found: DatasetStatistics) -> None:
    (source,) = found.sources

    below = dict(zip(found.histogram_edges, source.histograms["query"], strict=True))

    assert sum(below.values()) == source.rows_read == 50
    assert below[2] == 6  # the six queries of one character


def test_texts_of_the_data_set_are_escaped_and_nothing_is_fetched(found: DatasetStatistics) -> None:
    page = render_data_report(found)

    assert "<b>MIT" not in page
    assert "&lt;b&gt;MIT" in page
    assert not re.search(r'(src|href)="http', page.partition("<script>")[0])


def test_a_page_that_cannot_be_written_is_named(found: DatasetStatistics, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_data_report(found, tmp_path)
