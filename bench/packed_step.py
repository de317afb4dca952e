"""Examples per second of one training step: packed (ours), as in the released code, and sentence-transformers.

    python -m bench.packed_step [--rounds N] [--max-tokens 256] [--micro-batch 16] [--layers N]
                                [--precision bf16|fp32|both] [--allocator both|default|keeping] [--json OUT]

All three train the demo's small Qwen3 on the demo's retrieval texts. They take turns within each round, on the same
rows, so that a slow moment of the machine affects all of them. Medians over the rounds, with lowest and highest; ratios
are taken within each round. With `keeping`, glibc's malloc keeps memory between steps, as in our workers; `default`
does not change it. Both settings apply to all methods.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from bench.support.report import machine, spread, table, write_result

GOALS = {"padded together (released F2LLM)": 2.5, "per column (sentence-transformers)": 2.0}
ALLOCATORS = {
    "default": {},
    # As ray_app.orchestration.trainer sets them for its workers.
    "keeping": {
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**31),
        "MALLOC_TOP_PAD_": str(2**26),
    },
}
WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Measured:
    """One method in one setting: wall and CPU seconds (all threads) of a step, and its token slots, by round."""

    method: str
    seconds: list[float]
    cpu_seconds: list[float]
    slots: list[int]
    difference: float
    """Largest difference of any embedding from ours, before training."""


@dataclass(frozen=True)
class Result:
    """One setting. `tokens` are real (not padding) tokens by round, the same for all methods."""

    precision: str
    allocator: str
    micro_batch: int
    model: str
    threads: int
    tokens: list[int]
    methods: list[Measured]


def main() -> None:
    arguments = _parse()
    if arguments.child:
        print(json.dumps(asdict(_measure(arguments))))
        return
    results = [
        _in_child(arguments, precision, allocator)
        for precision in _chosen(arguments.precision, ("bf16", "fp32"))
        for allocator in _chosen(arguments.allocator, tuple(ALLOCATORS))
    ]
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(r) for r in results], indent=2), encoding="utf-8")
    write_result("packed_step", _render(results, arguments))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--layers", type=int, help="decoder layers, instead of the demo's")
    parser.add_argument("--precision", choices=["bf16", "fp32", "both"], default="both")
    parser.add_argument("--allocator", choices=[*ALLOCATORS, "both"], default="both")
    parser.add_argument("--data", default="runs/data", help="the demo's data set; prepared if it does not exist")
    parser.add_argument("--json", help="also write all results to this file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _chosen(choice: str, all_of_them: tuple[str, ...]) -> tuple[str, ...]:
    return all_of_them if choice == "both" else (choice,)


def _in_child(arguments: argparse.Namespace, precision: str, allocator: str) -> Result:
    """A separate process, because malloc reads its settings once, and no setting may inherit the memory of another."""
    print(f"measuring {precision}, {allocator} malloc, {arguments.rounds} rounds ...", flush=True)
    command = [sys.executable, "-m", "bench.packed_step", "--child", "--precision", precision, "--allocator", allocator]
    for name in ("rounds", "max_tokens", "micro_batch", "data"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    if arguments.layers:
        command += ["--layers", str(arguments.layers)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        command,
        env=clean | ALLOCATORS[allocator] | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result = Result(**found | {"methods": [Measured(**method) for method in found["methods"]]})
    print(_table_of(result), flush=True)
    return result


def _measure(arguments: argparse.Namespace) -> Result:
    import torch

    from bench.support.steps import Method, Packed, PaddedTogether, SentenceTransformers, Setting
    from bench.support.texts import load_demo_texts

    rounds = WARM_UP_ROUNDS + arguments.rounds
    texts = load_demo_texts(arguments.data, rows=rounds * arguments.micro_batch)
    setting = Setting(texts, arguments.max_tokens, arguments.precision)
    if arguments.layers:
        setting = replace(setting, layers=arguments.layers)
    tokenizer = setting.tokenizer()
    padded = PaddedTogether(setting)
    methods: list[Method] = [Packed(setting), padded, SentenceTransformers(setting)]
    batches = list(islice(texts.micro_batches(arguments.micro_batch), rounds))
    padded.prepare([row for rows in batches for row in rows])
    ours = methods[0].embed(batches[0])
    differences = [float((method.embed(batches[0]) - ours).abs().max()) for method in methods]
    if arguments.precision == "fp32" and max(differences) > 1e-5:
        raise SystemExit(f"the methods give different embeddings: {differences}")
    seconds: list[list[float]] = [[] for _ in methods]
    cpu_seconds: list[list[float]] = [[] for _ in methods]
    slots: list[list[int]] = [[] for _ in methods]
    tokens = []
    for number, rows in enumerate(batches):
        for turn in range(len(methods)):
            which = (number + turn) % len(methods)
            start, cpu_start = perf_counter(), process_time()
            work = methods[which].step(rows)
            seconds[which].append(perf_counter() - start)
            cpu_seconds[which].append(process_time() - cpu_start)
            slots[which].append(work.slots)
        tokens.append(sum(len(tokenizer.encode(setting.texts_of(row)).ids) for row in rows))
    return Result(
        precision=arguments.precision,
        allocator=arguments.allocator,
        micro_batch=arguments.micro_batch,
        model=setting.model,
        threads=torch.get_num_threads(),
        tokens=tokens[WARM_UP_ROUNDS:],
        methods=[
            Measured(
                method=method.name,
                seconds=seconds[which][WARM_UP_ROUNDS:],
                cpu_seconds=cpu_seconds[which][WARM_UP_ROUNDS:],
                slots=slots[which][WARM_UP_ROUNDS:],
                difference=differences[which],
            )
            for which, method in enumerate(methods)
        ],
    )


def _render(results: list[Result], arguments: argparse.Namespace) -> str:
    parts = [
        "# One training step: packed against padded\n",
        f"`{_command(arguments)}`\n",
        f"Model: {results[0].model}.\n",
        f"A step is tokenizing, forward, both losses, backward, clipping and AdamW for {arguments.micro_batch} queries "
        f"with a positive and 7 hard negatives each, at most {arguments.max_tokens} tokens per text. Medians of the "
        "rounds, lowest to highest in brackets; the methods take turns on the same rows within each round. CPU time "
        "is that of all threads; other programs on the machine affect it less.\n",
    ]
    for result in results:
        parts += [
            f"## {result.precision}, {_ALLOCATOR_NAMES[result.allocator]}, {_count(result.threads, 'thread')}\n",
            _table_of(result) + "\n",
        ]
        if result.precision == "fp32":
            difference = max(method.difference for method in result.methods)
            parts.append(f"Before training the embeddings of all three differ by at most {difference:.1g}.\n")
    parts.append(machine("torch", "transformers", "sentence-transformers"))
    return "\n".join(parts)


def _command(arguments: argparse.Namespace) -> str:
    layers = f" --layers {arguments.layers}" if arguments.layers else ""
    return (
        f"python -m bench.packed_step --rounds {arguments.rounds} --max-tokens {arguments.max_tokens} "
        f"--micro-batch {arguments.micro_batch}{layers} --precision {arguments.precision} "
        f"--allocator {arguments.allocator}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_ALLOCATOR_NAMES = {"default": "default malloc", "keeping": "malloc keeps memory, for all methods"}


def _table_of(result: Result) -> str:
    ours = result.methods[0]
    rows = []
    for method in result.methods:
        rate = [result.micro_batch / second for second in method.seconds]
        tokens = [count / second for count, second in zip(result.tokens, method.seconds, strict=True)]
        padding = [count / useful for count, useful in zip(method.slots, result.tokens, strict=True)]
        ratio, cpu_ratio = (
            [theirs / mine for theirs, mine in zip(of_method, of_ours, strict=True)]
            for of_method, of_ours in ((method.seconds, ours.seconds), (method.cpu_seconds, ours.cpu_seconds))
        )
        goal = GOALS.get(method.method)
        rows.append(
            [
                method.method,
                f"{median(padding):.2f}",
                spread(rate, 1),
                f"{median(tokens):,.0f}",
                spread([second * 1000 for second in method.seconds], 0),
                "" if method is ours else spread(ratio, 2),
                "" if method is ours else spread(cpu_ratio, 2),
                "" if goal is None else f"{goal:.1f}",
            ]
        )
    head = [
        "method",
        "token slots per real token",
        "examples/s",
        "real tokens/s",
        "ms per step",
        "speed-up of packed",
        "by CPU time",
        "goal",
    ]
    return table(head, rows)


if __name__ == "__main__":
    main()
