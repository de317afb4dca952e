"""The training loop with real DeepSpeed and real stores, one rank and no Ray: resume, damage, errors, stops."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_io.dataset.manifest import load_manifest
from data_io.storage.store import Store, open_store
from ray_app.checkpointing.checkpoint import StoredWeights
from ray_app.data_order import make_order, select_sources
from ray_app.errors import CheckpointError, LossNotFinite
from ray_app.evaluation.held_out import evaluate
from ray_app.export.merge import Measure, RunCheckpoints, find_checkpoints, merge
from ray_app.export.run import export_run
from ray_app.inference.encoder import load_encoder
from ray_app.job_spec import EvaluationSpec, JobSpec
from ray_app.orchestration.checkpoint_evaluation import measure_checkpoint, newest_unmeasured
from ray_app.run_directory.checkpoint_manifest import CheckpointName, list_checkpoints, read_manifest
from ray_app.run_directory.evaluation_curve import MeasuredCheckpoint, read_curve
from ray_app.run_directory.status import RunStatus
from ray_app.training.control import Directive
from ray_app.training.heartbeat import Stage
from ray_app.training.loop import Outcome, Worker, train
from tests.support.exported import export_small_model
from tests.support.s3_server import S3Server
from tests.support.small_training import read_lines, sentence, small_job_spec, write_small_dataset

pytestmark = [
    pytest.mark.integration,
    # Warnings between DeepSpeed and torch cannot be fixed here.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


class _Control:
    """Returns its directive after `stop_at` steps."""

    def __init__(self, stop_at: int | None = None, directive: Directive = Directive.STOP) -> None:
        self._stop_at, self._directive = stop_at, directive
        self.reports: list[RunStatus] = []

    def at(self, step: int, stage: Stage) -> None:
        pass

    def report(self, status: RunStatus) -> None:
        self.reports.append(status)

    def directive(self) -> Directive:
        due = self._stop_at is not None and bool(self.reports) and self.reports[-1].step >= self._stop_at
        return self._directive if due else Directive.CONTINUE


@pytest.fixture(scope="module")
def finished(process_group: None, data: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run that keeps all checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    assert _train(data, folder) == Outcome(step=10, finished=True)
    return folder


def _spec(data: Store, **train_fields: Any) -> JobSpec:
    job_spec = small_job_spec(data.uri, "unused", **{"epochs": 2, **train_fields})
    job_spec["spec"]["checkpoint"] = {"every": "4 steps", "keep": 3}
    return JobSpec.model_validate(job_spec["spec"])


def _train(
    data: Store,
    run: Path | Store,
    *,
    control: _Control | None = None,
    stop_after_steps: int | None = None,
    **fields: Any,
) -> Outcome:
    return train(
        "small",
        _spec(data, **fields),
        data=data,
        run=open_store(str(run)) if isinstance(run, Path) else run,
        worker=Worker(rank=0, world_size=1, device=torch.device("cpu")),
        control=control or _Control(),
        stop_after_steps=stop_after_steps,
    )


def _losses(run: Path) -> list[float]:
    lines = read_lines(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def _files(run: Path, checkpoint: str, pattern: str) -> Path:
    return next(iter((run / "checkpoints" / checkpoint).glob(pattern)))


def test_a_run_in_pieces_equals_an_uninterrupted_run(finished: Path, data: Store, tmp_path: Path) -> None:
    for steps in (3, 4, 9):
        assert _train(data, tmp_path, stop_after_steps=steps).step == steps
    outcome = _train(data, tmp_path)

    assert outcome.finished
    assert _losses(tmp_path) == pytest.approx(_losses(finished), rel=1e-6)
    assert read_lines(tmp_path / "examples.jsonl") == read_lines(finished / "examples.jsonl")


def test_a_run_in_bf16_resumes_from_its_fp32_weights(finished: Path, data: Store, tmp_path: Path) -> None:
    """bf16 is the default: the weights for computation are rounded, the saved weights are not."""
    _train(data, tmp_path / "whole", precision="bf16")
    for steps in (3, 7, None):
        _train(data, tmp_path / "pieces", precision="bf16", stop_after_steps=steps)

    whole = _losses(tmp_path / "whole")
    assert _losses(tmp_path / "pieces") == pytest.approx(whole, rel=1e-6)
    assert whole != pytest.approx(_losses(finished), rel=1e-5)
    assert whole == pytest.approx(_losses(finished), rel=0.05)


def test_every_example_is_used_once_per_epoch(finished: Path, data: Store) -> None:
    lines = read_lines(finished / "examples.jsonl")

    for epoch in (0, 1):
        used = [q for line in lines if line["epoch"] == epoch for part in line["parts"] for q in part["queries"]]
        assert len(used) == len(set(used)) == 60 + 21 + 33 + 17


def test_metrics_have_the_minimized_loss(finished: Path) -> None:
    for line in read_lines(finished / "metrics.jsonl"):
        by_source = line["sources"].values()
        assert sum(source["examples"] for source in by_source) == line["examples"]
        assert line["loss"] == pytest.approx(sum(s["loss"] * s["examples"] for s in by_source) / line["examples"])
        assert line["grad_norm"] > 0
        assert line["workers"] == 1


def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(finished: Path, data: Store, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    newest = _files(tmp_path, "step-00000010.attempt-1", "rank-0.bin")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))

    _train(data, tmp_path)

    events = read_lines(tmp_path / "events.jsonl")
    damage = next(event for event in events if event["event"] == "CheckpointDamaged")
    assert "step-00000010.attempt-1 is skipped: rank-0.bin" in damage["message"]
    assert next(e for e in events if e["event"] == "Resumed")["step"] == 8
    assert _losses(tmp_path) == pytest.approx(_losses(finished), rel=1e-6)


@pytest.mark.parametrize("missing", ["manifest.json", "rank-0.bin"])
def test_a_half_written_checkpoint_does_not_count(missing: str, finished: Path, data: Store, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    _files(tmp_path, "step-00000010.attempt-1", missing).unlink()

    _train(data, tmp_path)

    assert next(e for e in read_lines(tmp_path / "events.jsonl") if e["event"] == "Resumed")["step"] == 8


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(finished: Path, data: Store, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "checkpoints").glob("*/rank-0.bin"):
        file.write_bytes(b"")

    with pytest.raises(CheckpointError, match=r"no checkpoint of .* can be used"):
        _train(data, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 1),
        ("micro_batch_size", 4),
        ("global_batch_size", 16),
        ("step_source", "same"),
        ("step_source", "mixed"),
        ("token_deletion", 0.1),
        ("source_sampling", "uniform"),
    ],
)
def test_another_data_order_is_refused_with_the_name_of_the_field(
    field: str, value: Any, finished: Path, data: Store, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    named = "micro_batches_per_step" if field == "global_batch_size" else field

    with pytest.raises(CheckpointError, match=rf"made with another data order: .*{named}"):
        _train(data, tmp_path, **{field: value})


def test_mixed_micro_batches_visit_every_row_once_per_epoch_and_resume_to_the_same_losses(
    finished: Path, data: Store, tmp_path: Path
) -> None:
    _train(data, tmp_path / "whole", step_source="mixed")
    for steps in (3, 5, None):
        _train(data, tmp_path / "pieces", step_source="mixed", stop_after_steps=steps)

    whole, pieces = read_lines(tmp_path / "whole" / "metrics.jsonl"), read_lines(tmp_path / "pieces" / "metrics.jsonl")
    assert [line["loss"] for line in pieces] == pytest.approx([line["loss"] for line in whole], rel=1e-6)
    assert max(len(line["sources"]) for line in whole) == len(load_manifest(data).sources)
    used, others = (_queries_of_epochs(folder) for folder in (tmp_path / "pieces", finished))
    assert used == others


def _queries_of_epochs(run: Path) -> dict[int, list[str]]:
    lines = read_lines(run / "examples.jsonl")
    return {
        epoch: sorted(
            query for line in lines if line["epoch"] == epoch for part in line["parts"] for query in part["queries"]
        )
        for epoch in {line["epoch"] for line in lines}
    }


@pytest.mark.parametrize("directive", [Directive.STOP, Directive.REGROUP])
def test_a_directive_to_exit_writes_a_checkpoint_of_that_step(
    directive: Directive, data: Store, process_group: None, tmp_path: Path
) -> None:
    outcome = _train(data, tmp_path, control=_Control(stop_at=2, directive=directive))

    assert outcome == Outcome(step=3, finished=False, directive=directive)
    assert [str(name) for name in list_checkpoints(open_store(str(tmp_path)))] == ["step-00000003.attempt-1"]


def test_a_loss_that_is_not_finite_ends_the_run_before_the_weights_change(
    data: Store, process_group: None, tmp_path: Path
) -> None:
    with pytest.raises(LossNotFinite, match=r"the loss is not finite in step 1, epoch 0: \w+ micro-batch 0"):
        _train(data, tmp_path, temperature=1e-44)

    assert list_checkpoints(open_store(str(tmp_path))) == []


def test_skipped_micro_batches_have_weight_zero_and_all_others_stay_the_same(
    finished: Path, data: Store, tmp_path: Path
) -> None:
    """Skips the whole second step and one micro-batch of the fifth."""
    spec, manifest = _spec(data), load_manifest(data)
    sources = select_sources(manifest, spec)
    plan = make_order(manifest, sources, spec)
    skipped = [(plan.step(index).epoch, slot) for index in (1, 4) for slot in plan.step(index).slots][:5]
    skips = [
        {"epoch": epoch, "source": sources[slot.parts[0].source].name, "micro_batch": slot.occurrence}
        for epoch, slot in skipped
    ]

    assert _train(data, tmp_path, stop_after_steps=1).step == 1
    assert _train(data, tmp_path, skip_micro_batches=skips, stop_after_steps=3).step == 3
    assert _train(data, tmp_path, skip_micro_batches=skips).finished

    lines, undisturbed = read_lines(tmp_path / "metrics.jsonl"), read_lines(finished / "metrics.jsonl")
    assert read_lines(tmp_path / "examples.jsonl") == read_lines(finished / "examples.jsonl")
    assert [line["micro_batches_skipped"] for line in lines] == [0, 4, 0, 0, 1, 0, 0, 0, 0, 0]
    assert [line["micro_batches_consumed"] for line in lines] == [
        line["micro_batches_consumed"] for line in undisturbed
    ]
    assert lines[0]["loss"] == pytest.approx(undisturbed[0]["loss"], rel=1e-6)
    assert (lines[1]["loss"], lines[1]["grad_norm"], lines[1]["examples"], lines[1]["sources"]) == (None, 0, 0, {})
    assert undisturbed[4]["examples"] - lines[4]["examples"] == skipped[4][1].rows
    assert all(line["loss"] is not None and line["grad_norm"] > 0 for line in lines[2:])


def test_a_resume_with_skipped_micro_batches_equals_a_run_that_skipped_them_from_the_start(
    data: Store, process_group: None, tmp_path: Path
) -> None:
    """Also for a step with only skipped micro-batches: the optimizer counts it anyway."""
    spec, manifest = _spec(data), load_manifest(data)
    sources = select_sources(manifest, spec)
    step = make_order(manifest, sources, spec).step(1)
    skips = [
        {"epoch": 0, "source": sources[slot.parts[0].source].name, "micro_batch": slot.occurrence}
        for slot in step.slots
    ]

    _train(data, tmp_path / "whole", skip_micro_batches=skips)
    for steps in (1, 2, 6, None):
        _train(data, tmp_path / "pieces", skip_micro_batches=skips, stop_after_steps=steps)

    whole, pieces = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("whole", "pieces"))
    assert [line["loss"] is None for line in pieces] == [index == 1 for index in range(10)]
    assert [line["loss"] or 0 for line in pieces] == pytest.approx([line["loss"] or 0 for line in whole], rel=1e-6)


def test_only_the_newest_checkpoints_are_kept(finished: Path, data: Store, tmp_path: Path) -> None:
    run = open_store(str(finished))

    assert [name.step for name in list_checkpoints(run)] == [10, 8, 4]
    for steps in (1, 2, 3, 5):
        _train(data, tmp_path, stop_after_steps=steps)
    assert [name.step for name in list_checkpoints(open_store(str(tmp_path)))] == [5, 4, 3]


def test_a_run_with_a_teacher_gets_closer_to_it_and_can_resume(data: Store, tmp_path: Path) -> None:
    taught = export_small_model(tmp_path / "teacher", [f"who {sentence(number)}?" for number in range(40)])
    fields = {"teacher": {"name_or_path": str(taught), "weight": 2.0}, "matryoshka_dims": (16,)}

    _train(data, tmp_path / "whole", **fields)
    for steps in (3, None):
        _train(data, tmp_path / "pieces", stop_after_steps=steps, **fields)

    whole, pieces = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("whole", "pieces"))
    assert [line["loss"] for line in pieces] == pytest.approx([line["loss"] for line in whole], rel=1e-6)
    assert whole[-1]["distillation_loss"] < 0.8 * whole[0]["distillation_loss"]
    for line in whole:
        assert line["loss"] > line["hard_negative_loss"] + line["distillation_loss"]


def test_every_evaluated_checkpoint_is_on_the_curve_and_the_best_one_is_kept(
    finished: Path, data: Store, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run = open_store(str(tmp_path / "run"))

    def measure(name: CheckpointName) -> MeasuredCheckpoint | None:
        cpu = torch.device("cpu")
        return measure_checkpoint("small", _spec(data), name, data=data, run=run, device=cpu)

    late, middle, early = list_checkpoints(run)
    assert newest_unmeasured(run) == late
    measured = [found for name in (early, middle, late) if (found := measure(name)) is not None]
    assert newest_unmeasured(run) is None
    assert read_curve(run) == tuple(measured)
    assert [each.step for each in measured] == [4, 8, 10]

    best = max(measured, key=lambda each: each.score)
    export_run("small", _spec(data), data=data, run=run, out=tmp_path / "model", shares={best.name: 1.0})
    kept, exported = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run/best", tmp_path / "model"))
    assert kept.keys() == exported.keys()
    assert all(torch.equal(kept[name], exported[name]) for name in kept)
    encoder = load_encoder(tmp_path / "run" / "best", device=torch.device("cpu"), batch_tokens=1024)
    again = evaluate(encoder.encode, data, load_manifest(data), EvaluationSpec())
    assert again.mean_score == pytest.approx(best.score, abs=1e-6)
    assert f"by f2llm-ray: {best.step} steps" in (tmp_path / "run" / "best" / "README.md").read_text()
    assert not list((tmp_path / "run").glob(".best*"))

    with (tmp_path / "run" / "evaluation" / "checkpoints.jsonl").open("a") as file:
        file.write('{"step": 12, "atte')  # as a crash leaves it
    assert read_curve(run) == tuple(measured)
    assert measure(CheckpointName(9, 1)) is None  # retention deleted it first


def test_a_merge_of_checkpoints_is_the_mean_of_their_weights_and_its_card_names_them(
    finished: Path, data: Store, tmp_path: Path
) -> None:
    run = open_store(str(finished))
    source = RunCheckpoints("small", _spec(data), data, run, find_checkpoints(run, [4, 10]))
    measure = Measure(data, EvaluationSpec())
    silent: dict[str, Any] = {"say": lambda text: None, "on_bytes": lambda done, total: None}

    merged = merge(source, [1.0, 3.0], open_store(str(tmp_path / "out")), measure=measure, **silent)

    found = load_file(tmp_path / "out" / "model.safetensors")
    early, late = (StoredWeights(run, name) for name in source.checkpoints)
    for name, tensor in found.items():
        (one,), (other,) = (part.read([f"backbone.{name}"]).values() for part in (early, late))
        torch.testing.assert_close(tensor.view(-1), 0.25 * one + 0.75 * other)
    assert merged.scores.keys() == merged.shares.keys() == {"step 4", "step 10"}
    assert merged.score is not None
    card = (tmp_path / "out" / "README.md").read_text()
    assert "average of several checkpoints: step 4 (25.0%), step 10 (75.0%)" in card


def test_a_merge_of_a_missing_checkpoint_names_the_existing_ones(finished: Path) -> None:
    with pytest.raises(CheckpointError, match="has no complete checkpoint of step 5; it has 4, 8, 10"):
        find_checkpoints(open_store(str(finished)), [4, 5])


def test_a_manifest_lists_the_existing_files(finished: Path) -> None:
    run = open_store(str(finished))
    name = list_checkpoints(run)[0]

    manifest = read_manifest(run, name)

    folder = finished / "checkpoints" / str(name)
    assert {key: file.size for key, file in manifest.files.items()} == {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json"
    }
    # fp32 weights and two moments, and nothing else.
    assert manifest.size == 12 * sum(StoredWeights(run, name).counts.values())
    assert json.loads((folder / "manifest.json").read_text())["progress"]["step"] == 10


def test_a_run_in_a_bucket_equals_a_run_in_a_directory(finished: Path, data: Store, s3: S3Server) -> None:
    bucket = open_store(f"s3://{s3.bucket}/loop", s3.options)
    data_bucket, run = bucket.child("data"), bucket.child("run")
    write_small_dataset(data_bucket)

    _train(data_bucket, run, stop_after_steps=5)
    _train(data_bucket, run)

    lines = [json.loads(line) for line in run.get("metrics.jsonl").decode().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx(_losses(finished), rel=1e-6)
    assert [name.step for name in list_checkpoints(run)] == [10, 8, 5]
