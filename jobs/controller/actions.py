"""The actions of a decision, as values; `jobs.controller.reconcile` carries them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class Apply:
    """Make the object as it is here, whether it is there or not."""

    value: Mapping[str, Any]


@dataclass(frozen=True)
class Create:
    """Make the object once. One that is there already is left as it is."""

    value: Mapping[str, Any]


@dataclass(frozen=True)
class DeleteRayJob:
    """Delete a RayJob, and with it its cluster; nothing happens where it is gone."""

    name: str


@dataclass(frozen=True)
class RequestStop:
    """Ask the driver of an attempt for a checkpoint and its end."""

    attempt_id: str


@dataclass(frozen=True)
class Scale:
    """Change the worker pods of a RayCluster from `before` to `after`; `victims` are the pods to go."""

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


Action: TypeAlias = Apply | Create | DeleteRayJob | RequestStop | Scale
