"""The fields of the job spec, read from its pydantic models: for messages, `--set`, differences and the reference."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.spec.cluster import MOUNT_PATTERN, NAME_PATTERN, OBJECT_NAME_PATTERN, QUANTITY_PATTERN
from ray_app.job_spec import EVERY_PATTERN

JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_PATTERN_WORDS = {
    NAME_PATTERN: " of a-z, 0-9 and -, with a letter or digit at both ends",
    JOB_NAME_PATTERN: " of a-z, 0-9 and -, with a letter at the front and a letter or digit at the end",
    QUANTITY_PATTERN: " that is a quantity, such as 500m, 4Gi or 2",
    OBJECT_NAME_PATTERN: " of a-z, 0-9, - and ., with a letter or digit at both ends",
    MOUNT_PATTERN: " that begins with / and does not end with it, without parts such as .. and without colons",
    EVERY_PATTERN: ": `auto`, a number of steps such as `500 steps`, or a time such as `10 min`",
}


@dataclass(frozen=True)
class SpecField:
    """One field of the job spec.

    `default` has no meaning if the field is `required`. `section` is the model of a field that contains other fields.
    """

    path: tuple[str, ...]
    expected: str
    required: bool
    default: Any
    description: str
    section: type[BaseModel] | None = None
    open_mapping: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path)


def fields_of(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[SpecField]:
    """Every field of the model and of the models inside it. A section comes before its fields."""
    for name, info in model.model_fields.items():
        path = (*prefix, info.alias or name)
        section = section_of(info.annotation)
        yield SpecField(
            path=path,
            expected=expected(info),
            required=info.is_required(),
            default=None if info.is_required() else info.get_default(call_default_factory=True),
            description=_first_line(info.description or (section.__doc__ if section else "") or ""),
            section=section,
            open_mapping=get_origin(_unwrap(info.annotation)[0]) is dict,
        )
        if section is not None:
            yield from fields_of(section, path)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field, also through `Optional`, or of each item of a list; None for a plain value."""
    inner, _, _ = _unwrap(annotation)
    if get_origin(inner) is tuple:
        inner = get_args(inner)[0]
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def expected(info: FieldInfo) -> str:
    """The values that a field accepts: "an integer, at least 1", "one of step, micro_batch, off"."""
    inner, constraints, nullable = _unwrap(info.annotation)
    counted = "of them" if get_origin(inner) is tuple else "characters"
    words = _type_words(inner) + _bounds([*info.metadata, *constraints], counted=counted)
    return f"{words}, or null" if nullable else words


def _unwrap(annotation: Any) -> tuple[Any, list[Any], bool]:
    """(type without Optional and Annotated, constraints found on the way, whether null is allowed)."""
    constraints: list[Any] = []
    nullable = False
    while True:
        if hasattr(annotation, "__metadata__"):
            for item in annotation.__metadata__:
                constraints += item.metadata if isinstance(item, FieldInfo) else [item]
            annotation = annotation.__origin__
        elif get_origin(annotation) in {Union, types.UnionType}:
            inner = [a for a in get_args(annotation) if a is not types.NoneType]
            if len(inner) > 1:
                return annotation, constraints, nullable
            nullable, annotation = True, inner[0]
        else:
            return annotation, constraints, nullable


def _type_words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if get_origin(annotation) in {Union, types.UnionType}:
        return " or ".join(_type_words(each) for each in get_args(annotation))
    if get_origin(annotation) is tuple:
        held, constraints, _ = _unwrap(get_args(annotation)[0])
        words = {str: "strings", int: "integers", float: "numbers"}.get(held, "mappings")
        return f"a list of {words}{_bounds(constraints).replace(',', ', each', 1)}"
    if get_origin(annotation) is dict:
        return "a mapping of strings to strings" if get_args(annotation)[1] is str else "a mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping"
    return {int: "an integer", float: "a number", bool: "a boolean", str: "a string"}[annotation]


def _bounds(constraints: list[Any], *, counted: str = "characters") -> str:
    """The constraints in words. `counted` is the unit of a length."""
    words = ""
    for item in constraints:
        match item:
            case annotated_types.Ge(ge=low):
                words += f", at least {_number(low)}"
            case annotated_types.Gt(gt=low):
                words += f", above {_number(low)}"
            case annotated_types.Le(le=high):
                words += f", at most {_number(high)}"
            case annotated_types.Lt(lt=high):
                words += f", below {_number(high)}"
            case annotated_types.MinLen(min_length=low):
                words += f", at least {low} of them"
            case annotated_types.MaxLen(max_length=high):
                words += f", at most {high} {counted}"
            case _ if pattern := getattr(item, "pattern", None):
                words = f"{_PATTERN_WORDS[pattern]}{words}"
    return words


def _number(value: Any) -> str:
    return "2^63" if value == 2**63 else f"{value:g}" if isinstance(value, float) else str(value)


def _first_line(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())
