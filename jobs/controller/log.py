"""The operator's log: one format for all lines, including kopf's, and one line per decision that changes something."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.controller.actions import Action, Create, DeleteRayJob, RequestStop, Scale
from jobs.controller.decision import Decision
from jobs.kube.status import ConditionType, JobPhase, JobStatus
from ray_app.structured_log import LogFormat, StructuredFormatter, fields

_FAILURES = (JobPhase.RETRYING, JobPhase.FAILED)


@dataclass(frozen=True)
class LogLine:
    """A log event and its fields. It contains names of objects, never their content, which can be secret."""

    level: int
    message: str
    fields: Mapping[str, Any]


def configure_log(level: str, log_format: LogFormat) -> None:
    """Log to standard error. kopf logs every event that it handles, so below level debug only its warnings are kept."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(StructuredFormatter(log_format))
    handler.addFilter(_name_object)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    if level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)


def _name_object(record: logging.LogRecord) -> bool:
    """Add the field `object` to a line of kopf about an object."""
    if reference := getattr(record, "k8s_ref", None):
        record.__dict__.update(fields(object=f"{reference['kind']}/{reference['namespace']}/{reference['name']}"))
    return True


def decision_line(key: tuple[str, str], before: JobStatus, decision: Decision) -> LogLine | None:
    """The log line of a decision about the job `key`; None if it has no change that is relevant for people."""
    after = decision.status
    message = _message(before, decision)
    if not message:
        return None
    changed = after.phase is not before.phase
    failed = changed and after.phase in _FAILURES
    values: dict[str, Any] = {"job": "/".join(key), "attempt": after.attempt}
    if changed:
        values |= {"phase_before": before.phase, "phase": after.phase}
    values |= _failure(after) if failed else {"reason": after.message}
    if after.phase is JobPhase.RETRYING and decision.seconds is not None:
        values["retry_in_seconds"] = round(decision.seconds)
    if _lost_heartbeat(before, after):
        values["missed_since"] = after.heartbeat_missed_since
    values |= _actions(decision.actions)
    level = logging.WARNING if failed or _lost_heartbeat(before, after) else logging.INFO
    return LogLine(level, message, values)


def _message(before: JobStatus, decision: Decision) -> str:
    """The most important change; empty if nothing changed."""
    after, kinds = decision.status, {type(each) for each in decision.actions}
    changed = after.phase is not before.phase
    candidates = {
        "job refused": changed and after.phase is JobPhase.FAILED and after.last_failure is None,
        "job finished": changed and after.phase.is_end,
        "attempt failed": changed and after.phase is JobPhase.RETRYING,
        "attempt started": after.attempt != before.attempt,
        "stop requested": RequestStop in kinds,
        "workers scaled": Scale in kinds,
        "attempt deleted": DeleteRayJob in kinds,
        "driver heartbeat missed": _lost_heartbeat(before, after),
        "phase changed": changed,
        "driver heartbeat restored": before.heartbeat_missed_since is not None and after.heartbeat_missed_since is None,
        "objects created": bool(kinds),
    }
    return next((message for message, holds in candidates.items() if holds), "")


def _lost_heartbeat(before: JobStatus, after: JobStatus) -> bool:
    return after.heartbeat_missed_since is not None and before.heartbeat_missed_since is None


def _failure(status: JobStatus) -> dict[str, Any]:
    failure = status.last_failure
    if failure is None:  # the job was refused, and no attempt was started
        refusal = status.condition(ConditionType.ACCEPTED)
        return {"error_class": "user", "error_type": refusal.reason if refusal else "", "error": status.message}
    return {"error_class": failure.error_class, "error_type": failure.reason, "error": failure.message}


def _actions(actions: tuple[Action, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for action in actions:
        match action:
            case Create(value):
                values.setdefault("create", []).append(_object(value))
            case DeleteRayJob(name):
                values["delete"] = f"RayJob/{name}"
            case RequestStop(attempt):
                values["stop_attempt"] = attempt
            case Scale(cluster, before, after, victims):
                values |= {"cluster": cluster, "scale_from": before, "scale_to": after, "victims": victims}
    return values


def _object(value: Mapping[str, Any]) -> str:
    return f"{value['kind']}/{value['metadata']['name']}"
