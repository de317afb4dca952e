"""`f2llm data prepare files` killed at any moment and started again: the same data set, and no work done twice."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from data_io.dataset.manifest import load_manifest
from data_io.inspection.verify import verify_dataset
from data_io.preparation.files import prepare_files
from data_io.preparation.inputs import FileInput
from data_io.storage.store import open_store
from data_io.task import Kind
from tests.support.command import F2LLM
from tests.support.s3_server import S3Server
from tests.support.stored import stored

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

Observed = dict[str, tuple[int, int]]
"""Finished objects by path, with inode and time of the last change."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of several files, one with two shards, with repeated rows within and between them."""
    folder = tmp_path_factory.mktemp("files")
    draw = random.Random(5)
    for source, rows in (("faq", 5000), ("web", 300)):
        folder.joinpath(source).mkdir()
        for number in range(4):
            with folder.joinpath(source, f"{number}.jsonl").open("w") as out:
                for _ in range(rows):
                    n = draw.randrange(60 * rows)
                    row = {"query": f"{source} question {n}", "positive": f"answer {n}", "negative": f"no answer {n}"}
                    out.write(json.dumps(row) + "\n")
    return folder


def command(files: Path, out: str) -> list[str]:
    sources = [f"--source={name}:retrieval={files / name}" for name in ("faq", "web")]
    return [*F2LLM, "data", "prepare", "files", out, *sources, "--workers=1", "--memory=1"]


def inputs(files: Path) -> list[FileInput]:
    return [FileInput(name, str(files / name), Kind.RETRIEVAL) for name in ("faq", "web")]


@pytest.fixture(scope="module")
def undisturbed(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set that one process makes in memory."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare_files(open_store(str(folder)), inputs(files))
    return folder


def objects(folder: Path) -> dict[str, Path]:
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): path for path in paths}


def content(folder: Path) -> dict[str, bytes]:
    """Every file in the directory, except files with ETags, which on a local disk are times."""
    stored = {key: path.read_bytes() for key, path in objects(folder).items()}
    return {key: data for key, data in stored.items() if not key.startswith("manifest.")}


def finished(folder: Path) -> Observed:
    """Shards, and intermediate objects that are recorded as finished."""
    found = objects(folder)
    seen = {}
    for key in found:
        if "#" not in key and (key.startswith("sources/") or f"{key}.json" in found):
            # An S3 server still executes the requests of a killed writer: an object can disappear after it was listed.
            with suppress(FileNotFoundError):
                stat = found[key].stat()
                seen[key] = (stat.st_ino, stat.st_mtime_ns)
    return seen


def interrupted(files: Path, out: str, folder: Path, draw: random.Random) -> Iterator[Observed]:
    """Run the command until it ends. Kill it after every one or two changed objects, and yield the finished objects."""
    while True:
        known = set(objects(folder))
        more = draw.randrange(1, 3)
        with subprocess.Popen(command(files, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 120
            while len(objects(folder).keys() ^ known) < more and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
        if process.returncode == 0:
            return
        assert process.returncode == -signal.SIGKILL, said.decode()
        yield finished(folder)


def assert_nothing_was_written_twice(before: Observed, after: Observed) -> None:
    assert {key: seen for key, seen in after.items() if key in before} == {
        key: seen for key, seen in before.items() if key in after
    }


def test_killed_twenty_times_and_resumed_it_writes_the_same_bytes(
    files: Path, undisturbed: Path, tmp_path: Path
) -> None:
    draw = random.Random(20)
    kills = rounds = 0
    while kills < 20:
        folder = tmp_path / f"out-{rounds}"
        rounds += 1
        before: Observed = {}
        for seen in interrupted(files, str(folder), folder, draw):
            kills += 1
            assert_nothing_was_written_twice(before, seen)
            before |= seen
        assert_nothing_was_written_twice(before, finished(folder))

        assert content(folder) == content(undisturbed)
        one, other = (load_manifest(open_store(str(path))) for path in (folder, undisturbed))
        assert one.version == other.version
        assert verify_dataset(open_store(str(folder))).ok
    assert sum(key.startswith("sources/") for key in content(undisturbed)) == 3


def test_killed_and_resumed_on_an_object_store_it_writes_the_same_bytes(
    files: Path, undisturbed: Path, s3: S3Server
) -> None:
    bucket, draw = s3.make_bucket(), random.Random(3)
    folder = s3.folder / bucket / "data"
    whole = open_store(f"s3://{s3.make_bucket()}", s3.options)
    prepare_files(whole, inputs(files))

    kills, before = 0, {}
    for seen in interrupted(files, f"s3://{bucket}/data", folder, draw):
        kills += 1
        assert_nothing_was_written_twice(before, seen)
        before |= seen

    store = open_store(f"s3://{bucket}/data", s3.options)
    assert kills > 3
    assert stored(store) == stored(whole)
    assert content(folder) == content(undisturbed)


def test_two_processes_on_ray_write_the_same_bytes(files: Path, undisturbed: Path, tmp_path: Path) -> None:
    ray = [*command(files, str(tmp_path / "out")), "--workers=2"]

    done = subprocess.run(ray, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "out") == content(undisturbed)


def test_a_file_that_changed_in_the_meantime_restarts_its_work(files: Path, tmp_path: Path) -> None:
    folder, own = tmp_path / "out", tmp_path / "files"
    subprocess.run(["cp", "-r", str(files), str(own)], check=True)
    next(interrupted(own, str(folder), folder, random.Random(7)))
    stale = {key for key in objects(folder) if key.startswith(".f2llm-work/")}
    with own.joinpath("faq", "4.jsonl").open("a") as out:
        out.write(json.dumps({"query": "one more", "positive": "answer", "negative": "no answer"}) + "\n")
    os.utime(own / "faq" / "4.jsonl", (1, 1))

    done = subprocess.run(command(own, str(folder)), capture_output=True, text=True, check=False, timeout=300)

    assert stale
    assert "starting over" in done.stderr
    prepare_files(open_store(str(tmp_path / "whole")), inputs(own))
    assert content(folder) == content(tmp_path / "whole")
