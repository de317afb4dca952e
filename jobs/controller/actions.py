"""The actions of a decision, as values; `jobs.controller.reconcile` carries them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class Create:
    """Create the object. An existing object is not changed."""

    value: Mapping[str, Any]


@dataclass(frozen=True)
class DeleteRayJob:
    """Delete a RayJob and its RayCluster, if it still exists."""

    name: str


@dataclass(frozen=True)
class RequestStop:
    """Ask the driver of an attempt to write a checkpoint and stop."""

    attempt_id: str


@dataclass(frozen=True)
class Scale:
    """Change the worker pods of a RayCluster from `before` to `after`; `victims` are the pods to delete."""

    cluster: str
    before: int
    after: int
    victims: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmitEvent:
    """A Kubernetes Event, for people."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


Action: TypeAlias = Create | DeleteRayJob | RequestStop | Scale
