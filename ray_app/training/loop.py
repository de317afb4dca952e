"""The training loop of one worker (docs/developers/design.md, "The training step").

It uses torch.distributed and does not import Ray, so torchrun can start it too.

    data order -> loader -> forward and backward -> exchange -> update -> record -> checkpoint, if one is due

All ranks run the same steps, enter the same collectives and decide from the same exchanged numbers. Rank 0 writes the
run directory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import torch
import torch.distributed as dist

from data_io.loading.loader import LoadedStep
from data_io.storage.store import Store
from ray_app.checkpointing.checkpoint import CheckpointSaver, Restored, restore
from ray_app.job_spec import JobSpec
from ray_app.models.attention import attention_of
from ray_app.models.embedder import Embedder
from ray_app.models.loading import DTYPES, build_backbone
from ray_app.run_directory.attempts import list_attempts
from ray_app.run_directory.checkpoint_manifest import TrainingProgress, list_checkpoints
from ray_app.run_directory.directory import read_status
from ray_app.training.collectives import SharedStep, share_examples, share_reads, share_step
from ray_app.training.contrastive import ContrastiveStep, PartLoss
from ray_app.training.control import Control, Directive, Start
from ray_app.training.data import TrainingData
from ray_app.training.engine import Engine
from ray_app.training.heartbeat import Stage
from ray_app.training.nan_guard import refuse_gradient, refuse_loss
from ray_app.training.recorder import NullRecorder, Recorder, StepResult
from ray_app.training.run_recorder import RunRecorder
from ray_app.training.schedule import learning_rate
from ray_app.training.start_profile import StartProfile
from ray_app.training.teacher import Teacher


@dataclass(frozen=True)
class Worker:
    """The rank of this process among `world_size` ranks, and its device; `profile` times the start."""

    rank: int
    world_size: int
    device: torch.device
    profile: StartProfile = field(default_factory=StartProfile)


@dataclass(frozen=True)
class Outcome:
    """How training ended. `step`: steps of the run so far. `finished`: False if steps of the run remain."""

    step: int
    finished: bool
    directive: Directive = Directive.CONTINUE


def train(
    name: str,
    spec: JobSpec,
    *,
    data: Store,
    run: Store,
    worker: Worker,
    control: Control,
    start: Start | None = None,
    stop_after_steps: int | None = None,
) -> Outcome:
    """Set up, restore the newest checkpoint if there is one, and train. Always ends with a complete checkpoint.

    `stop_after_steps` counts from the start of the run, not from the checkpoint. None: train all steps of the job.
    torch.distributed must be initialized, and every rank must call this. Raises LossNotFinite, with the step and its
    micro-batches, if a loss or a gradient is not finite.
    """
    profile = worker.profile
    dataset = TrainingData.open(data, spec)
    profile.mark("data")
    model = _build_model(spec, worker, dataset.tokenizer.vocabulary_size)
    profile.mark("model")
    engine = Engine(model, spec.train)
    profile.mark("engine")
    restored = restore(run, engine, dataset.fingerprint)
    profile.mark("restore")
    trainer = Trainer(
        name,
        spec,
        dataset,
        engine,
        restored,
        run=run,
        worker=worker,
        control=control,
        start=start,
        stop_after_steps=stop_after_steps,
    )
    return trainer.run()


class Trainer:
    """One attempt at a run, on one rank: from the restored step, or from step 0, to its last step.

    The number of workers may differ between attempts (docs/developers/design.md, "Elasticity").
    """

    def __init__(
        self,
        name: str,
        spec: JobSpec,
        dataset: TrainingData,
        engine: Engine,
        restored: Restored | None,
        *,
        run: Store,
        worker: Worker,
        control: Control,
        start: Start | None = None,
        stop_after_steps: int | None = None,
    ) -> None:
        """`engine` has the weights that `restored` describes. All ranks must build their trainers at the same time."""
        self._spec, self._dataset, self._engine, self._control = spec, dataset, engine, control
        order = dataset.order
        consumed = restored.progress.micro_batches_consumed if restored else 0
        step = order.step_after(consumed)
        self._total_steps = spec.train.epochs * order.steps_per_epoch
        self._end_step = self._total_steps
        if stop_after_steps is not None:
            self._end_step = min(self._total_steps, max(stop_after_steps, step))
        self._progress = TrainingProgress(step=step, micro_batches_consumed=consumed, fingerprint=dataset.fingerprint)
        self._saved_step = step if restored else None

        attempt = _next_attempt(run)
        self._recorder: Recorder = NullRecorder()
        if worker.rank == 0:
            self._recorder = RunRecorder(
                name,
                spec,
                run,
                order=order,
                attempt=attempt,
                first_step=step,
                workers=worker.world_size,
                flops_per_token=engine.model.flops_per_token,
                start=start,
                profile=worker.profile,
                report=control.report,
            )
        self._recorder.begin(restored)
        self._saver = CheckpointSaver(
            run, engine, attempt=attempt, keep=spec.checkpoint.keep, before_commit=self._recorder.flush
        )
        self._contrastive = ContrastiveStep(
            engine,
            spec.train,
            [source.kind for source in dataset.sources],
            rank=worker.rank,
            world_size=worker.world_size,
            teacher=Teacher(spec.train.teacher, worker.device) if spec.train.teacher else None,
        )
        self._reader = dataset.reader(spec)
        self._loader = dataset.loader(
            self._reader,
            spec,
            first_step=step,
            end_step=self._end_step,
            rank=worker.rank,
            world_size=worker.world_size,
        )
        self._counted_reads = self._reader.stats
        self._step_began = monotonic()

    def run(self) -> Outcome:
        """Train until the last step, or until the ranks agree on a directive to exit."""
        directive = Directive.CONTINUE
        try:
            for loaded in self._loader:
                directive = self.step(loaded)
                if directive >= Directive.SAVE or self._progress.step == self._end_step:
                    self.save()
                if directive >= Directive.REGROUP:
                    break
                self._control.at(self._progress.step + 1, Stage.WAITING_FOR_DATA)
            self.finish()
        finally:
            self.close()
        step = self._progress.step
        return Outcome(step=step, finished=step >= self._total_steps, directive=directive)

    def step(self, loaded: LoadedStep) -> Directive:
        """Run and record one optimizer step. Returns the directive that all ranks agreed on."""
        train, step = self._spec.train, loaded.step.index + 1

        self._control.at(step, Stage.COMPUTING)
        losses = self._contrastive.run(loaded)  # forward and backward of this rank's micro-batches

        self._control.at(step, Stage.EXCHANGING)
        shared = self._exchange(loaded, losses)
        refuse_loss(loaded, shared, train)

        self._control.at(step, Stage.UPDATING)
        rate = self._learning_rate(loaded.step.index)
        norm = self._engine.update(rate)
        refuse_gradient(loaded, shared, train, norm=norm)

        consumed = loaded.step.first_slot + len(loaded.step.slots)
        self._progress = self._progress.model_copy(update={"step": step, "micro_batches_consumed": consumed})
        self._record(loaded, shared, rate=rate, norm=norm)
        return shared.directive

    def save(self) -> None:
        """Start a checkpoint of the last finished step. It is written in the background.

        See docs/developers/design.md, "Checkpoints".
        """
        self._control.at(self._progress.step, Stage.SAVING)
        self._recorder.save_begun()
        self._recorder.saved(self._saver.start(self._progress))
        self._saved_step = self._progress.step

    def finish(self) -> None:
        """Wait until the checkpoint of the last finished step is complete, and record the data reads."""
        if self._saved_step != self._progress.step:  # a new run that did no step: save its initial state
            self.save()
        self._control.at(self._progress.step, Stage.ENDING)
        last = self._saver.finish()
        reads_by_rank = share_reads(self._reader.stats_by_source())
        self._recorder.saved(last)
        self._recorder.finish(reads_by_rank)

    def close(self) -> None:
        """Stop the reader threads. When this returns, all records are in the run directory."""
        self._reader.close()
        self._loader.close()
        self._recorder.close()

    def _exchange(self, loaded: LoadedStep, losses: Sequence[PartLoss]) -> SharedStep:
        """Share this rank's losses, reads and timing with all ranks, and agree on a directive."""
        read = self._reader.stats - self._counted_reads
        self._counted_reads += read
        directive = self._control.directive()
        if self._recorder.save_is_due(loaded.step.index + 1):
            directive = max(directive, Directive.SAVE)
        return share_step(
            loaded,
            losses,
            read,
            self._contrastive.take_timing(),
            names=self._dataset.names,
            directive=directive,
            device=self._engine.device,
        )

    def _learning_rate(self, index: int) -> float:
        train = self._spec.train
        return learning_rate(
            index,
            peak=train.learning_rate,
            floor=train.min_learning_rate,
            warmup_steps=train.warmup_steps,
            total_steps=self._total_steps,
        )

    def _record(self, loaded: LoadedStep, shared: SharedStep, *, rate: float, norm: float) -> None:
        hashes = share_examples(loaded, self._engine.device) if self._spec.train.record_examples else []
        began, self._step_began = self._step_began, monotonic()
        self._control.at(self._progress.step, Stage.RECORDING)
        self._recorder.step(
            StepResult(
                loaded,
                shared,
                learning_rate=rate,
                grad_norm=norm,
                seconds=self._step_began - began,
                micro_batches_consumed=self._progress.micro_batches_consumed,
                query_hashes=hashes,
            )
        )
        self._recorder.poll(self._saver)


def _build_model(spec: JobSpec, worker: Worker, vocabulary_size: int) -> Embedder:
    dtype = DTYPES[spec.train.precision]
    backbone = build_backbone(spec.model, vocabulary_size=vocabulary_size, dtype=dtype, seed=spec.train.seed)
    return Embedder(
        backbone.to(worker.device),
        attention=attention_of(spec.model, worker.device, dtype),
        gradient_checkpointing=spec.train.gradient_checkpointing,
    ).train()


def _next_attempt(run: Store) -> int:
    """The same number on all ranks, higher than that of every earlier attempt at this run."""
    attempt = [0]
    if dist.get_rank() == 0:
        status = read_status(run)
        checkpoints = (name.attempt for name in list_checkpoints(run))
        used = [status.attempt if status else 0, *checkpoints, *list_attempts(run)]
        attempt = [max(used) + 1]
    dist.broadcast_object_list(attempt, src=0)
    return attempt[0]
