"""Mines hard negatives for a whole data set in a job on Ray: `f2llm data mine`.

The stages of each source are: sort its texts (read), embed all of them once, block by block (embed), and for each share
of the queries search all blocks and select negatives (mine). Then the new data set is written.

Tasks write objects to the work directory `mining/<key>/` of the new data set. The key is a hash of everything that
decides the result. Therefore an interrupted job resumes with the missing tasks and writes the same bytes.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

from data_io.bounded_json import read_model
from data_io.dataset.evaluation_sets import load_evaluation
from data_io.dataset.manifest import Manifest, SourceInfo, load_manifest
from data_io.dataset.provenance import record, reuse
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import ConfigError, DataError, NotFoundInStore
from data_io.storage.chunk_files import Mark, fetches, finished, key_range, read_tables
from data_io.storage.store import BULK_BYTES, Store
from data_io.user_files.records import RawFile, fingerprint
from ray_app.inference.model_source import NamedModel, find_named
from ray_app.mining.checks import check_free, check_kept, chosen_sources, corpus_files
from ray_app.mining.inputs import plan_scan, source_rows
from ray_app.mining.report import REPORT_KEY, MiningReport, SourceReport, source_report
from ray_app.mining.selection import HISTOGRAM_EDGES, MiningRule
from ray_app.mining.stage_runner import OnMining, StageRunner, Workers
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
    read_range,
)
from ray_app.ray_runtime.cluster import cluster
from ray_app.ray_runtime.environment import check_gpus

_FOLDER = "mining"
_WORK = re.compile(rf"{_FOLDER}/[0-9a-f]{{16}}/")
"""Objects that a job removes when it ends."""


@dataclass(frozen=True)
class MiningOptions:
    """Settings that, together with the input, decide the mined data set and its report."""

    model: str
    """A directory or a Hub id."""
    rule: MiningRule = field(default_factory=MiningRule)
    sources: Sequence[str] = ()
    """Names of the sources to mine. Default: all retrieval sources."""
    corpus: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By source, paths or URIs of files with additional documents."""
    query_prompt: str | None = None
    """Prompt of the queries. None uses the model's own."""
    max_tokens: int | None = None
    """Limit of tokens per text. None uses the model's own limit."""
    batch_tokens: int = 8192
    samples: int = 5
    """Sample rows per source in the report."""
    sizes: Sizes = field(default_factory=Sizes)


def mine_dataset(
    data: Store,
    out: Store,
    options: MiningOptions,
    *,
    workers: Workers | None = None,
    keep_work: bool = False,
    on_progress: OnMining = lambda progress: None,
) -> MiningReport:
    """Copy the data set at `data` to `out`, with hard negatives mined for its sources.

    Sources that are not mined, evaluation sets and the tokenizer are copied. The same call resumes an interrupted job
    and does not change a finished data set. With `keep_work` the work directory is not removed. Raises ConfigError,
    DataError, ModelError, StorageError or CapacityError. Errors that can be detected early are raised before any text
    is embedded.
    """
    workers = workers or Workers(1)
    mining = _check(data, out, options, workers)
    if reuse(out, mining.recipe, files=mining.tokenizer) is not None:
        report = _read_report(out)
    else:
        report = mining.run(workers, on_progress)
    if not keep_work:
        _remove_work(out)
    return report


def _check(data: Store, out: Store, options: MiningOptions, workers: Workers) -> "_Mining":
    if data == out or data.uri == out.uri:
        raise ConfigError(
            f"{out.uri} is the data set that is mined", remedy="give another directory for the new data set"
        )
    manifest = load_manifest(data)
    sources = chosen_sources(manifest, options.sources)
    corpus = corpus_files(sources, options.corpus)
    check_gpus(workers.gpus)
    model = find_named(
        options.model,
        query_prompt=options.query_prompt,
        max_tokens=options.max_tokens,
        batch_tokens=options.batch_tokens,
    )
    return _Mining(data, out, options, manifest, sources, corpus, model)


