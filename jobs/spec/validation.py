"""Translates pydantic's errors into messages for the author of a job spec."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from data_io.storage.address import without_credentials
from jobs.errors import ConfigError
from jobs.spec.fields import SpecField
from jobs.spec.yaml12 import RawSpec

# Names in other trainers for fields that have another name here.
_KNOWN_ELSEWHERE = {
    "batch_size": "spec.train.global_batch_size",
    "per_device_train_batch_size": "spec.train.micro_batch_size",
    "train_batch_size": "spec.train.global_batch_size",
    "num_train_epochs": "spec.train.epochs",
    "lr": "spec.train.learning_rate",
    "min_lr": "spec.train.min_learning_rate",
    "max_length": "spec.model.max_seq_length",
    "bf16": "spec.train.precision",
    "mrl_dims": "spec.train.matryoshka_dims",
    "num_workers": "spec.workers.replicas",
    "save_steps": "spec.checkpoint.every",
    "save_total_limit": "spec.checkpoint.keep",
    "output_dir": "spec.storage.uri",
    "model_name_or_path": "spec.model.name_or_path",
}

_EVERY_FIELD = "`f2llm explain` lists all fields (with `--kind Study` or `--kind Sources` for such a file)"


@dataclass(frozen=True)
class Problem:
    """One problem: its line and column, the field, a message with the found and the expected value, and the fix."""

    place: str
    path: str
    message: str
    fix: str

    def line(self) -> str:
        return f"{self.place}: {self.path}: {self.message}"


def raise_problems(name: str, problems: Sequence[Problem]) -> NoReturn:
    """Raise one ConfigError for all problems, with one line per problem."""
    if len(problems) == 1:
        raise ConfigError(problems[0].line(), remedy=problems[0].fix)
    lines = "".join(f"\n  {problem.line()}; {problem.fix}" for problem in problems)
    raise ConfigError(
        f"{name}: {len(problems)} problems{lines}",
        remedy=f"fix each of them; {_EVERY_FIELD}",
    )


def translate(error: ValidationError, raw: RawSpec, fields: Mapping[str, SpecField]) -> list[Problem]:
    """The problems of a job spec, in the order in which pydantic found them."""
    found = error.errors(include_url=False)
    wrong = {details["loc"][:depth] for details in found for depth in range(len(details["loc"]))}
    # pydantic also calls a list with invalid items too short; only the items are reported.
    return [_problem(d, raw, fields) for d in found if not (d["type"] == "too_short" and d["loc"] in wrong)]


def first_problem(error: ValidationError) -> str:
    """The first problem of a small file: the path within the file, and the reason."""
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def close_names(name: str, known: Iterable[str], *, otherwise: str = _EVERY_FIELD) -> str:
    """A fix for an unknown name: the closest known names, or `otherwise` if none is close."""
    known = list(known)
    last = {path: path.rpartition(".")[2] for path in known}
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    close += [path for path in known if last[path] == name.rpartition(".")[2] and path not in close]
    return f"did you mean {' or '.join(f'`{c}`' for c in close[:3])}?" if close else otherwise


def shown(value: Any) -> str:
    """A value as a message shows it: short, without credentials, and strings marked as such."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = without_credentials(str(value))
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"`{text}` (a string)" if isinstance(value, str) else f"`{text}`"


def shown_plain(value: Any) -> str:
    """A value as one line of YAML."""
    return json.dumps(value) if isinstance(value, bool | list | tuple | dict) or value is None else str(value)


def _problem(details: ErrorDetails, raw: RawSpec, fields: Mapping[str, SpecField]) -> Problem:
    path = tuple(details["loc"])
    place = raw.place(path)
    name = ".".join(str(part) for part in path) or "the job spec"
    field = _field(path, fields)
    match details["type"]:
        case "missing":
            expected = f" ({field.expected})" if field and field.expected != "a mapping" else ""
            # The field is missing, so the position is that of its section.
            return Problem(place, name, f"required, but missing{expected}", _give(path, field))
        case "extra_forbidden":
            return Problem(place, name, "unknown field", _unknown(path, fields))
        case "value_error":
            message, _, fix = str(details["ctx"]["error"]).rpartition("; ")
            return Problem(place, name, message, fix)
        case _:
            expected = field.expected if field else details["msg"]
            fix = _fix(details, name, field)
            return Problem(place, name, f"found {shown(details['input'])}, expected {expected}", fix)


def _field(path: tuple[int | str, ...], fields: Mapping[str, SpecField]) -> SpecField | None:
    keys = [part for part in path if isinstance(part, str)]
    # Items of a list are described by the field of the list.
    return fields.get(".".join(keys))


def _give(path: tuple[int | str, ...], field: SpecField | None) -> str:
    name = path[-1]
    examples = {
        ("spec", "data", "uri"): "runs/data",
        ("metadata", "name"): "my-run",
        ("apiVersion",): "f2llm.dev/v1alpha1",
        ("kind",): "EmbeddingJob",
    }
    if path == ("spec", "model"):
        return "add `preset: f2llm-0.6b`, or `model:` with `name_or_path`"
    if path == ("spec", "data"):
        return "add `data:` with `uri`, the path or URI of a prepared data set"
    if example := examples.get(tuple(map(str, path))):
        return f"add `{name}: {example}`"
    return f"add `{name}:`" + (f" ({field.description})" if field and field.description else "")


def _unknown(path: tuple[int | str, ...], fields: Mapping[str, SpecField]) -> str:
    name, parent = str(path[-1]), ".".join(part for part in path[:-1] if isinstance(part, str))
    siblings = [field.path[-1] for field in fields.values() if ".".join(field.path[:-1]) == parent]
    if close := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return f"did you mean `{close[0]}`?"
    if name in _KNOWN_ELSEWHERE:
        return f"the field is called `{_KNOWN_ELSEWHERE[name]}` here"
    if elsewhere := [field.name for field in fields.values() if field.path[-1] == name]:
        return f"did you mean {' or '.join(f'`{e}`' for e in elsewhere)}?"
    return f"remove it; the fields of {parent or 'a job spec'} are {', '.join(siblings)}"


def _fix(details: ErrorDetails, name: str, field: SpecField | None) -> str:
    value = details["input"]
    if name == "metadata.name" and isinstance(value, str):
        slug = re.sub(r"[^a-z0-9]+", "-", value.lower()).lstrip("-0123456789")[:40].strip("-")
        return f"for example `name: {slug or 'my-run'}`"
    if details["type"] == "literal_error" and field is not None:
        choices = field.expected.removesuffix(", or null").removeprefix("one of ").split(", ")
        text = {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else str(value)
        close = [text] if text in choices else difflib.get_close_matches(text, choices, n=1, cutoff=0.5)
        return f"did you mean `{close[0]}`?" if close else f"write `{choices[0]}`"
    if isinstance(value, str) and details["type"] in {"int_type", "float_type", "bool_type"}:
        return (
            "remove the quotes" if re.fullmatch(r"[-+.\deE]+|true|false", value) else "write it without a unit or words"
        )
    ctx = details.get("ctx", {})
    for bound in ("ge", "le"):
        if bound in ctx:
            return f"write `{name.rpartition('.')[2]}: {ctx[bound]}` or {'more' if bound == 'ge' else 'less'}"
    if isinstance(value, float) and value.is_integer() and details["type"] == "int_type":
        return f"write `{int(value)}`"
    if field is not None and not field.required and field.default is not None and field.section is None:
        return f"write `{field.path[-1]}: {shown_plain(field.default)}`, the default, or another valid value"
    return "indent its fields below it" if field and field.section else "write a valid value"
