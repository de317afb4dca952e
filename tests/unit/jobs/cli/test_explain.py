"""`f2llm explain`: fields of a job spec, a study and a sources file, and exit codes."""

import json

import pytest

from jobs.spec.job import SPEC_FIELDS
from jobs.spec.presets import PRESETS
from tests.support.calling import Run


@pytest.mark.parametrize("name", ["train.learning_rate", "spec.train.learning_rate"])
def test_a_field_has_type_default_presets_and_description(f2llm: Run, name: str) -> None:
    code, out, _ = f2llm("explain", name)

    field = SPEC_FIELDS["spec.train.learning_rate"]
    lines = out.splitlines()
    assert code == 0
    assert lines[:3] == ["KIND:     EmbeddingJob", "FIELD:    spec.train.learning_rate", f"TYPE:     {field.expected}"]
    assert f"DEFAULT:  {field.default}" in lines
    assert "f2llm-4b" in out
    assert "RESUME:   a resumed run cannot change it" in lines
    assert " ".join(lines[lines.index("") + 1 :]) == field.description


def test_a_section_lists_its_fields(f2llm: Run) -> None:
    _, out, _ = f2llm("explain", "checkpoint")

    listed = [line.split(":")[0].strip() for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert listed == [field.path[-1] for field in SPEC_FIELDS.values() if field.path[:-1] == ("spec", "checkpoint")]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("EmbeddingJob", {"metadata", "spec.train", "spec.data"}),
        ("Study", {"spec.grid"}),
        ("Sources", {"sources"}),
    ],
)
def test_without_a_field_the_whole_file_is_explained(f2llm: Run, kind: str, fields: set[str]) -> None:
    code, out, _ = f2llm("explain", "--kind", kind, "--json")

    found = json.loads(out)
    assert (code, found["kind"]) == (0, kind)
    assert fields <= {each["field"] for each in found["fields"]}


def test_every_field_can_be_explained(f2llm: Run) -> None:
    for name in SPEC_FIELDS:
        code, out, _ = f2llm("explain", name)

        assert code == 0
        assert f"FIELD:    {name}" in out


def test_json_has_values_and_not_text(f2llm: Run) -> None:
    _, out, _ = f2llm("explain", "train.epochs", "--json")

    found = json.loads(out)
    assert found["default"] == SPEC_FIELDS["spec.train.epochs"].default
    assert found["presets"] == {name: values["train"]["epochs"] for name, values in PRESETS.items()}
    assert found["may_change_on_resume"] is False


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("learning_rate",), "did you mean `train.learning_rate`"),
        (("trian",), "did you mean `train`"),
        (("xyzzy",), "`f2llm explain` lists the fields"),
        (("xyzzy", "--kind", "Study"), "`f2llm explain --kind Study` lists the fields"),
    ],
)
def test_an_unknown_field_is_a_usage_error_with_close_names(f2llm: Run, arguments: tuple[str, ...], hint: str) -> None:
    code, out, err = f2llm("explain", *arguments)

    assert (code, out) == (2, "")
    assert f"has no field {arguments[0]}" in err
    assert hint in err


def test_exit_codes_are_printed_as_text_and_as_json(f2llm: Run) -> None:
    code, out, _ = f2llm("explain", "exit-codes")
    _, as_json, _ = f2llm("explain", "exit-codes", "--json")

    rows = json.loads(as_json)["exit_codes"]
    assert code == 0
    assert {0, 1, 2, 3, 4, 5, 6, 11, 130, 141, 143} <= {row["code"] for row in rows}
    assert all(row["error"] in out for row in rows)
