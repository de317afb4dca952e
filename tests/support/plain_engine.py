"""The engine's part in a step without DeepSpeed: gradients are summed over passes and ranks, in any precision."""

import torch
import torch.distributed as dist
from torch import Tensor

from ray_app.models.embedder import Embedder
from ray_app.models.packing import PackedBatch


class PlainEngine:
    """Replaces ray_app.training.engine.Engine if a test needs fp64 or the gradients themselves."""

    device = torch.device("cpu")

    def __init__(self, model: Embedder) -> None:
        self.model = model
        self.passes: list[bool] = []

    def embed(self, batch: PackedBatch) -> Tensor:
        return self.model(batch)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.passes.append(last)
        loss.backward()  # type: ignore[no-untyped-call]
        if last and dist.is_initialized():
            for parameter in self.model.parameters():
                dist.all_reduce(parameter.grad)

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
