"""The inputs of a data order. Two runs with equal fingerprints use the same examples in the same order."""

from pydantic import BaseModel, ConfigDict

from data_io.data_spec import HardNegatives


class Fingerprint(BaseModel):
    """Part of every checkpoint. A run refuses to resume with another fingerprint and names the field that differs."""

    model_config = ConfigDict(frozen=True)

    planner_version: int
    data_version: str
    sources: tuple[str, ...]
    micro_batch_size: int
    micro_batches_per_step: int
    step_source: str
    source_sampling: str
    seed: int
    hard_negatives: HardNegatives
    token_deletion: float
    tokenizer: str

    def differences(self, other: "Fingerprint") -> list[str]:
        """Fields that differ, each as `field: mine, theirs`. Empty if the orders are equal."""
        return [
            f"{name}: {getattr(self, name)!r} here, {getattr(other, name)!r} there"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(other, name)
        ]
