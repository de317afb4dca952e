"""`f2llm data prepare`: from the user's files, public sources, the published files, and the texts of the demo."""

import json
from pathlib import Path

import pytest

from data_io.data_spec import S3Options
from jobs.planning.estimate import DataSize
from tests.support.calling import Run


@pytest.fixture
def copies(tmp_path: Path) -> str:
    folder = tmp_path / "copies" / "squad"
    folder.mkdir(parents=True)
    rows = [{"question": f"what is {n}?", "context": f"{n} is a number", "answers": {}} for n in range(9)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "copies"


def test_a_data_set_is_prepared_from_a_users_file(f2llm: Run, tmp_path: Path) -> None:
    rows = [
        {"query": f"what is {i}?", "positive": f"{i} is a number", "negatives": [f"{i} is a word"]} for i in range(99)
    ]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    code, out, _ = f2llm(
        "data", "prepare", "files", "made", "--source", "faq:retrieval=faq.jsonl", "--source-license", "MIT", "--json"
    )

    assert code == 0
    made = json.loads(out)
    assert made["sources"][0]["name"] == "faq"
    assert made["evaluations"] == ["faq_heldout"]
    assert f2llm("data", "validate", "made")[0] == 0


def test_a_recipe_of_local_copies_becomes_a_data_set(f2llm: Run, copies: str) -> None:
    code, out, err = f2llm("data", "prepare", "recipe", "made", "squad", "--from", copies, "--max-rows", "5")

    assert code == 0
    assert "squad  retrieval" in out
    assert "5 rows, 0 hard negatives per row" in out
    assert err == "squad: 5 rows\n"
    assert f2llm("data", "validate", "made")[0] == 0


@pytest.mark.parametrize("by_file", [False, True])
def test_a_source_without_an_instruction_is_a_warning(f2llm: Run, tmp_path: Path, by_file: bool) -> None:
    rows = [{"query": f"what is {i}?", "positive": f"{i} is a number"} for i in range(99)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.yaml").write_text("sources: [{name: faq, kind: retrieval, address: faq.jsonl}]\n")
    given = ["s.yaml"] if by_file else ["--source", "faq:retrieval=faq.jsonl"]

    _, _, bare = f2llm("data", "prepare", "files", "bare", *given)
    _, _, instructed = f2llm(
        "data", "prepare", "files", "instructed", "--source", "faq:retrieval=faq.jsonl", "--instruction", "Find it."
    )

    option = "`instruction: TEXT` in s.yaml" if by_file else "--instruction TEXT"
    assert f"warning: no instruction for faq; set one with {option}. The recipe puts" in bare
    assert "warning" not in instructed


def test_a_refused_preparation_leaves_no_empty_directory(f2llm: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    codes = [f2llm("data", "prepare", "recipe", out, "squad")[0] for out in ("made", "there")]

    assert codes == [5, 5]
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "there").exists()


def test_texts_of_a_file_are_kept_out_of_training(f2llm: Run, copies: str, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("What is 3?\n")

    code, _, err = f2llm(
        "data", "prepare", "recipe", "made", "squad", "--from", copies, "--exclude-benchmark", "test.txt"
    )

    assert code == 0
    assert "squad: 1 row dropped for texts of test.txt" in err


def test_a_source_that_is_not_there_is_a_storage_error_with_a_remedy(f2llm: Run) -> None:
    code, out, err = f2llm("data", "prepare", "recipe", "made", "squad")

    assert (code, out) == (5, "")
    assert "error: source 'squad': rajpurkar/squad cannot be loaded" in err
    assert "a local copy with --from" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["files", "made"], 2, "found neither of SOURCES.yaml and --source, expected exactly one"),
        (
            ["files", "made", "s.yaml", "--source", "a:sts=b"],
            2,
            "found both of SOURCES.yaml and --source, expected exactly one",
        ),
        (["files", "made", "--source", "faq.jsonl"], 2, "expected NAME:KIND=PATH"),
        (["files", "made", "s.yaml", "--instruction", "Find."], 2, "set `instruction` of the source in SOURCES.yaml"),
        (["files", "made", "s.yaml", "--source-license", "MIT"], 2, "set `license` of the source in SOURCES.yaml"),
        (["files", "made", "s.yaml", "--min-score", "0"], 2, "set `min_score` of the source in SOURCES.yaml"),
        (["files", "made", "s.yaml", "--mine-lexical", "5"], 2, "--mine-lexical has no effect with SOURCES.yaml"),
        (["files", "made", "--source", "a:retrieval=b", "--min-score", "3"], 2, "--min-score needs a scored --source"),
        (["files", "made", "--source", "a:sts=b", "--license", "commercial"], 2, "No such option: --license"),
        (["recipe", "made"], 2, "Missing argument 'NAME[,NAME...]'"),
        (["recipe", "made", "sqaud"], 3, "did you mean 'squad'?"),
        (["recipe", "made", "all", "--license", "commercial"], 3, "--license commercial does not allow 41 sources"),
        (["recipe", "made", "all", "--license", "commercial-or-unclear"], 3, "anli: CC-BY-NC-4.0 (commercial use: no"),
        (["recipe", "made", "squad", "--revision", "imdb=1"], 3, "a revision is given for 'imdb'"),
        (["recipe", "made", "squad", "--revision", "squad"], 2, "expected NAME=REVISION"),
        (["recipe", "made", "squad", "--license", "free"], 2, "Invalid value for '--license'"),
        (["recipe", "made", "squad", "--mine-lexical", "5"], 2, "No such option: --mine-lexical"),
        (["released", "made"], 2, "Missing argument 'DIR'"),
        (["released", "made", "nowhere"], 4, "no data file at nowhere"),
        (["released", "made", "nowhere", "--from", "x"], 2, "No such option: --from"),
        (["demo", "made", "--workers", "2"], 2, "No such option: --workers"),
    ],
)
def test_an_invalid_call_is_refused_with_a_remedy(f2llm: Run, arguments: list[str], code: int, says: str) -> None:
    found, out, err = f2llm("data", "prepare", *arguments)

    assert (found, out) == (code, "")
    assert says in " ".join(err.split())


