"""Rules of the custom resource that cross fields, in CEL, each with a message that says what to write instead.

The same rules are validators of the models; here they hold where `kubectl apply` is all that looks at a document. A
field that is left out may come from a preset, so that a rule holds of what is written and the operator checks the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.spec.cluster import OUR_FOLDERS, OUR_VOLUMES
from jobs.spec.diff import may_change
from jobs.spec.fields import JOB_NAME_PATTERN
from jobs.spec.job import MAX_NAME_LENGTH, SPEC_FIELDS


@dataclass(frozen=True)
class Rule:
    """A CEL expression over `self` at `path` of the document, and what a user reads where it is false.

    The message is fixed text: the API server refuses to pay for numbers turned into text.
    """

    path: tuple[str, ...]
    holds: str
    message: str

    def to_dict(self) -> dict[str, str]:
        return {"rule": self.holds, "message": self.message}


def rules() -> Iterator[Rule]:
    """Every rule; those of one path in the order in which a user should mend them."""
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
        "metadata.name must begin with a letter and hold only a-z, 0-9 and -; write for example my-run",
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
        "spec.storage.uri is missing, and a directory of a pod is lost with it; write storage: {uri: s3://bucket/prefix}",
    ),
    *(
        Rule(
            ("spec",),
            f"!has(self.{section}.uri) || self.{section}.uri.matches('^[a-z0-9]+://[^/]') || "
            f"has(self.cluster.volumes) && self.cluster.volumes.exists(v, self.{section}.uri.startsWith(v.mount_path))",
            f"spec.{section}.uri is a directory that no volume of spec.cluster.volumes provides; "
            "write s3://bucket/prefix, or mount a claim there",
        )
        for section in ("data", "storage")
    ),
    Rule(
        ("spec",),
        "self.workers.?gpus.orValue(0) == 0 || !has(self.train.global_batch_size) || !has(self.train.micro_batch_size)"
        " || self.workers.?min.orValue(self.workers.?replicas.orValue(1))"
        " <= self.train.global_batch_size / self.train.micro_batch_size",
        "there are fewer micro-batches in a step than workers, and a GPU without one is paid for nothing; "
        "write workers.min: or workers.replicas: at most train.global_batch_size / train.micro_batch_size",
    ),
    Rule(
        ("spec",),
        "!has(self.train.matryoshka_dims) || !has(self.model) || !has(self.model.architecture)"
        " || self.train.matryoshka_dims.all(d, d <= self.model.architecture.hidden_size)",
        "train.matryoshka_dims goes beyond the embedding; write widths of at most model.architecture.hidden_size",
    ),
    Rule(
        ("spec",),
        "!has(self.train.precision) || self.train.precision != 'fp32' || !has(self.model)"
        " || !has(self.model.attn_implementation) || self.model.attn_implementation in ['auto', 'sdpa']",
        "model.attn_implementation takes 16-bit numbers alone, and train.precision is fp32; "
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
        "global_batch_size is not a multiple of micro_batch_size; write one that is, as in 512 and 32",
    ),
    Rule(
        ("spec", "train"),
        "!has(self.learning_rate) || !has(self.min_learning_rate) || self.min_learning_rate <= self.learning_rate",
        "min_learning_rate is above learning_rate; write a smaller one, as in learning_rate / 100",
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
        "matryoshka_weights must be as many as matryoshka_dims; write one a width, or leave them out",
    ),
    Rule(
        ("spec", "model"),
        "!(has(self.name_or_path) && has(self.architecture))",
        "name_or_path and architecture are both given, and only one can be; remove one of them",
    ),
    Rule(
        ("spec", "model", "architecture"),
        "self.num_attention_heads % self.num_key_value_heads == 0",
        "num_attention_heads is not a multiple of num_key_value_heads; write num_key_value_heads: 1",
    ),
    Rule(
        ("spec", "cluster", "volumes", "[]"),
        "[has(self.claim), has(self.config_map), has(self.secret)].filter(given, given).size() == 1",
        "a volume needs one of claim, config_map and secret; write for example claim: my-models",
    ),
    Rule(
        ("spec", "cluster", "volumes", "[]"),
        f"!(self.name in {list(OUR_VOLUMES)}) && !self.mount_path.matches('{OUR_FOLDERS}')",
        "a volume takes the place of one that every pod has; "
        "write another name than scratch, shared-memory and document, and a directory such as /models",
    ),
    Rule(
        ("spec", "cluster", "volumes"),
        "self.all(v, self.exists_one(w, w.mount_path == v.mount_path))",
        "two volumes have the same mount_path; give each its own",
    ),
)


def _recipe_is_fixed() -> Iterator[Rule]:
    """A started job trains what it began with; fields that change no step may change (jobs.spec.diff)."""
    started = "oldSelf.?status.?attempt.orValue(0) > 0"
    for path in _fixed_paths():
        # Written out and not with optional values, of whose text the API server would expect the worst.
        field = ".".join(path)
        before, after = (
            "(" + " && ".join(f"has({version}.{'.'.join(path[:depth])})" for depth in _perhaps_missing(path)) + ")"
            for version in ("oldSelf", "self")
        )
        same = f"{before} == {after} && (!{before} || self.{field} == oldSelf.{field})"
        yield Rule(
            (),
            f"!({started}) || {same}",
            f"{field} cannot change once the job has started; put it back, or give the new one another metadata.name",
        )


def _perhaps_missing(path: tuple[str, ...]) -> Iterator[int]:
    """Depths at which the path may end in a stored job, its own included."""
    return (depth for depth in range(2, len(path) + 1) if path[:depth] not in _ALWAYS_THERE)


def _fixed_paths() -> Iterator[tuple[str, ...]]:
    """Fields of the spec that a started job must keep; a section that may be missing, or is a list, counts as one."""
    whole = {each.path for each in SPEC_FIELDS.values() if each.section and each.expected != "a mapping"}
    for field in SPEC_FIELDS.values():
        inside = any(field.path[:depth] in whole for depth in range(1, len(field.path)))
        leaf = field.section is None or field.path in whole
        if field.path[0] == "spec" and leaf and not inside and not may_change(".".join(field.path[1:])):
            yield field.path


_ALWAYS_THERE = {("spec", "data"), ("spec", "train")}  # required, and filled in by the API server