@dataclass(frozen=True)
class _MinedSource:
    """A source whose shares of queries are all mined. `marks` are in the order of the shares."""

    marks: list[Mark]
    report: SourceReport


@dataclass(frozen=True)
class _Mining:
    """A job with checked input and settings."""

    data: Store
    out: Store
    options: MiningOptions
    manifest: Manifest
    sources: tuple[str, ...]
    corpus: Mapping[str, Sequence[RawFile]]
    model: NamedModel

    @cached_property
    def recipe(self) -> dict[str, object]:
        """Everything that decides the new data set."""
        options = self.options
        return {
            "made_of": "mined negatives",
            "data": self.manifest.version,
            "sources": list(self.sources),
            "corpus": {name: [fingerprint(file.address) for file in files] for name, files in self.corpus.items()},
            "model": {
                "fingerprint": self.model.fingerprint,
                "query_prompt": options.query_prompt,
                "max_tokens": options.max_tokens,
            },
            "batch_tokens": options.batch_tokens,
            "rule": options.rule.model_dump(),
            "sizes": asdict(options.sizes),
        }

    @cached_property
    def tokenizer(self) -> list[str]:
        """Keys of the data set's tokenizer, if it has one."""
        return [key for key in TOKENIZER_KEYS if self.data.exists(key)]

    @cached_property
    def _job(self) -> Job:
        key = hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:16]
        return Job(self.out.child(f"{_FOLDER}/{key}"), self.model, self.options.rule, self.options.sizes)

    def run(self, workers: Workers, on_progress: OnMining) -> MiningReport:
        """Mine every source, and write the new data set and its report. Raises DataError if `out` is not free."""
        check_free(self.out, self._job.work)
        with cluster(cpus=workers.count, env={} if workers.gpus else {"OMP_NUM_THREADS": "1"}):
            runner = StageRunner(workers, finished(self._job.work, ""), on_progress)
            mined = {name: self._mine_source(name, runner) for name in self.sources}
        runner.say("write", "", 0, 1)
        written = self._write(mined)
        report = self._report(written, mined)
        self.out.put(REPORT_KEY, report.model_dump_json(indent=2).encode() + b"\n")
        record(self.out, self.recipe, written, files=self.tokenizer)
        runner.say("write", "", 1, 1)
        return report

    def _mine_source(self, name: str, runner: StageRunner) -> _MinedSource:
        """Raises DataError for a source if none of its rows has enough negatives."""
        probe = ProbeTask("model", self._job)
        (loaded,) = runner.run("load the model", name, probe_model, [probe], on_model=True)
        runs = runner.run("read", name, read_range, self._read_tasks(name), on_model=False)
        to_embed = self._embed_tasks(name, runs, dimensions=loaded.counts["dimensions"])
        embedded = runner.run("embed", name, embed_block, to_embed, on_model=True)
        to_mine = self._query_tasks(name, runs, blocks=[task.name for task in to_embed])
        marks = runner.run("mine", name, mine_queries, to_mine, on_model=True)
        documents = sum(mark.counts["documents"] for mark in embedded)
        report = source_report(name, documents=documents, marks=marks, samples=self.options.samples)
        check_kept(report, self.options.rule)
        return _MinedSource(marks, report)

    def _read_tasks(self, name: str) -> list[ReadTask]:
        run_bytes = self.options.sizes.run_bytes
        ranges = plan_scan(self.data, self.manifest, name, self.corpus[name], run_bytes=run_bytes)
        return [ReadTask(each.key, self._job, each) for each in ranges]

    def _embed_tasks(self, name: str, runs: Sequence[Mark], *, dimensions: int) -> list[EmbedTask]:
        """One block of documents per task."""
        sizes, documents = self.options.sizes, _sum(runs, "documents")
        blocks = max(
            _shares(documents * dimensions * 4, sizes.block_vector_bytes),
            _shares(_sum(runs, "document_bytes"), sizes.block_text_bytes),
        )
        tasks = []
        for index in range(blocks):
            first, last = key_range(index, blocks)
            wanted = tuple(fetches(runs, "documents", first, last))
            tasks.append(EmbedTask(f"{name}/embed-{index:05d}", self._job, first, last, wanted))
        return tasks

    def _query_tasks(self, name: str, runs: Sequence[Mark], *, blocks: Sequence[str]) -> list[QueryTask]:
        """One share of the queries per task. Each task searches all blocks."""
        sizes, rows = self.options.sizes, _sum(runs, "rows")
        mined_bytes = rows * self.options.rule.negatives * _sum(runs, "document_bytes") // _sum(runs, "documents")
        shares = max(
            _shares(rows, sizes.query_rows), _shares(_sum(runs, "row_bytes") + mined_bytes, sizes.output_bytes)
        )
        tasks = []
        for index in range(shares):
            first, last = key_range(index, shares)
            wanted = tuple(fetches(runs, "rows", first, last))
            tasks.append(QueryTask(f"{name}/mine-{index:05d}", self._job, first, last, wanted, tuple(blocks)))
        return tasks

    def _write(self, mined: Mapping[str, _MinedSource]) -> Manifest:
        """Write the sources, mined or unchanged, with the tokenizer and the evaluation sets."""
        for key in self.tokenizer:
            self.out.put(key, self.data.get(key, most=BULK_BYTES))
        rows = [
            (self._mined_info(entry.name), self._mined_rows(mined[entry.name]))
            if entry.name in mined
            else (_info(self.manifest, entry.name), self._kept_rows(entry.name))
            for entry in self.manifest.sources
        ]
        return write_dataset(self.out, rows, [load_evaluation(self.data, entry) for entry in self.manifest.evaluations])

    def _mined_info(self, name: str) -> SourceInfo:
        changed = {"negatives": self.options.rule.negatives, "unmined": False}
        return SourceInfo(**_info(self.manifest, name).model_dump() | changed)

    def _mined_rows(self, mined: _MinedSource) -> Iterator[Row]:
        for table in read_tables(self._job.work, fetches(mined.marks, "rows")):
            for row in table.to_pylist():
                yield Row(row["query"], row["positive"], row["negatives"])

    def _kept_rows(self, name: str) -> Iterator[Row]:
        for row in source_rows(self.data, name, 0, len(self.manifest.row_groups(name))):
            yield Row(row.query, row.positive, row.negatives)

    def _report(self, written: Manifest, mined: Mapping[str, _MinedSource]) -> MiningReport:
        return MiningReport(
            version=written.version,
            input_version=self.manifest.version,
            model=self.options.model if self.model.revision is None else f"{self.model.name}@{self.model.revision}",
            model_fingerprint=self.model.fingerprint,
            rule=self.options.rule,
            histogram_edges=tuple(round(float(edge), 2) for edge in HISTOGRAM_EDGES),
            sources=tuple(each.report for each in mined.values()),
        )


def _sum(marks: Sequence[Mark], count: str) -> int:
    return sum(mark.counts[count] for mark in marks)


def _shares(amount: int, limit: int) -> int:
    return max(1, -(-amount // limit))


def _info(manifest: Manifest, name: str) -> SourceInfo:
    return SourceInfo(**manifest.source(name).model_dump(include=set(SourceInfo.model_fields)))


def _read_report(out: Store) -> MiningReport:
    try:
        return read_model(MiningReport, out.get(REPORT_KEY))
    except (NotFoundInStore, ValueError) as error:
        raise DataError(
            f"{out.uri} was already mined, but {REPORT_KEY} is missing or damaged",
            remedy="use the data set as it is, or mine to another directory for a new report",
        ) from error


def _remove_work(out: Store) -> None:
    out.delete([info.key for info in out.list(_FOLDER) if _WORK.match(info.key)])
