"""A job spec that nobody trusts: it is refused at once, with its place, whatever it would grow into."""

import json
import time
from collections.abc import Callable

import pytest

from data_io.bounded_yaml import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES
from jobs.errors import ConfigError
from jobs.spec.yaml12 import read_json, read_value, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, f"more than {MAX_VALUES:,} values, aliases included"),
        (MERGES, f"more than {MAX_VALUES:,} values, aliases included"),
        (CHAIN, f"nested in more than {MAX_DEPTH} levels"),
        ("spec: " + "[" * 30_000, f"nested in more than {MAX_DEPTH} levels"),
        ("spec: " + "{a: " * 30_000, f"nested in more than {MAX_DEPTH} levels"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("a: &a {<<: *a}", "an alias that contains itself"),
        ("a: " + "1" * 5_000, "an integer of 5,000 digits"),
        ("a: 0x" + "f" * 5_000, "an integer of 5,002 digits"),
        ("a: x" + " x" * MAX_CHARACTERS, f"expected at most {MAX_CHARACTERS:,}"),
    ],
    ids=lambda value: value[:30],
)
@pytest.mark.parametrize("read", [lambda text: read_yaml(text, "job.yaml"), read_value], ids=["file", "--set"])
def test_yaml_that_grows_is_refused_at_once(read: Callable[[str], object], text: str, says: str) -> None:
    began = time.process_time()

    with pytest.raises(ConfigError, match=says) as caught:
        read(text)

    assert caught.value.remedy
    assert len(caught.value.message) < 300
    assert time.process_time() - began < 5  # not a measurement: without bounds some of these never end


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 30_000, f"nested in more than {MAX_DEPTH} levels"),
        ('{"a":' * 60 + "1" + "}" * 60, f"nested in more than {MAX_DEPTH} levels"),
        ('{"a": ' + "1" * 5_000 + "}", "an integer of 5,000 digits"),
        (json.dumps({"a": "x" * MAX_CHARACTERS}), f"expected at most {MAX_CHARACTERS:,}"),
    ],
    ids=lambda value: value[:30],
)
def test_json_that_grows_is_refused_at_once(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_json(text, "job.json")

    assert caught.value.remedy


def test_aliases_within_the_limits_are_read() -> None:
    text = "base: &base {epochs: 2}\ntrain: {<<: *base, seed: 1}\nagain: *base\n"

    assert read_yaml(text, "job.yaml").value == {
        "base": {"epochs": 2}, "train": {"epochs": 2, "seed": 1}, "again": {"epochs": 2},
    }  # fmt: skip
