"""Starting Ray: a start that times out is retried; any other error is reported at once."""

import os
import subprocess
import sys

import pytest
import ray

from ray_app.errors import CapacityError
from ray_app.ray_runtime import cluster as cluster_module
from ray_app.ray_runtime.cluster import cluster
from tests.support.s3_server import free_port


class Starts:
    """A replacement of `ray.init` that fails with these messages in turn, then starts."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.tries = 0

    def __call__(self, **_: object) -> None:
        self.tries += 1
        if self.failures:
            raise RuntimeError(self.failures.pop(0))


LATE = "The current node timed out during startup. This could happen because the raylet failed to startup."
REFUSED = "Failed to start GCS.\n\nLast error: Traceback\n  File node.py\nAuthenticationError: no token\n"


def test_a_start_that_times_out_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(LATE, LATE)
    monkeypatch.setattr(ray, "init", starts)
    with cluster(cpus=1):
        assert starts.tries == 3


@pytest.mark.parametrize(("failures", "tries"), [([LATE] * 4, 3), ([REFUSED], 1)])
def test_a_start_that_keeps_failing_is_a_capacity_error(
    failures: list[str], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(*failures)
    monkeypatch.setattr(ray, "init", starts)
    with pytest.raises(CapacityError, match="Ray did not start"), cluster(cpus=1):
        pass
    assert starts.tries == tries


def test_the_cause_inside_rays_message_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", Starts(REFUSED))
    with pytest.raises(CapacityError, match=r"Failed to start GCS\. AuthenticationError: no token\n"), cluster(cpus=1):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_reported_soon(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    starts = Starts()
    monkeypatch.setattr(ray, "init", starts)
    monkeypatch.setattr(cluster_module, "EMBEDDED", False)
    monkeypatch.setattr(cluster_module, "FIRST_ANSWER_SECONDS", 0.0)
    monkeypatch.setenv("RAY_ADDRESS", address)

    with (
        pytest.raises(CapacityError, match=rf"no Ray cluster answers at {address} \(RAY_ADDRESS\): .*refused"),
        cluster(cpus=1),
    ):
        pass

    assert starts.tries == 0


@pytest.mark.parametrize(("address", "embedded"), [("", True), ("127.0.0.1:6379", False)])
def test_an_empty_address_counts_as_not_set(address: str, embedded: bool) -> None:
    program = "from ray_app.ray_runtime.environment import EMBEDDED; print(EMBEDDED)"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"{embedded}\n"
