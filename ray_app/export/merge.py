"""Averages checkpoints of one run, or exported models, into a model directory: `f2llm merge`.

The released recipe saves late checkpoints for merging (arXiv 2510.02294's code) and does not say how they are merged.
Here the result is the weighted mean of the weights (model soup, arXiv 2203.05482). That paper's greedy recipe can
choose the models on held-out data.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, PositiveInt

from data_io.dataset.manifest import load_manifest
from data_io.errors import ConfigError
from data_io.execution import Say
from data_io.storage.folder_copy import local_copy, read_json, upload_folder
from data_io.storage.store import Store
from data_io.wording import shown
from ray_app.checkpointing.weights import AveragedWeights, FolderWeights, OnBytes, WeightedModel
from ray_app.errors import CheckpointError, ModelError
from ray_app.evaluation.held_out import evaluate
from ray_app.export.model_card import AveragedPart, CardFacts, render_merged_card
from ray_app.export.model_folder import rewrite_card, write_weights
from ray_app.export.run import export_run, step_text
from ray_app.inference.encoder import load_encoder
from ray_app.inference.model_source import model_folder
from ray_app.job_spec import EvaluationSpec, JobSpec
from ray_app.run_directory.checkpoint_manifest import CheckpointName, list_checkpoints
from ray_app.run_directory.evaluation_report import EvaluationReport

Shares = Mapping[str, float]

# Settings that can differ between models of one architecture: how they are stored, and which program wrote them.
_NO_ARCHITECTURE = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "matryoshka_dimensions"}
_SAME_IN_ALL = ("config.json", "sentence_bert_config.json", "1_Pooling/config.json", "tokenizer.json")


class _Config(BaseModel):
    """The parts of config.json that a merge uses."""

    hidden_size: PositiveInt
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    matryoshka_dimensions: tuple[PositiveInt, ...] = ()


class _Limit(BaseModel):
    max_seq_length: PositiveInt


class _Prompts(BaseModel):
    prompts: dict[str, str] | None = None


class Source(Protocol):
    """Models that can be averaged, by name, in the order they were given."""

    @property
    def names(self) -> Sequence[str]: ...

    def write(self, shares: Shares, out: Path, *, on_bytes: OnBytes) -> CardFacts | None:
        """Write the average of the models in `shares` as the model directory `out`. The shares add up to 1."""
        ...


@dataclass(frozen=True)
class RunCheckpoints:
    """Checkpoints of a run."""

    name: str
    spec: JobSpec
    data: Store
    run: Store
    checkpoints: Sequence[CheckpointName]

    @property
    def names(self) -> Sequence[str]:
        return [step_text(each) for each in self.checkpoints]

    def write(self, shares: Shares, out: Path, *, on_bytes: OnBytes) -> CardFacts:
        chosen = {each: shares[step_text(each)] for each in self.checkpoints if step_text(each) in shares}
        return export_run(self.name, self.spec, data=self.data, run=self.run, out=out, shares=chosen, on_bytes=on_bytes)


def find_checkpoints(run: Store, steps: Sequence[int] | None) -> list[CheckpointName]:
    """The run's complete checkpoints of these steps, or all of them, oldest first.

    Raises CheckpointError for a step without a complete checkpoint.
    """
    by_step = {name.step: name for name in reversed(list_checkpoints(run))}
    there = ", ".join(map(str, by_step)) or "none"
    for step in steps or ():
        if step not in by_step:
            raise CheckpointError(
                f"{run.uri} has no complete checkpoint of step {step}; it has {there}",
                remedy="name existing checkpoints; a run keeps the last `checkpoint.keep` of them",
            )
    return [by_step[step] for step in sorted(set(steps or by_step))]


@dataclass(frozen=True)
class ExportedModels:
    """Model directories on this machine, by the names that the user gave."""

    folders: Mapping[str, Path]

    @property
    def names(self) -> Sequence[str]:
        return list(self.folders)

    def write(self, shares: Shares, out: Path, *, on_bytes: OnBytes) -> None:
        first = self.folders[next(iter(shares))]
        shutil.copytree(first, out, ignore=shutil.ignore_patterns("*.safetensors*", "README.md", "files.json"))
        parts = [WeightedModel(name, FolderWeights(self.folders[name]), share) for name, share in shares.items()]
        dtype = getattr(torch, _Config.model_validate(read_json(first / "config.json")).dtype or "float32")
        write_weights(out, AveragedWeights(parts, on_bytes=on_bytes), dtype)
        averaged = [AveragedPart(name=name, share=share) for name, share in shares.items()]
        (out / "README.md").write_text(render_merged_card(out, averaged), encoding="utf-8")


@contextmanager
def open_models(places: Mapping[str, Store]) -> Iterator[ExportedModels]:
    """The models in these directories, open for as long as the block runs. A model in an object store is copied here.

    Raises ModelError if a directory has no model, or if the models differ in architecture or tokenizer.
    """
    with ExitStack() as stack:
        folders = {name: stack.enter_context(local_copy(model_folder(place))) for name, place in places.items()}
        for name, folder in folders.items():
            _refuse_damaged_settings(name, folder)
        (first, reference), *others = folders.items()
        for name, folder in others:
            _refuse_other_model(first, reference, name, folder)
        yield ExportedModels(folders)


@dataclass(frozen=True)
class Measure:
    """Held-out sets to evaluate models on."""

    data: Store
    spec: EvaluationSpec
    dims: Sequence[int] = ()

    def of(self, folder: Path, *, say: Say) -> EvaluationReport:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder = load_encoder(folder, device=device, batch_tokens=self.spec.batch_tokens)
        return evaluate(
            encoder.encode,
            self.data,
            load_manifest(self.data),
            self.spec,
            dims=[d for d in self.dims if d < encoder.dimensions],
            progress=lambda name, done, total: say(f"embedding {name}: {done:,} of {total:,} texts"),
        )


@dataclass(frozen=True)
class Merged:
    """The result of a merge: the shares of the merged models, and the scores of the evaluated models, 0..1."""

    out: str
    shares: dict[str, float]
    scores: dict[str, float] = field(default_factory=dict)
    """The score of each model alone."""
    score: float | None = None
    """The score of the average."""


def merge(
    source: Source,
    weights: Sequence[float] | None,
    out: Store,
    *,
    measure: Measure | None = None,
    greedy: bool = False,
    say: Say,
    on_bytes: OnBytes,
) -> Merged:
    """Write the average of a source's models to `out`, which must be empty.

    `weights` has one value per model. Default: equal weights. With `measure`, each model and the average are evaluated
    on held-out data. With `greedy`, only models that do not lower the score of the average are used. Raises ConfigError
    if `out` is not empty or there are fewer than two models.
    """
    if len(source.names) < 2:
        found = ", ".join(source.names) or "none"
        raise ConfigError(
            f"an average needs at least two models; found: {found}",
            remedy="name more checkpoints, or more models",
        )
    if out.list():
        raise ConfigError(f"{out.uri} already holds files", remedy="give a directory that is empty or does not exist")
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=_scratch(out)) as temporary:
        bench = _Bench(source, measure, Path(temporary), say, on_bytes)
        scores = {name: bench.score({name: 1.0}) for name in source.names} if measure is not None else {}
        counts = dict(zip(source.names, weights or [1.0] * len(source.names), strict=True))
        shares = greedy_soup(scores, bench.score) if greedy else _shares(counts)
        score = bench.write(shares, Path(temporary) / "merged")
        _deliver(Path(temporary) / "merged", out)
    return Merged(out.uri, shares, scores, score)


def greedy_soup(scores: Mapping[str, float], score_of: Callable[[Shares], float]) -> dict[str, float]:
    """The greedy recipe of arXiv 2203.05482: start with the best model, and add each that does not lower the score.

    `scores` are the scores of each model alone; higher is better. Returns equal shares of the kept models.
    """
    first, *others = sorted(scores, key=lambda name: -scores[name])
    kept, best = [first], scores[first]
    for name in others:
        if (score := score_of(_shares(dict.fromkeys([*kept, name], 1.0)))) >= best:
            kept, best = [*kept, name], score
    return _shares(dict.fromkeys(kept, 1.0))


@dataclass(frozen=True)
class _Bench:
    """Writes and evaluates averages in a temporary directory."""

    source: Source
    measure: Measure | None
    scratch: Path
    say: Say
    on_bytes: OnBytes

    def score(self, shares: Shares) -> float:
        """The score of an average that is not kept afterwards."""
        folder = self.scratch / "candidate"
        self.say(f"evaluating {' + '.join(shares)}")
        self.source.write(shares, folder, on_bytes=lambda done, total: None)
        assert self.measure is not None
        score = _score(self.measure.of(folder, say=self.say))
        shutil.rmtree(folder)
        return score

    def write(self, shares: Shares, folder: Path) -> float | None:
        """Write the average that is kept. If it is evaluated, return its score and add the results to its card."""
        self.say(f"averaging {' + '.join(shares)}")
        card = self.source.write(shares, folder, on_bytes=self.on_bytes)
        if self.measure is None:
            return None
        report = self.measure.of(folder, say=self.say)
        if card is not None:
            rewrite_card(folder, card.model_copy(update={"after": report}))
        return _score(report)


def _score(report: EvaluationReport) -> float:
    score = report.mean_score
    if score is None:
        raise ConfigError(
            "the data set has no held-out set to evaluate models on",
            remedy="name another data set with --data URI, or merge without --evaluate and --greedy",
        )
    return score


def _shares(counts: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


def _scratch(out: Store) -> str | None:
    """The parent of a local target, so that the model can be renamed into place instead of copied."""
    if not out.is_local:
        return None
    parent = Path(out.uri).parent
    parent.mkdir(parents=True, exist_ok=True)
    return str(parent)


def _deliver(folder: Path, out: Store) -> None:
    if not out.is_local:
        upload_folder(folder, out)
        return
    target = Path(out.uri)
    if target.exists():  # and is empty
        target.rmdir()
    folder.rename(target)


def _refuse_damaged_settings(name: str, folder: Path) -> None:
    try:
        _Config.model_validate(read_json(folder / "config.json"))
        _Limit.model_validate(read_json(folder / "sentence_bert_config.json"))
        _Prompts.model_validate(read_json(folder / "config_sentence_transformers.json"))
        for file in _SAME_IN_ALL:
            if not isinstance(read_json(folder / file), dict):
                raise ValueError(f"{file} is not a mapping")
    except (OSError, ValueError) as error:
        first_line = shown(str(error).partition("\n")[0])
        raise ModelError(
            f"{name} has damaged settings: {first_line}", remedy="export the model again, or restore its files"
        ) from error


def _refuse_other_model(first: str, reference: Path, name: str, folder: Path) -> None:
    for file in _SAME_IN_ALL:
        mine, theirs = read_json(reference / file), read_json(folder / file)
        differ = [key for key in {**mine, **theirs} if key not in _NO_ARCHITECTURE and mine.get(key) != theirs.get(key)]
        if differ:
            key = differ[0]
            values = "" if file == "tokenizer.json" else f" ({mine.get(key)} and {theirs.get(key)})"
            raise ModelError(
                f"{first} and {name} are different models: they differ in {key} of {file}{values}",
                remedy="average models with the same architecture and tokenizer, such as checkpoints of a run",
            )
