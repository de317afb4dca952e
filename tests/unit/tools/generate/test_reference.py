"""The reference pages are what the code says."""

import re
from pathlib import Path

import pytest

from jobs.spec.job import SPEC_FIELDS, parse_job_spec
from jobs.spec.sources_file import load_sources_file
from jobs.spec.yaml12 import read_yaml
from tools.generate.reference import pages


@pytest.mark.parametrize("name", pages())
def test_a_reference_page_is_up_to_date(name: str, project_root: Path) -> None:
    written = (project_root / "docs" / "reference" / name).read_text(encoding="utf-8")

    assert written == pages()[name], "run `make generate`"


def test_every_field_of_the_job_spec_is_described() -> None:
    undescribed = [name for name, field in SPEC_FIELDS.items() if not field.description]

    assert undescribed == []


def test_the_examples_of_the_pages_are_valid(tmp_path: Path) -> None:
    job, sources = re.findall(r"```yaml\n(.*?)\n```", pages()["job-spec.md"], re.DOTALL)
    (tmp_path / "sources.yaml").write_text(sources)

    assert parse_job_spec(read_yaml(job, "job")).spec.preset == "f2llm-0.6b"
    assert [source.name for source in load_sources_file(str(tmp_path / "sources.yaml")).sources] == ["faq", "topics"]
