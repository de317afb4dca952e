"""The facts and tables of the report. Pure: a run's record in, rows of texts and numbers out."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_io.wording import counted
from ray_app.reporting.charts import largest_sources
from ray_app.reporting.run_record import RunRecord
from ray_app.run_directory.evaluation_report import EvaluationReport, QueryExample


@dataclass(frozen=True)
class Comparison:
    """One query with its top results before and after training. Either can be missing."""

    set_name: str
    query: str
    relevant: QueryExample
    before: QueryExample | None
    after: QueryExample | None


def facts_of(record: RunRecord) -> list[tuple[str, str]]:
    """Short facts about the run: (label, value)."""
    facts = []
    model = record.spec.get("model")
    if isinstance(model, dict):
        facts.append(("Model", str(model.get("name_or_path") or _architecture(model.get("architecture")))))
    if record.data is not None:
        facts.append(("Data", f"version {record.data.version[:12]}, {counted(len(record.data.sources), 'source')}"))
    if record.steps:
        last = record.steps[-1]
        total = record.status.total_steps if record.status else 0
        facts.append(("Steps", f"{last.step:,}" + (f" of {total:,}" if total > last.step else "")))
        facts.append(("Workers", " then ".join(str(count) for count in _runs_of(s.workers for s in record.steps))))
        facts.append(("Training", duration(math.fsum(s.seconds for s in record.steps))))
    if record.status is not None:
        facts.append(("Phase", words(record.status.phase)))
        if record.status.restarts:
            again = counted(record.status.steps_lost, "step")
            facts.append(("Restarts", f"{record.status.restarts}, {again} recomputed"))
        facts.append(("As of", f"{record.status.updated:%Y-%m-%d %H:%M} UTC"))
    return facts


def _architecture(architecture: Any) -> str:
    if not isinstance(architecture, dict):
        return "unknown"
    layers, width = architecture.get("num_hidden_layers"), architecture.get("hidden_size")
    return f"small Qwen3 from scratch ({layers} layers, {width} wide)" if layers and width else "small Qwen3"


def _runs_of(values: Iterable[int]) -> list[int]:
    """The values without consecutive repeats, at most the last four."""
    distinct: list[int] = []
    for value in values:
        if not distinct or distinct[-1] != value:
            distinct.append(value)
    return distinct[-4:]


def tiles_of(record: RunRecord) -> list[tuple[str, str, list[str]]]:
    """The main figures: (label, value, lines to compare it with)."""
    tiles = []
    model, bm25 = (record.after.mean_model, record.after.mean_bm25) if record.after else (None, None)
    earlier = record.before.mean_model if record.before else None
    if model is not None:
        for label, field in (("nDCG@10", "ndcg_at_10"), ("recall@10", "recall_at_10")):
            compared = [f"before {getattr(earlier, field):.3f}"] if earlier else []
            compared += [f"BM25 {getattr(bm25, field):.3f}"] if bm25 else []
            tiles.append((label, f"{getattr(model, field):.3f}", compared))
    steps = record.steps
    if steps:
        tail = steps[-max(1, len(steps) // 20) :]
        last_loss = _mean([s.loss for s in tail if s.loss is not None])
        tiles.append(("Loss", _number(last_loss), [f"first step {_number(steps[0].loss)}"]))
        examples, tokens = sum(s.examples for s in steps), sum(s.tokens for s in steps)
        tiles.append(("Examples", _thousands(examples), [f"{_thousands(tokens)} tokens"]))
        seconds = math.fsum(s.seconds for s in steps)
        if seconds > 0:
            waiting = math.fsum(s.data_wait_seconds for s in steps) / seconds
            tiles.append(
                ("Examples per second", _number(examples / seconds), [f"{_thousands(tokens / seconds)} tokens/s"])
            )
            tiles.append(("Waiting for data", _percent(waiting), ["of the training time"]))
    return tiles


def retrieval_rows(record: RunRecord) -> list[dict[str, Any]]:
    """One row per retrieval set of `after`, or of `before` if the trained model was not evaluated yet."""
    latest = record.after or record.before
    if latest is None:
        return []
    before = {result.name: result for result in record.before.retrieval} if record.before else {}
    after = {result.name: result for result in record.after.retrieval} if record.after else {}
    return [
        {
            "result": result,
            "before": before[result.name].model if result.name in before else None,
            "after": after[result.name].model if result.name in after else None,
            "bm25": result.bm25,
        }
        for result in latest.retrieval
    ]


def sts_rows(record: RunRecord) -> list[dict[str, Any]]:
    latest = record.after or record.before
    if latest is None:
        return []
    before = {result.name: result.spearman for result in record.before.sts} if record.before else {}
    after = {result.name: result.spearman for result in record.after.sts} if record.after else {}
    return [
        {"result": result, "before": before.get(result.name), "after": after.get(result.name)} for result in latest.sts
    ]


def comparisons_of(before: EvaluationReport | None, after: EvaluationReport | None) -> list[Comparison]:
    """Each query before and after training. The sets take turns, so that the first queries come from several sets."""
    found: dict[tuple[str, str], dict[str, QueryExample]] = {}
    order: list[tuple[int, tuple[str, str]]] = []
    for label, report in (("after", after), ("before", before)):
        for result in report.retrieval if report else ():
            for place, example in enumerate(result.examples):
                key = (result.name, example.query_id)
                if key not in found:
                    order.append((place, key))
                found.setdefault(key, {})[label] = example
    comparisons = []
    for _, key in sorted(order, key=lambda entry: entry[0]):
        sides = found[key]
        shown = sides.get("after") or sides["before"]
        comparisons.append(Comparison(key[0], shown.query, shown, sides.get("before"), sides.get("after")))
    return comparisons


def source_rows(record: RunRecord) -> list[dict[str, Any]]:
    """One row per source: its entry in the manifest, the number of examples used, and their loss."""
    described = {source.name: source for source in record.data.sources} if record.data else {}
    chosen = (record.spec.get("data") or {}).get("sources") if isinstance(record.spec.get("data"), dict) else None
    used = largest_sources(record.steps)
    unused = [name for name in described if name not in used and (not chosen or name in chosen)]
    rows = []
    for name in [*used, *unused]:
        mine = [step.sources[name] for step in record.steps if name in step.sources]
        part = max(1, len(mine) // 10)
        rows.append(
            {
                "name": name,
                "source": described.get(name),
                "examples": sum(each.examples for each in mine),
                "first": _mean([each.loss for each in mine[:part]]),
                "last": _mean([each.loss for each in mine[-part:]]),
            }
        )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _thousands(value: float) -> str:
    for size, unit in ((1e9, " bn"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            return f"{value / min(size, 1e3 if size == 1e4 else size):.3g}{unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float | None, digits: int = 4) -> str:
    """The number with `digits` decimals. A dash for an unknown value."""
    return "-" if value is None else f"{value:,.{digits}f}"


def words(name: str) -> str:
    """The name of a phase as words: EvaluatingBefore becomes Evaluating before."""
    return re.sub(r"(?<=[a-z])[A-Z]", lambda match: f" {match[0].lower()}", name)
