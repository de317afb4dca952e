"""The workers of a run for the report: their number over time, the reasons of restarts, and the cost. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import plotly.graph_objects as go
from pydantic import BaseModel, ConfigDict, ValidationError

from data_io.wording import counted
from ray_app.reporting.charts import PALETTE, figure_json
from ray_app.reporting.run_record import RunRecord
from ray_app.reporting.tables import duration

_STARTS = ("Started", "Resumed")
_ENDS = ("DataRead", "Stopped", "Failed", "Succeeded")
"""Events after the last step of a group. The end of a lost group is known only from the next start."""


class _Event(BaseModel):
    """The fields that are read from a line of events.jsonl."""

    model_config = ConfigDict(frozen=True)

    time: datetime
    event: str
    step: int = 0
    workers: int = 0
    reason: str | None = None
    message: str | None = None
    steps_lost: int = 0
    failed_at: datetime | None = None
    stall_seconds: float = 0.0
    save_seconds: float = 0.0


@dataclass(frozen=True)
class Group:
    """One start of training. `ended` is None while its workers are running."""

    started: datetime
    step: int
    workers: int
    reason: str
    message: str
    steps_lost: int
    ended: datetime | None = None


def groups_of(events: Sequence[dict[str, Any]]) -> list[Group]:
    """All starts of training, in order."""
    groups: list[Group] = []
    last: datetime | None = None
    for event in _parsed(events):
        running = bool(groups) and groups[-1].ended is None
        if event.event in _STARTS:
            if running:  # no event recorded its end
                groups[-1] = replace(groups[-1], ended=event.failed_at or last)
            groups.append(
                Group(
                    started=event.time,
                    step=event.step,
                    workers=event.workers,
                    reason=event.reason or event.event,
                    message=event.message or "",
                    steps_lost=event.steps_lost,
                )
            )
        elif event.event in _ENDS and running:
            groups[-1] = replace(groups[-1], ended=event.time)
        last = event.time
    return groups


def workers_over_time(groups: Sequence[Group], until: datetime) -> list[tuple[float, int]]:
    """(minutes since the first start, workers running from then). The last point is at `until`, or at the end."""
    points: list[tuple[float, int]] = []

    def add(moment: datetime, workers: int) -> None:
        points.append((round((moment - groups[0].started).total_seconds() / 60, 3), workers))

    for group in groups:
        add(group.started, group.workers)
        if group.ended is not None:
            add(max(group.started, group.ended), 0)
    if groups and groups[-1].ended is None:
        add(max(until, groups[-1].started), groups[-1].workers)
    return points


def workers_chart(points: Sequence[tuple[float, int]]) -> str:
    """Drawn as steps, because the number of workers changes at once."""
    figure = go.Figure(
        go.Scatter(
            x=[minute for minute, _ in points],
            y=[workers for _, workers in points],
            mode="lines",
            line={"color": PALETTE[3], "width": 2.2, "shape": "hv"},
            hovertemplate="%{y}<extra></extra>",
        )
    )
    highest = max((workers for _, workers in points), default=1)
    figure.update_yaxes(rangemode="tozero", dtick=max(1, -(-highest // 5)))
    return figure_json(figure, height=220, legend=False, x_title="minutes since the first start")


def facts_of_workers(record: RunRecord) -> list[tuple[str, str]]:
    """Goodput, restarts and the cost of checkpoints, one line each."""
    facts, status = [], record.status
    if status is not None and status.goodput is not None:
        share = f"{100 * status.goodput:.1f} % of {duration(status.training_seconds)}"
        facts.append(("Goodput", f"{share} spent on steps that were kept"))
    if status is not None and status.restarts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in status.restarts_by_reason.items())
        why = f" ({reasons})" if reasons else ""
        facts.append(("Restarts", f"{status.restarts}{why}, {counted(status.steps_lost, 'step')} lost"))
    saves = [event for event in _parsed(record.events) if event.event == "Checkpointed"]
    if saves:
        stall = math.fsum(event.stall_seconds for event in saves)
        save = math.fsum(event.save_seconds for event in saves) / len(saves)
        cost = f"each written in {save:.1f} s on average during training; training was blocked for {stall:.1f} s in all"
        facts.append(("Checkpoints", f"{len(saves)}, {cost}"))
    return facts


def _parsed(events: Sequence[dict[str, Any]]) -> list[_Event]:
    """The readable events. The report's section on events shows all."""
    parsed = []
    for event in events:
        try:
            parsed.append(_Event.model_validate(event))
        except ValidationError:
            continue
    return parsed
