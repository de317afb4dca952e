"""Data sets of public sources: from local copies, from the released files, and the errors without a network."""

import gzip
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_io.curation.exclusion import excluded_texts
from data_io.dataset.evaluation_sets import StsSet
from data_io.dataset.manifest import Manifest, SourceInfo, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.schema import text_columns
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import ConfigError, DataError, StorageError
from data_io.evaluation.mteb import task_texts
from data_io.execution import in_process
from data_io.inspection.verify import verify_dataset
from data_io.preparation.attempt import Resources
from data_io.preparation.public import PublicOptions, prepare_recipe, prepare_released
from data_io.sources.catalog import public_source
from data_io.sources.hub import hub_records
from data_io.sources.local_copy import files_of
from data_io.sources.rows import PublicRows
from data_io.sources.source import Table
from data_io.storage.resumable import WORK_PREFIX
from data_io.storage.store import Store, open_store
from data_io.task import Kind


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "data"))


def write_jsonl(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def copies(tmp_path: Path) -> str:
    """Local copies of three small sources."""
    folder = tmp_path / "copies"
    reviews = [{"text": f"review {n}", "label": n % 2, "label_text": ""} for n in range(20)]
    write_jsonl(folder / "imdb" / "train.jsonl", *reviews)
    write_jsonl(folder / "imdb" / "test.jsonl", {"text": "a test review", "label": 1, "label_text": ""})
    questions = [{"query": f"who is {n}?", "answer": f"{n} is a number."} for n in range(20)]
    write_jsonl(folder / "natural_questions" / "pair" / "train-00000-of-00001.jsonl", *questions)
    intents = [{"text": f"{n} of {c}", "label": c, "label_text": ""} for n in range(15) for c in "abc"]
    write_jsonl(folder / "banking77" / "train.jsonl", *intents)
    return str(folder)


def rows_of(store: Store, manifest: Manifest, source: str) -> list[dict[str, str]]:
    reader = Reader(store, manifest)
    names = text_columns(manifest.source(source).negatives)
    return [
        row
        for group in range(len(manifest.row_groups(source)))
        for row in reader.read(source, group, names).to_pylist()
    ]


NAMES = ["imdb", "natural_questions", "banking77"]


def test_local_copies_become_a_complete_described_data_set(store: Store, copies: str) -> None:
    said: list[str] = []

    manifest = prepare_recipe(store, NAMES, folder=copies, resources=Resources(say=said.append))

    assert [(entry.name, entry.kind, entry.negatives, entry.rows) for entry in manifest.sources] == [
        ("imdb", Kind.CLASSIFICATION, 1, 20),
        ("banking77", Kind.CLUSTERING, 24, 45),
        ("natural_questions", Kind.RETRIEVAL, 0, 20),
    ]
    assert manifest.source("banking77").license == "MIT"
    assert manifest.source("imdb").instruction.startswith("Classify the sentiment")
    assert manifest.source("imdb").origin == "huggingface.co/datasets/mteb/imdb (a local copy)"
    assert verify_dataset(store).ok
    assert said == ["imdb: 20 rows", "banking77: 45 rows", "natural_questions: 20 rows"]


def test_the_same_copies_are_left_as_they_are_and_a_changed_one_is_made_again(store: Store, copies: str) -> None:
    first = prepare_recipe(store, NAMES, folder=copies)
    said: list[str] = []

    second = prepare_recipe(store, NAMES, folder=copies, resources=Resources(say=said.append))
    write_jsonl(Path(copies) / "imdb" / "train.jsonl", {"text": "new", "label": 1})
    third = prepare_recipe(store, NAMES, folder=copies)

    assert said == ["the data set already exists"]
    assert second.version == first.version != third.version


def test_a_restart_does_not_read_finished_sources_again_and_gives_the_same_result(
    store: Store, copies: str, tmp_path: Path
) -> None:
    undisturbed = prepare_recipe(open_store(str(tmp_path / "undisturbed")), NAMES, folder=copies)
    done: list[Any] = []

    def killed(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for task, result in in_process(function, tasks):
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(task)
            yield task, result

    with pytest.raises(KeyboardInterrupt):
        prepare_recipe(store, NAMES, folder=copies, resources=Resources(executor=killed))
    spilled = {info.key: info.modified for info in store.list(WORK_PREFIX) if "/spill/" in info.key}
    said: list[str] = []
    again: list[Any] = []

    def watched(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for found in in_process(function, tasks):
            again.append({info.key: info.modified for info in store.list(WORK_PREFIX) if info.key in spilled})
            yield found

    manifest = prepare_recipe(store, NAMES, folder=copies, resources=Resources(executor=watched, say=said.append))

    assert len(spilled) >= 4  # two sources, each with its record
    assert all(seen == spilled for seen in again)
    assert "resuming an unfinished preparation" in said
    assert manifest.version == undisturbed.version
    assert store.list(WORK_PREFIX) == []


def test_at_most_max_rows_of_each_source_are_kept(store: Store, copies: str) -> None:
    manifest = prepare_recipe(store, NAMES, folder=copies, options=PublicOptions(max_rows=7))

    assert [entry.rows for entry in manifest.sources] == [7, 7, 7]


def test_rows_may_be_iterated_again(copies: str) -> None:
    rows = PublicRows(public_source("imdb"), copies, max_rows=3)

    assert list(rows) == list(rows)
    assert len(list(rows)) == 3
    assert rows.fingerprint() == PublicRows(public_source("imdb"), copies, max_rows=3).fingerprint()
    json.dumps(rows.fingerprint())


def test_files_of_other_splits_configurations_and_tables_are_not_read(tmp_path: Path) -> None:
    for name in ("pqa_artificial/train-0.jsonl", "pqa_labeled/train-0.jsonl"):
        write_jsonl(tmp_path / "pubmedqa" / name, {})
    for name in ("train_r1-0.jsonl", "dev_r1.jsonl", "test-0.jsonl", "dev/rows.jsonl"):
        write_jsonl(tmp_path / "anli" / name, {})
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.jsonl", "qrels/dev.jsonl"):
        write_jsonl(tmp_path / "fever" / name, {})

    def names(source: str, role: str = "rows") -> list[str]:
        found = files_of(str(tmp_path), public_source(source), role)
        return [file.address.removeprefix(f"{tmp_path}/{source}/") for file in found]

    assert names("pubmedqa") == ["pqa_artificial/train-0.jsonl"]
    assert names("fever", "qrels") == ["qrels/train.jsonl"]
    assert names("fever", "corpus") == ["corpus.jsonl"]
    assert "train_r1-0.jsonl" in names("anli")
    assert not {"test-0.jsonl", "dev/rows.jsonl"} & set(names("anli"))


def test_only_words_below_a_sources_own_directory_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "test" / "dev" / "imdb" / "train.jsonl", {"text": "a", "label": 1})
    monkeypatch.chdir(tmp_path / "test")

    for folder in ("dev", f"{tmp_path}/test/dev/"):
        assert [row.query for row in PublicRows(public_source("imdb"), folder)] == ["a"]


@pytest.mark.parametrize(
    ("source", "file", "says"),
    [
        ("imdb", None, "no data file at"),
        ("imdb", "test.jsonl", "no file of split train in"),
        ("fever", "qrels/train.jsonl", "no file of table 'queries', split queries in"),
        ("reddit_clustering_s2s", None, "no text file at"),
    ],
)
def test_a_copy_that_lacks_files_says_which(
    store: Store, tmp_path: Path, source: str, file: str | None, says: str
) -> None:
    if file is not None:
        write_jsonl(tmp_path / "copies" / source / file, {"text": "a", "label": 0})

    with pytest.raises(DataError) as caught:
        prepare_recipe(store, [source], folder=str(tmp_path / "copies"))

    assert says in caught.value.message
    assert not store.exists("manifest.json")


def test_a_source_of_which_no_row_is_left_says_why(store: Store, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "copies" / "sts12" / "train.jsonl", {"sentence1": "a", "sentence2": "b", "score": 3.5})

    with pytest.raises(DataError, match=r"no row is left; left out: 1 \(score below 4\)"):
        prepare_recipe(store, ["sts12"], folder=str(tmp_path / "copies"))


def test_without_a_network_the_error_names_source_and_id_and_what_to_do(store: Store) -> None:
    with pytest.raises(StorageError) as caught:
        prepare_recipe(store, ["hotpotqa"])

    assert "source 'hotpotqa': mteb/hotpotqa cannot be loaded from the Hugging Face Hub" in caught.value.message
    assert "HF_HUB_OFFLINE is set" in caught.value.message
    for word in ("HF_ENDPOINT", "HF_TOKEN", "--from DIR", "DIR/hotpotqa/"):
        assert word in str(caught.value.remedy)


def test_a_source_of_files_on_the_hub_has_the_same_error() -> None:
    source = public_source("stackexchange")

    with pytest.raises(StorageError, match=r"source 'stackexchange': .* cannot be loaded"):
        next(hub_records(source, source.tables[0], revision=None))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("coliee", "modelscope.cn/datasets/sentence-transformers/coliee"),
        ("amazon_qa", "github.com/amazonqa/amazonqa"),
        ("reddit_clustering_s2s", "github.com/UKPLab/TWEAC-qa-agent-selection"),
    ],
)
def test_a_source_not_on_the_hub_names_its_url_and_asks_for_a_copy(store: Store, name: str, place: str) -> None:
    with pytest.raises(StorageError) as caught:
        prepare_recipe(store, [name])

    assert f"is not on the Hugging Face Hub but at {place}" in caught.value.message
    assert f"DIR/{name}/" in str(caught.value.remedy)


