"""Whoever can write to a bucket can replace any file of a run, a model, a data set or an index.

Every file is replaced by every kind of hostile content. The commands that read it take turns; with
F2LLM_EVERY_COMMAND=1 each of them reads every kind. No code runs, no command hangs or fills the memory, and each either
does not need the file or ends with one error of its own.
"""

import json
import os
import re
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType

import pytest

from data_io.data_spec import S3Options
from data_io.errors import F2LLMError
from data_io.storage.store import open_store
from jobs.cli.app import call
from jobs.cli.output.error_report import report_error
from jobs.spec.job import parse_job_spec
from jobs.spec.yaml12 import RawSpec
from jobs.workflows.runs import check_run_directory
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import find_model, open_encoder
from ray_app.run_directory.driver_lease import read_driver
from tests.support.finished_run import write_finished_run
from tests.support.hostile import Hostile, hostile_contents
from tests.support.memory import forget_the_peak, memory_mib
from tests.support.plain_workers import train_this_rank
from tests.support.small_training import small_job_spec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]

_EVERY_COMMAND = bool(os.environ.get("F2LLM_EVERY_COMMAND"))
SECONDS = 30
MIB = 700
"""More memory than any of these commands needs for undamaged files of this size."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Without the carriage return, which progress bars of libraries print."""


@dataclass(frozen=True)
class Finished:
    """A run directory and its data set, and a directory for copies and results."""

    run: Path
    data: Path
    scratch: Path


