"""The job spec of `f2llm demo`: a small Qwen3 trained from scratch on the documentation installed on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.spec.job import API_VERSION, EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.yaml12 import RawSpec

NAME = "demo"


def demo_job(directory: Path, *, overrides: Sequence[str] = ()) -> EmbeddingJob:
    """The demo with its run in `directory`/demo and its data in `directory`/data. Raises as `load_job_spec` does."""
    return parse_job_spec(apply_overrides(RawSpec(NAME, demo_job_spec(directory)), overrides))


def demo_job_spec(directory: Path) -> dict[str, Any]:
    """The job spec as plain values. Its numbers suit two CPUs and a few minutes; they are not those of the recipe."""
    return {
        "apiVersion": API_VERSION,
        "kind": "EmbeddingJob",
        "metadata": {"name": NAME},
        "spec": {
            "model": {
                # Many small heads: a head of 16 dimensions is limited in how strongly it can attend to one token.
                # Otherwise a model trained from scratch learns to attend to the EOS token only: all embeddings are
                # then equal, and training stops making progress.
                "architecture": {
                    "hidden_size": 256,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 16,
                    "num_key_value_heads": 16,
                    "head_dim": 16,
                    "intermediate_size": 128,
                    "initializer_range": 0.05,
                },
                "max_seq_length": 64,
            },
            "data": {
                "uri": str(directory / "data"),
                "hard_negatives": {"retrieval": 3, "clustering": 3, "classification": 1},
            },
            "train": {
                "epochs": 2,
                "global_batch_size": 32,
                "micro_batch_size": 16,
                "learning_rate": 1e-3,
                "min_learning_rate": 1e-6,
                "warmup_steps": 20,
                "in_batch": "step",
                "precision": "fp32",
                "gradient_checkpointing": False,
                "record_examples": True,
            },
            "workers": {"replicas": 2, "cpus": 1},
            "storage": {"uri": str(directory)},
            "checkpoint": {"every": "200 steps", "keep": 2},
        },
    }
