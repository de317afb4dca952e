"""`f2llm data sources`."""

import json

from tests.support.calling import Run


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