@pytest.fixture(scope="module")
def finished(process_group: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run, data = write_finished_run(tmp_path_factory.mktemp("finished"))
    return Finished(run, data, tmp_path_factory.mktemp("scratch"))


Command = Callable[[Path, Finished], int]
"""Gets the run directory (or data set) with the hostile file; returns an exit code or raises."""


def status(run: Path, _: Finished) -> int:
    return call(["status", str(run)])


def runs(run: Path, at: Finished) -> int:
    return call(["runs", str(run), "--html", str(at.scratch / "runs.html")])


def report(run: Path, _: Finished) -> int:
    return call(["report", str(run)])


def export(run: Path, at: Finished) -> int:
    return call(["export", str(run), "--out", str(at.scratch / "out")])


def merge(run: Path, at: Finished) -> int:
    return call(["merge", str(run), "--out", str(at.scratch / "out")])


def merge_models(run: Path, at: Finished) -> int:
    return call(["merge", str(run), str(at.run), "--out", str(at.scratch / "out")])


def evaluate(run: Path, _: Finished) -> int:
    return call(["evaluate", str(run)])


def embed(run: Path, _: Finished) -> int:
    """As `embed`, `serve`, `index` and `search` open a model."""
    open_encoder.cache_clear()
    open_encoder(find_model(str(run), S3Options()), Cut()).encode(["a text"])
    return 0


def resume(run: Path, at: Finished) -> int:
    """As `run` resumes, without Ray."""
    value = small_job_spec(str(at.data), str(run.parent), record_examples=True)
    check_run_directory(parse_job_spec(RawSpec("job.yaml", value)))
    read_driver(open_store(str(run)))
    value["spec"]["checkpoint"] = {"every": "2 steps", "keep": 2}
    train_this_rank(value["spec"], open_store(str(at.data)), open_store(str(run)), steps=1)
    return 0


def validate(data: Path, _: Finished) -> int:
    return call(["data", "validate", str(data)])


def stats(data: Path, _: Finished) -> int:
    return call(["data", "stats", str(data)])


def train(data: Path, at: Finished) -> int:
    """As a new run starts on a data set."""
    value = small_job_spec(str(data), str(at.scratch / "new"))
    train_this_rank(value["spec"], open_store(str(data)), open_store(str(at.scratch / "out")), steps=1)
    return 0


FILES: dict[str, tuple[Command, ...]] = {
    "attempts/attempt-1.from-00000000": (status, resume, export),
    "checkpoints/step-00000002.attempt-1/manifest.json": (merge,),
    "checkpoints/step-00000002.attempt-1/rank-0.bin": (merge,),
    "checkpoints/step-00000004.attempt-1/manifest.json": (status, resume, export, merge),
    "checkpoints/step-00000004.attempt-1/rank-0.bin": (resume, export, merge),
    "data.json": (runs, report),
    "driver.json": (status, runs, resume),
    "evaluation/after.json": (runs, report, export),
    "evaluation/before.json": (runs, report, export, resume),
    "evaluation/checkpoints.jsonl": (status, runs, report, resume),
    "evaluation/mteb/summary.json": (runs, report, export),
    "events.jsonl": (status, runs, report, resume),
    "examples.jsonl": (report, resume),
    "exit.json": (status, runs, resume),
    "job.yaml": (status, runs, report, export, merge, evaluate, resume),
    "logs/1/driver.log": (status, runs, report),
    "metrics.jsonl": (status, runs, report, resume),
    "model/1_Pooling/config.json": (embed, merge_models, evaluate),
    "model/README.md": (embed, merge_models),
    "model/config.json": (embed, merge_models, evaluate),
    "model/config_sentence_transformers.json": (embed, merge_models, evaluate),
    "model/model.safetensors": (embed, merge_models, evaluate),
    "model/modules.json": (embed, merge_models, evaluate),
    "model/sentence_bert_config.json": (embed, merge_models, evaluate),
    "model/tokenizer.json": (embed, merge_models, evaluate),
    "model/tokenizer_config.json": (embed, merge_models, evaluate),
    "status.json": (status, runs, report, resume),
}
"""Every file of a finished run, with the commands that read it."""
DATA_FILES: dict[str, tuple[Command, ...]] = {
    "manifest.json": (validate, stats, train),
    "manifest.arrow": (validate, stats, train),
    "tokenizer/tokenizer.json": (validate, stats, train),
    "tokenizer/tokenizer_config.json": (validate, stats, train),
    "evaluation/held-out/corpus": (validate, stats),
    "evaluation/held-out/qrels": (validate, stats),
    "evaluation/pairs/pairs": (validate, stats),
    "sources/answers/00000": (validate, stats, train),
}
"""The same for a data set; the names of its other files begin like this."""


def test_no_file_is_left_out(finished: Finished) -> None:
    def names(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert names(finished.run) == FILES.keys()
    known = ("manifest", "tokenizer/", "evaluation/", "sources/")
    assert {name for name in names(finished.data) if not name.startswith(known)} == set()


@pytest.mark.parametrize("file", FILES)
def test_a_hostile_file_of_a_run(
    file: str, finished: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    problems = _problems(finished.run, file, FILES[file], finished, tmp_path, capfd)

    assert list(problems) == []


@pytest.mark.parametrize("file", DATA_FILES)
def test_a_hostile_file_of_a_data_set(
    file: str, finished: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (name,) = {path.relative_to(finished.data).as_posix() for path in finished.data.glob(f"{file}*")}

    problems = _problems(finished.data, name, DATA_FILES[file], finished, tmp_path, capfd)

    assert list(problems) == []


def _problems(
    original: Path,
    file: str,
    commands: tuple[Command, ...],
    finished: Finished,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[str]:
    marker = tmp_path / "code-ran"
    contents = hostile_contents((original / file).read_bytes(), marker, sealed=_with_right_checksum)
    for number, hostile in enumerate(contents):
        if hostile.name == "8 GiB of zeros" and file.endswith(".safetensors"):
            continue  # large models have such files, and it takes a while to hash one
        for command in commands if _EVERY_COMMAND else (commands[number % len(commands)],):
            place = tmp_path / "copy" / original.name
            for folder in (place.parent, finished.scratch / "out", finished.scratch / "new"):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(original, place)
            hostile.write(place / file)
            yield from (
                f"{command.__name__} of {file} with {hostile}: {problem}"
                for problem in _reads(command, place, finished, marker, capfd)
            )


def _with_right_checksum(content: bytes) -> bytes:
    """A manifest of a checkpoint with the checksum of its values."""
    try:
        values = json.loads(content)
        if "crc32" not in values:
            return content
        del values["crc32"]
        return json.dumps({**values, "crc32": zlib.crc32(json.dumps(values, sort_keys=True).encode())}).encode()
    except (ValueError, TypeError, RecursionError):
        return content


def _reads(
    command: Command, place: Path, finished: Finished, marker: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[str]:
    forget_the_peak()
    before, began = memory_mib("VmRSS"), monotonic()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    try:
        code = command(place, finished)
    except F2LLMError as error:
        report_error(error, ())
        code = error.exit_code
    except BaseException as error:
        code = 1
        yield f"raised {type(error).__name__}: {error}"[:300]
    finally:
        signal.alarm(0)
    out, err = capfd.readouterr()
    if code == 1:
        yield f"taken for a bug: {err[-300:]}"
    if code not in (0, 1) and err.count("\nerror: ") + err.startswith("error: ") != 1:
        yield f"exit code {code} without one error: {err[-300:]}"
    if (used := memory_mib("VmHWM") - before) > MIB:
        yield f"used {used} MiB in {monotonic() - began:.0f} s"
    if CONTROL.search(out + err):
        yield f"control characters in {(out + err)[-300:]!r}"
    if marker.exists():
        marker.unlink()
        yield "ran code"


class TooSlow(BaseException):
    """Not an Exception, so that nothing that reads a file takes it for damage."""


def _too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS} s")


def test_the_marker_shows_that_a_pickle_runs_code(tmp_path: Path) -> None:
    import pickle

    (attack,) = (each for each in hostile_contents(b"", tmp_path / "ran") if each.name == "a pickle")
    assert isinstance(attack, Hostile)
    attack.write(tmp_path / "file")

    pickle.loads((tmp_path / "file").read_bytes())

    assert (tmp_path / "ran").exists()
