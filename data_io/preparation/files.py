"""Making a data set from a user's files.

The same inputs give the same manifest version; a data set that is already there, made the same way and undamaged, is
left as it is.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal

from pydantic import ValidationError

from data_io.config import S3Options
from data_io.curation import tokenizer_training
from data_io.curation.exclusion import ExcludedTexts, read_excluded, say_excluded, without_excluded
from data_io.curation.held_out import HeldOut, SplitCounts, no_rows, retrieval_set, training_rows
from data_io.curation.lexical_negatives import mine_negatives
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.manifest import Manifest, SourceInfo
from data_io.dataset.provenance import record, remove_recorded_files, reuse
from data_io.dataset.rows import Row, check_text
from data_io.dataset.schema import text_key
from data_io.dataset.shards import ShardSize
from data_io.dataset.spill import MEMORY_BYTES
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.dataset.writer import publish, write_dataset
from data_io.errors import ConfigError, DataError
from data_io.execution import Executor, Pace, Say, in_process, silent
from data_io.preparation.external_sort import SourcePieces, write_sources
from data_io.preparation.scan import ScanTask, scan
from data_io.storage.resumable import Work, begin_work, end_work
from data_io.storage.store import Store
from data_io.task import Kind
from data_io.user_files.addresses import holds_address
from data_io.user_files.columns import Columns, InputRows, open_rows, read_scored_pairs
from data_io.user_files.records import find_files, fingerprint, pieces_of, size_of

_TOKENIZER_TEXTS = 200_000
_SMALL_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FileInput:
    """One source, or with kind "sts" one set of scored pairs, in a file, a folder or a pattern of files."""

    name: str
    address: str
    kind: Kind | Literal["sts"]
    instruction: str | None = None
    """None takes the one that the queries are prefixed with in the files, if any."""
    license: str = ""
    columns: Columns = field(default_factory=Columns)
    negatives: int | None = None
    """Hard negatives to keep for every row; None keeps as many as every row has, at most the recipe's number."""
    mine_lexical: int = 0
    """Hard negatives in all: the row's own, the rest mined by BM25 among the source's positives; 0 mines none."""


