"""Makes a data set from a user's files.

The same inputs give the same manifest version. An existing data set that was made the same way and is not damaged is
not changed.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice

from data_io.curation.exclusion import ExcludedTexts, read_excluded, say_excluded, without_excluded
from data_io.curation.held_out import HeldOut, SplitCounts, no_rows, retrieval_set, training_rows
from data_io.curation.lexical_negatives import mine_negatives
from data_io.curation.tokenizer_training import save_tokenizer, train_tokenizer
from data_io.data_spec import S3Options
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.manifest import Manifest, SourceInfo
from data_io.dataset.provenance import remove_recorded_files
from data_io.dataset.rows import Row
from data_io.dataset.schema import text_key
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.dataset.writer import publish, write_dataset
from data_io.errors import ConfigError, DataError
from data_io.preparation.attempt import Attempt, Resources
from data_io.preparation.external_sort import SourceParts, write_sources
from data_io.preparation.inputs import FileInput, OpenedSource, check_inputs, is_large, open_source, read_scored_set
from data_io.preparation.scan import ScannedSource, ScanTask, scan
from data_io.storage.resumable import Work
from data_io.storage.store import Store
from data_io.task import Kind
from data_io.user_files.columns import InputRows
from data_io.user_files.records import find_files, fingerprint
from data_io.wording import counted

_TOKENIZER_TEXTS = 200_000


@dataclass(frozen=True)
class FileOptions:
    """Settings that, together with the inputs, determine the data set. Raises ConfigError for an invalid fraction."""

    heldout_fraction: float = 0.02
    """Share of the queries of each retrieval source that is held out, from 0 to below 1."""
    max_heldout_queries: int = 1000
    """Maximum number of held-out queries per source."""
    tokenizer_vocabulary: int | None = None
    """Vocabulary size of the tokenizer to train on the texts. None trains none."""
    exclude: Sequence[str] = ()
    """Names of texts that no row may contain, for `curation.exclusion.excluded_texts`."""
    s3: S3Options | None = None
    """S3 settings for excluded texts that are on S3."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.heldout_fraction < 1.0:
            raise ConfigError(
                f"heldout_fraction is {self.heldout_fraction}", remedy="use a fraction from 0 to below 1, such as 0.02"
            )


def prepare_files(
    store: Store,
    inputs: Sequence[FileInput],
    options: FileOptions | None = None,
    resources: Resources | None = None,
) -> Manifest:
    """Write a data set made of users' files to `store`.

    Part of the queries of every retrieval source is held out as the evaluation set `<name>_heldout`. No source keeps a
    row with a held-out text, a text of a scored pair or an excluded text. Of rows with equal query and positive the
    first is kept. The files are read twice. The result does not depend on `resources`.

    Large inputs (`is_large`) are prepared in tasks, which the executor may run in several processes at once. A call
    after an interruption resumes after the last finished task. Raises ConfigError for contradictory settings, DataError
    with file and line for an invalid row, StorageError if the files cannot be read.
    """
    return _Preparation(store, inputs, options or FileOptions(), resources or Resources()).run()


@dataclass(frozen=True)
class _Source:
    """A source after the first pass through its files."""

    rows: SourceParts
    held_out: HeldOut

    @property
    def info(self) -> SourceInfo:
        return self.rows.info

    def training_rows(self, counts: SplitCounts) -> Iterator[Row]:
        """The rows that training may see, counted in `counts`. Raises DataError if there are none."""
        yield from chain.from_iterable(read(counts) for read in self.rows.parts)
        if not counts.kept:
            raise no_rows(self.info.name, counts)


