"""Leader election with a Lease: one replica of the operator is the leader, and another takes over if it fails.

The leader renews the Lease. Another replica acquires it after it has seen no renewal for the duration of the Lease by
its own clock, so the clocks of nodes need not agree. If two replicas write at once, the API server rejects the second.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from jobs.errors import F2LLMError, KubernetesError, StaleObject
from jobs.kube.api import KubeApi, micro_time
from ray_app.structured_log import error_fields, fields

LEASE_SECONDS = 15
RENEW_SECONDS = 5
_LEADS_SHARE = 0.8
"""Share of the Lease duration after which the leader considers the Lease lost, before others can acquire it."""
_log = logging.getLogger(__name__)


class LeaderLease:
    """One candidate. `identity` must be unique, such as the name of its pod."""

    def __init__(self, api: KubeApi, *, name: str, namespace: str, identity: str) -> None:
        self._api = replace(api, answer_seconds=RENEW_SECONDS)
        self._name, self._namespace, self._identity = name, namespace, identity
        self._observed: Any = None
        self._seen_at = 0.0
        self._leads_until = 0.0
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []

    def wait(self) -> None:
        """Return once this candidate is the leader."""
        while not self._acquired():
            time.sleep(RENEW_SECONDS / 2)
        _log.info("lease acquired", extra=self._fields())

    def _acquired(self) -> bool:
        try:
            return self.try_once()
        except KubernetesError as error:
            if not error.retryable:
                raise
            _log.warning("lease not acquired", extra=self._fields(**error_fields(error)))
            return False

    def try_once(self) -> bool:
        """Acquire or renew the Lease. Returns whether this candidate is the leader now."""
        asked = time.monotonic()
        if leads := self._take():
            self._leads_until = asked + LEASE_SECONDS * _LEADS_SHARE
        return leads

    def _take(self) -> bool:
        lease = self._api.get("Lease", self._name, namespace=self._namespace)
        try:
            if lease is None:
                self._api.create(self._lease({}, transitions=0))
                return True
            spec = lease.get("spec", {})
            if spec.get("holderIdentity") not in (self._identity, "", None) and not self._is_over(spec):
                return False
            ours = spec.get("holderIdentity") == self._identity
            transitions = spec.get("leaseTransitions", 0) + (not ours)
            self._api.replace(self._lease(lease["metadata"], transitions=transitions))
        except StaleObject:
            return False
        return True

    def release(self) -> None:
        """Stop renewing, then free the Lease, so that the next candidate can acquire it at once."""
        self.stop()
        lease = self._api.get("Lease", self._name, namespace=self._namespace)
        if lease is not None and lease.get("spec", {}).get("holderIdentity") == self._identity:
            self._api.replace({**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
            _log.info("lease released", extra=self._fields())

    def stop(self) -> None:
        """Stop the threads of `keep`. Without this, a renewal in progress could acquire a released Lease again."""
        self._released.set()
        for thread in self._threads:
            thread.join(2 * (self._api.answer_seconds or RENEW_SECONDS))  # a renewal has two requests

    def keep(self, lost: Callable[[], None]) -> None:
        """Renew in a separate thread. Call `lost` if no renewal has succeeded for the duration of the Lease, even while
        a request is still in progress.
        """

        def renew() -> None:
            renewed = True
            while time.monotonic() < self._leads_until:
                if self._released.wait(RENEW_SECONDS if renewed else RENEW_SECONDS / 5):
                    return
                try:
                    renewed = self.try_once()
                except F2LLMError as error:
                    renewed = False
                    _log.warning("lease not renewed", extra=self._fields(**error_fields(error)))

        def watch() -> None:
            while (left := self._leads_until - time.monotonic()) > 0:
                if self._released.wait(left):
                    return
            _log.error("lease lost", extra=self._fields())
            lost()

        for work in (renew, watch):
            thread = threading.Thread(target=work, name=f"lease-{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _is_over(self, spec: Mapping[str, Any]) -> bool:
        record = (spec.get("holderIdentity"), spec.get("renewTime"))
        if record != self._observed:
            if self._observed is None or record[0] != self._observed[0]:
                _log.info("lease held by another", extra=self._fields(holder=record[0]))
            self._observed, self._seen_at = record, time.monotonic()
        return time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds", LEASE_SECONDS))

    def _fields(self, **more: Any) -> dict[str, Any]:
        return fields(lease=f"{self._namespace}/{self._name}", identity=self._identity, **more)

    def _lease(self, metadata: Mapping[str, Any], *, transitions: int) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": micro_time(),
                "leaseTransitions": transitions,
            },
        }
