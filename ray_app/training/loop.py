"""The training loop, as one worker runs it. It knows torch.distributed but not Ray: a plain torchrun can start it too.

    plan -> loader -> contrastive step -> update -> metrics -> now and then a checkpoint

Every rank runs the same steps and takes every decision from the same exchanged numbers, so that no collective is ever
waited for in vain. Rank 0 writes the run directory.
"""

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import torch
import torch.distributed as dist

from data_io.dataset.manifest import load_manifest
from data_io.dataset.reader import Reader
from data_io.loading.loader import Loader
from data_io.storage.node_cache import NodeCache
from data_io.storage.store import Store
from ray_app.checkpointing.checkpoint import CheckpointSaver, restore
from ray_app.checkpointing.interval import CheckpointInterval
from ray_app.config import JobSpec
from ray_app.data_order import fingerprint_of, make_order, select_sources
from ray_app.models.attention import attention_of
from ray_app.models.embedder import Embedder
from ray_app.models.loading import DTYPES, build_backbone, load_tokenizer
from ray_app.run_directory.attempts import begin_attempt, list_attempts
from ray_app.run_directory.checkpoints import TrainingProgress, list_checkpoints
from ray_app.run_directory.directory import read_status
from ray_app.run_directory.metrics import reads_of
from ray_app.training.collectives import share_examples, share_reads, share_step
from ray_app.training.contrastive import ContrastiveStep
from ray_app.training.control import Control, Directive, Start
from ray_app.training.engine import Engine
from ray_app.training.heartbeat import Stage
from ray_app.training.nan_guard import refuse_gradient, refuse_loss
from ray_app.training.recorder import Recorder, StartProfile
from ray_app.training.schedule import learning_rate
from ray_app.training.teacher import Teacher


@dataclass(frozen=True)
class Worker:
    """As which rank of how many, and on which device, a loop runs; `profile` notes where its start spends time."""

    rank: int
    world_size: int
    device: torch.device
    profile: StartProfile = field(default_factory=StartProfile)


