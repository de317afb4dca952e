"""Making a data set: the demo's from the documentation on this machine, or one from a user's files.

The same inputs give the same manifest version; a data set that is already there, made the same way and undamaged, is
left as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import ValidationError

from data_io.errors import ConfigError
from data_io.evaluation_sets import RetrievalSet, StsSet
from data_io.manifest import Manifest, SourceInfo
from data_io.sources import tokenizer_training
from data_io.sources.convert import Columns, InputRows, open_rows, read_scored_pairs
from data_io.sources.documentation import PACKAGES, DemoSizes, build_demo, read_documentation
from data_io.sources.installed import installed_packages
from data_io.sources.lexical import mine_negatives
from data_io.sources.raw_files import find_files, fingerprint
from data_io.sources.recipe import record, reuse
from data_io.sources.split import HeldOut, SplitCounts, choose_held_out, retrieval_set, text_key, training_rows
from data_io.storage import Store
from data_io.task import Kind
from data_io.tokenization import TOKENIZER_KEYS
from data_io.writer import Row, check_row, write_dataset

Progress = Callable[[str], None]

_TOKENIZER_TEXTS = 200_000


@dataclass(frozen=True)
class FileInput:
    """One source, or with kind "sts" one set of scored pairs, in a file, a folder or a pattern of files."""

    name: str
    address: str
    kind: Kind | Literal["sts"]
    instruction: str | None = None
    """None takes the one that the queries are prefixed with in the files, if any."""
    licence: str = ""
    columns: Columns = field(default_factory=Columns)
    negatives: int | None = None
    """Hard negatives to keep for every row; None keeps as many as every row has, at most the recipe's number."""
    mine_lexical: int = 0
    """Hard negatives in all: the row's own, the rest mined by BM25 among the source's positives; 0 mines none."""


