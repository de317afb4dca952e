"""The list of public sources is the recipe's, and it loads without heavy modules."""

import csv
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from data_io.dataset.manifest import SourceInfo
from data_io.errors import ConfigError
from data_io.sources.catalog import SOURCES, allowed, check_licenses, choose, public_source
from data_io.sources.rows import CONVERTERS, PublicRows
from data_io.task import Kind

HEAVY = ("numpy", "pyarrow", "datasets", "xxhash", "obstore", "fsspec", "pydantic")


def test_every_source_of_the_recipe_is_there_with_its_kind_its_size_and_where_it_lies(project_root: Path) -> None:
    with (project_root / "tests" / "golden" / "recipe_sources.csv").open() as file:
        listed = [(row["name"], row["type"], int(row["n_query"]), row["hf"]) for row in csv.DictReader(file)]

    known = [(source.name, str(source.kind), source.expected_rows, source.listed_as) for source in SOURCES]

    assert known == listed
    assert len(known) == 60


def test_a_source_listed_on_the_hub_is_loaded_by_that_id() -> None:
    elsewhere = {"gluebenchmark.com": "nyu-mll/glue"}

    for source in SOURCES:
        host, _, repository = source.listed_as.rpartition(" ")
        assert source.host == (host or "hub")
        assert source.id == elsewhere.get(repository, repository)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_record_has_everything_that_a_manifest_needs(source: object) -> None:
    rows = PublicRows(source)  # type: ignore[arg-type]

    info = rows.info()

    assert isinstance(info, SourceInfo)
    assert info.instruction
    assert not info.instruction.endswith((".", " "))
    assert info.license
    assert info.negatives <= info.kind.recipe_negatives
    assert type(rows.source.shape) in CONVERTERS
    assert rows.source.license.commercial is not None or rows.source.license.why
    assert pickle.loads(pickle.dumps(rows)) == rows


def test_classes_and_clusters_have_all_their_negatives_from_the_start() -> None:
    complete = {source.kind for source in SOURCES if source.negatives == source.kind.recipe_negatives}

    assert complete == {Kind.CLASSIFICATION, Kind.CLUSTERING}


def test_an_unknown_name_is_refused_with_the_closest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        public_source("hotpot_qa")

    assert caught.value.remedy == "did you mean 'hotpotqa'?"


def test_sources_are_chosen_once_each_and_in_the_recipes_order() -> None:
    assert [source.name for source in choose(["sts12", "imdb", "sts12"])] == ["imdb", "sts12"]
    assert choose(["imdb", "all"]) == SOURCES


def test_the_commercial_rule_names_every_source_that_it_refuses_with_its_license() -> None:
    with pytest.raises(ConfigError) as caught:
        check_licenses(choose(["squad", "anli", "imdb"]), "commercial")

    assert "does not allow 2 sources:" in caught.value.message
    assert "anli: CC-BY-NC-4.0 (commercial use: no)" in caught.value.message
    assert "imdb: not stated (commercial use: unclear, the card states none)" in caught.value.message
    assert "squad" not in caught.value.message
    assert "commercial-or-unclear" in str(caught.value.remedy)


def test_unclear_licenses_pass_only_on_request() -> None:
    check_licenses(choose(["squad", "imdb"]), "commercial-or-unclear")
    with pytest.raises(ConfigError, match="anli"):
        check_licenses(choose(["anli", "imdb"]), "commercial-or-unclear")
    check_licenses(SOURCES, "any")
    assert not any(allowed(source, "commercial") for source in SOURCES if source.license.commercial is not True)


def test_the_catalog_loads_no_heavy_module() -> None:
    code = (
        "import sys; from data_io.sources.catalog import SOURCES;"
        f"print([name for name in {HEAVY!r} if name in sys.modules], len(SOURCES))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["[]", "60"]
