"""The only module that imports DeepSpeed. ZeRO stage 2 manages gradients, optimizer partitions and clipping.

A step is any number of backward passes followed by one update. The number of passes differs between steps, because the
last step of an epoch is shorter. Therefore this module marks the last pass of a step itself and does not use
DeepSpeed's counter of accumulation steps.
"""

import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

# Without this variable DeepSpeed probes for accelerators and prints to standard output which ones it did not find.
if "DS_ACCELERATOR" not in os.environ:
    os.environ["DS_ACCELERATOR"] = "cuda" if torch.cuda.is_available() else "cpu"

import deepspeed
import torch.distributed as dist
from torch import Tensor

from ray_app.checkpointing.checkpoint import STATES, Fragment
from ray_app.job_spec import TrainSpec
from ray_app.models.embedder import Embedder
from ray_app.models.packing import PackedBatch

# DeepSpeed imports its Muon optimizer to check the optimizer's type. That module calls torch.compile during import,
# which loads all of torch's compiler: 4 s of every start. Import it here first, with torch.compile replaced.
with mock.patch.object(torch, "compile", lambda function: function):
    import deepspeed.runtime.zero.muon.muon_optimizer


class Engine:
    """An Embedder under DeepSpeed.

    torch.distributed must be initialized. Every rank must build an engine with the same weights.
    """

    def __init__(self, model: Embedder, train: TrainSpec) -> None:
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=train.learning_rate,
            betas=(train.adam_beta1, train.adam_beta2),
            eps=train.adam_epsilon,
            weight_decay=train.weight_decay,
            fused=True,
        )
        # DeepSpeed would compile a shared-memory all-reduce, which only inference uses, and fail without a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=_deepspeed_config(train), dist_init_required=False
        )
        # DeepSpeed casts buffers together with the weights. Rotary frequencies in bf16 are useless at long positions.
        for name, buffer in buffers.items():
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, buffer.to(self._engine.device))
        self._zero = self._engine.optimizer
        self._world_size = dist.get_world_size()
        self.device = torch.device(self._engine.device)

    @property
    def model(self) -> Embedder:
        """The module itself, for passes without gradient."""
        return self._engine.module  # type: ignore[no-any-return]

    def embed(self, batch: PackedBatch) -> Tensor:
        """Embeddings with gradient, float32 [N, D]."""
        return self._engine(batch)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of `loss` to the step's gradient. Gradients are summed over ranks and passes, not averaged.

        Every rank must make the same number of calls in a step, and set `last` on the final one.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed divides by the number of ranks.
        self._engine.backward(loss * self._world_size)

    def update(self, learning_rate: float) -> float:
        """Clip and apply the step's gradient. Returns its norm before clipping: inf or nan if it is not finite."""
        for group in self._zero.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def fragments(self) -> Iterator[Fragment]:
        """This rank's part of the model and optimizer state. Before the first update the moments are zero."""
        self._make_optimizer_state()
        for name, parameter in self.model.named_parameters():
            mapping: Any = getattr(parameter, "_hp_mapping")  # noqa: B009 - set by DeepSpeed, unknown to type stubs
            if mapping is None:  # it belongs to another rank
                continue
            address = mapping.lp_fragment_address
            values = {"weight": mapping.get_hp_fragment()}
            for key in ("exp_avg", "exp_avg_sq"):
                values[key] = mapping.get_hp_fragment(optim_state_key=key)
            for state in STATES:
                yield Fragment(name, state, values[state].view(-1), address.start, parameter.numel())

    def finish_restore(self, *, updates: int) -> None:
        """Call after every fragment is restored. `updates`: the number of optimizer updates that the state has seen."""
        for state in self._adam.state.values():
            state["step"].fill_(updates)
        self._zero.update_lp_params()

    @property
    def _adam(self) -> torch.optim.Optimizer:
        return self._zero.optimizer  # type: ignore[no-any-return]

    def _make_optimizer_state(self) -> None:
        """Create Adam's state now: Adam creates it at the first update, which a checkpoint or a restore may precede."""
        for group in self._adam.param_groups:
            for flat in group["params"]:
                if not self._adam.state[flat]:
                    self._adam.state[flat] = {
                        "step": torch.zeros((), dtype=torch.float32, device=flat.device),
                        "exp_avg": torch.zeros_like(flat),
                        "exp_avg_sq": torch.zeros_like(flat),
                    }
        self._zero._lazy_init_hp_params_optimizer_state()


def _deepspeed_config(train: TrainSpec) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # required by DeepSpeed but not used: the training loop decides
        "gradient_accumulation_steps": 1,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": {"stage": 2, "overlap_comm": False, "contiguous_gradients": True},
        "zero_allow_untested_optimizer": True,  # torch's fused AdamW
        "bf16": {"enabled": train.precision == "bf16"},
        "steps_per_print": 10**9,
    }
