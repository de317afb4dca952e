"""Leader election by a Lease, so that of several operators one acts and another takes over when it is gone.

A holder renews the Lease; another takes it once it has seen no renewal for the Lease's length by its own clock, so that
the machines' clocks need not agree. The write is refused where somebody was faster.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from jobs.errors import F2LLMError, StaleObject
from jobs.k8s_api import KubeApi, micro_time

LEASE_SECONDS = 15
RENEW_SECONDS = 5
_log = logging.getLogger(__name__)


class LeaderLease:
    """One candidate. `identity` must be its own, such as the name of its pod."""

    def __init__(self, api: KubeApi, *, name: str, namespace: str, identity: str) -> None:
        self._api, self._name, self._namespace, self._identity = api, name, namespace, identity
        self._seen: Any = None
        self._seen_at = 0.0

    def wait(self) -> None:
        """Return once this candidate leads."""
        while not self.try_once():
            time.sleep(RENEW_SECONDS / 2)
        _log.info("leading as %s", self._identity)

    def try_once(self) -> bool:
        """Take or renew the lease; says whether this candidate leads now."""
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
        """Let the next candidate in at once."""
        lease = self._api.get("Lease", self._name, namespace=self._namespace)
        if lease is not None and lease.get("spec", {}).get("holderIdentity") == self._identity:
            self._api.replace({**lease, "spec": {**lease["spec"], "holderIdentity": ""}})

    def keep(self, lost: Callable[[], None]) -> None:
        """Renew in a thread of its own; call `lost` where that has not worked for the lease's length."""

        def renew() -> None:
            renewed = time.monotonic()
            while time.monotonic() - renewed < LEASE_SECONDS * 0.8:
                time.sleep(RENEW_SECONDS)
                try:
                    if self.try_once():
                        renewed = time.monotonic()
                except F2LLMError as error:
                    _log.warning("the lease was not renewed: %s", error.message)
            lost()

        threading.Thread(target=renew, name="lease", daemon=True).start()

    def _is_over(self, spec: Mapping[str, Any]) -> bool:
        record = (spec.get("holderIdentity"), spec.get("renewTime"))
        if record != self._seen:
            self._seen, self._seen_at = record, time.monotonic()
        return time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds", LEASE_SECONDS))

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