def prepare_files(
    store: Store,
    inputs: Sequence[FileInput],
    *,
    heldout_fraction: float = 0.02,
    max_heldout_queries: int = 1000,
    tokenizer_vocabulary: int | None = None,
    exclude: Sequence[str] = (),
    s3: S3Options | None = None,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    executor: Executor = in_process,
    progress: Say | None = None,
) -> Manifest:
    """Write a data set made of users' files to `store`.

    Of every retrieval source a part of the queries is held out as the evaluation set `<name>_heldout`; no source keeps
    a row with a held-out text or a text of a scored pair, and of rows with equal query and positive the first is kept.
    `exclude` names texts that no row may have (`excluded_texts`, which reads them with `s3`). With
    `tokenizer_vocabulary` a tokenizer of that size is trained on the texts too. The files are read twice, and the
    result depends on neither `memory_bytes` nor `executor`. Inputs that are not small (`is_large`) are prepared in
    pieces, which `executor` may do at once in several processes, each with about `memory_bytes` of texts; a call
    that was killed goes on after its last finished piece when it is made again. Raises ConfigError for settings
    that contradict each other, DataError with file and line for whatever is wrong with the files, StorageError
    where they cannot be reached.
    """
    say, began = progress or silent, time.time()
    _check(inputs, heldout_fraction)
    _check_apart(store, inputs)
    keys = () if tokenizer_vocabulary is None else TOKENIZER_KEYS
    files = [find_files(each.address) for each in inputs]
    excluded = read_excluded(exclude, s3, say)
    recipe = {
        "made_of": "files",
        "inputs": [
            asdict(each) | {"files": [fingerprint(file.address) for file in found]}
            for each, found in zip(inputs, files, strict=True)
        ],
        "heldout_fraction": heldout_fraction,
        "max_heldout_queries": max_heldout_queries,
        "tokenizer_vocabulary": tokenizer_vocabulary,
        "excluded": [each.fingerprint for each in excluded],
        "seed": seed,
    }
    if (manifest := reuse(store, recipe, files=keys, say=say)) is not None:
        end_work(store, began=began)
        return manifest
    pairs = [_scored_set(each, say) for each in inputs if each.kind == "sts"]
    opened = [_open(each, each.kind, memory_bytes) for each in inputs if isinstance(each.kind, Kind)]
    work = None
    if is_large(inputs, memory_bytes=memory_bytes):
        work = begin_work(store, recipe, memory_bytes, say=say)
    sources = _scanned(opened, pairs, excluded, work, heldout_fraction, max_heldout_queries, executor, say)
    evaluations: list[RetrievalSet | StsSet] = [*_heldout_sets(sources), *pairs]
    remove_recorded_files(store)
    if tokenizer_vocabulary is not None:
        say("training the tokenizer")
        texts = (text for row in _all_rows(sources) for text in (row.query, row.positive))
        trained = tokenizer_training.train_tokenizer(
            islice(texts, _TOKENIZER_TEXTS), vocabulary_size=tokenizer_vocabulary
        )
        tokenizer_training.save_tokenizer(store, trained)
    if work is None:
        manifest, counts = _write_small(store, sources, evaluations, seed, memory_bytes)
    else:
        written = write_sources(
            work, [each.pieces for each in sources], executor=executor, size=ShardSize(), memory_bytes=memory_bytes,
            seed=seed, say=say,
        )  # fmt: skip
        manifest = publish(store, [each.data for each in written], evaluations)
        counts = [asdict(each.counts) | {"repeated": each.repeated} for each in written]
    for each, count in zip(sources, counts, strict=True):
        say(
            f"{each.info.name}: {count['kept'] - count['repeated']:,} rows to train on; "
            f"{count['held_out']:,} left out for their held-out texts, {count['dropped']:,} for their negatives, "
            f"{count['repeated']:,} as repeated; {count['replaced_negatives']:,} negatives replaced"
        )
        _say_lost(each, count, say)
        say_excluded(each.info.name, excluded, count["left_out"], say)
    by_name = {each.info.name: count for each, count in zip(sources, counts, strict=True)}
    record(store, recipe, manifest, files=keys, counts=by_name)
    end_work(store, began=began)
    return manifest


def is_large(inputs: Sequence[FileInput], *, memory_bytes: int = MEMORY_BYTES) -> bool:
    """Whether the inputs are worth several processes and a record of what is done."""
    found = [file for each in inputs for file in find_files(each.address)]
    return sum(size_of(file.address) for file in found) > min(_SMALL_BYTES, memory_bytes)


@dataclass(frozen=True)
class _Opened:
    """A source before its files are read: its parts, each with the bytes of its files."""

    given: FileInput
    kind: Kind
    instruction: str
    parts: tuple[tuple[InputRows, int], ...]


@dataclass(frozen=True)
class _Source:
    """A source after the first pass over its files."""

    pieces: SourcePieces
    held_out: HeldOut

    @property
    def info(self) -> SourceInfo:
        return self.pieces.info


@dataclass(frozen=True)
class _TrainingRows:
    """A `Piece`: the rows of a part of a source that training may see."""

    rows: InputRows
    kind: Kind
    own_negatives: int
    negatives: int
    held_out: frozenset[int]
    spares: tuple[str, ...]
    excluded: tuple[ExcludedTexts, ...]

    def __call__(self, counts: SplitCounts) -> Iterator[Row]:
        held_out = HeldOut((), self.held_out)
        allowed = without_excluded(self.rows, self.kind, self.excluded, counts)
        rows = training_rows(
            allowed, held_out, negatives=self.own_negatives, kind=self.kind, spares=self.spares, counts=counts
        )
        return rows if self.negatives == self.own_negatives else _mined(list(rows), self.negatives)