def test_answers_of_the_hub_have_different_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    source, table = public_source("imdb"), Table()
    said = []
    for error in (DatasetNotFoundError("gone"), ValueError("Bad split: train"), RuntimeError("scripts"), KeyError("x")):

        def raising(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", raising)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            next(hub_records(source, table, revision="abc"))
        said.append((type(caught.value).__name__, str(caught.value)))

    assert [name for name, _ in said] == ["StorageError", "DataError", "DataError", "KeyError"]
    assert "accept its terms" in said[0][1]
    assert "--revision imdb=REVISION" in said[1][1]


def test_records_of_the_hub_have_a_place_and_a_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[dict[str, object]] = []

    def load(path: str, **options: object) -> list[dict[str, object]]:
        asked.append({"path": path, **options})
        return [{"text": "a fine film", "label": 1}]

    monkeypatch.setattr(datasets, "load_dataset", load)

    rows = list(PublicRows(public_source("imdb"), revision="abc"))

    assert [(row.query, row.positive, row.place) for row in rows] == [
        ("a fine film", "positive", "mteb/imdb (train), row 1")
    ]
    assert asked == [{"path": "mteb/imdb", "name": None, "split": "train", "streaming": True, "revision": "abc"}]


def test_files_of_the_hub_are_streamed_one_by_one_and_their_names_are_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    for site in ("math", "cooking"):
        records = [{"texts": [f"{site} title {n}", f"body {n}"], "tags": []} for n in range(30)]
        (tmp_path / f"{site}.stackexchange.com.jsonl.gz").write_bytes(
            gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode())
        )
    asked: list[str] = []

    class Hub:
        def glob(self, pattern: str) -> list[str]:
            asked.append(pattern)
            return [str(path) for path in tmp_path.glob("*.gz")]

    load = datasets.load_dataset

    def load_here(loader: str, *, data_files: str, **options: Any) -> Any:
        return load(loader, data_files=data_files.removeprefix("hf://"), **options)

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    monkeypatch.setattr(datasets, "load_dataset", load_here)

    rows = list(PublicRows(public_source("stackexchange_clustering_p2p"), revision="abc"))

    assert asked[0] == "datasets/flax-sentence-embeddings/stackexchange_title_body_jsonl@abc/*.jsonl.gz"
    assert len(rows) == 60
    assert all(row.query.split()[0] == row.positive.split()[0] != row.negatives[0].split()[0] for row in rows)
    assert rows[0].place.endswith("cooking.stackexchange.com.jsonl.gz, row 1")


