"""Hard negatives for a whole data set, as a job on Ray: `f2llm data mine`.

Stages of a source: its texts are sorted (read), the corpus is embedded once, block by block (embed), and each share of
the queries is held against all blocks (mine). What a piece finds is an object in the work folder `mining/<key>/` of the
new data set, whose key stands for everything that decides the result; so a job that was killed goes on with what is
missing, and ends with the same bytes.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any, TypeVar

from data_io.dataset.evaluation_sets import load_evaluation
from data_io.dataset.manifest import MANIFEST_KEY, Manifest, SourceInfo, load_manifest
from data_io.dataset.provenance import RECIPE_KEY, record, reuse
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import ConfigError, DataError, NotFoundInStore
from data_io.storage.chunk_files import Mark, fetches, finished, key_range, read_tables
from data_io.storage.store import Store
from data_io.user_files.records import RawFile, fingerprint
from ray_app.inference.model_source import find_named
from ray_app.mining.inputs import find_corpus, plan_scan, source_rows
from ray_app.mining.report import REPORT_KEY, MiningReport, SourceReport, source_report
from ray_app.mining.selection import HISTOGRAM_EDGES, MiningRule
from ray_app.mining.stages import (
    EmbedTask,
    Job,
    ProbeTask,
    QueryTask,
    ReadTask,
    Sizes,
    embed_block,
    mine_queries,
    probe_model,
    read_stretch,
)
from ray_app.ray_runtime.cluster import cluster
from ray_app.ray_runtime.environment import check_gpus
from ray_app.ray_runtime.task_pool import run_tasks

P = TypeVar("P", bound="ReadTask | ProbeTask | EmbedTask | QueryTask")

_FOLDER = "mining"
_WORK = re.compile(rf"{_FOLDER}/[0-9a-f]{{16}}/")
"""What a job keeps until its end."""


@dataclass(frozen=True)
class MiningProgress:
    """Where a stage of a source stands; the pieces of an earlier run count as done. `eta_seconds` is the stage's."""

    stage: str
    source: str
    done: int
    total: int
    eta_seconds: float | None


@dataclass(frozen=True)
class Workers:
    """`count` tasks at once; with `gpus`, as many embed and mine, each on a GPU of its own."""

    count: int
    gpus: int = 0


OnMining = Callable[[MiningProgress], None]


def mine_dataset(
    data: Store,
    out: Store,
    *,
    model: str,
    rule: MiningRule | None = None,
    sources: Sequence[str] = (),
    corpus: Mapping[str, Sequence[str]] | None = None,
    query_prompt: str | None = None,
    max_tokens: int | None = None,
    batch_tokens: int = 8192,
    workers: Workers | None = None,
    samples: int = 5,
    keep_work: bool = False,
    sizes: Sizes | None = None,
    on_progress: OnMining | None = None,
) -> MiningReport:
    """Write to `out` the data set at `data` with hard negatives mined for `sources`, by default all retrieval sources.

    `model` is a folder or a hub id; `corpus` gives addresses of more documents for a source. What else the data set has
    is carried over. The same call goes on where an earlier one was cut off, and leaves a finished data set as it is.
    Raises ConfigError, DataError, ModelError or CapacityError for what cannot work, before anything is embedded where
    that can be known.
    """
    rule, sizes, workers = rule or MiningRule(), sizes or Sizes(), workers or Workers(1)
    if data == out or data.uri == out.uri:
        raise ConfigError(f"{out.uri} is the data set that is mined", remedy="give another place for the new one")
    manifest = load_manifest(data)
    names = _chosen(manifest, sources)
    files = _corpus_files(names, corpus or {})
    check_gpus(workers.gpus)
    found = find_named(model, query_prompt=query_prompt, max_tokens=max_tokens, batch_tokens=batch_tokens)
    tokenizer = [key for key in TOKENIZER_KEYS if data.exists(key)]
    recipe = {
        "made_of": "mined negatives",
        "data": manifest.version,
        "sources": list(names),
        "corpus": {name: [fingerprint(file.address) for file in each] for name, each in files.items()},
        "model": {"fingerprint": found.fingerprint, "query_prompt": query_prompt, "max_tokens": max_tokens},
        "batch_tokens": batch_tokens,
        "rule": rule.model_dump(),
        "sizes": asdict(sizes),
    }
    if reuse(out, recipe, files=tokenizer) is not None:
        return _read_report(out, keep_work)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    work = out.child(f"{_FOLDER}/{key}")
    _check_free(out, work)
    job = Job(work, found, rule, sizes)
    marks: dict[str, list[Mark]] = {}
    reports = []
    with cluster(cpus=workers.count, env={} if workers.gpus else {"OMP_NUM_THREADS": "1"}):
        stages = _Stages(job, workers, finished(work, ""), on_progress or (lambda progress: None))
        for name in names:
            mined, documents = _mine_source(stages, data, manifest, name, files[name])
            report = source_report(name, documents=documents, marks=mined, samples=samples)
            _check_kept(report, rule)
            marks[name] = mined
            reports.append(report)
    stages.say("write", "", 0, 1)
    all_rows = [
        (
            _info(manifest, entry.name, rule if entry.name in marks else None),
            _rows(work, data, manifest, entry.name, marks),
        )
        for entry in manifest.sources
    ]
    for each in tokenizer:
        out.put(each, data.get(each))
    written = write_dataset(out, all_rows, [load_evaluation(data, entry) for entry in manifest.evaluations])
    whole = MiningReport(
        version=written.version, input_version=manifest.version, model=model, model_fingerprint=found.fingerprint,
        rule=rule, histogram_edges=tuple(round(float(edge), 2) for edge in HISTOGRAM_EDGES), sources=tuple(reports),
    )  # fmt: skip
    out.put(REPORT_KEY, whole.model_dump_json(indent=2).encode() + b"\n")
    record(out, recipe, written, files=tokenizer)
    stages.say("write", "", 1, 1)
    if not keep_work:
        _remove_work(out)
    return whole


