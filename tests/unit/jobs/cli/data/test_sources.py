"""`f2llm data sources`, and `f2llm data prepare` on public sources and on scored pairs."""

import json
from pathlib import Path

import pytest

from tests.support.calling import Run, caller


@pytest.fixture
def f2llm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Calls the command line in an empty current folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    return caller(capsys)


@pytest.fixture
def copies(tmp_path: Path) -> str:
    folder = tmp_path / "copies" / "squad"
    folder.mkdir(parents=True)
    rows = [{"question": f"what is {n}?", "context": f"{n} is a number", "answers": {}} for n in range(9)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "copies"


def test_all_60_sources_are_listed_with_license_and_status(f2llm: Run) -> None:
    code, out, err = f2llm("data", "sources")

    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 61)
    squad = next(line for line in lines if line.startswith("squad "))
    assert squad.split() == [
        "squad", "retrieval", "questions", "89,509", "CC-BY-SA-4.0", "yes", "huggingface.co/datasets/rajpurkar/squad",
    ]  # fmt: skip
    assert lines[-1].startswith("60 sources, 5,933,988 rows; commercial use: ")


def test_sources_are_listed_for_programs_and_by_license(f2llm: Run) -> None:
    _, everything, _ = f2llm("data", "sources", "--json")
    _, commercial, _ = f2llm("data", "sources", "--json", "--license", "commercial")

    listed, allowed = json.loads(everything)["sources"], json.loads(commercial)["sources"]
    assert len(listed) == 60
    assert allowed == [source for source in listed if source["commercial"] is True]
    assert {"instruction", "instruction_origin", "license_checked", "tables", "id"} <= set(listed[0])


def test_a_recipe_of_local_copies_becomes_a_data_set(f2llm: Run, copies: str) -> None:
    code, out, err = f2llm("data", "prepare", "made", "--recipe", "squad", "--from", copies, "--max-rows", "5")

    assert code == 0
    assert "squad  retrieval" in out
    assert "5 rows, 0 hard negatives a row" in out
    assert err == "squad: 5 rows\n"
    assert f2llm("data", "validate", "made")[0] == 0


def test_texts_of_a_file_are_kept_out_of_training(f2llm: Run, copies: str, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("What is 3?\n")

    code, _, err = f2llm(
        "data", "prepare", "made", "--recipe", "squad", "--from", copies, "--exclude-benchmark", "test.txt"
    )

    assert code == 0
    assert "squad: 1 rows dropped for texts of test.txt" in err


def test_a_source_that_is_not_there_is_a_storage_error_with_a_remedy(f2llm: Run) -> None:
    code, out, err = f2llm("data", "prepare", "made", "--recipe", "squad")

    assert (code, out) == (5, "")
    assert "error: source 'squad': rajpurkar/squad cannot be loaded" in err
    assert "--from FOLDER" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--recipe", "sqaud"], 3, "did you mean 'squad'?"),
        (["--recipe", "all", "--license", "commercial"], 3, "refuses 41 of the sources"),
        (["--recipe", "all", "--license", "commercial-or-unclear"], 3, "anli: CC-BY-NC-4.0 (commercial use: no"),
        (["--recipe", "squad", "--revision", "imdb=1"], 3, "a revision is given for 'imdb'"),
        (["--recipe", "squad", "--revision", "squad"], 2, "expected NAME=REVISION"),
        (["--recipe", "squad", "--documentation"], 2, "exactly one of SOURCES.yaml"),
        (["--recipe", "squad", "--license", "free"], 2, "Invalid value for '--license'"),
        (["--released", "nowhere"], 4, "no data file at nowhere"),
        (["--released", "nowhere", "--from", "x"], 2, "--from has no effect on --released; it needs --recipe"),
        (["--recipe", "squad", "--mine-lexical", "5"], 2, "--mine-lexical has no effect on --recipe"),
        (["s.yaml", "--source-license", "MIT"], 2, "write license beside the source in SOURCES.yaml"),
        (["--documentation", "--workers", "2"], 2, "it needs SOURCES.yaml or --source or --recipe or --released"),
        (["--source", "a:retrieval=b", "--min-score", "3"], 2, "--min-score needs a scored --source"),
        (["--source", "a:sts=b", "--license", "commercial"], 2, "--source-license"),
        (["--documentation", "--exclude-benchmark", "mteb"], 2, "--exclude-benchmark has no effect on --documentation"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(f2llm: Run, arguments: list[str], code: int, says: str) -> None:
    found, out, err = f2llm("data", "prepare", "made", *arguments)

    assert (found, out) == (code, "")
    assert says in " ".join(err.split())


def test_scored_pairs_become_a_source_in_both_directions(f2llm: Run, tmp_path: Path) -> None:
    scores = [("one", "1", 5), ("two", "2", 3.9), ("three", "3", 4)]
    (tmp_path / "pairs.csv").write_text(
        "sentence1,sentence2,score\n" + "".join(f"{a},{b},{score}\n" for a, b, score in scores)
    )
    (tmp_path / "sources.yaml").write_text("sources: [{name: near, kind: scored, address: pairs.csv, min_score: 3}]\n")

    code, by_default, _ = f2llm("data", "prepare", "made", "--source", "near:scored=pairs.csv", "--json")
    _, by_option, _ = f2llm("data", "prepare", "low", "--source", "near:scored=pairs.csv", "--min-score", "3", "--json")
    _, by_file, _ = f2llm("data", "prepare", "file", "sources.yaml", "--json")
    none, _, err = f2llm("data", "prepare", "none", "--source", "near:scored=pairs.csv", "--min-score", "9")

    assert code == 0
    assert [(s["kind"], s["rows"]) for s in json.loads(by_default)["sources"]] == [("retrieval", 4)]
    assert json.loads(by_option)["sources"][0]["rows"] == 6
    assert json.loads(by_file)["version"] == json.loads(by_option)["version"]
    assert none == 4
    assert "no pair has a score of 9 or more; the highest is 5" in err


def test_a_least_score_belongs_to_scored_pairs(f2llm: Run, tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("sources: [{name: a, kind: sts, address: b.csv, min_score: 3}]\n")

    code, _, err = f2llm("data", "prepare", "made", "sources.yaml")

    assert code == 3
    assert "min_score=3, but kind is sts" in err


def test_a_sources_file_that_is_not_there_is_asked_for_as_one(f2llm: Run) -> None:
    code, _, err = f2llm("data", "prepare", "out", "nope.yaml")

    assert code == 3
    assert "nope.yaml: no such file\n  to mend it: give the path of a sources file (docs/data.md)" in err
