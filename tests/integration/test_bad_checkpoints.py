"""Resumes with bad checkpoints, without Ray: a damaged checkpoint is skipped, one of another run or version is refused.

Resuming from an older checkpoint instead of a refused one would lose work without an error.
"""

import json
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from data_io.errors import StoreAccessError
from data_io.storage.store import Store, open_store
from ray_app.checkpointing.checkpoint import StoredWeights
from ray_app.errors import CheckpointError
from ray_app.job_spec import JobSpec
from ray_app.run_directory.attempts import begin_attempt
from ray_app.run_directory.checkpoint_manifest import FORMAT_VERSION, list_checkpoints
from ray_app.training.loop import Worker, train
from tests.support.plain_workers import NoControl
from tests.support.small_training import read_lines, small_job_spec

pytestmark = [
    pytest.mark.integration,
    # Warnings between DeepSpeed and torch cannot be fixed here.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

NEWEST, BEFORE = "step-00000006.attempt-1", "step-00000004.attempt-1"
STEPS = 6


@pytest.fixture(scope="module")
def trained(process_group: None, data: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with checkpoints at steps 2, 4 and 6."""
    run = tmp_path_factory.mktemp("trained")
    _train(data, run, stop_after_steps=STEPS)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def _train(data: Store, run: Path, *, stop_after_steps: int, **overrides: dict[str, Any]) -> None:
    spec = small_job_spec(data.uri, "unused", epochs=2, record_examples=False)["spec"]
    spec["checkpoint"] = {"every": "2 steps", "keep": 3}
    for section, fields in overrides.items():
        spec[section] |= fields
    train(
        "small",
        JobSpec.model_validate(spec),
        data=data,
        run=open_store(str(run)),
        worker=Worker(rank=0, world_size=1, device=torch.device("cpu")),
        control=NoControl(),
        stop_after_steps=stop_after_steps,
    )


# Kinds of damage to a checkpoint. Each function gets its directory.


def _remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def _cut(file: str, length: int) -> Callable[[Path], None]:
    """Keep the first `length` bytes, or all but the last `-length`."""
    return lambda folder: _rewrite(folder / file, lambda content: content[:length])


def _flip(file: str, place: float = 0.5) -> Callable[[Path], None]:
    def flip(content: bytes) -> bytes:
        middle = int(len(content) * place)
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]

    return lambda folder: _rewrite(folder / file, flip)


def _swap_halves(folder: Path) -> None:
    _rewrite(folder / "rank-0.bin", lambda content: content[len(content) // 2 :] + content[: len(content) // 2])


def _text(old: str, new: str) -> Callable[[Path], None]:
    """Change text in the manifest without changing its checksum."""
    return lambda folder: _rewrite(folder / "manifest.json", lambda c: c.replace(old.encode(), new.encode(), 1))


def _manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A manifest with other values, whose own checksum is correct."""

    def rewrite(content: bytes) -> bytes:
        values = json.loads(content)
        del values["crc32"]
        change(values)
        return json.dumps(values | {"crc32": zlib.crc32(json.dumps(values, sort_keys=True).encode())}).encode()

    return lambda folder: _rewrite(folder / "manifest.json", rewrite)


def _forget_last_item(values: dict[str, Any]) -> None:
    values["files"]["rank-0.bin"]["items"].pop()


def _move_first_item(values: dict[str, Any]) -> None:
    values["files"]["rank-0.bin"]["items"][0]["start"] += 1


def _add_to_crc(values: dict[str, Any]) -> None:
    values["files"]["rank-0.bin"]["items"][0]["crc32"] ^= 1


def _replace_by_copy_of_older(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name(BEFORE), folder)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@dataclass(frozen=True)
class Damage:
    """A damage to the newest checkpoint, and the words that its message must have."""

    name: str
    harm: Callable[[Path], None]
    words: str

    def __str__(self) -> str:
        return self.name


DAMAGES = [
    Damage("a rank's file is missing", _remove("rank-0.bin"), "rank-0.bin of checkpoint .* is missing"),
    Damage("a rank's file is cut", _cut("rank-0.bin", -1), r"rank-0.bin .* has a size of \d+ bytes, expected \d+"),
    Damage("a rank's file is empty", _cut("rank-0.bin", 0), "rank-0.bin of checkpoint .* has a size of 0 bytes"),
    Damage("a bit of a rank's file", _flip("rank-0.bin"), r"rank-0.bin .* is damaged: bytes \d+ to \d+"),
    Damage("the first bit of a rank's file", _flip("rank-0.bin", 0), "rank-0.bin .* is damaged: bytes 0 to"),
    Damage("halves of a rank's file swapped", _swap_halves, "rank-0.bin .* is damaged"),
    Damage("an empty manifest", _cut("manifest.json", 0), "manifest.json .* cannot be read: .*EOF"),
    Damage("a cut manifest", _cut("manifest.json", 400), "manifest.json .* cannot be read: .*EOF"),
    Damage("a manifest of zeros", lambda f: _rewrite(f / "manifest.json", lambda c: bytes(len(c))), "cannot be read"),
    Damage("a manifest that is a list", lambda f: _rewrite(f / "manifest.json", lambda _: b"[]"), "cannot be read"),
    Damage("one digit of a manifest", _text('"micro_batches_consumed": 2', '"micro_batches_consumed": 3'), "checksum"),
    Damage("a manifest without a field", _manifest(lambda v: v.pop("workers")), "manifest.json .*: workers: Field"),
    Damage("a manifest of no format", _manifest(lambda v: v.pop("format_version")), "format_version: Field required"),
    Damage("a wrong size", _manifest(lambda v: v["files"]["rank-0.bin"].update(size=7)), "the file has 7"),
    Damage("a wrong checksum", _manifest(_add_to_crc), "rank-0.bin .* do not match their checksum"),
    Damage("a piece that is not listed", _manifest(_forget_last_item), r"its pieces have \d+ bytes, and the file has"),
    Damage("a piece of another place", _manifest(_move_first_item), "the piece after value 0 starts at value 1"),
    Damage(
        "a file that is not there", _manifest(lambda v: v["files"].update(a={"size": 0, "items": []})), "a of .* is"
    ),
    Damage(
        "an older one under its name", _replace_by_copy_of_older, f"manifest.json .* belongs to checkpoint {BEFORE}"
    ),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_damaged_checkpoint_is_skipped_for_the_newest_undamaged_one(damage: Damage, data: Store, run: Path) -> None:
    damage.harm(run / "checkpoints" / NEWEST)

    _train(data, run, stop_after_steps=1)

    lines = _events(run, "CheckpointDamaged")
    assert len(lines) == 1
    assert re.search(rf"checkpoint {NEWEST} is skipped: .*{damage.words}", lines[0]["message"])
    assert _events(run, "Resumed")[0]["checkpoint"] == BEFORE


def test_a_checkpoint_without_a_manifest_does_not_count(data: Store, run: Path) -> None:
    _remove("manifest.json")(run / "checkpoints" / NEWEST)

    _train(data, run, stop_after_steps=1)

    assert _events(run, "CheckpointDamaged") == []
    assert _events(run, "Resumed")[0]["checkpoint"] == BEFORE


def test_files_that_are_not_checkpoints_are_not_changed(data: Store, run: Path) -> None:
    strange = [
        "notes.txt",
        "manifest.json",
        "best/manifest.json",
        "step-99.attempt-1/manifest.json",
        "step-00000099.attempt-1.bak/manifest.json",
        "step-00000099.attempt-1/copy/manifest.json",
        f"{NEWEST}/notes.txt",
    ]
    for key in strange:
        file = run / "checkpoints" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{}")

    _train(data, run, stop_after_steps=STEPS + 1)

    assert _events(run, "CheckpointDamaged") == []
    assert _events(run, "Resumed")[0]["checkpoint"] == NEWEST
    assert [key for key in strange if not (run / "checkpoints" / key).exists()] == []


def test_a_checkpoint_of_a_replaced_attempt_does_not_belong_to_the_run(data: Store, run: Path) -> None:
    begin_attempt(open_store(str(run)), 2, 4)  # resumed from step 4 while attempt 1 was still writing step 6

    _train(data, run, stop_after_steps=1)

    assert _events(run, "CheckpointDamaged") == []
    assert _events(run, "Resumed")[0]["checkpoint"] == BEFORE


def test_every_skipped_damaged_checkpoint_is_named(data: Store, run: Path) -> None:
    _flip("rank-0.bin")(run / "checkpoints" / NEWEST)
    _remove("rank-0.bin")(run / "checkpoints" / BEFORE)

    _train(data, run, stop_after_steps=1)

    assert [line["message"].split()[1] for line in _events(run, "CheckpointDamaged")] == [NEWEST, BEFORE]
    assert _events(run, "Resumed")[0]["step"] == 2


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_names_them(data: Store, run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        _cut("rank-0.bin", 100)(folder)

    with pytest.raises(CheckpointError) as caught:
        _train(data, run, stop_after_steps=1)

    assert re.search(r"no checkpoint of .* can be used", caught.value.message)
    assert len(re.findall(r"rank-0.bin of .* has a size of 100 bytes", caught.value.message)) == 3
    assert "from a backup" in str(caught.value.remedy)


@dataclass(frozen=True)
class Refusal:
    """A reason to refuse an undamaged newest checkpoint, and the words that the error must have."""

    name: str
    words: str
    remedy: str
    change: Callable[[Path], None] = lambda folder: None
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _progress(**fields: Any) -> Callable[[Path], None]:
    return _manifest(lambda values: values["progress"]["fingerprint"].update(fields))


_ORDER = "made with another data order: "
_SETTINGS = "use the data and the settings of the run"
_MODEL = "train the model of the run"
_SHAPE = {"hidden_size": 64, "head_dim": 32, "intermediate_size": 128}

REFUSALS = [
    Refusal(
        "a newer format",
        f"has format {FORMAT_VERSION + 1}, but this version of f2llm-ray reads format {FORMAT_VERSION}",
        "resume with the newer version of f2llm-ray",
        lambda f: _rewrite(f / "manifest.json", lambda _: b'{"format_version": %d, "crc32": 0}' % (FORMAT_VERSION + 1)),
    ),
    Refusal(
        "an older format",
        "has format 0",
        "resume with the older version of f2llm-ray",
        _manifest(lambda values: values.update(format_version=0)),
    ),
    Refusal(
        "a newer planner",
        f"{_ORDER}planner_version",
        "resume with the version of f2llm-ray that wrote it",
        _progress(planner_version=99),
    ),
    Refusal("another data set", f"{_ORDER}data_version", _SETTINGS, _progress(data_version="0123456789abcdef")),
    Refusal("another tokenizer", f"{_ORDER}tokenizer", _SETTINGS, _progress(tokenizer="0123456789abcdef")),
    Refusal("another seed", f"{_ORDER}seed: 5 here, 0 there", _SETTINGS, overrides={"train": {"seed": 5}}),
    Refusal(
        "another micro-batch",
        f"{_ORDER}micro_batch_size: 4 here, 8 there",
        _SETTINGS,
        overrides={"train": {"micro_batch_size": 4}},
    ),
    Refusal(
        "another batch",
        f"{_ORDER}micro_batches_per_step: 2 here, 4 there",
        _SETTINGS,
        overrides={"train": {"global_batch_size": 16}},
    ),
    Refusal(
        "another width",
        r"is of another model\. .*embed_tokens.* has \d+ values here and \d+ in the checkpoint",
        _MODEL,
        overrides={"model": {"architecture": {**_SHAPE, "hidden_size": 32}}},
    ),
    Refusal(
        "fewer layers",
        r"is of another model\. .*layers.1.* has no values here",
        _MODEL,
        overrides={"model": {"architecture": {**_SHAPE, "num_hidden_layers": 1}}},
    ),
    Refusal(
        "more layers",
        r"is of another model\. .*layers.2.* and no in the checkpoint",
        _MODEL,
        overrides={"model": {"architecture": {**_SHAPE, "num_hidden_layers": 3}}},
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_an_undamaged_checkpoint_that_does_not_match_is_refused_and_not_skipped(
    refusal: Refusal, data: Store, run: Path
) -> None:
    refusal.change(run / "checkpoints" / NEWEST)
    before = [str(name) for name in list_checkpoints(open_store(str(run)))]

    with pytest.raises(CheckpointError) as caught:
        _train(data, run, stop_after_steps=1, **refusal.overrides)

    assert re.search(rf"{NEWEST}.* {refusal.words}", caught.value.message)
    assert refusal.remedy in str(caught.value.remedy)
    assert [str(name) for name in list_checkpoints(open_store(str(run)))] == before
    assert _events(run, "Resumed") == []


def test_a_refusal_by_the_store_is_not_damage(run: Path) -> None:
    store = open_store(str(run))
    stored = StoredWeights(store, list_checkpoints(store)[0])
    # A file is not a store, and is refused.
    stored._reader._store = open_store(str(run / "checkpoints" / NEWEST / "rank-0.bin"))

    with pytest.raises(StoreAccessError, match="is a file, not a directory"):
        stored.read(stored.counts)


def _events(run: Path, event: str) -> list[dict[str, Any]]:
    """Events of one kind, without those of the training that made the checkpoints."""
    return [line for line in read_lines(run / "events.jsonl") if line["event"] == event]
