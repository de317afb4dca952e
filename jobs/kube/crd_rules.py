"""Rules across fields of the CustomResourceDefinition, in CEL. Each message says what to write instead.

The validators of the models contain the same rules. Rules in the CRD also apply to `kubectl apply`. A preset can set a
field that is left out, so a rule only checks fields that are written; the operator checks the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.spec.cluster import OUR_DIRECTORIES, OUR_VOLUMES
from jobs.spec.diff import may_change
from jobs.spec.fields import JOB_NAME_PATTERN
from jobs.spec.job import MAX_NAME_LENGTH, SPEC_FIELDS
from jobs.spec.volumes import (
    MOUNT_REMEDY,
    OUTWARD_PATTERN,
    OUTWARD_REMEDY,
    REMOTE_PATTERN,
    URI_FIELDS,
    not_mounted,
    outward,
)


@dataclass(frozen=True)
class Rule:
    """A CEL expression over `self` at `path` of the custom resource, and the message if the expression is false.

    The message is fixed text: converting numbers to strings would exceed the API server's cost limit for rules.
    """

    path: tuple[str, ...]
    holds: str
    message: str

    def to_dict(self) -> dict[str, str]:
        return {"rule": self.holds, "message": self.message}


def rules() -> Iterator[Rule]:
    """Every rule. Rules of one path are in the order in which a user should fix them."""
    yield from _NAME
    yield from _recipe_is_fixed()
    yield from _SPEC
    yield from _SECTIONS


_NAME = (
    Rule(
        (),
        f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
        f"metadata.name is too long for the names of its pods; write at most {MAX_NAME_LENGTH} characters",
    ),
    Rule(
        (),
        f"self.metadata.name.matches('{JOB_NAME_PATTERN}')",
        "metadata.name must begin with a letter and contain only a-z, 0-9 and -; write for example my-run",
    ),
)

_SPEC = (
    Rule(
        ("spec",),
        "has(self.preset) || has(self.model)",
        "spec.preset and spec.model are both missing; write preset: f2llm-0.6b, or model: with name_or_path",
    ),
    Rule(
        ("spec",),
        "has(self.storage.uri)",
        "spec.storage.uri is missing, and a directory in a pod is lost with the pod; write storage: {uri: "
        "s3://bucket/prefix}",
    ),
    *(
        Rule(
            ("spec",),
            f"!has(self.{field}) || !self.{field}.matches(r'{OUTWARD_PATTERN}')",
            f"{outward(field)}; {OUTWARD_REMEDY}",
        )
        for field in URI_FIELDS
    ),
    *(
        Rule(
            ("spec",),
            f"!has(self.{field}) || self.{field}.matches('{REMOTE_PATTERN}') || has(self.cluster.volumes) && "
            f"self.cluster.volumes.exists(v, self.{field} == v.mount_path || "
            f"self.{field}.startsWith(v.mount_path + '/'))",
            f"{not_mounted(field)}; {MOUNT_REMEDY}",
        )
        for field in URI_FIELDS
    ),
    Rule(
        ("spec",),
        "self.workers.?gpus.orValue(0) == 0 || !has(self.train.global_batch_size) || !has(self.train.micro_batch_size)"
        " || self.workers.?min.orValue(self.workers.?replicas.orValue(1))"
        " <= self.train.global_batch_size / self.train.micro_batch_size",
        "a step has fewer micro-batches than workers, so GPUs would be idle; "
        "write workers.min or workers.replicas: at most train.global_batch_size / train.micro_batch_size",
    ),
    Rule(
        ("spec",),
        "!has(self.train.matryoshka_dims) || !has(self.model) || !has(self.model.architecture)"
        " || self.train.matryoshka_dims.all(d, d <= self.model.architecture.hidden_size)",
        "train.matryoshka_dims exceeds the width of the embedding; write values of at most "
        "model.architecture.hidden_size",
    ),
    Rule(
        ("spec",),
        "!has(self.train.precision) || self.train.precision != 'fp32' || !has(self.model)"
        " || !has(self.model.attn_implementation) || self.model.attn_implementation in ['auto', 'sdpa']",
        "model.attn_implementation supports only 16-bit numbers, but train.precision is fp32; "
        "write attn_implementation: auto or precision: bf16",
    ),
)

_SECTIONS = (
    Rule(
        ("spec", "workers"),
        "!has(self.min) || self.min <= self.?replicas.orValue(self.min)",
        "replicas is below min; write a smaller min or a larger replicas",
    ),
    Rule(
        ("spec", "workers"),
        "!has(self.max) || self.?replicas.orValue(self.max) <= self.max",
        "replicas is above max; write a larger max or a smaller replicas",
    ),
    Rule(
        ("spec", "workers"),
        "!has(self.max) || !has(self.min) || self.min <= self.max",
        "min is above max; write a smaller min or a larger max",
    ),
    Rule(
        ("spec", "train"),
        "!has(self.global_batch_size) || !has(self.micro_batch_size) || "
        "self.global_batch_size % self.micro_batch_size == 0",
        "global_batch_size is not a multiple of micro_batch_size; write a multiple, for example 512 and 32",
    ),
    Rule(
        ("spec", "train"),
        "!has(self.learning_rate) || !has(self.min_learning_rate) || self.min_learning_rate <= self.learning_rate",
        "min_learning_rate is above learning_rate; write a smaller value, for example learning_rate / 100",
    ),
    Rule(
        ("spec", "train"),
        "!has(self.matryoshka_dims) || self.matryoshka_dims.all(i, self.matryoshka_dims.exists_one(j, i == j))"
        " && self.matryoshka_dims.isSorted()",
        "matryoshka_dims must ascend; write for example [64, 128, 256]",
    ),
    Rule(
        ("spec", "train"),
        "!has(self.matryoshka_weights) || size(self.matryoshka_weights) == size(self.?matryoshka_dims.orValue([]))",
        "matryoshka_weights and matryoshka_dims differ in length; write one weight per width, or remove "
        "matryoshka_weights",
    ),
    Rule(
        ("spec", "model"),
        "!(has(self.name_or_path) && has(self.architecture))",
        "name_or_path and architecture are both set, and only one of them can be; remove one",
    ),
    Rule(
        ("spec", "model", "architecture"),
        "self.num_attention_heads % self.num_key_value_heads == 0",
        "num_attention_heads is not a multiple of num_key_value_heads; write num_key_value_heads: 1",
    ),
    Rule(
        ("spec", "cluster", "volumes", "[]"),
        "[has(self.claim), has(self.config_map), has(self.secret)].filter(given, given).size() == 1",
        "a volume needs exactly one of claim, config_map and secret; write for example claim: my-models",
    ),
    Rule(
        ("spec", "cluster", "volumes", "[]"),
        f"!(self.name in {list(OUR_VOLUMES)}) && !self.mount_path.matches('{OUR_DIRECTORIES}')",
        "a volume conflicts with a volume that every pod has; "
        f"use a name other than {', '.join(OUR_VOLUMES)}, and a directory such as /models",
    ),
    Rule(
        ("spec", "cluster", "volumes"),
        "self.all(v, self.exists_one(w, w.mount_path == v.mount_path))",
        "two volumes have the same mount_path; use a different one for each",
    ),
)


def _recipe_is_fixed() -> Iterator[Rule]:
    """A started job keeps its recipe. Only fields that do not affect a step may change (jobs.spec.diff)."""
    started = "oldSelf.?status.?attempt.orValue(0) > 0"
    for path in _fixed_paths():
        # Not with optional values: the API server assumes their largest size when it estimates the cost of a rule.
        field = ".".join(path)
        before, after = (
            "(" + " && ".join(f"has({version}.{'.'.join(path[:depth])})" for depth in _perhaps_missing(path)) + ")"
            for version in ("oldSelf", "self")
        )
        same = f"{before} == {after} && (!{before} || self.{field} == oldSelf.{field})"
        yield Rule(
            (),
            f"!({started}) || {same}",
            f"{field} cannot change once the job has started; restore its value, or use another metadata.name",
        )


def _perhaps_missing(path: tuple[str, ...]) -> Iterator[int]:
    """Depths of the path whose field may be missing in a stored job, including the full path."""
    return (depth for depth in range(2, len(path) + 1) if path[:depth] not in _ALWAYS_THERE)


def _fixed_paths() -> Iterator[tuple[str, ...]]:
    """Fields of the spec that a started job must keep. A list, or a section that may be missing, is one field."""
    whole = {each.path for each in SPEC_FIELDS.values() if each.section and each.expected != "a mapping"}
    for field in SPEC_FIELDS.values():
        inside = any(field.path[:depth] in whole for depth in range(1, len(field.path)))
        leaf = field.section is None or field.path in whole
        if field.path[0] == "spec" and leaf and not inside and not may_change(".".join(field.path[1:])):
            yield field.path


_ALWAYS_THERE = {("spec", "data"), ("spec", "train")}  # required, and filled in by the API server
