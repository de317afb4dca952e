"""The example in the docstring of the Python client, run against a cluster of plain values."""

import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import jobs.kube.api
import jobs.kube.client
import jobs.spec.job
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import job_spec


class Cluster:
    """Stores one job, which succeeds after its first status."""

    namespace = "team"

    def apply(self, value: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        assert not dry_run
        self.job = value
        return value

    def get(self, kind: str, name: str) -> dict[str, Any]:
        metadata = {**self.job["metadata"], "name": name, "resourceVersion": "1"}
        return {"kind": kind, "metadata": metadata, "status": {"phase": "Training", "progress": "50%"}}

    def watch(self, kind: str, *, version: str) -> Iterator[dict[str, Any]]:
        value = {"kind": kind, "metadata": {"name": "my-run"}, "status": {"phase": "Succeeded", "progress": "100%"}}
        yield {"type": "MODIFIED", "object": value}


def test_the_example_of_the_docstring_runs_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, example = (jobs.kube.client.__doc__ or "").partition("\n\n")
    written = jobs.spec.job.parse_job_spec(RawSpec("job.yaml", job_spec()))
    monkeypatch.setattr(jobs.kube.api, "connect", Cluster)
    monkeypatch.setattr(jobs.spec.job, "load_job_spec", lambda path: written)

    exec(compile(textwrap.dedent(example), "the example", "exec"), {})

    assert capsys.readouterr().out == "50%\n100%\n"
