"""Writes the reference pages: `python -m tools.generate.reference [docs/reference]`.

A test fails if they are out of date.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

from data_io.errors import F2LLMError
from jobs.cli.app import app
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
    """The table of exit codes, from the error classes themselves."""
    rows = [("0", "-", "It worked.", "-", "-")]
    for kind in sorted(_error_classes(), key=lambda kind: (kind.exit_code, kind.__name__)):
        meaning = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        if kind is F2LLMError:
            meaning = "A mistake of this program: run it again with `--debug` and report what it prints."
        rows.append(
            (str(kind.exit_code), kind.__name__, meaning, kind.error_class, "may help" if kind.retryable else "no")
        )
    rows.append(("130", "-", "Stopped by SIGINT (Ctrl-C); a training, after a checkpoint.", "-", "goes on from there"))
    rows.append(("141", "-", "Whoever read the output has gone, as in `f2llm schema | head`.", "-", "-"))
    rows.append(("143", "-", "Stopped by SIGTERM, after a checkpoint.", "-", "goes on from there"))
    return _page(
        "Exit codes",
        "An error prints one message on standard error, with what to do; `--debug` adds the traceback. With `--json` "
        "standard output has an object `error` with `class`, `exit_code`, `message` and `remedy`.",
        _rows(("code", "error", "meaning", "class", "the same command again"), rows),
    )


def job_spec() -> str:
    """Every field of the document, of a sources file and of a study."""
    may_change = ", ".join(f"`{path}`" for path in sorted(MAY_CHANGE))
    example = (
        "apiVersion: f2llm.dev/v1alpha1\nkind: EmbeddingJob\nmetadata:\n  name: my-run\nspec:\n  preset: f2llm-0.6b\n"
        "  data:\n    uri: s3://my-bucket/my-data\n  storage:\n    uri: s3://my-bucket/runs"
    )
    return _page(
        "The document",
        "An `EmbeddingJob` says what to train, on what, how and where. `f2llm validate JOB.yaml --show` prints it with "
        "everything filled in, `f2llm schema` prints its JSON Schema for editors.",
        f"```yaml\n{example}\n```",
        "A field that is left out takes its preset's value, else its default. Paths are relative to the directory the "
        "command runs in. `--set PATH=VALUE` changes any field below, and `spec.` may be left out: "
        "`--set train.epochs=1`. YAML is read by the rules of version 1.2: `off` and `no` are words, not false.",
        *_field_tables(EmbeddingJob),
        "## Presets",
        _rows(("preset", "what it is"), [(f"`{name}`", _preset_words(values)) for name, values in PRESETS.items()]),
        "The rest is the recipe's and the same in all: 512 examples a step, 2 epochs, 500 steps of warm-up.",
        "## What may change when a run goes on",
        f"A document applied again under the same name goes on with its run. These fields may differ from the run's "
        f"first document, since they do not change what a step computes: {may_change}. Any other difference is "
        "refused, naming the field.",
        "## The sources file",
        "What `f2llm data prepare files DATA SOURCES.yaml` reads.",
        f"```yaml\n{_SOURCES_EXAMPLE}\n```",
        *_field_tables(SourcesFile),
        "## The study",
        "What `f2llm ablate STUDY.yaml` reads: `apiVersion` as above, `kind: Study`, `metadata` with a `name`, and "
        "`spec` with these fields ([docs/tasks/ablation-studies.md](../tasks/ablation-studies.md) has examples).",
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
        "What the operator exports for Prometheus. A scrape has to keep the labels `namespace` and `job` "
        "(`honor_labels: true`): they are the job's. What the driver of a job says is there while an attempt is "
        "under way.",
        _rows(("metric", "type", "labels", "what it is"), rows),
    )


def command_line() -> str:
    """Every command with its arguments and options, by typer's own generator."""
    from typer.cli import get_docs_for_click

    command = get_command(app)
    context = command.make_context("f2llm", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="f2llm", title="The command line")  # type: ignore[arg-type]
    # Its lists of commands are cut short, and each command's own heading follows anyway.
    heading, _, rest = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text).partition("\n\n")
    return "\n\n".join(
        [
            _NOTE,
            heading,
            "`f2llm COMMAND --help` says the same in a terminal. Progress goes to standard error, results to standard "
            "output; `NO_COLOR` is respected.",
            rest.strip() + "\n",
        ]
    )


def _error_classes() -> Iterator[type[F2LLMError]]:
    for name in ("data_io.errors", "ray_app.errors", "jobs.errors"):
        for value in vars(import_module(name)).values():
            if isinstance(value, type) and issubclass(value, F2LLMError) and value.__module__ == name:
                yield value


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
    return _rows(("field", "takes", "default", "what it is"), rows)


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
        f"`micro_batch_size: {train['micro_batch_size']}`, {workers['replicas']} workers with a GPU each"
    )


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([_NOTE, f"# {title}", *(part for part in parts if part)]) + "\n"


if __name__ == "__main__":
    write(*(Path(folder) for folder in sys.argv[1:2]))
