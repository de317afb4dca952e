"""The README (model card) of an exported model: use, results, training data, recipe and license."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic import BaseModel, ConfigDict, Field

from data_io.storage.folder_copy import read_json
from data_io.task import Kind
from data_io.wording import counted
from ray_app.inference.hub import HUB_ID
from ray_app.job_spec import JobSpec, TrainSpec
from ray_app.run_directory.evaluation_report import EvaluationReport, RetrievalResult, StsResult
from ray_app.run_directory.task_report import TaskReport, TaskScore

_HUB_DATASET = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)|([A-Za-z0-9][\w-]*/[\w.-]+)")

_FRONT_MATTER: Mapping[str, Any] = {
    "library_name": "sentence-transformers",
    "pipeline_tag": "sentence-similarity",
    "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "f2llm-ray"],
}


class CardSource(BaseModel):
    """A source as shown in the card. A manifest's SourceEntry has these attributes and more."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    name: str
    kind: Kind
    rows: int
    negatives: int
    instruction: str
    license: str
    origin: str


class AveragedPart(BaseModel):
    """One of the models that were averaged. The shares of all add up to 1."""

    model_config = ConfigDict(frozen=True)

    name: str
    share: float


class CardFacts(BaseModel):
    """Facts for the card that are not in the model's files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name of the run.")
    job: JobSpec = Field(description="The effective job spec.")
    data_version: str
    sources: tuple[CardSource, ...] = Field(description="The sources that the model was trained on.")
    steps: int
    examples: int = Field(description="Examples trained on, counted again in each epoch.")
    averaged: tuple[AveragedPart, ...] = Field(
        (), description="The averaged checkpoints. Empty if the weights are those of one checkpoint."
    )
    license: str | None = Field(
        None, description="Hub license id of the base model, such as apache-2.0; null if unknown."
    )
    before: EvaluationReport | None = None
    after: EvaluationReport | None = None
    tasks: TaskReport | None = None

    @property
    def base_model(self) -> str | None:
        """The Hub id of the model that training started from. None for random weights or a local directory."""
        name = self.job.model.name_or_path
        # A local directory is not a link that a reader of the card can follow.
        is_hub_id = name is not None and HUB_ID.fullmatch(name) and not Path(name).exists()
        return name if is_hub_id else None

    @property
    def base_commit(self) -> str | None:
        """The commit of the base model on the Hub. None if the run did not record it."""
        return self.job.model.revision if self.base_model else None


def render_card(
    facts: CardFacts, *, prompts: Mapping[str, str], max_seq_length: int, embedding_dimension: int, eos_token: str
) -> str:
    """README.md: YAML front matter for the Hub, then text. The tests run its examples unchanged."""
    return _template("model_card.md.j2").render(
        front_matter=yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True),
        facts=facts,
        recipe=recipe_rows(facts.job),
        retrieval=_retrieval_rows(facts),
        sts=_sts_rows(facts),
        shorter=_shorter_rows(facts),
        prompts=prompts,
        max_seq_length=max_seq_length,
        embedding_dimension=embedding_dimension,
        eos_token=eos_token,
    )


def render_merged_card(folder: Path, averaged: Sequence[AveragedPart]) -> str:
    """README.md of a merged model: its weights are the average of exported models that have their own cards."""
    config = read_json(folder / "config.json")
    return _template("merged_card.md.j2").render(
        front_matter=yaml.safe_dump({**_FRONT_MATTER, "tags": [*_FRONT_MATTER["tags"], "merge"]}, sort_keys=False),
        averaged=averaged,
        prompts=read_json(folder / "config_sentence_transformers.json").get("prompts") or {},
        max_seq_length=read_json(folder / "sentence_bert_config.json")["max_seq_length"],
        embedding_dimension=config["hidden_size"],
        matryoshka_dims=config.get("matryoshka_dimensions", ()),
    )


def _template(name: str) -> Template:
    # A card is Markdown, so nothing is escaped for HTML.
    environment = Environment(
        loader=PackageLoader("ray_app.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )  # nosec B701
    environment.filters.update(cell=_cell, counted=counted, literal=json.dumps, figure=_figure)
    return environment.get_template(name)


def recipe_rows(job: JobSpec) -> list[tuple[str, str]]:
    """The training settings as a table: (setting, value)."""
    train, data = job.train, job.data
    in_batch = {
        "step": f"positives of the whole optimizer step ({train.global_batch_size})",
        "micro_batch": f"positives of the micro-batch ({train.micro_batch_size})",
        "off": "off",
    }[train.in_batch]
    sources = "from all sources" if train.step_source == "mixed" else "from one source"
    negatives = ", ".join(f"{data.hard_negatives.of(kind)} ({kind})" for kind in Kind)
    return [
        ("Epochs", f"{train.epochs}"),
        ("Global batch size", f"{train.global_batch_size}, in micro-batches of {train.micro_batch_size} {sources}"),
        ("Tokens per text", f"at most {job.model.max_seq_length}, including the final EOS"),
        *([("Deleted tokens", f"{train.token_deletion:g} of each text")] if train.token_deletion else []),
        ("Hard negatives per query", negatives),
        ("In-batch negatives", f"{in_batch}, retrieval sources only"),
        ("Temperature", f"{train.temperature:g}"),
        *([("Matryoshka", _matryoshka(train))] if train.matryoshka_dims else []),
        *([("Teacher", f"{train.teacher.name_or_path}, weight {train.teacher.weight:g}")] if train.teacher else []),
        ("Optimizer", f"AdamW ({train.adam_beta1:g}, {train.adam_beta2:g}), weight decay {train.weight_decay:g}"),
        (
            "Learning rate",
            f"{train.learning_rate:g}, {train.warmup_steps} warm-up steps, cosine, floor {train.min_learning_rate:g}",
        ),
        ("Gradient norm", f"clipped at {train.max_grad_norm:g}"),
        ("Precision", train.precision),
        ("Seed", f"{train.seed}"),
    ]


def _matryoshka(train: TrainSpec) -> str:
    weights = (
        "weights 1 / (n sqrt(D / d))" if train.matryoshka_weights is None else f"weights {train.matryoshka_weights}"
    )
    return f"the losses also use the first {', '.join(map(str, train.matryoshka_dims))} values, {weights}"


def _front_matter(facts: CardFacts) -> dict[str, object]:
    matter: dict[str, object] = {**_FRONT_MATTER}
    if facts.license is not None:
        matter["license"] = facts.license
    if facts.base_model is not None:
        matter["base_model"] = facts.base_model
    datasets = sorted({name for source in facts.sources if (name := _hub_dataset(source.origin)) is not None})
    if datasets:
        matter["datasets"] = datasets
    results = [_index_entry(result) for result in (facts.after.sets if facts.after else ())]
    results += [_task_entry(task) for task in (facts.tasks.measured if facts.tasks else ())]
    if results:
        matter["model-index"] = [{"name": facts.name, "results": results}]
    return matter


def _hub_dataset(origin: str) -> str | None:
    match = _HUB_DATASET.fullmatch(origin.strip())
    return None if match is None else match[1] or match[2]


def _index_entry(result: RetrievalResult | StsResult) -> dict[str, object]:
    if isinstance(result, RetrievalResult):
        task = "Retrieval"
        figures = {"ndcg_at_10": result.model.ndcg_at_10, "recall_at_10": result.model.recall_at_10}
    else:
        task = "STS"
        figures = {} if result.spearman is None else {"cosine_spearman": result.spearman}
    return {
        "task": {"type": task},
        "dataset": {"name": result.name, "type": result.name},
        "metrics": [{"type": name, "value": round(value, 4)} for name, value in figures.items()],
    }


def _task_entry(task: TaskScore) -> dict[str, object]:
    """The format in which mteb writes its results into cards, without the names of subsets."""
    assert task.score is not None
    return {
        "task": {"type": task.type},
        "dataset": {"name": f"MTEB {task.name}" if task.benchmark else task.name, "type": task.name},
        "metrics": [{"type": task.metric, "value": round(task.score, 4)}],
    }


def _retrieval_rows(facts: CardFacts) -> list[dict[str, object]]:
    """One row per set and metric: the trained model, the initial model (if evaluated) and BM25."""
    if facts.after is None:
        return []
    before = {result.name: result for result in facts.before.retrieval} if facts.before else {}
    rows: list[dict[str, object]] = []
    for result in facts.after.retrieval:
        earlier = before.get(result.name)
        for label, field in (("nDCG@10", "ndcg_at_10"), ("recall@10", "recall_at_10")):
            rows.append(
                {
                    "set": result.name,
                    "queries": result.queries,
                    "documents": result.documents,
                    "metric": label,
                    "before": None if earlier is None else getattr(earlier.model, field),
                    "after": getattr(result.model, field),
                    "bm25": None if result.bm25 is None else getattr(result.bm25, field),
                }
            )
    return rows


def _sts_rows(facts: CardFacts) -> list[dict[str, object]]:
    if facts.after is None:
        return []
    before = {result.name: result.spearman for result in facts.before.sts} if facts.before else {}
    return [
        {"set": result.name, "pairs": result.pairs, "before": before.get(result.name), "after": result.spearman}
        for result in facts.after.sts
    ]


def _shorter_rows(facts: CardFacts) -> list[dict[str, object]]:
    """One row per retrieval set and number of dimensions, the whole embedding last."""
    return [
        {"set": result.name, "dims": dims, "ndcg": metrics.ndcg_at_10, "recall": metrics.recall_at_10}
        for result in (facts.after.retrieval if facts.after else ())
        if result.by_dims
        for dims, metrics in [*sorted(result.by_dims.items()), ("all", result.model)]
    ]


def _cell(text: object) -> str:
    """Text for a cell of a Markdown table: one line, with column breaks and markup escaped."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", line)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
