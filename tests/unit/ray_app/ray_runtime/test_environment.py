"""Too few GPUs on this machine: the message has the numbers, and the remedy fits the command."""

import pytest
import torch

from ray_app.errors import CapacityError
from ray_app.ray_runtime import environment


@pytest.mark.parametrize(
    ("gpus", "there", "of_job", "message", "remedy"),
    [
        (1, 0, True, "1 GPU is requested, but this machine has none", "use `--set workers.gpus=0` to train on CPU; or"),
        (2, 1, True, "2 GPUs are requested, but this machine has 1", "use `--workers 1`, or `--set workers.gpus=0`"),
        (1, 0, False, "1 GPU is requested, but this machine has none", "leave out `--gpus` to use the CPU; or"),
        (4, 2, False, "4 GPUs are requested, but this machine has 2", "use `--gpus 2`; or"),
    ],
)
def test_too_few_gpus_are_reported_with_a_smaller_request(
    gpus: int, there: int, of_job: bool, message: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "EMBEDDED", True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)

    with pytest.raises(CapacityError) as caught:
        environment.check_gpus(gpus, of_job=of_job)

    assert caught.value.message == message
    assert str(caught.value.remedy).startswith(remedy)
