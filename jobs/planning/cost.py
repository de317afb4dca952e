"""The cost of a plan on GPUs: hours from its floating-point operations, money from a price table.

    operations = (6, or 8 with gradient checkpointing) * parameters * tokens

as for every decoder (Kaplan et al., "Scaling Laws for Neural Language Models", section 2.1). The embedding table is not
counted, since it is only looked up. The quadratic part of attention is not counted, since it is small for the short
texts of the recipe.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from data_io.data_spec import Section
from jobs.errors import ConfigError
from jobs.planning.architecture import Architecture
from jobs.planning.estimate import Plan
from jobs.spec.job import read_job_spec
from jobs.spec.validation import first_problem


class GpuPrice(Section):
    """One GPU type in a price table."""

    price: Annotated[float, Field(ge=0, description="Price per GPU hour, in any currency.")]
    teraflops: Annotated[float, Field(gt=0, description="Dense bf16 peak in TFLOP/s. Built in for common GPUs.")]
    gigabytes: Annotated[float, Field(gt=0, description="Memory in GB. Built in for common GPUs.")]


# (dense bf16 TFLOP/s, GB) from NVIDIA's data sheets; the SXM variant if there are several.
KNOWN_GPUS: Mapping[str, tuple[float, float]] = {
    "L4": (121, 24),
    "L40S": (362, 48),
    "A100-40GB": (312, 40),
    "A100-80GB": (312, 80),
    "H100": (989, 80),
    "H200": (989, 141),
    "B200": (2250, 180),
}


@dataclass(frozen=True)
class Cost:
    """The whole job on one GPU type, one GPU per worker. `fits`: whether the memory of a GPU is sufficient."""

    gpu: str
    gpus: int
    hours: float
    gpu_hours: float
    price: float
    cost: float
    fits: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def operations(plan: Plan, architecture: Architecture, *, epochs: int, recompute: bool) -> float:
    """Floating-point operations of all epochs."""
    weights = architecture.parameters - architecture.vocab_size * architecture.hidden_size
    return float((8 if recompute else 6) * weights * plan.tokens_per_epoch * epochs)


def costs(plan: Plan, total_operations: float, prices: Mapping[str, GpuPrice], *, mfu: float) -> list[Cost]:
    """The job on each GPU type, cheapest first. `mfu` is the share of the peak that a step reaches (0 to 1)."""

    def one(name: str, gpu: GpuPrice) -> Cost:
        gpu_hours = total_operations / (gpu.teraflops * 1e12 * mfu) / 3600
        memory = plan.memory.total if plan.memory else 0
        return Cost(
            gpu=name,
            gpus=plan.workers,
            hours=gpu_hours / plan.workers,
            gpu_hours=gpu_hours,
            price=gpu.price,
            cost=gpu_hours * gpu.price,
            fits=memory <= gpu.gigabytes * 1e9,
        )

    return sorted((one(name, gpu) for name, gpu in prices.items()), key=lambda each: (not each.fits, each.cost))


def load_prices(path: str) -> dict[str, GpuPrice]:
    """A price table: `H100: 2.5`, or for another GPU `name: {price: 2.5, teraflops: 989, gigabytes: 80}`.

    Raises ConfigError for an invalid entry.
    """
    table = read_job_spec(path, holds="prices of GPUs, such as `H100: 2.5`", what="a table of GPU prices").value
    return {str(name): _price(path, str(name), value) for name, value in table.items()}


def _price(path: str, name: str, value: Any) -> GpuPrice:
    given = value if isinstance(value, dict) else {"price": value}
    sizes = dict(zip(("teraflops", "gigabytes"), KNOWN_GPUS.get(name, ()), strict=False))
    try:
        return GpuPrice.model_validate({**sizes, **given})
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {name}.{first_problem(error)}",
            remedy=f"write `GPU: price` for {', '.join(KNOWN_GPUS)}, and `GPU: {{price, teraflops, gigabytes}}` for "
            f"others",
        ) from None
