"""Common mistakes in a job spec: one message each, with the position and the fix, and no traceback."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.cli.app import call

VALID = """\
apiVersion: f2llm.dev/v1alpha1
kind: EmbeddingJob
metadata:
  name: job
spec:
  model:
    name_or_path: Qwen/Qwen3-0.6B
  data:
    uri: data
"""


@dataclass(frozen=True)
class Bad:
    """`says` are parts of the message, in their order; {file} is the path of the job spec."""

    text: str
    says: tuple[str, ...]
    exit_code: int = 3
    options: tuple[str, ...] = ()


def train(line: str) -> str:
    return f"{VALID}  train:\n    {line}\n"


def volumes(*names_and_paths: tuple[str, str]) -> str:
    items = ", ".join(f"{{name: {name}, mount_path: {path}, claim: c}}" for name, path in names_and_paths)
    return f"{VALID}  cluster:\n    volumes: [{items}]\n"


BAD = {
    "a misspelt field": Bad(
        train("microbatch_size: 8"),
        ("{file}:11:5: spec.train.microbatch_size: unknown field", "did you mean `micro_batch_size`?"),
    ),
    "a task of an unknown kind": Bad(
        f"{VALID}  evaluation:\n    tasks: ['faq:search=faq.parquet']\n",
        ("{file}:11", "spec.evaluation.tasks", "expected NAME:KIND=PATH", "for example faq:retrieval=faq.parquet"),
    ),
    "a task with a password": Bad(
        f"{VALID}  evaluation:\n    tasks: ['faq:sts=https://me:secret@example.org/faq.parquet']\n",
        ("{file}:11", "spec.evaluation.tasks", "contains credentials", "put them into environment variables"),
    ),
    "a volume with a name that Kubernetes refuses": Bad(
        volumes(("My_Data", "/data")),
        ("{file}:11:16: spec.cluster.volumes.0.name: found `My_Data` (a string), expected a string of a-z, 0-9 and -",),
    ),
    "a volume with the name of one that every pod has": Bad(
        volumes(("scratch", "/data")),
        ("{file}:11:15: spec.cluster.volumes.0: volume scratch at /data", "scratch, shared-memory, job-spec"),
    ),
    "a volume over the directory that every pod writes to": Bad(
        volumes(("data", "/tmp")), ("spec.cluster.volumes.0: volume data at /tmp", "such as /models")
    ),
    "a volume inside the directory of the job spec": Bad(
        volumes(("data", "/etc/f2llm/data")), ("volume data at /etc/f2llm/data", "such as /models")
    ),
    "a volume at a directory that ends with /": Bad(
        volumes(("data", "/data/")),
        ("found `/data/` (a string), expected a string that begins with / and does not end with it",),
    ),
    "two volumes of one name": Bad(
        volumes(("data", "/a"), ("data", "/b")),
        ("spec.cluster: two volumes have the same name data", "a different one"),
    ),
    "two volumes at one directory": Bad(
        volumes(("a", "/data"), ("b", "/data")),
        ("spec.cluster: two volumes have the same mount_path /data", "a different one"),
    ),
    "a field of the wrong section": Bad(
        f"{VALID}  temperature: 0.05\n",
        ("{file}:10:3: spec.temperature: unknown field", "did you mean `spec.train.temperature`?"),
    ),
    "another trainer's name for a field": Bad(
        train("num_train_epochs: 3"),
        ("{file}:11:5: spec.train.num_train_epochs: unknown field", "the field is called `spec.train.epochs` here"),
    ),
    "an unknown field like no other": Bad(
        f"{VALID}  checkpoint:\n    xyz: 1\n",
        ("{file}:11:5: spec.checkpoint.xyz: unknown field", "the fields of spec.checkpoint are every, keep"),
    ),
    "a number without a unit": Bad(
        f"{VALID}  checkpoint:\n    every: 500\n",
        ("{file}:11:5: spec.checkpoint.every: found `500`, expected a string: `auto`, a number of steps such as",),
    ),
    "a time without a unit": Bad(
        f"{VALID}  checkpoint:\n    every: '10'\n",
        ("{file}:11:5: spec.checkpoint.every: found `10` (a string), expected a string: `auto`, a number of",),
    ),
    "words for a number": Bad(
        train("epochs: two"),
        ("{file}:11:5: spec.train.epochs: found `two` (a string), expected an integer, at least 1",),
    ),
    "a quoted number": Bad(train('epochs: "2"'), ("found `2` (a string), expected an integer", "remove the quotes")),
    "a fraction for an integer": Bad(
        train("epochs: 1.5"), ("spec.train.epochs: found `1.5`, expected an integer", "`epochs: 2`, the default")
    ),
    "an integer written as a fraction": Bad(train("epochs: 2.0"), ("found `2.0`, expected an integer", "write `2`")),
    "zero where at least one is needed": Bad(
        train("epochs: 0"), ("found `0`, expected an integer, at least 1", "write `epochs: 1` or more")
    ),
    "a number out of range": Bad(
        train("temperature: 0"),
        ("found `0`, expected a number, above 0, at most 10", "`temperature: 0.05`, the default"),
    ),
    "not a number": Bad(train("learning_rate: .nan"), ("found `nan`, expected a number, above 0, at most 1",)),
    "null where a value is needed": Bad(train("seed:"), ("spec.train.seed: found null, expected an integer",)),
    "yes for a boolean": Bad(
        train("gradient_checkpointing: yes"),
        ("spec.train.gradient_checkpointing: found `yes` (a string), expected a boolean",),
    ),
    "a choice that is not offered": Bad(
        train("precision: fp16"), ("found `fp16` (a string), expected one of bf16, fp32", "did you mean `bf16`?")
    ),
    "false for the choice off": Bad(
        train("in_batch: false"), ("found false, expected one of step, micro_batch, off", "did you mean `off`?")
    ),
    "an unknown preset": Bad(
        f"{VALID}  preset: f2llm-0.6B\n",
        (
            "{file}:10:3: spec.preset: found `f2llm-0.6B` (a string), expected one of f2llm-0.6b",
            "did you mean `f2llm-0.6b`?",
        ),
    ),
    "a list for a section": Bad(
        f"{VALID}  workers: [1]\n",
        ("{file}:10:3: spec.workers: found a list, expected a mapping", "indent its fields below it"),
    ),
    "text for a list": Bad(
        VALID + "    sources: one\n", ("spec.data.sources: found `one` (a string), expected a list of strings",)
    ),
    "a number in a list of names": Bad(
        VALID + "    sources: [one, 2]\n", ("{file}:10:20: spec.data.sources.1: found `2`",)
    ),
    "an empty list of sources": Bad(
        VALID + "    sources: []\n",
        ("spec.data.sources: found an empty list, expected a list of strings, at least 1 of them",),
    ),
    "an invalid dimension": Bad(
        train("matryoshka_dims: [64, 0]"),
        ("{file}:11:27: spec.train.matryoshka_dims.1: found `0`, expected a list of integers, each at least 1",),
    ),
    "one dimension that is not a list": Bad(
        train("matryoshka_dims: 64"),
        ("spec.train.matryoshka_dims: found `64`, expected a list of integers, each at least 1, at most 32",),
    ),
    "no data": Bad(
        VALID.replace("  data:\n    uri: data\n", ""),
        ("spec.data: required, but missing", "`data:` with `uri`"),
    ),
    "no path of the data": Bad(
        VALID.replace("    uri: data\n", "    prefetch_steps: 4\n"),
        ("spec.data.uri: required, but missing", "add `uri: runs/data`"),
    ),
    "neither model nor preset": Bad(
        VALID.replace("  model:\n    name_or_path: Qwen/Qwen3-0.6B\n", ""),
        ("spec.model: required, but missing", "add `preset: f2llm-0.6b`, or `model:` with `name_or_path`"),
    ),
    "no name": Bad(
        VALID.replace("  name: job\n", "  labels: {}\n"), ("metadata.name: required, but missing", "add `name: my-run`")
    ),
    "a name that Kubernetes would refuse": Bad(
        VALID.replace("name: job", "name: My Run_1"),
        (
            "{file}:4:3: metadata.name: found `My Run_1` (a string), expected a string of a-z, 0-9 and -",
            "for example `name: my-run-1`",
        ),
    ),
    "a name too long for KubeRay": Bad(
        VALID.replace("name: job", f"name: {'x' * 41}"),
        ("metadata.name: found", "at most 40 characters", f"`name: {'x' * 40}`"),
    ),
    "no apiVersion": Bad(
        VALID.replace("apiVersion: f2llm.dev/v1alpha1\n", ""),
        ("apiVersion: required, but missing", "add `apiVersion: f2llm.dev/v1alpha1`"),
    ),
    "another apiVersion": Bad(
        VALID.replace("v1alpha1", "v1"), ("{file}:1:1: apiVersion: found `f2llm.dev/v1` (a string)", "did you mean")
    ),
    "another kind": Bad(
        VALID.replace("EmbeddingJob", "RayJob"), ("kind: found `RayJob` (a string), expected EmbeddingJob",)
    ),
    "a study in place of a job spec": Bad(
        "apiVersion: f2llm.dev/v1alpha1\nkind: Study\nmetadata: {name: s}\nspec: {base: job.yaml, seeds: [0]}\n",
        (
            "error: {file}:2:1: kind: found `Study` (a string), expected EmbeddingJob",
            "hint: check a study with `f2llm ablate {file} --dry-run`",
        ),
    ),
    "batches that do not divide": Bad(
        train("{global_batch_size: 100, micro_batch_size: 32}").replace("train:\n   ", "train:"),
        (
            "{file}:10:3: spec.train: global_batch_size=100 is not a multiple of micro_batch_size=32",
            "global_batch_size: 96",
        ),
    ),
    "a model twice": Bad(
        VALID.replace("Qwen3-0.6B\n", "Qwen3-0.6B\n    architecture: {}\n"),
        ("spec.model: name_or_path=Qwen/Qwen3-0.6B and architecture", "set architecture: null or name_or_path: null"),
    ),
    "a kernel that does not support fp32": Bad(
        train("precision: fp32").replace("Qwen3-0.6B\n", "Qwen3-0.6B\n    attn_implementation: varlen\n"),
        (
            "spec: model.attn_implementation=varlen supports only 16-bit numbers, but train.precision=fp32",
            "set model.attn_implementation: auto or train.precision: bf16",
        ),
    ),
    "credentials in a URI": Bad(
        VALID.replace("uri: data", "uri: s3://key:secret@bucket/data"),
        ("data.uri", "credentials", "AWS_ACCESS_KEY_ID"),
    ),
    "a URI that is not a store": Bad(
        VALID.replace("uri: data", "uri: https://host/data"), ("data.uri", "https://host/data", "s3://bucket/prefix")
    ),
    "a store without TLS": Bad(
        f"{VALID}  storage:\n    s3: {{endpoint_url: 'http://localhost:9000'}}\n",
        ("storage.s3", "http://localhost:9000", "allow_http: true"),
    ),
    "two problems at once": Bad(
        f"{VALID}  workers: 3\n  train:\n    epochs: no\n",
        (
            "{file}: 2 problems",
            "{file}:12:5: spec.train.epochs: found `no` (a string)",
            "{file}:10:3: spec.workers: found `3`",
        ),
    ),
    "a field given twice": Bad(
        train("epochs: 1\n    epochs: 2"), ("{file}:12:5: `epochs` is given twice, first on line 11",)
    ),
    "broken YAML": Bad(f"{VALID}  train: [1\n", ("{file}:11:1: ", "expected ',' or ']'")),
    "tabs": Bad(f"{VALID}\ttrain: 1\n", ("{file}:10:1: found a tab, but YAML indents with spaces",)),
    "a key that is not a string": Bad(f"{VALID}  1: 2\n", ("{file}:10:3: key 1 is not a string",)),
    "an alias that contains itself": Bad("a: &a [*a]\n", ("{file}:1:4: an alias that contains itself",)),
    "two YAML documents in a file": Bad(f"{VALID}---\n{VALID}", ("{file}:10:1: ", "another document")),
    "a tag for a Python object": Bad(
        train("seed: !!python/object/apply:os.getpid []"),
        ("{file}:11:11: could not determine a constructor for the tag",),
    ),
    "an empty file": Bad("", ("{file}: found nothing, expected a mapping with apiVersion",)),
    "a list": Bad("- a\n", ("{file}: found a list, expected a mapping",)),
    "a control character": Bad(f"{VALID}  a: \x07\n", ("{file}", "special characters are not allowed")),
    "an override of an unknown field": Bad(
        VALID, ("--set trian.epochs", "`train.epochs`"), exit_code=2, options=("--set", "trian.epochs=1")
    ),
    "an override without a value": Bad(VALID, ("'=' is missing",), exit_code=2, options=("--set", "train.epochs")),
    "an override that is not YAML": Bad(
        VALID, ("--set train.epochs=[", "write the value as YAML"), options=("--set", "train.epochs=[")
    ),
    "an override of the wrong type": Bad(
        VALID, ("--set train.epochs=x: spec.train.epochs: found `x` (a string)",), options=("--set", "train.epochs=x")
    ),
    "an unknown option": Bad(VALID, ("No such option", "--sett"), exit_code=2, options=("--sett", "a=1")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_job_spec_is_reported_with_position_fix_and_exit_code(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, file = BAD[name], tmp_path / "job.yaml"
    file.write_text(bad.text, encoding="utf-8")

    code = call(["validate", str(file), *bad.options])

    captured = capsys.readouterr()
    assert code == bad.exit_code
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert "secret" not in captured.err
    _assert_in_order(captured.err, [piece.format(file=file) for piece in bad.says])
    if code == 3:
        assert captured.err.startswith("error: ")
        assert "hint: " in captured.err


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("absent.yaml", lambda path: None, "no such file"),
        ("folder", lambda path: path.mkdir(), "is a directory"),
        ("latin.yaml", lambda path: path.write_bytes(b"a: \xe9\n"), "not UTF-8"),
        ("job.json", lambda path: path.write_text("{'a': 1}"), "job.json:1:2: not valid JSON"),
        ("twice.json", lambda path: path.write_text('{"a": 1, "a": 2}'), "`a` is given twice"),
        ("deep.json", lambda path: path.write_text("[" * 100_000), "nested in more than 50 levels"),
    ],
)
def test_a_file_that_is_not_a_job_spec_is_named(name, make, says, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / name)

    code = call(["validate", str(tmp_path / name)])

    error = capsys.readouterr().err
    assert code == 3
    assert name in error
    assert says in error


def test_an_error_is_a_json_object_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["validate", str(tmp_path / "absent.yaml"), "--json"])

    captured = capsys.readouterr()
    assert code == 3
    assert '"exit_code": 3' in captured.out
    assert "no such file" in captured.out
    assert captured.err.startswith("error: ")


def test_debug_adds_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["validate", str(tmp_path / "absent.yaml"), "--debug"])

    error = capsys.readouterr().err
    assert code == 3
    assert "Traceback (most recent call last)" in error


def _assert_in_order(text: str, pieces: list[str]) -> None:
    # The terminal's width decides where the parser's own messages break.
    flat, start = " ".join(text.split()), 0
    for piece in pieces:
        found = flat.find(" ".join(piece.split()), start)
        assert found >= 0, f"{piece!r} is not in, or not in this order in:\n{text}"
        start = found
