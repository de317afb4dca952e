"""`f2llm embed` on 200,000 real passages, killed three times, and its speed against sentence-transformers' `encode`.

    python -m bench.embed [--rows 200000] [--rounds 5] [--sample 4000] [--directory build/embed]

The passages are distinct sentences of the documentation of installed packages (200,000 need the extras `dev`,
`benchmark` and `operator` of this project). One job runs without interruption. Another is killed with all its child
processes at three random moments and restarted. Their files are then compared byte by byte. Ray Data does the same job
with the same encoder, uninterrupted and killed as often (bench/loader/ray_data.py). For the speed against `encode`,
both embed the same texts with the same model in one process on one thread, in turn. The directory keeps the texts and
the vectors.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

from bench.support.documentation import documentation
from bench.support.report import machine, spread, table, write_result

KILLS = 3
SHARD_ROWS = 4096
MAX_TOKENS = 128
MODELS = {"small": (64, 2), "larger": (256, 4)}
"""Width and layers of each model. The jobs use the first."""
_SENTENCE_ENDS = re.compile(r"\n\s*\n|(?<=[.!?])\s+")
_SHORTEST = 20


@dataclass(frozen=True)
class Speed:
    """CPU seconds of both methods by round, for one model and one kind of text."""

    model: str
    texts: str
    count: int
    tokens: int
    ours: list[float]
    theirs: list[float]
    difference: float
    """Largest difference of any value in the vectors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=4000, help="passages for the comparison of speed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=Path("build/embed"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps([asdict(speed) for speed in _speeds(arguments)]))
        return
    _collect(arguments.directory, arguments.rows)
    _export_models(arguments.directory)
    job = _jobs(arguments)
    ray_data = _ray_data_jobs(arguments)
    command = [sys.executable, "-m", "bench.embed", "--child", "--directory", str(arguments.directory)]
    command += ["--rounds", str(arguments.rounds), "--sample", str(arguments.sample)]
    print("measuring the speed ...", flush=True)
    found = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    _report(arguments, job, ray_data, [Speed(**speed) for speed in found])


def _collect(folder: Path, rows: int) -> None:
    """texts.parquet: passages in random order; documents.json: some whole bodies, which are longer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (folder / "texts.parquet").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    passages, bodies = dict[str, None](), dict[str, None]()
    for summary, body in documentation():
        bodies[body] = None
        passages.update((passage, None) for text in (summary, body) for passage in _passages(text))
    if len(passages) < rows:
        raise SystemExit(f"only {len(passages):,} passages found; install more packages or lower --rows")
    draw = random.Random(0)
    chosen = draw.sample(sorted(passages), rows)
    (folder / "documents.json").write_text(json.dumps(draw.sample(sorted(bodies), 1000)), encoding="utf-8")
    pq.write_table(pa.table({"id": range(rows), "text": chosen}), folder / "texts.parquet", row_group_size=10_000)


def _passages(text: str) -> Iterator[str]:
    for part in _SENTENCE_ENDS.split(text):
        passage = " ".join(part.split())
        if len(passage) >= _SHORTEST:
            yield passage


def _texts(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    texts: list[str] = pq.read_table(folder / "texts.parquet").column("text").to_pylist()
    return texts


def _export_models(folder: Path) -> None:
    """Qwen3 with scaled-down sizes, random weights and a tokenizer trained on the texts."""
    import torch

    from data_io.curation.tokenizer_training import EOS_TOKEN, train_tokenizer
    from data_io.dataset.tokenizer import LoadedTokenizer
    from ray_app.export.model_card import CardFacts
    from ray_app.export.model_folder import export_model
    from ray_app.inference.model_source import make_prompts
    from ray_app.job_spec import JobSpec
    from ray_app.models.loading import build_backbone

    for name, (width, layers) in MODELS.items():
        if (folder / name).exists():
            continue
        trained = train_tokenizer(_texts(folder)[:20_000], vocabulary_size=8192)
        architecture = {
            "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 32,
            "num_key_value_heads": width // 64, "head_dim": 64, "intermediate_size": 3 * width,
            "initializer_range": 0.1,
        }  # fmt: skip
        model = {"architecture": architecture, "max_seq_length": MAX_TOKENS}
        job = JobSpec.model_validate({"model": model, "data": {"uri": "data"}})
        export_model(
            build_backbone(job.model, vocabulary_size=8192, dtype=torch.float32, seed=0),
            LoadedTokenizer(trained.tokenizer_json, eos_token=EOS_TOKEN, pad_token=EOS_TOKEN),
            folder / name,
            card=CardFacts(name=name, job=job, data_version="", sources=(), steps=0, examples=0),
            max_seq_length=MAX_TOKENS,
            prompts=make_prompts({}, query_instruction=""),
            dtype=torch.float32,
        )


def _jobs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both jobs: the report of the uninterrupted one, and the kill times of the other. Their files must be equal."""
    straight, killed = arguments.directory / "straight", arguments.directory / "killed"

    def run_straight() -> Any:
        began = time.monotonic()
        said = json.loads(subprocess.check_output(_command(arguments, straight), text=True))
        return {**said, "wall_seconds": time.monotonic() - began}

    said = _once(straight, run_straight)

    def run_killed() -> Any:
        kills = list(_killed(_command(arguments, killed), killed, parts=len(said["parts"])))
        subprocess.check_output(_command(arguments, killed))
        return kills

    kills = _once(killed, run_killed)
    if _files(straight) != _files(killed):
        raise SystemExit(f"the two jobs wrote different files: compare {straight} and {killed}")
    return {**said, "kills": kills, "checked_rows": _check_rows(arguments.directory, killed)}


