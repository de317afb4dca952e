import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from data_io.curation.tokenizer_training import EOS_TOKEN, train_tokenizer
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, load_evaluation
from data_io.dataset.manifest import Manifest, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.rows import MAX_TEXT_BYTES
from data_io.dataset.schema import text_columns, text_key
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.demo.dataset import DemoSizes
from data_io.demo.docstrings import Limits
from data_io.errors import ConfigError, DataError, F2LLMError
from data_io.inspection.verify import verify_dataset
from data_io.preparation.attempt import Resources
from data_io.preparation.documentation import prepare_documentation
from data_io.preparation.files import FileOptions, prepare_files
from data_io.preparation.inputs import FileInput
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from data_io.user_files.columns import Columns
from tests.support.stored import stored

SMALL = DemoSizes(
    retrieval_rows=240,
    clustering_rows=20,
    classification_rows=20,
    evaluation_documents=60,
    evaluation_queries=20,
    relatedness_pairs=20,
    negatives=4,
    limits=Limits(per_package=150, per_module=20),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "data"))


def small_documentation(store: Store, **options: Any) -> Manifest:
    return prepare_documentation(
        store, sizes=SMALL, packages=("python", "pydantic", "pytest"), vocabulary_size=600, **options
    )


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A small data set made of documentation. Tests must not change it."""
    store = open_store(str(tmp_path_factory.mktemp("documentation")))
    small_documentation(store)
    return store


def write_pairs(path: Path, count: int, *, negatives: int = 0, tag: str = "") -> FileInput:
    """A retrieval source named after the file."""
    with path.open("w") as out:
        for i in range(count):
            wrong = {f"negative_{n}": f"{tag}no answer {n} to {i}" for n in range(1, negatives + 1)}
            out.write(json.dumps({"query": f"{tag}question {i}", "positive": f"{tag}answer to {i}", **wrong}) + "\n")
    return FileInput(path.stem, str(path), Kind.RETRIEVAL, "Find the answer.", "CC0-1.0")


def rows_of(store: Store, manifest: Manifest, source: str) -> list[dict[str, str]]:
    reader = Reader(store, manifest)
    names = text_columns(manifest.source(source).negatives)
    groups = range(len(manifest.row_groups(source)))
    return [row for group in groups for row in reader.read(source, group, names).to_pylist()]


def test_the_documentation_on_this_machine_is_a_valid_data_set(documented: Store) -> None:
    manifest = load_manifest(documented)

    assert [entry.kind for entry in manifest.sources] == [Kind.RETRIEVAL, Kind.CLUSTERING, Kind.CLASSIFICATION]
    assert [entry.type for entry in manifest.evaluations] == ["retrieval", "sts"]
    assert "python: PSF-2.0" in manifest.sources[0].license
    assert verify_dataset(documented).problems == ()


def test_preparing_again_changes_nothing(documented: Store) -> None:
    before = {info.key: (info.etag, info.modified) for info in documented.list()}
    said: list[str] = []

    manifest = small_documentation(documented, progress=said.append)

    assert manifest.version == load_manifest(documented).version
    assert {info.key: (info.etag, info.modified) for info in documented.list()} == before
    assert said == ["the data set already exists"]


def test_preparing_elsewhere_gives_the_same_version(documented: Store, store: Store) -> None:
    said: list[str] = []

    manifest = small_documentation(store, progress=said.append)

    assert manifest.version == load_manifest(documented).version
    assert all(store.get(key) == documented.get(key) for key in TOKENIZER_KEYS)
    assert any("pydantic" in line for line in said)


def test_a_users_own_files_next_to_a_data_set_stay(tmp_path: Path) -> None:
    own = {name: tmp_path / name for name in ("work/faq.jsonl", "work/thesis/one.md", "sub/issue#12", "mining/notes")}
    for path in own.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
        os.utime(path, (1, 1))
    given = write_pairs(tmp_path / "work" / "faq.jsonl", 40)

    for _ in range(2):
        prepare_files(open_store(str(tmp_path)), [given], resources=Resources(memory_bytes=1))

    assert all(path.exists() for path in own.values())


def test_a_data_set_has_the_tokenizer_that_was_made_with_it_or_none(store: Store, tmp_path: Path) -> None:
    given = [write_pairs(tmp_path / "faq.jsonl", 40)]
    prepare_files(store, given, FileOptions(tokenizer_vocabulary=300))
    whole = store.get(TOKENIZER_KEYS[0])
    store.put(TOKENIZER_KEYS[0], whole[:-9])

    problems = verify_dataset(store).problems
    assert [problem.place for problem in problems] == [TOKENIZER_KEYS[0]]
    prepare_files(store, given, FileOptions(tokenizer_vocabulary=300))
    assert (store.get(TOKENIZER_KEYS[0]), verify_dataset(store).ok) == (whole, True)
    prepare_files(store, given)

    assert not any(store.exists(key) for key in TOKENIZER_KEYS)
    assert verify_dataset(store).ok


def test_an_interrupted_preparation_leaves_no_data_set_without_its_tokenizer(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_io.preparation.files.train_tokenizer", cut_off)
    with pytest.raises(KeyboardInterrupt):
        prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 40)], FileOptions(tokenizer_vocabulary=300))

    assert not store.exists("manifest.json")


def test_queries_that_share_few_answers_lose_rows_with_a_warning(store: Store, tmp_path: Path) -> None:
    path, said = tmp_path / "faq.jsonl", list[str]()
    path.write_text("".join(json.dumps({"query": f"q{i}", "positive": f"answer {i % 9}"}) + "\n" for i in range(400)))
    given = FileInput("faq", str(path), Kind.RETRIEVAL)

    prepare_files(store, [given], FileOptions(heldout_fraction=0.005), Resources(say=said.append))
    with pytest.raises(DataError, match=r"'faq' has no rows to train on: 400 have a held-out query or document"):
        prepare_files(store, [given], FileOptions(heldout_fraction=0.3))

    warnings = [line for line in said if "warning" in line]
    assert len(warnings) == 1
    assert "lower heldout_fraction" in warnings[0]


def test_another_recipe_makes_another_data_set(store: Store, tmp_path: Path) -> None:
    given = [write_pairs(tmp_path / "faq.jsonl", 40)]

    versions = {prepare_files(store, given, FileOptions(heldout_fraction=0.2, seed=seed)).version for seed in (0, 1)}

    assert len(versions) == 2
    assert (
        verify_dataset(store).version == prepare_files(store, given, FileOptions(heldout_fraction=0.2, seed=1)).version
    )


def test_a_changed_file_makes_another_data_set_with_a_message(store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    first = prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 40)], resources=Resources(say=said.append))
    assert not any("takes its place" in line for line in said)

    second = prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 41)], resources=Resources(say=said.append))

    assert second.version != first.version
    assert f"replacing another data set, version {first.version}" in said


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("what", ["sources/", "evaluation/", "tokenizer/", "recipe.json", "manifest.json"])
def test_a_damaged_data_set_is_made_again(store: Store, tmp_path: Path, what: str, damage: str) -> None:
    given = [write_pairs(tmp_path / "faq.jsonl", 60)]
    first = prepare_files(store, given, FileOptions(heldout_fraction=0.2, tokenizer_vocabulary=300))
    content = stored(store)
    key = next(key for key in content if key.startswith(what))
    if damage == "remove":
        store.delete([key])
    else:
        data = content[key]
        store.put(key, data[:-2] if damage == "cut" else data[:20] + bytes([data[20] ^ 1]) + data[21:])

    second = prepare_files(store, given, FileOptions(heldout_fraction=0.2, tokenizer_vocabulary=300))

    assert second.version == first.version
    assert verify_dataset(store).ok
    # The manifest's table has the ETag of a shard that was written again.
    stable = {key: data for key, data in content.items() if not key.startswith("manifest")}
    assert {key: store.get(key) for key in stable} == stable


def test_users_files_become_a_valid_data_set(store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    pq.write_table(
        pa.table(
            {
                "query": [f"Instruct: Sort it.\nQuery: review {i}" for i in range(30)],
                "passage": ["good" if i % 2 else "bad" for i in range(30)],
                "negative_1": ["bad" if i % 2 else "good" for i in range(30)],
            }
        ),
        tmp_path / "reviews.parquet",
    )
    tmp_path.joinpath("pairs.csv").write_text("text_a,text_b,score\na cat,a kitten,4.5\na cat,a house,0.5\n")
    given = [
        write_pairs(tmp_path / "faq.jsonl", 100, negatives=3),
        FileInput("reviews", str(tmp_path / "reviews.parquet"), Kind.CLASSIFICATION, license="MIT"),
        FileInput("pairs", str(tmp_path / "pairs.csv"), "sts"),
    ]

    manifest = prepare_files(store, given, FileOptions(heldout_fraction=0.2), Resources(say=said.append))

    assert verify_dataset(store).problems == ()
    faq, reviews = manifest.sources
    assert (faq.negatives, faq.instruction, faq.license) == (3, "Find the answer.", "CC0-1.0")
    assert (reviews.negatives, reviews.instruction, reviews.rows) == (1, "Sort it.", 30)
    assert {row["query"] for row in rows_of(store, manifest, "reviews")} == {f"review {i}" for i in range(30)}
    held_out, pairs = (load_evaluation(store, entry) for entry in manifest.evaluations)
    assert isinstance(held_out, RetrievalSet)
    assert (held_out.name, held_out.instruction) == ("faq_heldout", "Find the answer.")
    assert len(held_out.queries) == 100 - faq.rows > 0
    assert isinstance(pairs, StsSet)
    assert pairs.scores == [4.5, 0.5]
    assert any("held-out row" in line for line in said)


def test_no_source_has_held_out_texts_of_another(store: Store, tmp_path: Path) -> None:
    given = [
        write_pairs(tmp_path / "faq.jsonl", 100, negatives=1),
        write_pairs(tmp_path / "copy.jsonl", 100, negatives=1),
        FileInput("pairs", str(tmp_path / "pairs.jsonl"), "sts"),
    ]
    shouted = (
        tmp_path.joinpath("copy.jsonl").read_text().replace("answer to", "ANSWER  to").replace("question", "asked")
    )
    tmp_path.joinpath("copy.jsonl").write_text(shouted)
    tmp_path.joinpath("pairs.jsonl").write_text('{"text_a": "question 7", "text_b": "unseen", "score": 1}\n')

    manifest = prepare_files(store, given, FileOptions(heldout_fraction=0.3))

    held = {"question 7"}
    for entry in manifest.evaluations:
        found = load_evaluation(store, entry)
        held |= {*found.queries, *found.corpus} if isinstance(found, RetrievalSet) else {*found.text_a, *found.text_b}
    keys = {text_key(text) for text in held}
    texts = [t for name in ("faq", "copy") for row in rows_of(store, manifest, name) for t in row.values()]
    assert keys.isdisjoint(map(text_key, texts))
    assert len(texts) > 100


def test_rows_with_a_text_of_a_benchmark_are_dropped_and_counted(store: Store, tmp_path: Path) -> None:
    given = write_pairs(tmp_path / "faq.jsonl", 40, negatives=2)
    (tmp_path / "bench.txt").write_text(
        "Question  7\nanswer to 9\nno answer 1 to 11\n"
    )  # a text that is only a negative does not count
    said: list[str] = []

    manifest = prepare_files(
        store,
        [given],
        FileOptions(heldout_fraction=0, exclude=[str(tmp_path / "bench.txt")]),
        Resources(say=said.append),
    )

    queries = {row["query"] for row in rows_of(store, manifest, "faq")}
    assert queries == {f"question {i}" for i in range(40)} - {"question 7", "question 9"}
    assert f"faq: 2 rows dropped for texts of {tmp_path / 'bench.txt'}" in said
    assert prepare_files(store, [given], FileOptions(heldout_fraction=0)).version != manifest.version


def test_pairs_alone_have_no_hard_negatives(store: Store, tmp_path: Path) -> None:
    manifest = prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 40)], FileOptions(heldout_fraction=0.0))

    assert manifest.source("faq").negatives == 0
    assert manifest.source("faq").rows == 40
    assert manifest.evaluations == ()
    assert verify_dataset(store).ok


def test_mined_negatives_come_after_a_rows_own(store: Store, tmp_path: Path) -> None:
    given = write_pairs(tmp_path / "faq.jsonl", 40, negatives=1)
    mining = FileInput("faq", given.address, Kind.RETRIEVAL, mine_lexical=5)

    manifest = prepare_files(store, [mining], FileOptions(heldout_fraction=0.0))

    assert manifest.source("faq").negatives == 5
    for row in rows_of(store, manifest, "faq"):
        number = row["query"].removeprefix("question ")
        negatives = [row[f"negative_{n}"] for n in range(1, 6)]
        assert f"no answer 1 to {number}" in negatives
        assert sum(text.startswith("answer to") for text in negatives) == 4
        assert row["positive"] not in negatives


def test_as_many_negatives_are_kept_as_every_row_has(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    records = [{"query": f"q{i}", "pos": [f"p{i}"], "neg": [f"n{i} {n}" for n in range(2 + i % 3)]} for i in range(9)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    manifest = prepare_files(store, [FileInput("lists", str(path), Kind.RETRIEVAL)], FileOptions(heldout_fraction=0.0))

    assert manifest.source("lists").negatives == 2


def test_an_empty_row_group_takes_no_negatives_away(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "triplets.parquet"
    table = pa.table({name: [f"{name} {i}" for i in range(400)] for name in ("query", "positive", "negative")})
    with pq.ParquetWriter(path, table.schema) as out:
        out.write_table(table, row_group_size=200)
        out.write_table(table.slice(0, 0))

    manifest = prepare_files(
        store, [FileInput("rows", str(path), Kind.RETRIEVAL)], resources=Resources(memory_bytes=2000)
    )

    assert manifest.source("rows").negatives == 1


def test_a_tokenizer_is_trained_on_request(store: Store, tmp_path: Path) -> None:
    prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 40)], FileOptions(tokenizer_vocabulary=300))

    tokenizer = Tokenizer.from_str(store.get(TOKENIZER_KEYS[0]).decode())

    ids = tokenizer.encode("question 17\n").ids
    assert tokenizer.decode(ids) == "question 17\n"
    assert ids[-1] == tokenizer.token_to_id(EOS_TOKEN)
    assert ids.count(ids[-1]) == 1
    assert tokenizer.get_vocab_size() <= 300


def test_the_tokenizer_depends_on_the_texts_alone() -> None:
    texts = [f"the {word} of number {i} is not {word}" for i in range(50) for word in ("river", "bridge", "window")]

    files = [train_tokenizer(some, vocabulary_size=320) for some in (texts, list(reversed(texts)), texts + texts)]

    assert files[0] == files[1] == files[2]


def test_transformers_loads_the_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    files = train_tokenizer([f"number {i}" for i in range(50)], vocabulary_size=300, max_tokens=128)
    tmp_path.joinpath("tokenizer.json").write_text(files.tokenizer_json)
    tmp_path.joinpath("tokenizer_config.json").write_text(files.config_json)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == (EOS_TOKEN, EOS_TOKEN, 128)
    assert tokenizer("number 7").input_ids[-1] == tokenizer.eos_token_id


LINE = {"query": "q", "positive": "p", "negative": "n"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ([{}, {"query": " \n"}], DataError, r"rows\.jsonl, line 2: query is blank"),
        ([{}, {"positive": ""}], DataError, r"rows\.jsonl, line 2: positive is blank"),
        ([{"negative": "\t"}], DataError, r"rows\.jsonl, line 1: negative 1 is blank"),
        ([{}, {"negative": "p"}], DataError, r"line 2: negative 1 equals the positive"),
        ([{"query": "\ud800"}], DataError, r"line 1: query is not valid Unicode: lone surrogate U\+D800"),
    ],
)
def test_a_bad_row_is_named_with_its_line(
    store: Store, tmp_path: Path, changes: list[dict[str, str]], error: type[F2LLMError], message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(LINE | change) + "\n" for change in changes))

    with pytest.raises(error, match=message):
        prepare_files(store, [FileInput("rows", str(path), Kind.RETRIEVAL)], FileOptions(heldout_fraction=0.5))
    assert not store.exists("manifest.json")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"sentence1": " "}, r"sts\.jsonl, line 2: the first text is blank"),
        ({"sentence2": "\ud83d"}, r"sts\.jsonl, line 2: the second text is not valid Unicode: lone surrogate U\+D83D"),
        (
            {"sentence2": "x" * (MAX_TEXT_BYTES + 1)},
            r"sts\.jsonl, line 2: the second text has 4194305 bytes, the limit is",
        ),
    ],
)
def test_a_bad_scored_pair_is_named_with_its_line(
    store: Store, tmp_path: Path, pair: dict[str, str], message: str
) -> None:
    path = tmp_path / "sts.jsonl"
    pairs = [{"sentence1": "a", "sentence2": "b", "score": 1} | change for change in ({}, pair)]
    path.write_text("".join(json.dumps(each) + "\n" for each in pairs))

    with pytest.raises(DataError, match=message):
        prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 3), FileInput("similar", str(path), "sts")])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "no spaces"}, ConfigError, r"input 'no spaces': name is 'no spaces'"),
        ({"negatives": 999}, ConfigError, r"input 'rows': negatives is 999"),
        ({"negatives": 3}, DataError, r"line 1: 1 hard negative, but the source needs 3"),
        (
            {"mine_lexical": 3},
            DataError,
            r"line 1: mine_lexical is 3, but this row has only 1 hard negative: .*\n.*: set mine_lexical to 1",
        ),
        ({"mine_lexical": 1, "negatives": 2}, ConfigError, r"negatives=2, but mine_lexical=1 in total"),
        ({"kind": Kind.CLUSTERING, "mine_lexical": 3}, ConfigError, r"the kind is clustering, whose rows share labels"),
        ({"instruction": "Mine."}, ConfigError, r"the instruction is 'Mine\.', but its files have 'Theirs\.'"),
        ({"kind": "sts"}, ConfigError, r"there is no source to train on"),
        ({"columns": Columns(positive="absent")}, DataError, r"has no column 'absent'; it has query, positive"),
    ],
)
def test_contradictory_settings_are_refused_with_both_values(
    store: Store, tmp_path: Path, options: dict[str, Any], error: type[F2LLMError], message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(LINE | {"query": "Instruct: Theirs.\nQuery: q"}) + "\n")
    given = FileInput(**({"name": "rows", "address": str(path), "kind": Kind.RETRIEVAL} | options))

    with pytest.raises(error, match=message):
        prepare_files(store, [given], FileOptions(heldout_fraction=0.0))
    assert not store.exists("manifest.json")


@pytest.mark.parametrize("source", ["io", "io/", "io/../io", ".", "file://{}/io", "linked"])
def test_a_directory_that_contains_the_data_set_is_not_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "io").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "io")
    write_pairs(tmp_path / "io" / "faq.jsonl", 3)
    given = FileInput("faq", source.format(tmp_path), Kind.RETRIEVAL)

    with pytest.raises(ConfigError, match=r"source 'faq' is .*, which contains the data set"):
        prepare_files(open_store("io"), [given])


def test_files_next_to_the_data_set_can_be_a_source(tmp_path: Path) -> None:
    given = replace(write_pairs(tmp_path / "faq.jsonl", 40), address=str(tmp_path / "*.jsonl"))
    store = open_store(str(tmp_path))

    made = prepare_files(store, [given])

    assert prepare_files(store, [given], FileOptions(seed=1)).source("faq").rows == made.source("faq").rows


def test_two_inputs_do_not_share_a_name(store: Store, tmp_path: Path) -> None:
    given = write_pairs(tmp_path / "faq.jsonl", 3)

    with pytest.raises(ConfigError, match="two inputs are called 'faq'"):
        prepare_files(store, [given, given])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_the_held_out_fraction_leaves_something_to_train_on(store: Store, tmp_path: Path, fraction: float) -> None:
    with pytest.raises(ConfigError, match="heldout_fraction is"):
        prepare_files(store, [write_pairs(tmp_path / "faq.jsonl", 3)], FileOptions(heldout_fraction=fraction))
