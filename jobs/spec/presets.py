"""The published hyperparameters, by name.

Source: arXiv 2510.02294, Table 1 and section 3. Values that the paper does not give come from the released training
code: Adam's second moment, the lowest learning rate, hard negatives per step. Warm-up is 500 optimizer steps as in the
paper, not the 16 to 31 of the released code. A job spec with a preset contains only the fields that differ.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

PresetName = Literal["f2llm-0.6b", "f2llm-1.7b", "f2llm-4b"]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)


def _preset(model: str, *, learning_rate: float, micro_batch_size: int, gpus: int) -> dict[str, Any]:
    return {
        "model": {"name_or_path": model, "max_seq_length": 1024, "attn_implementation": "auto"},
        "data": {"hard_negatives": {"retrieval": 7, "clustering": 7, "classification": 1}},
        "train": {
            "epochs": 2,
            "global_batch_size": 512,
            "micro_batch_size": micro_batch_size,
            "learning_rate": learning_rate,
            "min_learning_rate": 1e-7,
            "warmup_steps": 500,
            "weight_decay": 0.01,
            "adam_beta1": 0.9,
            "adam_beta2": 0.98,
            "max_grad_norm": 1.0,
            "temperature": 0.05,
            "in_batch": "step",
            "step_source": "independent",
            "precision": "bf16",
            "gradient_checkpointing": True,
        },
        "workers": {"replicas": gpus, "cpus": 8.0, "gpus": 1},
        "checkpoint": {"every": "auto", "keep": 2},
    }


PRESETS: Mapping[PresetName, Mapping[str, Any]] = {
    "f2llm-0.6b": _preset("Qwen/Qwen3-0.6B", learning_rate=1e-5, micro_batch_size=32, gpus=16),
    "f2llm-1.7b": _preset("Qwen/Qwen3-1.7B", learning_rate=9e-6, micro_batch_size=32, gpus=16),
    "f2llm-4b": _preset("Qwen/Qwen3-4B", learning_rate=8e-6, micro_batch_size=16, gpus=32),
}


def preset_values(name: object) -> Mapping[str, Any]:
    """The values of a preset, below `spec`; empty if `name` is not a preset."""
    return next((values for known, values in PRESETS.items() if known == name), {})


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, merged by section. Values of `over` win, null too; lists are replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