def test_a_license_that_is_refused_writes_nothing(store: Store, copies: str) -> None:
    with pytest.raises(ConfigError, match="imdb: not stated"):
        prepare_recipe(store, NAMES, folder=copies, options=PublicOptions(license="commercial"))

    assert not list(store.list())
    assert (
        len(prepare_recipe(store, NAMES, folder=copies, options=PublicOptions(license="commercial-or-unclear")).sources)
        == 3
    )


def test_rows_with_a_benchmarks_texts_are_dropped_and_counted_for_each_source(
    store: Store, copies: str, tmp_path: Path
) -> None:
    # Other case and white space, in a list, and the words of a label, which are not test texts.
    texts = {"query": "WHO is  3?", "documents": ["5 is a number.", "7 of a"], "label_text": "positive"}
    write_jsonl(tmp_path / "texts.jsonl", texts)
    said: list[str] = []

    manifest = prepare_recipe(
        store,
        NAMES,
        folder=copies,
        options=PublicOptions(exclude=[str(tmp_path / "texts.jsonl")]),
        resources=Resources(say=said.append),
    )

    kept = {row["query"] for row in rows_of(store, manifest, "natural_questions")}
    assert kept == {f"who is {n}?" for n in range(20)} - {"who is 3?", "who is 5?"}
    assert manifest.source("imdb").rows == 20
    assert f"natural_questions: 2 rows dropped for texts of {tmp_path}/texts.jsonl" in said
    assert f"imdb: 0 rows dropped for texts of {tmp_path}/texts.jsonl" in said
    assert all("7 of a" not in (row["query"], row["positive"]) for row in rows_of(store, manifest, "banking77"))


