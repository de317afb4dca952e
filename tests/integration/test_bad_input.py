"""Bad input, one row each: the message (the location and the remedy), the exit code, and that no file is lost.

Bad job specs have their own table: tests/unit/jobs/cli/test_bad_job_specs.py.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.storage.store import open_store
from data_io.task import Kind
from jobs.cli.app import call
from jobs.spec.job import load_job_spec
from jobs.spec.presets import merged
from ray_app.training.loop import Worker, train
from tests.support.command import f2llm
from tests.support.plain_workers import NoControl
from tests.support.s3_server import S3Server, free_port
from tests.support.small_training import small_job_spec, write_job_spec, write_small_dataset

pytestmark = [
    pytest.mark.integration,
    # Warnings between DeepSpeed, Ray and torch cannot be fixed here.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SECRET = "hunter2"


@dataclass
class Place:
    """The current directory of a case, and the files that a case can put there."""

    folder: Path
    dataset: Path
    trained: Path
    request: pytest.FixtureRequest
    monkeypatch: pytest.MonkeyPatch

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def job(self, changes: dict[str, object] | None = None) -> str:
        """job.yaml: valid except for `changes` below its spec, with its data set in data and its run in runs/small."""
        job_spec = merged(small_job_spec("data", "runs"), {"spec": changes or {}})
        write_job_spec(self.folder / "job.yaml", job_spec)
        return "job.yaml"

    def data(self) -> Path:
        """A complete data set in data."""
        return Path(shutil.copytree(self.dataset, self.folder / "data"))

    def shard(self, source: str = "answers") -> Path:
        """The first shard of a complete data set in data."""
        return min((self.data() / "sources" / source).glob("*.parquet"))

    def run(self) -> Path:
        """A run of two steps with two checkpoints in runs/small, and its data set in data."""
        self.data()
        return Path(shutil.copytree(self.trained, self.folder / "runs" / "small"))

    @property
    def s3(self) -> S3Server:
        server: S3Server = self.request.getfixturevalue("s3")
        return server

    def credentials(self, access_key: str, secret_key: str) -> None:
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)


Prepare = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Bad:
    """A case: `prepare` creates it and returns the command line; the message contains `says` in this order."""

    prepare: Prepare
    exit_code: int
    says: tuple[str, ...]
    process: bool = False
    """Run the command in a separate process, as a user does."""


def validate(text: str | bytes) -> Prepare:
    return lambda place: ["validate", place.write("job.yaml", text)]


def changed(*command: str, **spec: object) -> Prepare:
    """A command on a job spec whose data set exists."""

    def prepare(place: Place) -> list[str]:
        place.data()
        return [command[0], place.job(spec), *command[1:]]

    return prepare


def prepared(name: str, content: str | bytes, *options: str, kind: str = "retrieval") -> Prepare:
    """`data prepare files` of one file, into a directory that contains a complete data set."""

    def prepare(place: Place) -> list[str]:
        place.data()
        return ["data", "prepare", "files", "data", "--source", f"faq:{kind}={place.write(name, content)}", *options]

    return prepare


def sources_file(text: str) -> Prepare:
    def prepare(place: Place) -> list[str]:
        place.write("faq.jsonl", lines({"query": "a", "positive": "b"}))
        return ["data", "prepare", "files", "data", place.write("sources.yaml", text)]

    return prepare


def parquet(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def disagreeing_files(place: Place) -> list[str]:
    place.write("faq/1.jsonl", lines(PAIR))
    place.write("faq/2.jsonl", lines({"query": "a", "answer": "b"}))
    return ["data", "prepare", "files", "made", "--source", "faq:retrieval=faq"]


def few_negatives(place: Place) -> list[str]:
    """The second row has no hard negatives."""
    place.write("few.jsonl", lines({**PAIR, "negatives": ["a", "b"]}, PAIR | {"negatives": []}))
    text = "sources: [{name: faq, address: few.jsonl, kind: retrieval, negatives: 2}]\n"
    return ["data", "prepare", "files", "made", place.write("sources.yaml", text), "--quiet"]


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def flip(path: Path, position: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 1
    path.write_bytes(bytes(content))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def in_data(damage: Callable[[Path], object], *command: str) -> Prepare:
    """A command after `damage` to a complete data set."""

    def prepare(place: Place) -> list[str]:
        damage(place.data())
        return list(command)

    return prepare


def in_shard(damage: Callable[[Path], object], *command: str) -> Prepare:
    def prepare(place: Place) -> list[str]:
        damage(place.shard())
        return list(command)

    return prepare


def in_run(damage: Callable[[Path], object], *command: str) -> Prepare:
    """A command after `damage` to a run."""

    def prepare(place: Place) -> list[str]:
        damage(place.run())
        return list(command)

    return prepare


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        folder.joinpath(name).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def another_table(data: Path) -> None:
    other = open_store(str(data / "other"))
    rows = [Row("a query", "a positive")]
    write_dataset(other, [(SourceInfo(name="answers", kind=Kind.RETRIEVAL, negatives=0), rows)])
    shutil.copy(data / "other" / "manifest.arrow", data / "manifest.arrow")
    shutil.rmtree(data / "other")


def without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def without_manifests(run: Path) -> None:
    for path in run.glob("checkpoints/*/manifest.json"):
        path.unlink()


def newest(run: Path) -> Path:
    return max(run.glob("checkpoints/step-*"))


def flip_a_weight(run: Path) -> None:
    """Flip one bit in a weight of the newest checkpoint: an export does not read the optimizer state."""
    files = json.loads(newest(run).joinpath("manifest.json").read_bytes())["files"]
    name, weight = next((n, i) for n, file in files.items() for i in file["items"] if i["tensor"].startswith("weight/"))
    path = newest(run) / name
    content = bytearray(path.read_bytes())
    content[weight["offset"] + 2 * weight["count"]] ^= 1
    path.write_bytes(bytes(content))


def without_tokenizer(place: Place) -> list[str]:
    place.run()
    shutil.rmtree(place.folder / "data" / "tokenizer")
    return ["export", "runs/small"]


def without_files_of_a_tokenizer(place: Place) -> list[str]:
    run = place.run()
    place.write("empty/readme.txt", "")
    job_spec = yaml.safe_load((run / "job.yaml").read_text())
    job_spec["spec"]["model"]["tokenizer"] = "empty"
    write_job_spec(run / "job.yaml", job_spec)
    return ["export", "runs/small"]


def with_hub_model(place: Place) -> list[str]:
    run = place.run()
    job_spec = yaml.safe_load((run / "job.yaml").read_text())
    job_spec["spec"]["model"] |= {"architecture": None, "name_or_path": "Qwen/Qwen3-0.6B"}
    write_job_spec(run / "job.yaml", job_spec)
    place.monkeypatch.setenv("HF_HOME", str(place.folder / "hub"))
    return ["export", "runs/small"]


def file_for_runs(place: Place) -> list[str]:
    place.data()
    place.write("taken", "not a directory")
    return ["run", place.job({"storage": {"uri": "taken"}})]


def stranger_in_run_directory(place: Place) -> list[str]:
    place.data()
    place.write("runs/small/thesis.txt", "years of work")
    return ["run", place.job()]


def other_job_spec(*options: str) -> Prepare:
    def prepare(place: Place) -> list[str]:
        place.run()
        return ["run", place.job({"train": {"learning_rate": 0.5, "epochs": 1}}), *options]

    return prepare


def nobody_listens(*command: str) -> Prepare:
    def prepare(place: Place) -> list[str]:
        place.monkeypatch.setattr("data_io.storage.store.FIRST_ANSWER_SECONDS", 1.0)
        place.credentials("key", SECRET)
        return [*command, "--allow-http", "--endpoint-url", f"http://127.0.0.1:{free_port()}"]

    return prepare


def wrong_keys(place: Place) -> list[str]:
    uri = f"s3://{place.s3.make_bucket()}/data"
    place.credentials(place.s3.access_key, SECRET)
    return ["data", "stats", uri]


def stranger(place: Place) -> list[str]:
    uri = f"s3://{place.s3.make_bucket()}/runs/small"
    place.credentials(place.s3.stranger_access_key, place.s3.stranger_secret_key)
    return ["status", uri]


def no_bucket(place: Place) -> list[str]:
    assert place.s3.endpoint
    place.data()
    return ["run", place.job({"storage": {"uri": "s3://no-such-bucket/runs"}})]


VALID = yaml.safe_dump(small_job_spec("data", "runs"), sort_keys=False)
PAIR = {"query": "what is a lamp?", "positive": "a source of light"}

BAD: dict[str, Bad] = {
    # The job spec.
    "unknown field": Bad(
        validate(VALID + "  trian: {}\n"), 3, ("job.yaml:", "spec.trian", "hint: ", "did you mean `train`?")
    ),
    "wrong type": Bad(
        validate(VALID.replace("epochs: 8", "epochs: many")),
        3,
        ("job.yaml:", "spec.train.epochs: found `many` (a string), expected an integer", "hint: "),
    ),
    "missing required field": Bad(
        validate(VALID.replace("    uri: data\n", "")), 3, ("spec.data.uri: required, but missing", "add `uri: ")
    ),
    "global batch not a multiple": Bad(
        validate(VALID.replace("global_batch_size: 32", "global_batch_size: 30")),
        3,
        ("global_batch_size=30 is not a multiple of micro_batch_size=8", "global_batch_size: 24"),
    ),
    "fewer micro-batches than workers": Bad(
        validate(VALID + "  workers: {replicas: 5, gpus: 1}\n"),
        3,
        ("train.global_batch_size=32 gives 4 micro-batches", "workers.replicas=5", "train.global_batch_size: 40"),
    ),
    "unknown preset": Bad(
        validate(VALID + "  preset: f2llm-06b\n"), 3, ("spec.preset: found `f2llm-06b`", "did you mean `f2llm-0.6b`?")
    ),
    "YAML syntax error": Bad(validate(VALID + "  workers: {replicas: 2\n"), 3, ("job.yaml:", "expected ',' or '}'")),
    "not YAML but binary": Bad(
        validate(b"\x89PNG\r\n\x1a\n\x00\x00\xff"), 3, ("job.yaml: not UTF-8 text (byte 0)", "save the file as UTF-8")
    ),
    "no such job spec": Bad(lambda place: ["validate", "absent.yaml"], 3, ("absent.yaml: no such file",), process=True),
    "credentials in a URI of the job spec": Bad(
        validate(VALID.replace("uri: data", f"uri: s3://key:{SECRET}@bucket/data")),
        3,
        ("data.uri", "s3://bucket/data contains credentials", "AWS_SECRET_ACCESS_KEY"),
    ),
    "credentials in a field of another type": Bad(
        validate(VALID.replace("uri: runs", f"uri: runs\n    s3: 'https://key:{'x' * 80}/{SECRET}@host'")),
        3,
        ("job.yaml:31:5: spec.storage.s3: found `https://host` (a string), expected a mapping",),
    ),
    "credentials in --set": Bad(
        lambda place: ["validate", place.job(), "--set", f"storage.s3=https://key:{SECRET}@host"],
        3,
        ("--set storage.s3=https://host: spec.storage.s3: found `https://host` (a string), expected a mapping",),
    ),
    "credentials in --source": Bad(
        lambda place: ["data", "prepare", "files", "data", f"--source=faq:ranking=s3://key:{SECRET}@bucket/faq.jsonl"],
        2,
        ("--source faq:ranking=s3://bucket/faq.jsonl: expected NAME:KIND=PATH", "for example"),
    ),
    "credentials in a URI of the command line": Bad(
        lambda place: ["data", "validate", f"s3://key:{SECRET}@bucket/data"],
        3,
        ("s3://bucket/data contains credentials", "AWS_ACCESS_KEY_ID"),
    ),
    "unknown scheme": Bad(
        lambda place: ["status", "gs://bucket/runs/small"],
        3,
        ("'gs://bucket/runs/small' is not an address that can be opened", "s3://bucket/prefix"),
    ),
    "an endpoint without TLS": Bad(
        lambda place: ["data", "stats", "s3://bucket/data", "--endpoint-url", "http://127.0.0.1:1"],
        3,
        ("endpoint_url 'http://127.0.0.1:1' has no TLS", "allow_http: true"),
    ),
    # The job spec and its data set.
    "misspelt source, plan": Bad(
        changed("plan", data={"sources": ["answer"]}),
        3,
        ("answer is not in the manifest of data", "answers, echoes, groups, parity", "did you mean `answers`?"),
    ),
    "misspelt source, run": Bad(
        changed("run", data={"sources": ["answer"]}),
        3,
        ("answer is not in the manifest of data", "answers, echoes, groups, parity", "did you mean `answers`?"),
        process=True,
    ),
    "misspelt source, dry run": Bad(
        changed("run", "--dry-run", data={"sources": ["pairty"]}), 3, ("pairty is not in", "did you mean `parity`?")
    ),
    "no data set": Bad(
        lambda place: ["run", place.job()],
        4,
        ("no data set at", "/data: manifest.json is missing", "correct data.uri", "f2llm data prepare"),
    ),
    # The data set.
    "manifest.json is not JSON": Bad(
        in_data(put("manifest.json", "{'format': 1}"), "data", "stats", "data"),
        4,
        ("data/manifest.json is not a valid manifest", "Invalid JSON", "f2llm data prepare"),
    ),
    "manifest.json was edited": Bad(
        in_data(lambda data: edit(data / "manifest.json", "Find the answer.", "Find it."), "data", "stats", "data"),
        4,
        ("data/manifest.json was edited", "f2llm data prepare"),
    ),
    "manifest.json of a newer program": Bad(
        in_data(
            lambda data: edit(data / "manifest.json", '"format_version": 2', '"format_version": 9'),
            *("data", "stats", "data"),
        ),
        4,
        ("data/manifest.json has format_version 9, expected 2", "use the version"),
    ),
    "manifest.arrow of another write": Bad(
        in_data(another_table, "data", "stats", "data"),
        4,
        ("data/manifest.arrow does not belong to this manifest.json", "f2llm data prepare"),
    ),
    "manifest.arrow is missing": Bad(
        in_data(lambda data: (data / "manifest.arrow").unlink(), "data", "validate", "data", "--quiet"),
        4,
        ("error: no data set at", "/data: manifest.arrow is missing", "f2llm data prepare"),
    ),
    "a shard is missing": Bad(
        in_shard(Path.unlink, "data", "validate", "data", "--quiet"),
        4,
        ("source 'answers', shard sources/answers/00000-", "is missing", "1 problem in", "f2llm data prepare"),
    ),
    "a shard is truncated": Bad(
        in_shard(lambda path: path.write_bytes(path.read_bytes()[:3000]), "data", "validate", "data", "--quiet"),
        4,
        ("source 'answers', shard sources/answers/00000-", "bytes long, expected", "f2llm data prepare"),
    ),
    "a shard is overwritten": Bad(
        in_shard(
            lambda path: shutil.copy(sorted(path.parent.glob("*.parquet"))[1], path),
            *("data", "validate", "data", "--quiet"),
        ),
        4,
        ("shard sources/answers/00000-", "bytes long, expected", "it is another file", "f2llm data prepare"),
    ),
    "a bit of a shard is flipped, validate": Bad(
        in_shard(lambda path: flip(path, 0.3), "data", "validate", "data", "--quiet"),
        4,
        ("source 'answers', shard sources/answers/00000-", "row group 0", "checksum of column", "f2llm data prepare"),
    ),
    "a bit of a shard is flipped, read": Bad(
        in_shard(lambda path: flip(path, 0.3), "data", "stats", "data"),
        4,
        (
            "source 'answers', row group 0 (rows 0 to 15): shard sources/answers/",
            "checksum of column",
            "f2llm data validate",
        ),
    ),
    "a shard is missing, read": Bad(
        in_shard(Path.unlink, "data", "stats", "data"),
        4,
        ("source 'answers', row group 0 (rows 0 to 15): shard sources/answers/", "is missing", "f2llm data validate"),
    ),
    "a shard is truncated, read": Bad(
        in_shard(lambda path: path.write_bytes(path.read_bytes()[:3000]), "data", "stats", "data"),
        4,
        ("source 'answers', row group", "is 3000 bytes long, expected", "f2llm data validate"),
    ),
    "the tokenizer of a data set is damaged": Bad(
        in_data(put("tokenizer/tokenizer.json", '{"model":'), "data", "stats", "data"),
        4,
        ("data/tokenizer is not a valid tokenizer", "prepare the data set again"),
    ),
    "an evaluation set is damaged": Bad(
        in_data(
            lambda data: flip(next((data / "evaluation" / "held-out").glob("corpus*"))),
            *("data", "validate", "data", "--quiet"),
        ),
        4,
        ("evaluation set 'held-out'", "corpus", "f2llm data prepare"),
    ),
    # A user's files.
    "empty source": Bad(prepared("faq.jsonl", ""), 4, ("faq.jsonl", "has no rows", "hint: ")),
    "only a header": Bad(prepared("faq.csv", "query,positive\n"), 4, ("faq.csv has no rows", "write rows into it")),
    "null text": Bad(
        prepared("faq.jsonl", lines(PAIR, {"query": None, "positive": "b"})),
        4,
        ("faq.jsonl, line 2: 'query' is null", "remove the row or fill in the field"),
    ),
    "blank text": Bad(
        prepared("faq.jsonl", lines(PAIR, PAIR, {"query": " \t", "positive": "b"})),
        4,
        ("faq.jsonl, line 3: query is blank", "remove the row or fill in the field"),
    ),
    "broken UTF-8": Bad(
        prepared("faq.csv", b"query,positive\nwhat,caf\xe9\n"),
        4,
        ("faq.csv, line 2: not valid UTF-8", "0xe9", "convert the file to UTF-8"),
    ),
    "missing column": Bad(
        prepared("faq.csv", "title,body\na,b\n"),
        4,
        ("faq.csv has no query column: found title, body", "name the column"),
    ),
    "too few negatives": Bad(
        few_negatives,
        4,
        ("few.jsonl, line 2: 0 hard negatives, but the source needs 2", "give the row more negatives"),
    ),
    "a negative that is the positive": Bad(
        prepared("faq.jsonl", lines({**PAIR, "negative": PAIR["positive"]})),
        4,
        ("faq.jsonl, line 1: negative 1 equals the positive", "remove that negative"),
    ),
    "zip instead of Parquet": Bad(
        lambda place: prepared("faq.parquet", zipped(place))(place),
        4,
        ("faq.parquet: expected Parquet", "found a zip archive", "unpack or convert it"),
    ),
    "zip instead of JSON lines": Bad(
        lambda place: prepared("faq.jsonl", zipped(place))(place),
        4,
        ("faq.jsonl is a zip archive, not jsonl", "unpack it"),
    ),
    "empty file instead of Parquet": Bad(
        prepared("faq.parquet", b""), 4, ("faq.parquet: expected Parquet", "found an empty file", "unpack or convert")
    ),
    "Parquet without rows": Bad(
        prepared("faq.parquet", parquet(query=[], positive=[])), 4, ("faq.parquet has no rows", "leave the file out")
    ),
    "null in Parquet": Bad(
        prepared("faq.parquet", parquet(query=["a", "b"], positive=["c", None])),
        4,
        ("faq.parquet, row 2: 'positive' is null, expected a string", "remove the row or fill in the field"),
    ),
    "numbers in Parquet": Bad(
        prepared("faq.parquet", parquet(query=["a"], positive=[7])), 4, ("faq.parquet, row 1: 'positive' is int",)
    ),
    "broken UTF-8 in Parquet": Bad(
        prepared("faq.parquet", parquet(query=["a", "b"], positive=pa.array([b"c", b"caf\xe9"]).view(pa.string()))),
        4,
        ("faq.parquet, row 2: not valid UTF-8", "write the file again with UTF-8 text"),
    ),
    "a text of 10 MB": Bad(
        prepared("faq.jsonl", lines(PAIR, PAIR | {"positive": "x" * 10**7})),
        4,
        ("faq.jsonl, line 2: positive has 10000000 bytes, the limit is 4194304", "cut the text"),
    ),
    "mixed types": Bad(
        prepared("faq.jsonl", lines(PAIR, PAIR | {"positive": {"text": "b"}})),
        4,
        ("faq.jsonl, line 2: 'positive' is dict, expected a string or a list of strings",),
    ),
    "a lone surrogate": Bad(
        prepared("faq.jsonl", lines(PAIR, PAIR | {"query": "a \ud800"})),
        4,
        ("faq.jsonl, line 2: query is not valid Unicode: lone surrogate U+D800", "fix the encoding of the text"),
    ),
    "half a line": Bad(
        prepared("faq.jsonl", lines(PAIR) + '{"query": "a", "pos'),
        4,
        ("faq.jsonl, line 2", "not valid JSON", "fix the line"),
    ),
    "files of a source with different columns": Bad(
        disagreeing_files, 4, ("faq/2.jsonl, line 1: no 'positive'; the row has query, answer", "add it")
    ),
    "cut gzip": Bad(
        prepared("faq.jsonl.gz", gzip.compress(lines(PAIR).encode() * 50)[:-20]),
        4,
        ("faq.jsonl.gz is truncated", "download it again"),
    ),
    "a JSON array": Bad(
        prepared("faq.json", json.dumps([PAIR])), 4, ("faq.json, line 1: the file is one JSON array", "jq -c")
    ),
    "an unquoted separator": Bad(
        prepared("faq.csv", "query,positive\nwhat, where,here\n"),
        4,
        ("faq.csv, line 2: 3 fields; the header has 2", "quote fields"),
    ),
    "a score that is not a number": Bad(
        lambda place: [
            *prepared("faq.jsonl", lines(PAIR))(place),
            *("--source", "pairs:sts=" + place.write("pairs.csv", "text_a,text_b,score\na,b,high\n")),
        ],
        4,
        ("pairs.csv, line 2: 'score' is 'high', expected a finite number",),
    ),
    "no such file": Bad(
        lambda place: ["data", "prepare", "files", "data", "--source", "faq:retrieval=absent.jsonl"],
        4,
        ("no data file at absent.jsonl", "give the path of a file"),
    ),
    "an unknown file extension": Bad(prepared("faq.txt", "a\n"), 4, ("faq.txt: unknown suffix", ".jsonl")),
    "an unknown kind": Bad(
        prepared("faq.jsonl", lines(PAIR), kind="ranking"), 2, ("--source faq:ranking=", "KIND one of retrieval")
    ),
    "unknown field of a sources file": Bad(
        sources_file("sources:\n  - {name: faq, adress: faq.jsonl, kind: retrieval}\n"),
        3,
        ("sources.yaml:", "adress", "did you mean `address`?"),
    ),
    "two sources with one name": Bad(
        sources_file(
            "sources:\n"
            "  - {name: faq, address: faq.jsonl, kind: retrieval}\n"
            "  - {name: faq, address: faq.jsonl, kind: clustering}\n"
        ),
        3,
        ("two inputs are called 'faq'", "give each its own name"),
    ),
    # The run directory.
    "run directory of another job spec": Bad(
        other_job_spec(),
        6,
        (
            "runs/small: this run was started with a different job spec",
            "spec.train.learning_rate: 0.001 in the run, 0.5 here",
            "hint: ",
        ),
    ),
    "run directory of another job spec, dry run": Bad(
        other_job_spec("--dry-run"),
        6,
        ("spec.train.learning_rate: 0.001 in the run, 0.5 here", "another metadata.name"),
    ),
    "run directory that is not a run": Bad(
        stranger_in_run_directory,
        6,
        ("runs/small is not empty and has no job.yaml: thesis.txt", "choose another metadata.name"),
    ),
    "job.yaml of the run is damaged": Bad(
        in_run(put("job.yaml", "apiVersion: [\n"), "export", "runs/small"), 3, ("runs/small/job.yaml:2:1",)
    ),
    "a file where runs should go": Bad(
        file_for_runs, 5, ("taken/small", "a part of the path is a file, not a directory", "move that file away")
    ),
    "status of nothing": Bad(
        lambda place: ["status", "runs/nothing"], 5, ("no run at runs/nothing", "pass a run directory")
    ),
    "status.json is damaged": Bad(
        in_run(put("status.json", '{"phase"'), "status", "runs/small"),
        5,
        ("runs/small/status.json is damaged", "`f2llm run`"),
    ),
    "report of nothing": Bad(lambda place: ["report", "runs/nothing"], 5, ("no run at", "runs/nothing", "hint: ")),
    "evaluate without a model": Bad(
        in_run(lambda run: None, "evaluate", "runs/small"), 5, ("runs/small has no model", "f2llm export runs/small")
    ),
    "export of nothing": Bad(lambda place: ["export", "runs/nothing"], 5, ("no run at runs/nothing", "job.yaml")),
    # Checkpoints.
    "export without a checkpoint": Bad(
        in_run(without_checkpoints, "export", "runs/small"),
        7,
        ("runs/small has no complete checkpoint", "train it first: `f2llm run`"),
    ),
    "export with half-written checkpoints only": Bad(
        in_run(without_manifests, "export", "runs/small"),
        7,
        ("runs/small has no complete checkpoint", "train it first: `f2llm run`"),
    ),
    "export with a damaged newest checkpoint": Bad(
        in_run(flip_a_weight, "export", "runs/small"),
        7,
        ("rank-0.bin", "step-00000002.attempt-1", "is damaged", "hint: ", "step-00000001.attempt-1"),
        process=True,
    ),
    "export with a damaged manifest of the newest checkpoint": Bad(
        in_run(lambda run: put("manifest.json", "{")(newest(run)), "export", "runs/small"),
        7,
        ("manifest.json", "step-00000002.attempt-1", "cannot be read", "hint: ", "step-00000001.attempt-1"),
    ),
    "export with a file of the newest checkpoint missing": Bad(
        in_run(lambda run: (newest(run) / "rank-0.bin").unlink(), "export", "runs/small"),
        7,
        ("rank-0.bin", "step-00000002.attempt-1", "is missing", "hint: ", "step-00000001.attempt-1"),
    ),
    "export over something that is not a model": Bad(
        in_run(lambda run: None, "export", "runs/small", "--out", "runs"),
        3,
        ("runs is not empty and is not an exported model: it contains small", "pass an empty or new directory"),
    ),
    "export over its own run": Bad(
        in_run(lambda run: None, "export", "runs/small", "--out", "runs/small"),
        3,
        ("runs/small is not empty and is not an exported model", "pass an empty or new directory"),
    ),
    # The model.
    "a data set without a tokenizer": Bad(
        without_tokenizer,
        4,
        ("the model is trained from scratch", "data has no tokenizer", "set model.tokenizer", "--tokenizer-vocabulary"),
    ),
    "a directory without a tokenizer": Bad(
        without_files_of_a_tokenizer,
        8,
        ("cannot load 'empty' from the directory", "use a directory with complete tokenizer.json"),
    ),
    "a hub model without network": Bad(with_hub_model, 8, ("Qwen/Qwen3-0.6B", "hint: ", "HF_HUB_OFFLINE")),
    # Stores.
    "an endpoint without a server": Bad(
        nobody_listens("data", "validate", "s3://bucket/data"),
        5,
        ("s3://bucket/data/manifest.json (endpoint http://127.0.0.1:", "cannot connect", "AWS_ENDPOINT_URL"),
    ),
    "wrong keys": Bad(wrong_keys, 5, ("/data/manifest.json", "access denied", "check AWS_ACCESS_KEY_ID")),
    "no rights in the bucket": Bad(
        stranger, 5, ("/runs/small/status.json", "access denied", "check AWS_ACCESS_KEY_ID")
    ),
    "no such bucket": Bad(no_bucket, 5, ("there is no bucket 'no-such-bucket'", "create it or correct the s3:// URI")),
}


def zipped(place: Place) -> bytes:
    path = place.folder / "rows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.jsonl", lines(PAIR))
    return path.read_bytes()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_small_dataset(open_store(str(folder)))
    return folder


@pytest.fixture(scope="module")
def trained(process_group: None, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was stopped after two steps, with a checkpoint of each step."""
    folder = tmp_path_factory.mktemp("trained")
    job_spec = merged(small_job_spec("data", "runs"), {"spec": {"checkpoint": {"every": "1 steps"}}})
    job = load_job_spec(str(write_job_spec(folder / "document.yaml", job_spec)))
    run = open_store(str(folder / "run"))
    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"))
    store = open_store(str(dataset))
    train("small", job.worker_spec, data=store, run=run, worker=worker, control=NoControl(), stop_after_steps=2)
    run.put("job.yaml", job.to_yaml().encode())
    return folder / "run"


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_message_and_loses_no_file(
    name: str,
    dataset: Path,
    trained: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    case = BAD[name]
    monkeypatch.chdir(tmp_path)
    arguments = case.prepare(Place(tmp_path, dataset, trained, request, monkeypatch))
    before = _contents(tmp_path)

    if case.process:
        ended = _in_a_process(arguments)
        code, output = ended.returncode, ended.stdout + ended.stderr
    else:
        capfd.readouterr()
        code = call(arguments)
        captured = capfd.readouterr()
        output = captured.out + captured.err

    assert code == case.exit_code, output
    _assert_in_order(output, case.says)
    assert "hint: " in output
    assert "Traceback" not in output
    assert SECRET not in output
    assert len(re.findall(r"(?im)^error: ", output)) == 1, output
    after = _contents(tmp_path)
    assert {path: after.get(path) for path in before} == before


def _in_a_process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run in the current directory, which does not contain the packages."""
    path = os.environ.get("PYTHONPATH")
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = root
    try:
        return f2llm(*arguments)
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.relative_to(folder).parts
    }


def _assert_in_order(text: str, pieces: tuple[str, ...]) -> None:
    flat, start = " ".join(text.split()), 0
    for piece in pieces:
        found = flat.find(" ".join(piece.split()), start)
        assert found >= 0, f"{piece!r} is not in, or not in this order in:\n{text}"
        start = found