class _Stages:
    """Runs the pieces of a stage that are not done yet, and says how it goes."""

    def __init__(self, job: Job, workers: Workers, done: Mapping[str, Mark], on_progress: OnMining) -> None:
        self.job = job
        self._workers = workers
        self._done = done
        self._on_progress = on_progress

    def run(
        self, stage: str, source: str, function: Callable[[P], Mark], pieces: Sequence[P], *, model: bool
    ) -> list[Mark]:
        """The marks of `pieces` in their order; `model` says that the pieces use it."""
        marks = {piece.piece: self._done[piece.piece] for piece in pieces if piece.piece in self._done}
        missing = [piece for piece in pieces if piece.piece not in marks]
        on_gpus = model and self._workers.gpus > 0
        earlier, start = len(marks), monotonic()
        self.say(stage, source, earlier, len(pieces))
        results = run_tasks(
            function,
            missing,
            workers=self._workers.gpus if on_gpus else self._workers.count,
            gpus=1 if on_gpus else 0,
        )
        for piece, mark in results:
            marks[piece.piece] = mark
            left, new = len(pieces) - len(marks), len(marks) - earlier
            self.say(stage, source, len(marks), len(pieces), (monotonic() - start) / new * left)
        return [marks[piece.piece] for piece in pieces]

    def say(self, stage: str, source: str, done: int, total: int, eta_seconds: float | None = None) -> None:
        self._on_progress(MiningProgress(stage, source, done, total, eta_seconds))


def _mine_source(
    stages: _Stages, data: Store, manifest: Manifest, name: str, corpus: Sequence[RawFile]
) -> tuple[list[Mark], int]:
    """The marks of a source's shares of queries, in order, and how many documents it has."""
    job, sizes = stages.job, stages.job.sizes
    (probe,) = stages.run("load the model", name, probe_model, [ProbeTask("model", job)], model=True)
    stretches = plan_scan(name, data, manifest, name, corpus, run_bytes=sizes.run_bytes)
    runs = stages.run("read", name, read_stretch, [ReadTask(s.piece, job, s) for s in stretches], model=False)
    total = {what: sum(mark.counts[what] for mark in runs) for what in runs[0].counts}
    blocks = max(
        _shares(total["documents"] * probe.counts["dimensions"] * 4, sizes.block_vector_bytes),
        _shares(total["document_bytes"], sizes.block_text_bytes),
    )
    to_embed = []
    for index in range(blocks):
        first, last = key_range(index, blocks)
        wanted = tuple(fetches(runs, "documents", first, last))
        to_embed.append(EmbedTask(f"{name}/embed-{index:05d}", job, first, last, wanted))
    embedded = stages.run("embed", name, embed_block, to_embed, model=True)
    output = total["row_bytes"] + total["rows"] * job.rule.negatives * total["document_bytes"] // total["documents"]
    shares = max(_shares(total["rows"], sizes.query_rows), _shares(output, sizes.output_bytes))
    to_mine = []
    for index in range(shares):
        first, last = key_range(index, shares)
        wanted = tuple(fetches(runs, "rows", first, last))
        names = tuple(piece.piece for piece in to_embed)
        to_mine.append(QueryTask(f"{name}/mine-{index:05d}", job, first, last, wanted, names))
    mined = stages.run("mine", name, mine_queries, to_mine, model=True)
    return mined, sum(mark.counts["documents"] for mark in embedded)


