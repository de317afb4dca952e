"""YAML from sources that are not trusted: bounded in length, depth and values, aliases included.

An alias costs a few bytes in the text and can stand for a whole tree. Ten levels of ten aliases stand for ten billion
values ("billion laughs"), which a loader keeps cheaply and every later reader would spell out.
"""

from typing import Any

import yaml

MAX_CHARACTERS = 2**20
"""More than a Kubernetes object can hold."""
MAX_DEPTH = 50
MAX_VALUES = 50_000
MAX_DIGITS = 100
"""Of an integer. Python needs quadratic time to read more, and refuses more than 4,300."""


class BoundedLoader(yaml.SafeLoader):
    """Raises yaml.YAMLError for a text beyond the limits, and for an alias that contains itself."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise yaml.YAMLError(f"found {len(text):,} characters, expected at most {MAX_CHARACTERS:,}")
        self._depth = 0
        super().__init__(text)

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _Size().of(node)
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _too_deep(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def bounded_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError as the loader does."""
    return yaml.load(text, BoundedLoader)  # nosec B506


def _bounded_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    """An integer or a number of YAML 1.1. Raises MarkedYAMLError if it is too long: `1:59:59...` is base 60 there."""
    if len(node.value) > MAX_DIGITS:
        raise _too_many_digits(node)
    made: int | float = yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    return made


for _tag in ("int", "float"):
    BoundedLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _bounded_number)


def bounded_int(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """An integer of YAML's core schema. Raises MarkedYAMLError if it has too many digits."""
    text: str = node.value
    if len(text) > MAX_DIGITS:
        raise _too_many_digits(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


class _Size:
    """Values and depth of each node, with every alias spelled out. An anchor comes before its aliases, so each node is
    visited once, and the recursion is as deep as the text.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def of(self, node: Any) -> tuple[int, int]:
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an alias that contains itself", problem_mark=node.start_mark)
        if id(node) not in self._known:
            self._open.add(id(node))
            self._known[id(node)] = self._measured(node)
            self._open.discard(id(node))
        return self._known[id(node)]

    def _measured(self, node: Any) -> tuple[int, int]:
        children: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes = [self.of(child) for child in children]
        values = 1 + sum(count for count, _ in sizes)
        depth = 1 + max((below for _, below in sizes), default=0)
        if values > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"found more than {MAX_VALUES:,} values, aliases included", problem_mark=node.start_mark
            )
        if depth > MAX_DEPTH:
            raise _too_deep(node.start_mark)
        return values, depth


def _too_many_digits(node: yaml.ScalarNode) -> yaml.MarkedYAMLError:
    kind = "an integer" if node.tag.endswith(":int") else "a number"
    return yaml.MarkedYAMLError(
        problem=f"found {kind} of {len(node.value):,} digits, expected at most {MAX_DIGITS}",
        problem_mark=node.start_mark,
    )


def _too_deep(mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"nested in more than {MAX_DEPTH} levels", problem_mark=mark)