def _ray_data_jobs(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same two jobs by Ray Data: seconds of the uninterrupted one, and the output of the killed one."""
    straight, killed = arguments.directory / "ray-data", arguments.directory / "ray-data-killed"

    def run_straight() -> Any:
        began = time.monotonic()
        subprocess.run(_ray_data_command(arguments, straight), check=True, capture_output=True)
        return {"wall_seconds": time.monotonic() - began, "parts": len(list(straight.glob("*.parquet")))}

    said = _once(straight, run_straight)

    def run_killed() -> Any:
        kills = list(_killed(_ray_data_command(arguments, killed), killed, parts=said["parts"]))
        subprocess.run(_ray_data_command(arguments, killed), check=True, capture_output=True)
        return kills

    return {**said, "kills": _once(killed, run_killed), **_count_ids(killed)}


def _ray_data_command(arguments: argparse.Namespace, out: Path) -> list[str]:
    command = [sys.executable, "-m", "bench.loader.ray_data", str(arguments.directory / "small")]
    return [*command, str(arguments.directory / "texts.parquet"), str(out), str(arguments.workers), str(SHARD_ROWS)]


def _count_ids(out: Path) -> dict[str, Any]:
    """Number of rows, number of distinct rows, and whether files sorted by name have the rows in the input's order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.concat_tables(pq.read_table(path, columns=["id"]) for path in sorted(out.glob("*.parquet"))).column("id")
    found = ids.to_numpy()
    return {"rows": len(found), "different": len(np.unique(found)), "in_order": bool((np.diff(found) > 0).all())}


def _once(out: Path, run: Callable[[], Any]) -> Any:
    """The result of `run`, which makes `out`. It is stored next to `out`, and the next call reads it from there."""
    kept = out.with_suffix(".json")
    if not kept.exists():
        print(f"embedding into {out} ...", flush=True)
        shutil.rmtree(out, ignore_errors=True)
        kept.write_text(json.dumps(run()), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def _command(arguments: argparse.Namespace, out: Path) -> list[str]:
    command = [sys.executable, "-m", "jobs.cli", "embed", str(arguments.directory / "small")]
    command += [str(arguments.directory / "texts.parquet"), str(out), "--json", "--shard-rows", str(SHARD_ROWS)]
    return [*command, "--workers", str(arguments.workers)]


def _killed(command: list[str], out: Path, *, parts: int) -> Iterator[int]:
    """Start the job and kill it at three random moments. Yields the number of parts at each kill."""
    from tests.support.command import Running

    # Not so late that the job could end before it is killed.
    for number, moment in enumerate(sorted(random.sample(range(1, 3 * parts // 4), KILLS))):
        program, *rest = command
        job = Running(*rest, log=out.with_name(f"{out.name}-{number}.log"), program=(program,))
        job.wait_until(lambda moment=moment: _parts(out) >= moment, timeout=3600)  # type: ignore[misc]
        time.sleep(random.random())
        job.kill_all()
        print(f"killed with {_parts(out)} of {parts} parts written", flush=True)
        yield _parts(out)


def _parts(out: Path) -> int:
    return len(list(out.glob("*.parquet")))


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _check_rows(folder: Path, out: Path) -> int:
    """Number of output rows, after a check that they are the input's, in order, each with a vector of unit length."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))
    given = pq.read_table(folder / "texts.parquet")
    vectors = made.column("embedding").combine_chunks()
    lengths = np.linalg.norm(vectors.flatten().to_numpy().reshape(len(vectors), -1), axis=1)
    if vectors.null_count or not made.select(given.column_names).equals(given) or np.abs(lengths - 1).max() > 1e-5:
        raise SystemExit(f"{out} does not have one vector per row of the input")
    return int(made.num_rows)


def _speeds(arguments: argparse.Namespace) -> Iterator[Speed]:
    import torch

    torch.set_num_threads(1)
    passages = _texts(arguments.directory)[: arguments.sample]
    documents = json.loads((arguments.directory / "documents.json").read_text(encoding="utf-8"))
    for model in MODELS:
        for kind, texts in (("passages", passages), ("whole docstrings", documents)):
            share = texts if model == "small" else texts[: len(texts) // 4]
            yield _speed(arguments.directory, model, kind, share, arguments.rounds)


def _speed(folder: Path, model: str, kind: str, texts: list[str], rounds: int) -> Speed:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from ray_app.inference.encoder import load_encoder

    encoder = load_encoder(folder / model)
    peer = SentenceTransformer(str(folder / model), device="cpu")
    methods: list[Callable[[], Any]] = [
        lambda: encoder.encode(texts),
        lambda: peer.encode(texts, show_progress_bar=False),
    ]
    first, second = (method() for method in methods)
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for turn in (number % 2, (number + 1) % 2):
            start = process_time()
            methods[turn]()
            seconds[turn].append(process_time() - start)
    tokens = int(encoder.tokenize(texts).lengths.sum())
    difference = float(np.abs(first - second).max())
    return Speed(model, kind, len(texts), tokens, seconds[0], seconds[1], difference)


def _report(arguments: argparse.Namespace, job: dict[str, Any], ray_data: dict[str, Any], speeds: list[Speed]) -> None:
    width, layers = MODELS["small"]
    rows = [
        [
            "x".join(map(str, reversed(MODELS[speed.model]))),
            f"{speed.count:,} {speed.texts}",
            f"{speed.tokens / speed.count:.0f}",
            spread([speed.count / seconds for seconds in speed.ours], 0),
            spread([speed.count / seconds for seconds in speed.theirs], 0),
            spread([theirs / ours for ours, theirs in zip(speed.ours, speed.theirs, strict=True)], 2),
            f"{speed.difference:.0e}",
        ]
        for speed in speeds
    ]
    head = ["layers x width", "texts", "tokens per text", "texts/s", "texts/s of encode", "times", "largest difference"]
    kills = ", ".join(f"{parts}" for parts in job["kills"])
    text = [
        f"# Embedding {job['rows']:,} passages\n",
        f"`python -m bench.embed --rows {arguments.rows} --rounds {arguments.rounds} --sample {arguments.sample} "
        f"--workers {arguments.workers}`: distinct sentences of the documentation of installed packages; Qwen3 "
        f"with random weights, {layers} layers of width {width}, on CPU.\n",
        f"`f2llm embed` without interruption: {job['rows']:,} rows, {job['tokens']:,} tokens, {len(job['parts'])} "
        f"parts; {job['rows_per_second']:,.0f} rows/s and {job['tokens_per_second']:,.0f} tokens/s with "
        f"{arguments.workers} workers, including the start of Ray. The same job was killed (`kill -9`, with all child "
        f"processes) after {kills} parts and restarted each time. It wrote the same bytes in every file. Its "
        f"{job['checked_rows']:,} rows are the input's, in order, each with one vector.\n",
        "## Against Ray Data\n",
        f"The same rows, model, encoder and batches with `read_parquet`, `map_batches` and `write_parquet` on "
        f"{arguments.workers} actors: {ray_data['wall_seconds']:.0f} s from start to end, `f2llm embed` "
        f"{job['wall_seconds']:.0f} s ({ray_data['wall_seconds'] / job['wall_seconds']:.2f} times). With Ray Data's "
        f"checkpoints (beta), which need a column of unique ids, and kills after "
        f"{', '.join(map(str, ray_data['kills']))} of {ray_data['parts']} files: "
        f"{ray_data['rows']:,} rows, {ray_data['different']:,} of them distinct. File names are random, and the "
        f"files sorted by name {'have' if ray_data['in_order'] else 'do not have'} the rows in the input's order.\n",
        "## Against sentence-transformers' `encode`\n",
        f"Same texts, same model, fp32, one thread, in turn in one process, including tokenization; texts are "
        f"truncated at {MAX_TOKENS} tokens. Rates are per CPU second; median of {arguments.rounds} rounds, lowest to "
        "highest in brackets.\n",
        table(head, rows),
        "\n" + machine("torch", "sentence-transformers", "transformers", "ray"),
    ]
    write_result("embed", "\n".join(text))


if __name__ == "__main__":
    main()
