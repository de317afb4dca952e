"""The document of `f2llm demo`: a small Qwen3 from nothing, on the documentation that is on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.spec.job import API_VERSION, EmbeddingJob, apply_overrides, parse_job_spec
from jobs.spec.yaml12 import RawSpec

NAME = "demo"


def demo_job(folder: Path, *, overrides: Sequence[str] = ()) -> EmbeddingJob:
    """The demo with its run in `folder`/demo and its data set in `folder`/data. Raises as `load_job_spec` does."""
    return parse_job_spec(apply_overrides(RawSpec(NAME, demo_job_spec(folder)), overrides))


def demo_job_spec(folder: Path) -> dict[str, Any]:
    """The document as plain values. The numbers are for two CPU cores and a few minutes, not the recipe's."""
    return {
        "apiVersion": API_VERSION,
        "kind": "EmbeddingJob",
        "metadata": {"name": NAME},
        "spec": {
            "model": {
                # Many small heads: 16 dimensions bound what a head can single out, so a model from nothing does not
                # learn to look at the EOS alone, where all embeddings are equal and nothing is left to learn from.
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
                "uri": str(folder / "data"),
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
            "storage": {"uri": str(folder)},
            "checkpoint": {"every": "200 steps", "keep": 2},
        },
    }
