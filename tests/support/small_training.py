"""A data set and a job spec that train in seconds and contain difficult cases.

Three kinds of source, incomplete micro-batches, texts that occur twice, and an evaluation set of each type.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.manifest import Manifest, SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.keyed_hash import mix
from data_io.storage.store import Store
from data_io.task import Kind

_SUBJECTS = ["river", "engine", "cat", "river bank", "lamp", "market", "violin", "glacier", "harbour", "orchard"]
_VERBS = ["carries", "repairs", "follows", "lights", "crosses", "forgets", "measures", "paints"]
_OBJECTS = ["stones", "the old bridge", "a letter", "seven boats", "snow", "an apple", "the map", "quiet evenings"]
_PLACES = ["at dawn", "in the valley", "behind the mill", "without a sound", "near the coast", "every winter"]


def sentence(number: int) -> str:
    """The `number`-th of many distinct sentences, of varying length."""
    key = mix(number)
    words = [_SUBJECTS[key % 10], _VERBS[(key >> 8) % 8], _OBJECTS[(key >> 16) % 8], _PLACES[(key >> 24) % 6]]
    return " ".join(["the", *words[: 2 + key % 3], f"number {number}"])


def _rows(first: int, count: int, negatives: int) -> list[Row]:
    rows = []
    for i in range(first, first + count):
        others = [f"{sentence(100_000 + i * 31 + j)} and {sentence(i + j)}" for j in range(negatives)]
        rows.append(Row(f"who {sentence(i)}?", f"{sentence(i)}; {sentence(i * 7 + 3)}", others))
    return rows


def _label_rows(count: int) -> list[Row]:
    labels = ("an odd number", "an even number")
    return [Row(f"{sentence(5_000 + i)}", labels[i % 2], [labels[1 - i % 2]]) for i in range(count)]


def write_small_dataset(store: Store, *, scale: int = 1) -> Manifest:
    """Four sources of all kinds, 4- and 1-row tails at a micro-batch of 8, and a tokenizer trained on them."""
    sources: list[tuple[SourceInfo, list[Row]]] = [
        (
            SourceInfo(name="answers", kind=Kind.RETRIEVAL, negatives=5, instruction="Find the answer."),
            _rows(0, 60 * scale, 5),
        ),
        (
            SourceInfo(name="echoes", kind=Kind.RETRIEVAL, negatives=3, instruction="Find the echo."),
            # The same positive text in many rows: masked in the pool, or it would be a negative of itself.
            [
                Row(row.query, sentence(2_000 + i % 5), row.negatives)
                for i, row in enumerate(_rows(1_000, 21 * scale, 3))
            ],
        ),
        (
            SourceInfo(name="groups", kind=Kind.CLUSTERING, negatives=4, instruction="Find the group."),
            _rows(3_000, 33 * scale, 4),
        ),
        (
            SourceInfo(name="parity", kind=Kind.CLASSIFICATION, negatives=1, instruction="Odd or even?"),
            _label_rows(17 * scale),
        ),
    ]
    held_out = _rows(9_000, 12, 0)
    evaluations = [
        RetrievalSet(
            name="held-out",
            instruction="Find the answer.",
            corpus_ids=[f"d{i}" for i in range(12)],
            corpus=[row.positive for row in held_out],
            query_ids=[f"q{i}" for i in range(12)],
            queries=[row.query for row in held_out],
            qrels={f"q{i}": {f"d{i}": 1.0} for i in range(12)},
        ),
        StsSet("pairs", "", [sentence(1), sentence(2)], [sentence(1) + "!", sentence(3)], [5.0, 0.0]),
    ]
    texts = [text for _, rows in sources for row in rows for text in (row.query, row.positive, *row.negatives)]
    _write_tokenizer(store, texts)
    return write_dataset(store, sources, evaluations, rows_per_group=16, groups_per_shard=2)


def _write_tokenizer(store: Store, texts: list[str]) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    store.put("tokenizer/tokenizer.json", tokenizer.to_str().encode())
    settings = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    store.put("tokenizer/tokenizer_config.json", json.dumps(settings).encode())


def small_job_spec(data_uri: str, runs_uri: str, *, name: str = "small", **train: Any) -> dict[str, Any]:
    """A job spec that trains on it: G = 4 micro-batches of 8, which 3 workers do not divide."""
    return {
        "apiVersion": "f2llm.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": name},
        "spec": {
            "model": {
                "architecture": {"hidden_size": 64, "head_dim": 32, "intermediate_size": 128},
                "max_seq_length": 32,
            },
            "data": {"uri": data_uri, "hard_negatives": {"retrieval": 3, "clustering": 2, "classification": 1}},
            "train": {
                "epochs": 8,
                "micro_batch_size": 8,
                "global_batch_size": 32,
                "learning_rate": 1e-3,
                "min_learning_rate": 1e-5,
                "warmup_steps": 4,
                "precision": "fp32",
                "record_examples": True,
                **train,
            },
            "checkpoint": {"every": "7 steps"},
            "storage": {"uri": runs_uri},
        },
    }


def write_job_spec(path: Path, job_spec: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(job_spec, sort_keys=False), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a .jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
