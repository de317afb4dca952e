"""Write the generated reference pages: `python -m tools.generate.reference [docs/reference]`.

tests/unit/tools/generate/test_reference.py fails if the pages are out of date.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

from jobs.cli.app import app
from jobs.cli.output.exit_codes import exit_codes as exit_code_rows
from jobs.spec.diff import MAY_CHANGE
from jobs.spec.fields import SpecField, fields_of
from jobs.spec.job import EmbeddingJob
from jobs.spec.presets import PRESETS
from jobs.spec.sources_file import SourcesFile
from jobs.spec.study import StudySpec
from jobs.spec.validation import shown_plain

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
_SOURCES_EXAMPLE = """\
sources:
- name: faq
  address: faq/*.jsonl
  kind: retrieval
  instruction: Given a question, retrieve its answer.
  mine_lexical: 7
- name: topics
  address: s3://my-bucket/topics.parquet
  kind: clustering
tokenizer_vocabulary: 8192"""
_NOTE = "<!-- Written by `make generate`; do not edit. -->"


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {
        "exit-codes.md": exit_codes(),
        "job-spec.md": job_spec(),
        "command-line.md": command_line(),
        "metrics.md": metrics(),
    }


def write(folder: Path = FOLDER) -> None:
    """Write the pages that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def exit_codes() -> str:
    """The table of exit codes."""
    rows = [(str(row.code), *row[1:]) for row in exit_code_rows()]
    return _page(
        "Exit codes",
        "`f2llm explain exit-codes` prints this table. Every error prints one message on standard error, and usually "
        "a hint how to fix it. `--debug` adds the traceback. With `--json`, standard output has an object `error` with "
        "`class`, `exit_code`, `message` and `remedy`. Errors of class `user` and `data` are in the command, the job "
        "spec or the data.",
        _rows(("code", "error", "meaning", "class", "running the command again"), rows),
    )


def job_spec() -> str:
    """Every field of a job spec, of a sources file and of a study."""
    may_change = "\n".join(f"- `{path}`" for path in sorted(MAY_CHANGE))
    example = (
        "apiVersion: f2llm.dev/v1alpha1\nkind: EmbeddingJob\nmetadata:\n  name: my-run\nspec:\n  preset: f2llm-0.6b\n"
        "  data:\n    uri: s3://my-bucket/my-data\n  storage:\n    uri: s3://my-bucket/runs"
    )
    return _page(
        "Job spec",
        "A job spec is a YAML file that describes one training run: the model, the data, the training settings and "
        "the run directory. On Kubernetes the same file is an `EmbeddingJob` manifest.",
        "`f2llm validate JOB.yaml --show` prints it with all presets and defaults filled in. `f2llm explain FIELD` "
        "explains a field, with `--kind Study` or `--kind Sources` a field of the other files. `f2llm schema` prints "
        "its JSON Schema for editors.",
        f"```yaml\n{example}\n```",
        "Rules for all fields:",
        "- A missing field takes the value of the preset, or else its default.\n"
        "- Paths are relative to the directory in which the command runs.\n"
        "- `--set PATH=VALUE` changes any field. The prefix `spec.` is optional: `--set train.epochs=1`.\n"
        "- YAML follows version 1.2: `off` and `no` are strings, not false.",
        *_field_tables(EmbeddingJob),
        "## Presets",
        _rows(("preset", "values"), [(f"`{name}`", _preset_words(values)) for name, values in PRESETS.items()]),
        "All other values follow the recipe and are the same in all presets: 512 examples per step, 2 epochs, 500 "
        "warm-up steps.",
        "## Fields that may change when a run resumes",
        "The same command with the same `metadata.name` resumes the run. These fields may differ from the job spec "
        "that started the run, because they do not change the result of a step:",
        may_change,
        "Any other difference is refused; the error names the field.",
        "## The sources file",
        "`f2llm data prepare files DATA SOURCES.yaml` reads this file.",
        f"```yaml\n{_SOURCES_EXAMPLE}\n```",
        *_field_tables(SourcesFile),
        "## The study",
        "`f2llm ablate STUDY.yaml` reads this file. It has `apiVersion` as above, `kind: Study`, `metadata` with a "
        "`name`, and a `spec` with the fields below. [Ablation studies](../tasks/ablation-studies.md) has examples.",
        *_field_tables(StudySpec),
    )


def metrics() -> str:
    """Every metric of the operator, from the collectors themselves."""
    from jobs.controller.metrics import FAMILIES

    rows = [
        (f"`{family.name}`", family.type, ", ".join(f"`{label}`" for label in family.labels), family.description)
        for family in FAMILIES
    ]
    return _page(
        "Metrics",
        "The operator exports these metrics for Prometheus at `:8080/metrics`. `namespace` and `job` are those of the "
        "`EmbeddingJob`, so a scrape must keep them (`honor_labels: true`). Metrics that come from the driver of a job "
        "exist only while an attempt runs.",
        _rows(("metric", "type", "labels", "description"), rows),
    )


def command_line() -> str:
    """Every command with its arguments and options, by typer's own generator."""
    from typer.cli import get_docs_for_click

    command = get_command(app)
    context = command.make_context("f2llm", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="f2llm", title="The command line")  # type: ignore[arg-type]
    # Lists of commands are truncated, and each command has its own heading below.
    heading, _, rest = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text).partition("\n\n")
    return "\n\n".join(
        [
            _NOTE,
            heading,
            "`f2llm COMMAND --help` prints the same in a terminal. Progress goes to standard error, results to "
            "standard output. `NO_COLOR` turns colors off.",
            rest.strip() + "\n",
        ]
    )


def _field_tables(model: type[BaseModel]) -> Iterator[str]:
    """A heading and a table for the model's own fields, then for those of each section inside it."""
    sections: dict[tuple[str, ...], list[SpecField]] = {}
    descriptions: dict[tuple[str, ...], str] = {(): ""}
    for field in fields_of(model):
        if field.section is not None:
            descriptions[field.path] = field.description
        sections.setdefault(field.path[:-1], []).append(field)
    for path, fields in sections.items():
        leaves = [field for field in fields if field.section is None]
        if leaves:
            if path:
                yield f"### {'.'.join(path)}"
                yield descriptions[path]
            yield _table(leaves)


def _table(fields: Iterable[SpecField]) -> str:
    rows = [(f"`{field.path[-1]}`", field.expected, _default(field), field.description) for field in fields]
    return _rows(("field", "type", "default", "description"), rows)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _default(field: SpecField) -> str:
    if field.required:
        return "required"
    return "empty" if field.default in ({}, "") else f"`{shown_plain(field.default)}`"


def _preset_words(values: Mapping[str, Any]) -> str:
    train, workers = values["train"], values["workers"]
    return (
        f"{values['model']['name_or_path']}: `learning_rate: {train['learning_rate']}`, "
        f"`micro_batch_size: {train['micro_batch_size']}`, {workers['replicas']} workers with one GPU each"
    )


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([_NOTE, f"# {title}", *(part for part in parts if part)]) + "\n"


if __name__ == "__main__":
    write(*(Path(folder) for folder in sys.argv[1:2]))