def test_texts_to_exclude_may_be_lines_tables_and_a_data_sets_evaluation_sets(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("One\n\ntwo\n", encoding="utf-8-sig")
    pq.write_table(pa.table({"text": ["one"], "number": [2]}), tmp_path / "texts.parquet")
    store = open_store(str(tmp_path / "set"))
    info = SourceInfo(name="faq", kind=Kind.RETRIEVAL, negatives=0)
    write_dataset(store, [(info, [Row("q", "p")])], [StsSet("pairs", "", ["one"], ["three"], [5.0])])

    lines, table, sets = (excluded_texts(str(tmp_path / name)) for name in ("texts.txt", "texts.parquet", "set"))

    def held(query: str) -> list[bool]:
        return [each.holds(Row(query, "p"), Kind.RETRIEVAL) for each in (lines, table, sets)]

    assert [held("one"), held("two"), held("three"), held("q")] == [
        [True, True, True],
        [True, False, False],
        [False, False, True],
        [False, False, False],
    ]


def test_missing_texts_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")

    with pytest.raises(DataError, match="has no text to exclude"):
        excluded_texts(str(tmp_path / "empty.txt"))
    with pytest.raises(DataError, match="no data file at"):
        excluded_texts(str(tmp_path / "nothing.jsonl"))


class Task:
    """A task of the benchmark as the library has it; importing the real one takes half a minute."""

    metadata = SimpleNamespace(
        name="ArguAna", eval_splits=["test"], dataset={"path": "mteb/arguana", "revision": "c22ab2a51041ffd8"}
    )
    dataset: dict[str, object]

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def load_data(self) -> None:
        if self._error is not None:
            raise self._error
        self.dataset = {"test": [{"text": "a test text"}]}

    def unload_data(self) -> None:
        self.dataset = {}


def use_benchmark(monkeypatch: pytest.MonkeyPatch, *tasks: Task) -> None:
    library = ModuleType("mteb")
    library.get_benchmark = {"MTEB(eng, v2)": SimpleNamespace(tasks=tasks)}.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mteb", library)


def test_the_benchmarks_test_texts_are_excluded_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    use_benchmark(monkeypatch, Task())

    excluded = excluded_texts("mteb")

    assert excluded.holds(Row("A test text", "p"), Kind.RETRIEVAL)
    assert len(excluded.keys) == 1


def test_a_task_that_cannot_be_loaded_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use_benchmark(monkeypatch, Task(), Task(ConnectionError("no route")))

    with pytest.raises(StorageError, match="ArguAna cannot be loaded: it needs mteb/arguana at revision") as caught:
        excluded_texts("mteb")

    assert caught.value.message.endswith("and the Hugging Face Hub is unreachable")
    assert "--exclude-benchmark FILE" in str(caught.value.remedy)


def test_of_a_benchmarks_task_its_test_texts_count_and_of_a_corpus_only_the_answers() -> None:
    retrieval = {
        "queries": [{"id": "q", "text": "a query"}],
        "corpus": [{"id": "a", "title": "T", "text": "an answer"}, {"id": "b", "title": "", "text": "another"}],
        "relevant_docs": {"q": {"a": 1, "b": 0}},
    }
    rows = [{"id": "x", "text": "a text", "label_text": "positive", "label": 1}]
    clusters = [{"sentences": ["one", "two"], "labels": ["math", "art"]}]

    assert list(task_texts({"default": {"test": retrieval, "train": retrieval}}, {"test"})) == [
        "a query",
        "an answer",
        "T\nan answer",
    ]
    assert list(task_texts({"test": rows, "train": rows}, {"test"})) == ["a text"]
    assert list(task_texts({"en": {"test": clusters}}, {"test"})) == ["one", "two"]


def write_released(folder: Path, name: str, negatives: int) -> None:
    folder.mkdir(exist_ok=True)
    rows = range(12)
    columns = {
        "query": [f"Instruct: Find it.\nQuery: question {n} of {name}" for n in rows],
        "passage": [f"answer {n} of {name}" for n in rows],
        **{f"negative_{k}": [f"wrong {k} for {n}" for n in rows] for k in range(1, negatives + 1)},
    }
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def test_the_released_files_keep_their_instruction_and_negatives(store: Store, tmp_path: Path) -> None:
    write_released(tmp_path / "released", "squad", 24)
    write_released(tmp_path / "released", "imdb", 1)

    manifest = prepare_released(store, str(tmp_path / "released"))

    assert [(e.name, e.kind, e.negatives, e.instruction, e.license, e.rows) for e in manifest.sources] == [
        ("imdb", Kind.CLASSIFICATION, 1, "Find it.", "not stated", 12),
        ("squad", Kind.RETRIEVAL, 24, "Find it.", "CC-BY-SA-4.0", 12),
    ]
    assert {row["query"] for row in rows_of(store, manifest, "squad")} == {f"question {n} of squad" for n in range(12)}
    assert verify_dataset(store).ok
    assert load_manifest(store).version == prepare_released(store, str(tmp_path / "released")).version


def test_released_files_are_checked_for_names_licenses_and_negatives(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "released"
    write_released(folder, "squadd", 24)
    with pytest.raises(ConfigError, match=r"squadd\.parquet \(did you mean 'squad'\?\)"):
        prepare_released(store, str(folder))

    (folder / "squadd.parquet").rename(folder / "anli.parquet")
    with pytest.raises(ConfigError, match=r"anli: CC-BY-NC-4\.0"):
        prepare_released(store, str(folder), options=PublicOptions(license="commercial"))

    write_released(folder, "anli", 3)
    with pytest.raises(DataError, match="3 hard negatives, but the source needs 24"):
        prepare_released(store, str(folder))