@pytest.mark.parametrize("names", [["squad,imdb"], ["squad", "imdb"], ["squad, imdb"]])
def test_sources_of_a_recipe_may_be_one_argument_or_several(
    f2llm: Run, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    asked: list[str] = []

    def prepare_recipe(_uri: str, _s3: object, names: list[str], **_: object) -> DataSize:
        asked.extend(names)
        return DataSize(())

    monkeypatch.setattr("jobs.workflows.data.prepare_recipe", prepare_recipe)

    code, _, _ = f2llm("data", "prepare", "recipe", "made", *names)

    assert (code, asked) == (0, ["squad", "imdb"])


def test_s3_options_reach_the_preparation(f2llm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[S3Options] = []

    def prepare_documentation(_uri: str, s3: S3Options, **_: object) -> DataSize:
        found.append(s3)
        return DataSize(())

    monkeypatch.setattr("jobs.workflows.data.prepare_documentation", prepare_documentation)

    f2llm("data", "prepare", "demo", "made", "--endpoint-url", "http://127.0.0.1:9", "--region", "eu", "--allow-http")
    f2llm("data", "prepare", "demo", "made")

    assert found == [S3Options(endpoint_url="http://127.0.0.1:9", region="eu", allow_http=True), S3Options()]


def test_prepare_alone_prints_its_commands(f2llm: Run) -> None:
    _, _, err = f2llm("data", "prepare")

    assert [line.split()[0] for line in err.partition("Commands:\n")[2].split("\n\n")[0].splitlines()] == [
        "files", "recipe", "released", "demo",
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["files", "recipe", "released", "demo"])
def test_the_help_of_each_way_has_an_example(f2llm: Run, way: str) -> None:
    code, out, _ = f2llm("data", "prepare", way, "--help")

    assert code == 0
    assert f"Example: f2llm data prepare {way} my-data" in out


def test_scored_pairs_become_a_source_in_both_directions(f2llm: Run, tmp_path: Path) -> None:
    scores = [("one", "1", 5), ("two", "2", 3.9), ("three", "3", 4)]
    (tmp_path / "pairs.csv").write_text(
        "sentence1,sentence2,score\n" + "".join(f"{a},{b},{score}\n" for a, b, score in scores)
    )
    (tmp_path / "sources.yaml").write_text("sources: [{name: near, kind: scored, address: pairs.csv, min_score: 3}]\n")

    code, by_default, _ = f2llm("data", "prepare", "files", "made", "--source", "near:scored=pairs.csv", "--json")
    _, by_option, _ = f2llm(
        "data", "prepare", "files", "low", "--source", "near:scored=pairs.csv", "--min-score", "3", "--json"
    )
    _, by_file, _ = f2llm("data", "prepare", "files", "file", "sources.yaml", "--json")
    none, _, err = f2llm("data", "prepare", "files", "none", "--source", "near:scored=pairs.csv", "--min-score", "9")

    assert code == 0
    assert [(s["kind"], s["rows"]) for s in json.loads(by_default)["sources"]] == [("retrieval", 4)]
    assert json.loads(by_option)["sources"][0]["rows"] == 6
    assert json.loads(by_file)["version"] == json.loads(by_option)["version"]
    assert none == 4
    assert "no pair has a score of 9 or more; the highest is 5" in err


def test_a_least_score_belongs_to_scored_pairs(f2llm: Run, tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("sources: [{name: a, kind: sts, address: b.csv, min_score: 3}]\n")

    code, _, err = f2llm("data", "prepare", "files", "made", "sources.yaml")

    assert code == 3
    assert "min_score=3, but kind is sts" in err


def test_a_sources_file_that_is_not_there_is_asked_for_as_one(f2llm: Run) -> None:
    code, _, err = f2llm("data", "prepare", "files", "out", "nope.yaml")

    assert code == 3
    assert "nope.yaml: no such file\n  hint: pass the path of a sources file (`f2llm explain --kind Sources`)" in err