def prepare_documentation(
    store: Store,
    *,
    sizes: DemoSizes | None = None,
    packages: Sequence[str] = PACKAGES,
    vocabulary_size: int = tokenizer_training.VOCABULARY_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Write the demo's data set and a tokenizer trained on it to `store`; about half a minute on one core.

    `packages` are import names; those that are not installed are left out. Raises DataError where too little
    documentation is installed.
    """
    sizes, say = sizes or DemoSizes(), progress or _silent
    installed = installed_packages(packages)
    recipe = {
        "made_of": "documentation",
        "sizes": asdict(sizes),
        "packages": [[package.name, package.version] for package in installed],
        "vocabulary_size": vocabulary_size,
        "seed": seed,
    }
    if (manifest := reuse(store, recipe, files=TOKENIZER_KEYS)) is not None:
        say("the data set is already there")
        return manifest
    docstrings = read_documentation(installed, sizes, progress=say)
    say("mining negatives and splitting")
    demo = build_demo(docstrings, installed, sizes, seed=seed)
    say("training the tokenizer")
    texts = (text for _, rows in demo.sources for row in rows for text in (row.query, row.positive))
    tokenizer = tokenizer_training.train_tokenizer(texts, vocabulary_size=vocabulary_size)
    say("writing")
    tokenizer_training.save_tokenizer(store, tokenizer)
    manifest = write_dataset(store, demo.sources, demo.evaluations, seed=seed)
    record(store, recipe, manifest, files=TOKENIZER_KEYS)
    return manifest


def prepare_files(
    store: Store,
    inputs: Sequence[FileInput],
    *,
    heldout_fraction: float = 0.02,
    max_heldout_queries: int = 1000,
    tokenizer_vocabulary: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Write a data set made of users' files to `store`.

    Of every retrieval source a part of the queries is held out as the evaluation set `<name>_heldout`; no source keeps
    a row with a held-out text or a text of a scored pair. With `tokenizer_vocabulary` a tokenizer of that size is
    trained on the texts too. The files are read twice; a source's texts are held in memory while it is written.
    Raises ConfigError for settings that contradict each other, DataError with file and line for whatever is wrong with
    the files, StorageError where they cannot be reached.
    """
    say = progress or _silent
    _check(inputs, heldout_fraction)
    keys = () if tokenizer_vocabulary is None else TOKENIZER_KEYS
    recipe = {
        "made_of": "files",
        "inputs": [
            asdict(each) | {"files": [fingerprint(f.address) for f in find_files(each.address)]} for each in inputs
        ],
        "heldout_fraction": heldout_fraction,
        "max_heldout_queries": max_heldout_queries,
        "tokenizer_vocabulary": tokenizer_vocabulary,
        "seed": seed,
    }
    if (manifest := reuse(store, recipe, files=keys)) is not None:
        say("the data set is already there")
        return manifest
    pairs = [_scored_set(each, say) for each in inputs if each.kind == "sts"]
    scanned = [
        _scan(each, each.kind, heldout_fraction, max_heldout_queries, say)
        for each in inputs
        if isinstance(each.kind, Kind)
    ]
    seen = {text_key(text) for each in pairs for text in (*each.text_a, *each.text_b)}
    held_out = frozenset(seen.union(*(each.held_out.texts for each in scanned)))
    evaluations: list[RetrievalSet | StsSet] = [
        retrieval_set(
            f"{each.info.name}_heldout", each.held_out, instruction=each.info.instruction, licence=each.info.licence,
            origin=each.info.origin,
        )
        for each in scanned if each.held_out.rows
    ]  # fmt: skip
    sample = _Sample(_TOKENIZER_TEXTS if tokenizer_vocabulary is not None else 0)
    sources = ((each.info, sample.watch(_training(each, held_out, say))) for each in scanned)
    manifest = write_dataset(store, sources, [*evaluations, *pairs], seed=seed)
    if tokenizer_vocabulary is not None:
        say("training the tokenizer")
        files = tokenizer_training.train_tokenizer(sample.texts, vocabulary_size=tokenizer_vocabulary)
        tokenizer_training.save_tokenizer(store, files)
    record(store, recipe, manifest, files=keys)
    return manifest


@dataclass(frozen=True)
class _Scanned:
    """A source after the first pass over its files."""

    info: SourceInfo
    rows: InputRows
    held_out: HeldOut
    own_negatives: int
    """Hard negatives of its own that every row has."""


def _scan(given: FileInput, kind: Kind, fraction: float, max_queries: int, say: Progress) -> _Scanned:
    rows = open_rows(given.address, given.columns)
    instruction = given.instruction if given.instruction is not None else rows.instruction or ""
    if rows.instruction is not None and instruction != rows.instruction:
        raise ConfigError(
            f"source {given.name!r} is given the instruction {instruction!r}, its files have {rows.instruction!r}",
            remedy="leave the instruction out to take the files' own",
        )
    fewest: list[int] = []

    def checked() -> Iterator[Row]:
        for row in rows:
            check_row(row, len(row.negatives) if given.negatives is None else given.negatives, row.place)
            if not fewest or len(row.negatives) < fewest[0]:
                fewest[:] = [len(row.negatives)]
            yield row

    held_out = choose_held_out(checked(), fraction=fraction if kind is Kind.RETRIEVAL else 0.0, max_queries=max_queries)
    own = min(fewest[0], kind.recipe_negatives) if given.negatives is None else given.negatives
    info = SourceInfo(
        name=given.name,
        kind=kind,
        negatives=max(own, given.mine_lexical),
        instruction=instruction,
        licence=given.licence,
        origin=given.address,
    )
    say(f"{given.name}: read once, {len(held_out.rows)} rows held out, {info.negatives} hard negatives a row")
    return _Scanned(info, rows, held_out, own)


def _training(source: _Scanned, held_out: frozenset[int], say: Progress) -> Iterator[Row]:
    counts = SplitCounts()
    rows = training_rows(
        source.rows,
        HeldOut((), held_out),
        negatives=source.own_negatives,
        replace_negatives=source.info.kind is Kind.RETRIEVAL,
        counts=counts,
    )
    yield from rows if source.info.negatives == source.own_negatives else _mined(list(rows), source.info.negatives)
    say(
        f"{source.info.name}: {counts.kept} rows to train on, {counts.held_out} left out for their held-out texts, "
        f"{counts.dropped} for their negatives, {counts.replaced_negatives} negatives replaced"
    )


def _mined(rows: list[Row], negatives: int) -> Iterator[Row]:
    candidates = mine_negatives([row.query for row in rows], [row.positive for row in rows], negatives=negatives)
    for row, mined in zip(rows, candidates, strict=True):
        own = set(row.negatives)
        together = (*row.negatives, *(text for text in mined if text not in own))
        yield Row(row.query, row.positive, together[:negatives], row.place)


def _scored_set(given: FileInput, say: Progress) -> StsSet:
    pairs = list(read_scored_pairs(given.address, given.columns))
    say(f"{given.name}: {len(pairs)} scored pairs")
    return StsSet(
        given.name, given.instruction or "",
        [p.text_a for p in pairs], [p.text_b for p in pairs], [p.score for p in pairs],
        licence=given.licence, origin=given.address,
    )  # fmt: skip


class _Sample:
    """Keeps the first texts that pass by."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.texts: list[str] = []

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if len(self.texts) < self._size:
                self.texts += (row.query, row.positive)
            yield row


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


def _silent(_message: str) -> None:
    pass