def _shares(amount: int, limit: int) -> int:
    return max(1, -(-amount // limit))


def _rows(
    work: Store, data: Store, manifest: Manifest, name: str, marks: Mapping[str, Sequence[Mark]]
) -> Iterator[Row]:
    if name in marks:
        for table in read_tables(work, fetches(marks[name], "rows")):
            for record_ in table.to_pylist():
                yield Row(record_["query"], record_["positive"], record_["negatives"])
    else:
        for row in source_rows(data, name, 0, len(manifest.row_groups(name))):
            yield Row(row.query, row.positive, row.negatives)


def _info(manifest: Manifest, name: str, rule: MiningRule | None) -> SourceInfo:
    known = manifest.source(name).model_dump(include=set(SourceInfo.model_fields))
    return SourceInfo(**known if rule is None else known | {"negatives": rule.negatives, "unmined": False})


def _chosen(manifest: Manifest, sources: Sequence[str]) -> tuple[str, ...]:
    """Names of the sources to mine, in the manifest's order."""
    kinds: dict[str, Any] = {entry.name: entry.kind for entry in manifest.sources}
    retrieval = [name for name, kind in kinds.items() if kind.uses_in_batch_negatives]
    for name in sources:
        if name not in kinds:
            raise ConfigError(
                f"no source {name!r} in the data set; it has {', '.join(kinds)}", remedy="correct --source"
            )
        if name not in retrieval:
            raise ConfigError(
                f"source {name!r} is of kind {kinds[name]}: its rows share labels, and a near text may carry the same",
                remedy=f"mine retrieval sources only: {', '.join(retrieval) or 'there is none'}",
            )
    if not retrieval:
        raise ConfigError(
            "the data set has no retrieval source, and only those are mined", remedy="prepare one with kind: retrieval"
        )
    return tuple(name for name in retrieval if not sources or name in sources)


def _corpus_files(names: Sequence[str], corpus: Mapping[str, Sequence[str]]) -> dict[str, list[RawFile]]:
    unknown = [name for name in corpus if name not in names]
    if unknown:
        raise ConfigError(
            f"a corpus is given for {unknown[0]!r}, which is not mined; mined are {', '.join(names)}",
            remedy="correct the name in --corpus NAME=FILE",
        )
    return {name: [file for address in corpus.get(name, ()) for file in find_corpus(address)] for name in names}


def _check_free(out: Store, work: Store) -> None:
    """Nothing is at `out`, or only what this very job left there."""
    if out.exists(MANIFEST_KEY) and (out.exists(RECIPE_KEY) or not work.list()):
        raise DataError(
            f"{out.uri} holds another data set, or one that was mined in another way",
            remedy="give an empty place for the mined data set, or remove what is there",
        )


def _check_kept(report: SourceReport, rule: MiningRule) -> None:
    if report.kept_rows == 0:
        refused = report.above_max_score + report.above_max_ratio
        raise DataError(
            f"source {report.name!r}: none of its {report.rows:,} rows has {rule.negatives} hard negatives. Of "
            f"{report.candidates:,} candidates among {report.documents:,} texts {report.above_max_score:,} score "
            f"{rule.max_score} or more and {report.above_max_ratio:,} more at least {rule.max_ratio} of the positive; "
            f"the first {rule.skip} are skipped",
            remedy=(
                "raise --max-score or --max-ratio, or mine with a model that tells answers from other texts"
                if refused * 2 > report.candidates
                else "lower --negatives or --skip, raise --top-k, or add documents with --corpus NAME=FILE"
            ),
        )


def _read_report(out: Store, keep_work: bool) -> MiningReport:
    try:
        report = MiningReport.model_validate_json(out.get(REPORT_KEY))
    except (NotFoundInStore, ValueError) as error:
        raise DataError(
            f"{out.uri} was mined already, but {REPORT_KEY} is missing or damaged",
            remedy="use the data set as it is, or mine to another place for a new report",
        ) from error
    if not keep_work:
        _remove_work(out)  # what is left where the job was killed at its very end
    return report


def _remove_work(out: Store) -> None:
    out.delete([info.key for info in out.list(_FOLDER) if _WORK.match(info.key)])
