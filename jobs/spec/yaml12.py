"""YAML for job specs: the core schema of YAML 1.2, with line numbers for messages; duplicate keys are errors.

PyYAML follows YAML 1.1, in which `off` is false, `1e-5` is a string and `12:30` is 750. A user who writes
`in_batch: off` means the string. Files written by this module read the same under both versions.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

import yaml

from data_io.bounded_yaml import MAX_CHARACTERS, MAX_DEPTH, MAX_DIGITS, BoundedLoader, bounded_int
from jobs.errors import ConfigError

Path: TypeAlias = tuple[str | int, ...]

_CORE_SCHEMA = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"^<<$"), ["<"]),
)


HOLDS = "apiVersion, kind, metadata and spec"


@dataclass(frozen=True)
class RawSpec:
    """A job spec before validation: plain values, with the line and column of each.

    `places` maps a path such as ("spec", "train", "epochs") to text such as "job.yaml:12:5".
    """

    name: str
    value: dict[str, Any]
    places: Mapping[Path, str] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """Line and column of the value at `path`, or of the nearest value that encloses it."""
        for length in range(len(path), 0, -1):
            if (found := self.places.get(path[:length])) is not None:
                return found
        return self.name

    def with_value(self, value: dict[str, Any], *, changed: Path, place: str) -> "RawSpec":
        """The job spec with `value`; everything at and below the path `changed` now has the position `place`."""
        kept = {path: text for path, text in self.places.items() if path[: len(changed)] != changed}
        return replace(self, value=value, places=kept | {changed: place})


class _Loader(BoundedLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        f"tag:yaml.org,2002:{tag}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{tag}"]
        for tag in ("null", "bool", "float", "str", "seq", "map")
    } | {None: yaml.SafeLoader.yaml_constructors[None]}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Checked before merge keys are flattened, since a key may override a merged key.
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a string", problem_mark=key.start_mark)
            if key.tag not in {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}:
                raise yaml.MarkedYAMLError(
                    problem=f'key {key.value} is not a string; put it in quotes: "{key.value}"',
                    problem_mark=key.start_mark,
                )
            if key.value in first:
                line = first[key.value].start_mark.line + 1
                raise yaml.MarkedYAMLError(
                    problem=f"`{key.value}` is given twice, first on line {line}; remove one",
                    problem_mark=key.start_mark,
                )
            first[key.value] = key
        return super().construct_mapping(node, deep=deep)


_Loader.add_constructor("tag:yaml.org,2002:int", bounded_int)


class Block(str):
    """Text of several lines that YAML writes as a block, so that people can edit it."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would read as another type."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


_Dumper.add_representer(
    Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)
for _tag, _pattern, _first_letters in _CORE_SCHEMA:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first_letters)


def read_yaml(text: str, name: str, *, holds: str = HOLDS) -> RawSpec:
    """Parse one YAML document. Raises ConfigError with `name:line:column` if it is not a single mapping."""
    loader = _loader(text, name)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
        places = {} if node is None else dict(_places(node, name))
    except yaml.YAMLError as error:
        raise _syntax_error(error, name) from None
    finally:
        loader.dispose()
    return RawSpec(name, _mapping(value, name, holds), places)


def read_value(text: str) -> Any:
    """The value of `--set path=text`. Raises ConfigError if it is not YAML."""
    loader = _loader(text, "value")
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise _syntax_error(error, "value") from None
    finally:
        loader.dispose()


def read_json(text: str, name: str, *, holds: str = HOLDS) -> RawSpec:
    """Parse one JSON object. Raises ConfigError with the position of a syntax error, or the name of a duplicate key."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigError(f"{name}: `{key}` is given twice in one object", remedy="remove one of them")
            found[key] = value
        return found

    def bounded(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise ConfigError(
                f"{name}: found an integer of {len(digits):,} digits, expected at most {MAX_DIGITS}",
                remedy="shorten the number",
            )
        return int(digits)

    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{name}: found {len(text):,} characters, expected at most {MAX_CHARACTERS:,}", remedy="pass a job spec"
        )
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_int=bounded)
        if _depth(value) > MAX_DEPTH:
            raise RecursionError
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{name}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}", remedy="fix the syntax there"
        ) from None
    except RecursionError:
        raise ConfigError(f"{name}: nested in more than {MAX_DEPTH} levels", remedy="reduce the nesting") from None
    return RawSpec(name, _mapping(value, name, holds))


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def write_yaml(value: Any) -> str:
    """The value in block style, with keys in their given order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False)


def _loader(text: str, name: str) -> _Loader:
    try:
        return _Loader(text)
    except yaml.YAMLError as error:  # a character that YAML does not allow is found before parsing starts
        raise _syntax_error(error, name) from None


def _mapping(value: Any, name: str, holds: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    found = "nothing" if value is None else f"a {type(value).__name__}"
    raise ConfigError(
        f"{name}: found {found}, expected a mapping with {holds}",
        remedy="write one `field: value` per line; `f2llm explain` lists the fields of a job spec",
    )


def _places(node: yaml.Node, name: str) -> Iterator[tuple[Path, str]]:
    def walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, str]]:
        if isinstance(node, yaml.MappingNode):
            for key, child in node.value:
                yield (*path, key.value), f"{name}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
                yield from walk(child, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                yield (*path, index), f"{name}:{child.start_mark.line + 1}:{child.start_mark.column + 1}"
                yield from walk(child, (*path, index))

    yield from walk(node, ())


def _syntax_error(error: yaml.YAMLError, name: str) -> ConfigError:
    if not isinstance(error, yaml.MarkedYAMLError):
        return ConfigError(f"{name}: not valid YAML: {error}", remedy="pass a job spec, as UTF-8 text")
    mark = error.problem_mark or error.context_mark
    place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = error.problem or error.context or "not valid YAML"
    if "'\\t'" in problem:
        return ConfigError(f"{place}: found a tab, but YAML indents with spaces", remedy="indent with spaces")
    context = f" ({error.context})" if error.context and error.problem else ""
    return ConfigError(f"{place}: {problem}{context}", remedy="fix the YAML there")
