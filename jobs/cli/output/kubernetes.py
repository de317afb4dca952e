"""Text about jobs on a cluster."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_io.wording import counted
from jobs.formatting import short_number
from jobs.kube.observed import Pod
from jobs.kube.status import ConditionType, JobStatus, status_of

_SHOWN_EVENTS = 10


def row(job: Mapping[str, Any]) -> list[str]:
    """The cells of a job in the list: name, phase, step, progress, loss, workers, ETA, attempt."""
    status, wanted = status_of(job), job["spec"].get("workers", {}).get("replicas", "?")
    return [
        job["metadata"]["name"],
        status.phase.value,
        f"{status.step}/{status.total_steps}" if status.total_steps else "-",
        status.progress or "-",
        "-" if status.loss is None else f"{status.loss:.3f}",
        f"{status.ready_replicas}/{wanted}",
        status.eta or "-",
        str(status.attempt),
    ]


def remark(status: JobStatus) -> str:
    """The state of a job in one line."""
    pieces = [status.phase.value]
    if status.total_steps:
        pieces.append(f"step {status.step}/{status.total_steps}")
    if status.loss is not None:
        pieces.append(f"loss {status.loss:.3f}")
    if status.examples_per_second is not None:
        pieces.append(f"{short_number(status.examples_per_second)} examples/s")
    pieces.append(counted(status.ready_replicas, "worker"))
    if status.eta:
        pieces.append(f"ETA {status.eta}")
    return "  ".join([*pieces, _in_one_line(status.message)]).rstrip()


def summary(job: Mapping[str, Any]) -> Iterator[str]:
    """The state of a job: refusals and failures come first."""
    status = status_of(job)
    yield from _pair("job", f"{job['metadata']['namespace']}/{job['metadata']['name']}, attempt {status.attempt}")
    yield from _pair("state", remark(status))
    yield from _pair("run", status.run_uri)
    refusal = status.condition(ConditionType.ACCEPTED)
    if refusal is not None and refusal.status == "False":
        yield from _pair("refused", refusal.message)
    if (failure := status.last_failure) is not None:
        yield from _pair("failure", f"{failure.error_class} error {failure.reason} of attempt {failure.attempt}")
        yield from _pair("", failure.message)
        yield from _pair("hint", failure.remedy)
        if status.next_attempt_time:
            yield from _pair("next try", status.next_attempt_time)
    if status.last_checkpoint_step is not None:
        yield from _pair("checkpoint", f"step {status.last_checkpoint_step}")
    yield "conditions"
    for each in status.conditions:
        reason, message = _in_one_line(each.reason), _in_one_line(each.message)
        yield f"  {each.type.value:<13}{each.status:<8}{reason:<20}{message}".rstrip()


def description(job: Mapping[str, Any], pods: Sequence[Pod], events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The summary, pods and newest events of a job."""
    yield from summary(job)
    yield "pods"
    for pod in pods:
        state = "ending" if pod.terminating else "ready" if pod.ready else "not ready"
        memory = "ran out of memory" if pod.out_of_memory and not pod.trouble else ""
        yield f"  {pod.name:<50} {'; '.join(filter(None, (state, memory, _in_one_line(pod.trouble))))}"
    if not pods:
        yield "  none"
    yield "events"
    for event in events[-_SHOWN_EVENTS:]:
        moment = (event.get("eventTime") or event["metadata"]["creationTimestamp"])[:19]
        yield f"  {moment}  {event['type']:<8}{event['reason']:<16}{_in_one_line(event.get('note', ''))}"


def _pair(label: str, text: str) -> Iterator[str]:
    """Further lines of the text are indented, so that none of them looks like another label."""
    for number, line in enumerate(text.splitlines()):
        yield f"{'' if number else label:<12}{line}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
