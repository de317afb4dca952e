"""Content that an attacker could write to a file of a bucket or a directory."""

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

ESCAPES = "\x1b]0;taken over\x07\x1b[31m\x9b2J\u202eabc"
"""A title and a color for a terminal, in 7 and in 8 bits, and an override of the direction of text."""
HUGE_BYTES = 2**33
DEEP = 30_000


_WRONG = (
    b"null", json.dumps([ESCAPES]).encode(), b'{"a": {}}', b'"x"', b"-1e308", b"NaN", b"1" + b"0" * 30, b"9" * 5000,
    b"[" * DEEP + b"]" * DEEP,
)  # fmt: skip
"""Values of a type or a size that no field expects."""


class _Runs:
    """An object whose pickle runs a command in the process that reads it."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (self._command,)


@dataclass(frozen=True)
class Hostile:
    """A kind of content. `write` gets the path of a file, and replaces it."""

    name: str
    write: Callable[[Path], object]

    def __str__(self) -> str:
        return self.name


def hostile_contents(
    original: bytes, marker: Path, *, sealed: Callable[[bytes], bytes] = lambda content: content
) -> Iterator[Hostile]:
    """Every kind of content for a file that contained `original`. Code that runs creates `marker`.

    `sealed` corrects the checksum that a JSON file has of itself, as an attacker can.
    """
    yield from (Hostile(name, _bytes(content)) for name, content in _contents(original, marker))
    for name, content in _contents(original, marker):
        if (right := sealed(content)) != content:
            yield Hostile(f"{name}, sealed", _bytes(right))
    yield Hostile("8 GiB of zeros", _huge)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE_BYTES)


def _contents(original: bytes, marker: Path) -> Iterator[tuple[str, bytes]]:
    attack = pickle.dumps(_Runs(f"touch {marker}"))
    yield "a pickle", attack
    yield "a torch file", _torch_file(attack)
    yield "nothing", b""
    yield "random bytes", random.Random(0).randbytes(5000)
    yield "deep lists", b"[" * DEEP
    yield "deep mappings", b'{"a":' * DEEP
    yield "closed deep lists", b"[" * DEEP + b"]" * DEEP
    yield "5,000 digits", b"1" * 5000
    yield "an alias bomb", _alias_bomb()
    yield "sexagesimal digits", b"name: 1" + b":59" * 100_000
    yield "a list", b"[]"
    yield "a mapping", b"{}"
    yield "null", b"null"
    yield "escapes", ESCAPES.encode()
    yield "a lone surrogate", b'"\\ud800"'
    yield "half", original[: len(original) // 2]
    yield "one changed byte", original[:-2] + bytes([original[-2] ^ 1]) + original[-1:] if len(original) > 2 else b"x"
    value = _mapping(original)
    if value is None:
        return
    yield "escapes in every text", _dumped(_each_text(value, ESCAPES))
    yield "paths out in every text", _dumped(_each_text(value, "../../x"))
    yield "paths out in every key", _dumped(_each_key(value, "../../x"))
    for key, wrong in zip(value, cycle(_WRONG), strict=False):
        yield f"{key}: {wrong.decode()[:12]}", _dumped({**value, key: "@"}).replace(b'"@"', wrong)


def _torch_file(attack: bytes) -> bytes:
    """The archive of `torch.save` with this pickle."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("archive/data.pkl", attack)
        archive.writestr("archive/version", "3\n")
    return sink.getvalue()


def _alias_bomb() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines).encode()


def _mapping(original: bytes) -> dict[str, Any] | None:
    """The JSON mapping in a file, or in its first line; None if it has another format."""
    for text in (original, original.partition(b"\n")[0]):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _each_text(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {key: _each_text(each, text) for key, each in value.items()}
    if isinstance(value, list):
        return [_each_text(each, text) for each in value]
    return text if isinstance(value, str) else value


def _each_key(value: Any, text: str) -> Any:
    """Mappings inside of `value` with a key that leads out of the directory."""

    def renamed(each: Any) -> Any:
        return {f"{text}/{n}": inner for n, inner in enumerate(each.values())} if isinstance(each, dict) else each

    return {key: renamed(each) for key, each in value.items()}