@dataclass(frozen=True)
class Outcome:
    """How the loop ended: `finished` is False where a wish or a limit ended it before its last step."""

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
    """Train from the newest checkpoint, or from the start, until `stop_after_steps` steps are done in all, or all
    steps.

    torch.distributed must be initialized. Always ends on a complete checkpoint. Raises LossNotFinite where a loss or
    gradient is not finite, with the step and the micro-batches.
    """
    profile = worker.profile
    manifest = load_manifest(data)
    sources = select_sources(manifest, spec)
    names = [source.name for source in sources]
    plan = make_order(manifest, sources, spec)
    tokenizer = load_tokenizer(spec.model, data).for_texts(spec.model.max_seq_length)
    profile.mark("data")
    model = _build_model(spec, worker, tokenizer.vocabulary_size)
    profile.mark("model")
    engine = Engine(model, spec.train)
    profile.mark("engine")
    fingerprint = fingerprint_of(manifest, plan, tokenizer, spec)
    total_steps = spec.train.epochs * plan.steps_per_epoch

    restored = restore(run, engine, fingerprint)
    profile.mark("restore")
    consumed = restored.progress.micro_batches_consumed if restored else 0
    step = plan.step_after(consumed)
    end_step = total_steps if stop_after_steps is None else min(total_steps, max(stop_after_steps, step))
    attempt = _next_attempt(run)
    recorder = None
    if worker.rank == 0:
        begin_attempt(run, attempt, step)
        recorder = Recorder(
            name,
            run,
            attempt=attempt,
            first_step=step,
            steps_per_epoch=plan.steps_per_epoch,
            epochs=spec.train.epochs,
            workers=worker.world_size,
            record_examples=spec.train.record_examples,
            flops_per_token=model.flops_per_token,
            start=start,
        )
        for damage in restored.passed_over if restored else ():
            recorder.event("CheckpointDamaged", message=damage)
        recorder.event(
            "Resumed" if restored else "Started",
            step=step,
            workers=worker.world_size,
            checkpoint=str(restored.name) if restored else None,
            **recorder.facts_of_start,
        )
        control.report(recorder.status)

    saver = CheckpointSaver(
        run,
        engine,
        attempt=attempt,
        keep=spec.checkpoint.keep,
        before_commit=recorder.flush if recorder else lambda: None,
    )
    interval = CheckpointInterval(spec.checkpoint)
    saved_at = step if restored else None
    contrastive = ContrastiveStep(
        engine,
        spec.train,
        [source.kind for source in sources],
        rank=worker.rank,
        world_size=worker.world_size,
        teacher=Teacher(spec.train.teacher, worker.device) if spec.train.teacher else None,
    )
    reader = Reader(data, manifest, verify=spec.data.verify == "always", cache=_node_cache(spec))
    loader = Loader(
        plan,
        sources,
        reader,
        tokenizer,
        hard_negatives=spec.data.hard_negatives,
        token_deletion=spec.train.token_deletion,
        first_step=step,
        end_step=end_step,
        rank=worker.rank,
        world_size=worker.world_size,
        prefetch_steps=spec.data.prefetch_steps,
        threads=spec.data.loader_threads,
        keep_strings=spec.train.teacher is not None,
    )
    begin, counted, directive = monotonic(), reader.stats, Directive.CONTINUE
    try:
        for loaded in loader:
            under_way = loaded.step.index + 1
            control.at(under_way, Stage.COMPUTING)
            losses = contrastive.run(loaded)
            read = reader.stats - counted
            counted += read
            control.at(under_way, Stage.EXCHANGING)
            directive = control.directive()
            if recorder and interval.due(under_way, recorder.status):
                directive = max(directive, Directive.SAVE)
            shared = share_step(
                loaded, losses, read, contrastive.take_work(), names=names, directive=directive, device=engine.device
            )
            refuse_loss(loaded, shared, spec.train)
            rate = learning_rate(
                loaded.step.index,
                peak=spec.train.learning_rate,
                floor=spec.train.min_learning_rate,
                warmup_steps=spec.train.warmup_steps,
                total_steps=total_steps,
            )
            control.at(under_way, Stage.UPDATING)
            norm = engine.update(rate)
            refuse_gradient(loaded, shared, spec.train, norm=norm)
            step = under_way
            consumed = loaded.step.first_slot + len(loaded.step.slots)
            hashes = share_examples(loaded, engine.device) if spec.train.record_examples else []
            begin, seconds = monotonic(), monotonic() - begin
            control.at(step, Stage.RECORDING)
            if recorder:
                status = recorder.step(
                    loaded, shared, learning_rate=rate, grad_norm=norm, seconds=seconds, consumed=consumed
                )
                recorder.examples(loaded, names, hashes)
                recorder.saved(saver.poll())
                control.report(status)
                if "first_step" not in profile.seconds:
                    profile.mark("first_step")
                    recorder.event("StartProfile", step=step, seconds=profile.seconds)
            if shared.directive >= Directive.SAVE or step == end_step:
                control.at(step, Stage.SAVING)
                interval.begun()
                finished = saver.start(
                    TrainingProgress(step=step, micro_batches_consumed=consumed, fingerprint=fingerprint)
                )
                saved_at = step
                if recorder:
                    recorder.saved(finished)
            directive = shared.directive
            if directive >= Directive.REGROUP:
                break
            control.at(step + 1, Stage.WAITING_FOR_DATA)
        control.at(step, Stage.ENDING)
        if saved_at != step:  # stopped before the first step of a run: there is nothing newer than its start
            saver.start(TrainingProgress(step=step, micro_batches_consumed=consumed, fingerprint=fingerprint))
        last = saver.finish()
        by_rank = share_reads(reader.stats_by_source())
        if recorder:
            recorder.saved(last)
            recorder.event("DataRead", **reads_of(by_rank))
            control.report(recorder.status)
    finally:
        reader.close()
        loader.close()
        if recorder:
            recorder.close()
    return Outcome(step=step, finished=step >= total_steps, directive=directive)


def _node_cache(spec: JobSpec) -> NodeCache | None:
    cache = spec.data.cache
    return None if cache.path is None else NodeCache(Path(cache.path).expanduser(), cache.max_bytes)


def _build_model(spec: JobSpec, worker: Worker, vocabulary_size: int) -> Embedder:
    dtype = DTYPES[spec.train.precision]
    backbone = build_backbone(spec.model, vocabulary_size=vocabulary_size, dtype=dtype, seed=spec.train.seed)
    return Embedder(
        backbone.to(worker.device),
        attention=attention_of(spec.model, worker.device, dtype),
        gradient_checkpointing=spec.train.gradient_checkpointing,
    ).train()


def _next_attempt(run: Store) -> int:
    """A number that no earlier start of this run has used, the same on all ranks."""
    attempt = [0]
    if dist.get_rank() == 0:
        status = read_status(run)
        checkpoints = (name.attempt for name in list_checkpoints(run))
        used = [status.attempt if status else 0, *checkpoints, *list_attempts(run)]
        attempt = [max(used) + 1]
    dist.broadcast_object_list(attempt, src=0)
    return attempt[0]
