"""`f2llm explain`: the fields of the files that people write, and the exit codes."""

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.cli.options import Debug, Json, print_json
from jobs.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jobs.spec.fields import SpecField

Kind = Literal["EmbeddingJob", "Study", "Sources"]
EXIT_CODES = "exit-codes"
_WIDTH = 96


def _complete_name(incomplete: str) -> list[str]:
    from jobs.spec.job import SPEC_FIELDS

    names = [EXIT_CODES, *(name.removeprefix("spec.") for name in SPEC_FIELDS)]
    return [name for name in names if name.startswith(incomplete)]


def explain(
    field: Annotated[
        str | None,
        typer.Argument(
            metavar="FIELD",
            help="Field or section, such as train or train.epochs; or exit-codes. Default: the whole file.",
            autocompletion=_complete_name,
            show_default=False,
        ),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="File that the field belongs to.")] = "EmbeddingJob",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Explain the fields of a job spec, or the exit codes.

    Prints the type, default, allowed values and description of a field and of the fields in it. With --kind: a field of
    a study or of a sources file.
    """
    if field == EXIT_CODES:
        _explain_exit_codes(json=json)
        return
    found = explained(kind, field)
    if json:
        print_json(found)
        return
    for line in _lines(found):
        print(line)


def explained(kind: Kind, name: str | None) -> dict[str, Any]:
    """A field, or the whole file, with the fields directly in it. Raises UsageError with close names if unknown."""
    from jobs.spec.fields import fields_of
    from jobs.spec.validation import close_names

    model = _model_of(kind)
    fields = {field.name: field for field in fields_of(model)}
    if name is None:
        about = " ".join((model.__doc__ or "").split("\n\n")[0].split())
        below = [*_fields_below((), fields, kind), *_fields_below(("spec",), fields, kind)]
        return {"kind": kind, "field": None, "description": about, "fields": below}
    found = fields.get(name) or fields.get(f"spec.{name}")
    if found is None:
        known = [each.removeprefix("spec.") for each in fields]
        command = "f2llm explain" + ("" if kind == "EmbeddingJob" else f" --kind {kind}")
        remedy = close_names(name.removeprefix("spec."), known, otherwise=f"`{command}` lists the fields")
        raise UsageError(f"{kind} has no field {name}", remedy=remedy)
    return {"kind": kind, **_facts(found, kind), "fields": _fields_below(found.path, fields, kind)}


def _model_of(kind: Kind) -> "type[BaseModel]":
    if kind == "Study":
        from jobs.spec.study import StudyFile

        return StudyFile
    if kind == "Sources":
        from jobs.spec.sources_file import SourcesFile

        return SourcesFile
    from jobs.spec.job import EmbeddingJob

    return EmbeddingJob


def _fields_below(path: tuple[str, ...], fields: "Mapping[str, SpecField]", kind: Kind) -> list[dict[str, Any]]:
    return [_facts(field, kind) for field in fields.values() if field.path[:-1] == path]


def _facts(field: "SpecField", kind: Kind) -> dict[str, Any]:
    from jobs.spec.diff import may_change

    facts: dict[str, Any] = {
        "field": field.name,
        "type": field.expected,
        "required": field.required,
        "description": field.description,
    }
    if field.section is not None:
        return facts
    if not field.required:
        facts["default"] = field.default
    if kind == "EmbeddingJob" and field.path[0] == "spec":
        facts["presets"] = _preset_values(field.path[1:])
        facts["may_change_on_resume"] = may_change(".".join(field.path[1:]))
    return facts


def _preset_values(path: tuple[str, ...]) -> dict[str, Any]:
    """The value of a field in each preset that sets it."""
    from jobs.spec.presets import PRESETS

    found: dict[str, Any] = {}
    for name, values in PRESETS.items():
        value: Any = values
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = value
    return found


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"KIND:     {found['kind']}"
    if found["field"] is not None:
        yield f"FIELD:    {found['field']}"
        yield f"TYPE:     {found['type']}"
        if default := _default_text(found):
            yield f"DEFAULT:  {default}"
        if presets := found.get("presets"):
            yield f"PRESETS:  {_presets_text(presets)}"
        if "may_change_on_resume" in found:
            yield f"RESUME:   a resumed run {'can' if found['may_change_on_resume'] else 'cannot'} change it"
    yield ""
    yield from wrap(found["description"], _WIDTH)
    if found["fields"]:
        yield ""
        yield "FIELDS:"
    for each in found["fields"]:
        default = "required" if each["required"] else _default_text(each) and f"default: {_default_text(each)}"
        name = each["field"].removeprefix(f"{found['field']}.")
        yield from wrap(f"{name}: {each['type']}" + (f" ({default})" if default else ""), _WIDTH,
                        initial_indent="  ", subsequent_indent="      ")  # fmt: skip
        yield from wrap(each["description"], _WIDTH, initial_indent="      ", subsequent_indent="      ")


def _default_text(facts: Mapping[str, Any]) -> str:
    """The default as YAML; empty for a section, whose fields have defaults of their own."""
    from jobs.spec.validation import shown_plain

    if facts["required"]:
        return "none, the field is required"
    if "default" not in facts:
        return ""
    return "empty" if facts["default"] in ({}, "") else shown_plain(facts["default"])


def _presets_text(presets: Mapping[str, Any]) -> str:
    from jobs.spec.validation import shown_plain

    texts = {name: shown_plain(value) for name, value in presets.items()}
    if len(set(texts.values())) == 1:
        return f"{next(iter(texts.values()))} in {', '.join(texts)}"
    return ", ".join(f"{text} in {name}" for name, text in texts.items())


def _explain_exit_codes(*, json: bool) -> None:
    from jobs.cli.output.exit_codes import exit_codes

    rows = exit_codes()
    if json:
        print_json({"exit_codes": [row._asdict() for row in rows]})
        return
    names = max(len(row.error) for row in rows)
    print(f"CODE  {'ERROR':<{names}}  RUN AGAIN    MEANING")
    for row in rows:
        start = f"{row.code:<4}  {row.error:<{names}}  {row.again:<11}  "
        for line in wrap(row.meaning, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start)):
            print(line)
