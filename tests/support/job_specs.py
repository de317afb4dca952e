"""Job specs for tests, and Hypothesis strategies that generate them."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from jobs.spec.fields import SpecField
from jobs.spec.job import SPEC_FIELDS
from jobs.spec.presets import PRESET_NAMES, merged

MINIMAL: Mapping[str, Any] = {
    "apiVersion": "f2llm.dev/v1alpha1",
    "kind": "EmbeddingJob",
    "metadata": {"name": "job"},
    "spec": {"model": {"name_or_path": "Qwen/Qwen3-0.6B"}, "data": {"uri": "data"}},
}


ON_A_CLUSTER: Mapping[str, Any] = {
    "storage": {"uri": "s3://bucket/runs"},
    "data": {"uri": "s3://bucket/data"},
    "workers": {"replicas": 2},
}
"""A spec that a cluster accepts: two workers, data and runs in a bucket."""


def job_spec(spec: Mapping[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """The smallest valid job spec, with `spec` merged into its spec and `top` into its top level."""
    return merged(merged(MINIMAL, {"spec": spec or {}}), top)


def is_in_a_list(field: SpecField) -> bool:
    """Whether the field belongs to the items of a list, so that a job spec has several values of it."""
    above = (SPEC_FIELDS.get(".".join(field.path[:depth])) for depth in range(1, len(field.path)))
    return any(section is not None and section.expected.startswith("a list of mappings") for section in above)


def section_text() -> st.SearchStrategy[str]:
    """Text that a naive YAML writer would not preserve: keywords, numbers, quotes, line breaks."""
    traps = [
        "off",
        "no",
        "1e5",
        "1e-5",
        "0o17",
        "12:30",
        "null",
        "~",
        "",
        " a",
        "a: b",
        "2026-01-01",
        "<<",
        "true",
        "=",
        "1_0",
    ]
    return st.sampled_from(traps) | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


def specs() -> st.SearchStrategy[dict[str, Any]]:
    """Valid specs: any subset of sections, with values that keep the rules across fields."""
    micro = st.integers(1, 64)
    train = st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 5),
            "learning_rate": st.floats(1e-6, 1),
            "warmup_steps": st.integers(0, 10_000),
            "weight_decay": st.floats(0, 1),
            "temperature": st.floats(0.001, 10),
            "in_batch": st.sampled_from(["step", "micro_batch", "off"]),
            "token_deletion": st.floats(0, 0.5),
            "step_source": st.sampled_from(["independent", "same", "mixed"]),
            "source_sampling": st.sampled_from(["proportional", "uniform"]),
            "precision": st.sampled_from(["bf16", "fp32"]),
            "gradient_checkpointing": st.booleans(),
            "seed": st.integers(0, 2**63 - 1),
        },
    )
    batches = st.tuples(micro, st.integers(8, 32)).map(
        lambda pair: {"micro_batch_size": pair[0], "global_batch_size": pair[0] * pair[1]}
    )
    workers = st.tuples(st.integers(1, 8), st.integers(0, 7), st.integers(0, 7)).map(
        lambda w: {"replicas": w[0], "min": max(1, w[0] - w[1]), "max": w[0] + w[2]}
    )
    data = st.fixed_dictionaries(
        {"uri": st.sampled_from(["data", "s3://bucket/data", "/srv/data"])},
        optional={
            "sources": st.none() | st.lists(section_text(), min_size=1, max_size=3),
            "hard_negatives": st.fixed_dictionaries({}, optional={"clustering": st.integers(0, 128)}),
            "verify": st.sampled_from(["always", "never"]),
        },
    )
    model = st.one_of(
        st.fixed_dictionaries({"name_or_path": section_text()}, optional={"revision": st.none() | section_text()}),
        st.fixed_dictionaries({"architecture": st.just({"hidden_size": 64}), "name_or_path": st.none()}),
    )
    return st.fixed_dictionaries(
        {"data": data, "model": model, "train": st.tuples(train, batches).map(lambda parts: parts[0] | parts[1])},
        optional={
            "preset": st.sampled_from(PRESET_NAMES),
            "workers": workers,
            "evaluation": st.fixed_dictionaries(
                {},
                optional={
                    "max_queries": st.none() | st.integers(1, 100),
                    "tasks": st.lists(
                        st.sampled_from(["STSBenchmark", "MTEB(eng, v2)", "faq:sts=faq.parquet"]), max_size=2
                    ),
                },
            ),
        },
    ).filter(_workers_fit)


def _workers_fit(spec: dict[str, Any]) -> bool:
    # A preset sets 16 or 32 workers if the spec sets none.
    slots = spec["train"]["global_batch_size"] // spec["train"]["micro_batch_size"]
    return "workers" in spec or "preset" not in spec or slots >= 32