def _open(given: FileInput, kind: Kind, memory_bytes: int) -> _Opened:
    rows = open_rows(given.address, given.columns)
    instruction = given.instruction if given.instruction is not None else rows.instruction or ""
    if rows.instruction is not None and instruction != rows.instruction:
        raise ConfigError(
            f"source {given.name!r} is given the instruction {instruction!r}, its files have {rows.instruction!r}",
            remedy="leave the instruction out to take the files' own",
        )
    found = [part for file in rows.files for part in pieces_of(file, min(_SMALL_BYTES, memory_bytes))]
    if given.mine_lexical or rows.min_score is not None:  # among all rows of the source; one of them must be similar
        parts = [(rows, sum(size for _, size in found))]
    else:
        parts = [(replace(rows, files=(file,)), size) for file, size in found]
    return _Opened(given, kind, instruction, tuple(parts))


def _scanned(
    opened: Sequence[_Opened],
    pairs: Sequence[StsSet],
    excluded: Sequence[ExcludedTexts],
    work: Work | None,
    heldout_fraction: float,
    max_heldout_queries: int,
    executor: Executor,
    say: Say,
) -> list[_Source]:
    """The first pass over the files of all sources."""
    tasks = [
        ScanTask(
            work=work,
            source=source,
            number=number,
            name=each.given.name,
            rows=rows,
            size=size,
            negatives=each.given.negatives,
            heldout_fraction=heldout_fraction if each.kind is Kind.RETRIEVAL else 0.0,
            max_heldout_queries=max_heldout_queries,
            # Elsewhere another row's positive may carry the same label.
            keeps_spares=each.kind is Kind.RETRIEVAL,
        )
        for source, each in enumerate(opened)
        for number, (rows, size) in enumerate(each.parts)
    ]
    found = scan(tasks, executor=executor, pace=Pace("checking", sum(task.size for task in tasks), say))
    seen = {text_key(text) for each in pairs for text in (*each.text_a, *each.text_b)}
    held_out = frozenset(seen.union(*(each.held_out.texts for each in found)))
    sources = []
    for each, scanned in zip(opened, found, strict=True):
        given = each.given
        own = min(scanned.fewest_negatives, each.kind.recipe_negatives) if given.negatives is None else given.negatives
        info = SourceInfo(
            name=given.name,
            kind=each.kind,
            negatives=max(own, given.mine_lexical),
            instruction=each.instruction,
            license=given.license,
            origin=given.address,
        )
        held_out_rows = len(scanned.held_out.rows)
        say(f"{given.name}: read once, {held_out_rows} rows held out, {info.negatives} hard negatives a row")
        pieces = SourcePieces(
            info=info,
            pieces=tuple(
                _TrainingRows(rows, each.kind, own, info.negatives, held_out, scanned.spares, tuple(excluded))
                for rows, _ in each.parts
            ),
            sizes=tuple(size for _, size in each.parts),
            text_bytes=scanned.text_bytes,
        )
        sources.append(_Source(pieces, scanned.held_out))
    return sources


def _heldout_sets(sources: Sequence[_Source]) -> list[RetrievalSet]:
    return [
        retrieval_set(
            f"{each.info.name}_heldout", each.held_out, instruction=each.info.instruction, license=each.info.license,
            origin=each.info.origin,
        )
        for each in sources if each.held_out.rows
    ]  # fmt: skip


def _write_small(
    store: Store,
    sources: Sequence[_Source],
    evaluations: Sequence[RetrievalSet | StsSet],
    seed: int,
    memory_bytes: int,
) -> tuple[Manifest, list[dict[str, Any]]]:
    """Write sources that are made again in less time than keeping a record would take."""
    counts, removed = [SplitCounts() for _ in sources], dict[str, int]()
    rows = ((each.info, _rows_of(each, count)) for each, count in zip(sources, counts, strict=True))
    manifest = write_dataset(store, rows, evaluations, seed=seed, memory_bytes=memory_bytes, removed=removed)
    found = [asdict(count) | {"repeated": removed[each.info.name]} for each, count in zip(sources, counts, strict=True)]
    return manifest, found


def _rows_of(source: _Source, counts: SplitCounts) -> Iterator[Row]:
    yield from chain.from_iterable(piece(counts) for piece in source.pieces.pieces)
    if not counts.kept:
        raise no_rows(source.info.name, counts)


