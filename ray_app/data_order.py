"""Computes the data order of a run, and its fingerprint, from a job spec and a manifest."""

from data_io.dataset.manifest import Manifest, SourceEntry
from data_io.dataset.tokenizer import TextTokenizer
from data_io.errors import ConfigError
from data_io.loading.fingerprint import Fingerprint
from data_io.loading.order import PLANNER_VERSION, DataOrder, SourceRows
from ray_app.job_spec import JobSpec


def select_sources(manifest: Manifest, spec: JobSpec) -> tuple[SourceEntry, ...]:
    """The sources that a job trains on, in the manifest's order. Raises ConfigError for an unknown name."""
    return tuple(manifest.source(name) for name in spec.data.choose([source.name for source in manifest.sources]))


def make_order(manifest: Manifest, sources: tuple[SourceEntry, ...], spec: JobSpec) -> DataOrder:
    """The data order of a job. Raises ConfigError if the job skips a micro-batch that does not exist."""
    names = [source.name for source in sources]
    for wanted in spec.train.skip_micro_batches:
        if wanted.source is not None and wanted.source not in names:
            raise ConfigError(
                f"train.skip_micro_batches names the source {wanted.source!r}, but the run does not train on it",
                remedy=f"use one of {', '.join(names)}",
            )
    skipped = {
        (skip.epoch, None if skip.source is None else names.index(skip.source), skip.micro_batch)
        for skip in spec.train.skip_micro_batches
    }
    plan = DataOrder(
        [SourceRows(source.name, manifest.row_groups(source.name).rows) for source in sources],
        micro_batch_size=spec.train.micro_batch_size,
        micro_batches_per_step=spec.train.micro_batches_per_step,
        seed=spec.train.seed,
        step_source=spec.train.step_source,
        source_sampling=spec.train.source_sampling,
        skipped=skipped,
    )
    for epoch, source, micro_batch in skipped:
        there = plan.micro_batches_per_epoch if source is None else plan.micro_batches_of_sources[source]
        if epoch >= spec.train.epochs or micro_batch >= there:
            what = "micro-batch" if source is None else f"micro-batch of {names[source]}"
            raise ConfigError(
                f"train.skip_micro_batches names {what} {micro_batch} in epoch {epoch}, which does not exist; epochs: "
                f"{spec.train.epochs}, micro-batches per epoch: {there}, both counted from 0",
                remedy="copy the lines that were printed with the error of the step",
            )
    return plan


def fingerprint_of(manifest: Manifest, plan: DataOrder, tokenizer: TextTokenizer, spec: JobSpec) -> Fingerprint:
    return Fingerprint(
        planner_version=PLANNER_VERSION,
        data_version=manifest.version,
        sources=tuple(source.name for source in plan.sources),
        micro_batch_size=plan.micro_batch_size,
        micro_batches_per_step=plan.micro_batches_per_step,
        step_source=plan.step_source,
        source_sampling=plan.source_sampling,
        seed=plan.seed,
        hard_negatives=spec.data.hard_negatives,
        token_deletion=spec.train.token_deletion,
        tokenizer=tokenizer.fingerprint,
    )