@dataclass(frozen=True)
class _Preparation:
    """The steps of `prepare_files`."""

    store: Store
    inputs: Sequence[FileInput]
    options: FileOptions
    resources: Resources

    def run(self) -> Manifest:
        began = time.time()
        check_inputs(self.inputs, self.store)
        excluded = read_excluded(self.options.exclude, self.options.s3, self.resources.say)
        keys = () if self.options.tokenizer_vocabulary is None else TOKENIZER_KEYS
        attempt = Attempt(self.store, self._recipe(excluded), self.resources, began, files=keys)
        if (manifest := attempt.finished_before()) is not None:
            return manifest

        scored, opened = self._open_inputs()
        work = attempt.begin_work() if is_large(self.inputs, memory_bytes=self.resources.memory_bytes) else None
        scanned = self._scan(opened, work)
        hidden = _held_out_texts(scanned, scored)
        sources = [self._source(*each, hidden, excluded) for each in zip(opened, scanned, strict=True)]

        remove_recorded_files(self.store)
        self._train_tokenizer(sources)
        evaluations: list[RetrievalSet | StsSet] = [*_heldout_sets(sources), *scored]
        manifest, counts = self._write(sources, evaluations, work)
        for source, count in zip(sources, counts, strict=True):
            self._say_counts(source, count, excluded)
        return attempt.finish(manifest, {each.info.name: count for each, count in zip(sources, counts, strict=True)})

    def _recipe(self, excluded: Sequence[ExcludedTexts]) -> dict[str, object]:
        return {
            "made_of": "files",
            "inputs": [
                asdict(each) | {"files": [fingerprint(file.address) for file in find_files(each.address)]}
                for each in self.inputs
            ],
            "heldout_fraction": self.options.heldout_fraction,
            "max_heldout_queries": self.options.max_heldout_queries,
            "tokenizer_vocabulary": self.options.tokenizer_vocabulary,
            "excluded": [each.fingerprint for each in excluded],
            "seed": self.options.seed,
        }

    def _open_inputs(self) -> tuple[list[StsSet], list[OpenedSource]]:
        scored = [read_scored_set(each, self.resources.say) for each in self.inputs if each.kind == "sts"]
        opened = [
            open_source(each, each.kind, self.resources.memory_bytes)
            for each in self.inputs
            if isinstance(each.kind, Kind)
        ]
        return scored, opened

    def _scan(self, opened: Sequence[OpenedSource], work: Work | None) -> list[ScannedSource]:
        """The first pass through the files: check every row and choose the held-out queries."""
        tasks = [
            ScanTask(
                work=work,
                source=index,
                name=source.given.name,
                number=number,
                rows=rows,
                part_bytes=part_bytes,
                negatives=source.given.negatives,
                heldout_fraction=self.options.heldout_fraction if source.kind is Kind.RETRIEVAL else 0.0,
                max_heldout_queries=self.options.max_heldout_queries,
                # In the other kinds another row's positive may have the same label.
                keeps_substitutes=source.kind is Kind.RETRIEVAL,
            )
            for index, source in enumerate(opened)
            for number, (rows, part_bytes) in enumerate(source.parts)
        ]
        return scan(tasks, self.resources)

    def _source(
        self,
        opened: OpenedSource,
        scanned: ScannedSource,
        hidden: frozenset[int],
        excluded: Sequence[ExcludedTexts],
    ) -> _Source:
        """A source without rows that contain one of the `hidden` keys or one of the excluded texts."""
        given, kind = opened.given, opened.kind
        own = min(scanned.fewest_negatives, kind.recipe_negatives) if given.negatives is None else given.negatives
        info = SourceInfo(
            name=given.name,
            kind=kind,
            negatives=max(own, given.mine_lexical),
            instruction=opened.instruction,
            license=given.license,
            origin=given.address,
        )
        self.resources.say(
            f"{info.name}: first pass done; {counted(len(scanned.held_out.rows), 'held-out row')}, "
            f"{counted(info.negatives, 'hard negative')} per row"
        )
        parts = SourceParts(
            info=info,
            parts=tuple(
                _TrainingRows(rows, kind, own, info.negatives, hidden, scanned.substitutes, tuple(excluded))
                for rows, _ in opened.parts
            ),
            part_bytes=tuple(part_bytes for _, part_bytes in opened.parts),
            text_bytes=scanned.text_bytes,
        )
        return _Source(parts, scanned.held_out)

    def _train_tokenizer(self, sources: Sequence[_Source]) -> None:
        if (vocabulary_size := self.options.tokenizer_vocabulary) is None:
            return
        self.resources.say("training the tokenizer")
        rows = chain.from_iterable(each.training_rows(SplitCounts()) for each in sources)
        texts = (text for row in rows for text in (row.query, row.positive))
        trained = train_tokenizer(islice(texts, _TOKENIZER_TEXTS), vocabulary_size=vocabulary_size)
        save_tokenizer(self.store, trained)

    def _write(
        self, sources: Sequence[_Source], evaluations: Sequence[RetrievalSet | StsSet], work: Work | None
    ) -> tuple[Manifest, list[SplitCounts]]:
        """The second pass through the files. Returns counts per source. Without `work` it cannot be resumed."""
        if work is not None:
            written = write_sources(work, [each.rows for each in sources], self.resources, seed=self.options.seed)
            return publish(self.store, [each.data for each in written], evaluations), [each.counts for each in written]
        counts, removed = [SplitCounts() for _ in sources], dict[str, int]()
        manifest = write_dataset(
            self.store,
            ((each.info, each.training_rows(count)) for each, count in zip(sources, counts, strict=True)),
            evaluations,
            seed=self.options.seed,
            memory_bytes=self.resources.memory_bytes,
            removed=removed,
        )
        for each, count in zip(sources, counts, strict=True):
            count.repeated = removed[each.info.name]
        return manifest, counts

    def _say_counts(self, source: _Source, count: SplitCounts, excluded: Sequence[ExcludedTexts]) -> None:
        name, say = source.info.name, self.resources.say
        say(
            f"{name}: {counted(count.kept - count.repeated, 'row')} to train on; left out: {count.held_out:,} with "
            f"held-out texts, {count.dropped:,} with too few negatives, {count.repeated:,} repeated; "
            f"{counted(count.replaced_negatives, 'negative')} replaced"
        )
        # If queries share answers, more rows are left out than were to be held out.
        held_out = len(source.held_out.rows)
        others = count.held_out - held_out
        if held_out and others > max(2 * held_out, count.kept // 10):
            say(
                f"{name}: warning: {counted(others, 'row')} left out because a held-out query has the same answer; "
                "to train on more of them lower heldout_fraction or max_heldout_queries"
            )
        say_excluded(name, excluded, count.left_out, say)


def _held_out_texts(scanned: Sequence[ScannedSource], scored: Sequence[StsSet]) -> frozenset[int]:
    """Keys of the texts of all evaluation sets."""
    pairs = {text_key(text) for each in scored for text in (*each.text_a, *each.text_b)}
    return frozenset(pairs.union(*(each.held_out.texts for each in scanned)))


def _heldout_sets(sources: Sequence[_Source]) -> list[RetrievalSet]:
    return [
        retrieval_set(
            f"{each.info.name}_heldout", each.held_out, instruction=each.info.instruction, license=each.info.license,
            origin=each.info.origin,
        )
        for each in sources if each.held_out.rows
    ]  # fmt: skip


@dataclass(frozen=True)
class _TrainingRows:
    """A `ReadPart`: the rows of a part of a source that training may see."""

    rows: InputRows
    kind: Kind
    own_negatives: int
    negatives: int
    held_out: frozenset[int]
    substitutes: tuple[str, ...]
    excluded: tuple[ExcludedTexts, ...]

    def __call__(self, counts: SplitCounts) -> Iterator[Row]:
        held_out = HeldOut((), self.held_out)
        allowed = without_excluded(self.rows, self.kind, self.excluded, counts)
        rows = training_rows(
            allowed, held_out, negatives=self.own_negatives, kind=self.kind, substitutes=self.substitutes, counts=counts
        )
        return rows if self.negatives == self.own_negatives else _with_lexical_negatives(list(rows), self.negatives)


def _with_lexical_negatives(rows: list[Row], negatives: int) -> Iterator[Row]:
    """Rows with `negatives` each: first their own, then the ones that BM25 finds among all positives."""
    candidates = mine_negatives([row.query for row in rows], [row.positive for row in rows], negatives=negatives)
    together = [tuple(dict.fromkeys((*row.negatives, *mined))) for row, mined in zip(rows, candidates, strict=True)]
    fewest = min(range(len(rows)), key=lambda i: len(together[i]), default=0)
    if rows and (found := len(together[fewest])) < negatives:
        raise DataError(
            f"{rows[fewest].place}: mine_lexical is {negatives}, but this row has only "
            f"{counted(found, 'hard negative')}: its own and those that BM25 finds among the source's other positives",
            remedy=f"set mine_lexical to {found}" if found else "give more rows, or set mine_lexical to 0",
        )
    for row, texts in zip(rows, together, strict=True):
        yield Row(row.query, row.positive, texts[:negatives], row.place)