def _all_rows(sources: Sequence[_Source]) -> Iterator[Row]:
    return chain.from_iterable(_rows_of(each, SplitCounts()) for each in sources)


def _say_lost(source: _Source, count: Mapping[str, Any], say: Say) -> None:
    """Queries that share answers lose more rows to the held-out ones than were asked for."""
    held_out = len(source.held_out.rows)
    beside = count["held_out"] - held_out
    if held_out and beside > max(2 * held_out, count["kept"] // 10):
        say(
            f"{source.info.name}: warning: {beside:,} rows are left out because their answer is one of a held-out "
            "query's; lower heldout_fraction or max_heldout_queries to train on more of them"
        )


def _mined(rows: list[Row], negatives: int) -> Iterator[Row]:
    candidates = mine_negatives([row.query for row in rows], [row.positive for row in rows], negatives=negatives)
    together = [tuple(dict.fromkeys((*row.negatives, *mined))) for row, mined in zip(rows, candidates, strict=True)]
    fewest = min(range(len(rows)), key=lambda i: len(together[i]), default=0)
    if rows and (found := len(together[fewest])) < negatives:
        raise DataError(
            f"{rows[fewest].place}: {negatives} hard negatives are asked for (mine_lexical), and with those that BM25 "
            f"finds among the other answers of the source it has {found}",
            remedy=f"ask for {found}" if found else "give more rows, or do not mine",
        )
    for row, texts in zip(rows, together, strict=True):
        yield Row(row.query, row.positive, texts[:negatives], row.place)


def _scored_set(given: FileInput, say: Say) -> StsSet:
    pairs = []
    for pair in read_scored_pairs(given.address, given.columns):
        check_text(pair.text_a, "the first text", pair.place)
        check_text(pair.text_b, "the second text", pair.place)
        pairs.append(pair)
    say(f"{given.name}: {len(pairs)} scored pairs")
    return StsSet(
        given.name, given.instruction or "",
        [p.text_a for p in pairs], [p.text_b for p in pairs], [p.score for p in pairs],
        license=given.license, origin=given.address,
    )  # fmt: skip


def _check(inputs: Sequence[FileInput], heldout_fraction: float) -> None:
    if not any(isinstance(each.kind, Kind) for each in inputs):
        raise ConfigError("there is no source to train on", remedy="give at least one input of another kind than sts")
    if not 0.0 <= heldout_fraction < 1.0:
        raise ConfigError(
            f"heldout_fraction is {heldout_fraction}", remedy="use a fraction from 0 to below 1, such as 0.02"
        )
    names = [each.name for each in inputs]
    for each in inputs:
        try:
            SourceInfo(name=each.name, kind=Kind.RETRIEVAL, negatives=each.negatives or each.mine_lexical)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigError(
                f"input {each.name!r}: {first['loc'][0]} is {first['input']!r}: {first['msg']}",
                remedy="name it with letters, digits, '.', '_' and '-'; keep 0 to 128 negatives",
            ) from error
        if names.count(each.name) > 1:
            raise ConfigError(f"two inputs are called {each.name!r}", remedy="give each its own name")
        if each.mine_lexical and each.kind is not Kind.RETRIEVAL:
            raise ConfigError(
                f"source {each.name!r} asks for mined negatives; of kind {each.kind}, its rows share labels",
                remedy="set mine_lexical to 0, or make it a retrieval source",
            )
        if each.mine_lexical and each.negatives is not None and each.negatives > each.mine_lexical:
            raise ConfigError(
                f"source {each.name!r} has negatives={each.negatives}, but mine_lexical={each.mine_lexical} in all",
                remedy=f"set mine_lexical to {each.negatives} or more, or negatives to {each.mine_lexical} or less",
            )


def _check_apart(store: Store, inputs: Sequence[FileInput]) -> None:
    for each in inputs:
        if holds_address(each.address, store.uri):
            raise ConfigError(
                f"source {each.name!r} is {each.address}, which holds the data set that is made, {store.uri}; "
                "the next preparation would read it as a source",
                remedy="make the data set elsewhere, or give a pattern of files, such as "
                f"'{each.address.rstrip('/')}/*.jsonl'",
            )
