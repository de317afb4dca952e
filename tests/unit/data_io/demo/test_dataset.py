import textwrap
from collections import Counter
from pathlib import Path

import pytest

from data_io.curation.lexical_negatives import mine_negatives
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.schema import text_key
from data_io.demo.dataset import Demo, DemoSizes, build_demo, read_documentation
from data_io.demo.docstrings import Deduplicator, Docstring, Limits, read_package, read_topics, split_docstring
from data_io.demo.examples import CLASS_LABEL, FUNCTION_LABEL
from data_io.demo.packages import Package, installed_packages
from data_io.errors import DataError

LIMITS = Limits()
BODY = (
    "The items are visited from left to right and handed to the callable one by one. "
    "Whatever it answers is collected in a new list, which belongs to the caller afterwards."
)


def read(root: Path, limits: Limits = LIMITS) -> list[Docstring]:
    return read_package("pack", root, limits=limits, seen=Deduplicator())


def write_module(path: Path, *functions: tuple[str, str]) -> None:
    """A module with one function per name and docstring."""
    source = "\n\n".join(
        f'def {name}():\n    """' + textwrap.indent(text, "    ").lstrip() + '\n    """' for name, text in functions
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source + "\n")


WORDS = (
    "river",
    "mountain",
    "bridge",
    "window",
    "garden",
    "silver",
    "copper",
    "thunder",
    "candle",
    "marble",
    "ribbon",
    "lantern",
    "harbour",
    "meadow",
    "orchard",
    "compass",
    "anchor",
    "feather",
    "pebble",
    "willow",
)


def many_docstrings(packages: int = 5, each: int = 60) -> list[Docstring]:
    """Distinct documentation: a third of the items are about classes, and six items share a module."""
    found = []
    for p in range(packages):
        for i in range(each):
            a, b, c = (WORDS[(i * k + p * 7) % len(WORDS)] for k in (1, 3, 7))
            number = p * each + i
            found.append(
                Docstring(
                    package=f"pack{p}",
                    module=f"pack{p}.module{i // 6}",
                    name=f"name{i}",
                    kind="class" if i % 3 == 0 else "function",
                    summary=f"Put the {a} near the {b} of case {number}.",
                    body=f"Case {number} needs a {a}, a {b} and a {c}. It answers with what it found in package {p}.",
                )
            )
    return found


PACKAGES = [Package(f"pack{p}", Path("/nowhere"), f"{p}.0", "MIT") for p in range(5)]
SIZES = DemoSizes(
    retrieval_rows=200,
    clustering_rows=40,
    classification_rows=30,
    evaluation_documents=60,
    evaluation_queries=25,
    relatedness_pairs=40,
    negatives=6,
)


@pytest.fixture(scope="module")
def demo() -> Demo:
    return build_demo(many_docstrings(), PACKAGES, SIZES)


def test_a_docstring_is_its_first_sentence_and_the_rest() -> None:
    text = f"Apply a callable to every item of a list. The callable is\nnever called twice.\n\n{BODY}"

    parts = split_docstring(text, LIMITS)

    assert parts == ("Apply a callable to every item of a list.", f"The callable is\nnever called twice.\n\n{BODY}")


@pytest.mark.parametrize(
    "summary",
    [
        "Apply a callable, e.g. Path or str, to every item.",
        "Apply a callable vs. A list of callables to every item.",
        "Apply version 1.5 of the callable to every item.",
    ],
)
def test_an_abbreviation_does_not_end_a_sentence(summary: str) -> None:
    assert split_docstring(f"{summary}\n\n{BODY}", LIMITS) == (summary, BODY)


def test_a_leading_signature_is_not_a_summary() -> None:
    text = f"apply(function, items, *, strict=False) -> list\n\nApply a callable to every item.\n\n{BODY}"

    assert split_docstring(text, LIMITS) == ("Apply a callable to every item.", BODY)


def test_markup_is_replaced_by_its_text() -> None:
    text = (
        f"Apply :func:`~pack.call` to ``items`` of [`~pack.List`].\n\n{BODY} See [the guide](https://pack.org/guide)."
    )

    parts = split_docstring(text, LIMITS)

    assert parts == ("Apply pack.call to `items` of pack.List.", f"{BODY} See the guide.")


def test_a_body_ends_before_its_first_example() -> None:
    for example in (
        ">>> apply(len, [])\n[]",
        "Examples\n--------\n>>> apply(len, [])",
        "```python\napply(len, [])\n```",
    ):
        assert split_docstring(f"Apply a callable to every item.\n\n{BODY}\n\n{example}", LIMITS) == (
            "Apply a callable to every item.",
            BODY,
        )


def test_a_long_body_is_cut_between_words() -> None:
    body = " ".join(f"{WORDS[i % 20]}{WORDS[i // 20]}" for i in range(100))

    parts = split_docstring(f"Apply a callable to every item.\n\n{body}", LIMITS)

    assert parts is not None
    assert len(parts[1]) <= LIMITS.body_max
    assert body.startswith(parts[1] + " ")


@pytest.mark.parametrize(
    "text",
    [
        "Apply a callable to every item.",
        "Apply a callable to every item.\n\nShort.",
        f"Apply it.\n\n{BODY}",
        f"Deprecated alias for the callable that is applied.\n\n{BODY}",
        f"Apply a callable to every item.\n\nCopyright (c) 2001 by somebody. {BODY}",
        f"Apply a callable to every item.\n\nApply a callable to every item. {BODY}",
        "Apply a callable to every item.\n\n>>> apply(len, ['one', 'two'])\n[3, 3]\n>>> apply(len, [])\n[]",
        f"Parameters\n----------\nitems : list\n\n{BODY}",
        f"items (`list`): The items that the callable is applied to.\n\n{BODY}",
        "Apply a callable to every item.\n\n" + "same words again " * 20,
        "Apply a callable to every item.\n\n" + "| 1 | 2 | 3 | 4 |\n" * 20 + BODY[:60],
    ],
)
def test_text_that_is_not_documentation_is_left_out(text: str) -> None:
    assert split_docstring(text, LIMITS) is None


def test_classes_methods_and_functions_are_found_with_their_names(tmp_path: Path) -> None:
    doc = '"""{} every item of the list.\n\n    {}\n    """'
    bodies = [d.body for d in many_docstrings(1, 3)]
    tmp_path.joinpath("__init__.py").write_text(f"class Reader:\n    {doc.format('Reads lazily', bodies[0])}\n")
    tmp_path.joinpath("sub").mkdir()
    tmp_path.joinpath("sub", "run.py").write_text(
        f"async def visit():\n    {doc.format('Visits slowly', bodies[1])}\n\n"
        f"class Plain:\n    def get(self):\n        {doc.format('Gets quickly', bodies[2])}\n"
    )

    found = {(d.module, d.name): d for d in read(tmp_path)}

    assert {place: d.kind for place, d in found.items()} == {
        ("pack", "Reader"): "class",
        ("pack.sub.run", "visit"): "function",
        ("pack.sub.run", "Plain.get"): "function",
    }
    assert found["pack", "Reader"].text == f"Reads lazily every item of the list.\n\n{bodies[0]}"


def test_nothing_is_imported_or_run(tmp_path: Path) -> None:
    write_module(tmp_path / "bomb.py", ("apply", f"Apply a callable to every item.\n\n{BODY}"))
    path = tmp_path / "bomb.py"
    path.write_text(path.read_text() + "raise SystemExit('imported')\n")

    assert [d.name for d in read(tmp_path)] == ["apply"]


def test_tests_and_files_that_are_not_python_are_skipped(tmp_path: Path) -> None:
    text = f"Apply a callable to every item.\n\n{BODY}"
    for name in ("tests/a.py", "_vendor/b.py", "test_c.py", "conftest.py"):
        write_module(tmp_path / name, ("apply", text))
    tmp_path.joinpath("template.py").write_text(f'def {{{{ name }}}}():\n    """{text}"""\n')
    tmp_path.joinpath("bytes.py").write_bytes(b'"""\xff\xfe"""\n')

    assert read(tmp_path) == []


def test_copies_of_a_summary_or_a_body_are_used_once(tmp_path: Path) -> None:
    other = many_docstrings(1, 1)[0].body
    write_module(
        tmp_path / "a.py",
        ("one", f"Apply a callable to every item.\n\n{BODY}"),
        ("same_summary", f"Apply a callable  to every item!\n\n{other}"),
        ("same_body", f"Hand every item to a callable.\n\n{BODY} Nothing else is done with it."),
    )

    assert [d.name for d in read(tmp_path)] == ["one"]


def test_caps_hold_and_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    docstrings = many_docstrings(1, 40)
    for number in range(8):
        part = docstrings[number * 5 : number * 5 + 5]
        write_module(tmp_path / f"m{number}.py", *((d.name, f"{d.summary}\n\n{d.body}") for d in part))
    limits = Limits(per_package=9, per_module=2)

    first, second = read(tmp_path, limits), read(tmp_path, limits)

    assert first == second
    assert len(first) == 9
    assert max(Counter(d.module for d in first).values()) == 2


def test_sections_of_the_language_reference_are_topics(tmp_path: Path) -> None:
    section = f"A callable is applied to every item in turn. {BODY}"
    topics = {"apply": f"Applying\n********\n\n{section}\n\nMore\n====\n\nToo short.\n"}
    tmp_path.joinpath("pydoc_data").mkdir()
    tmp_path.joinpath("pydoc_data", "topics.py").write_text(f"# made by a tool\ntopics = {topics!r}\n")

    found = read_topics("python", tmp_path, limits=LIMITS, seen=Deduplicator())

    assert [(d.name, d.kind, d.summary) for d in found] == [
        ("Applying", "topic", "A callable is applied to every item in turn.")
    ]
    assert read_topics("python", tmp_path / "absent", limits=LIMITS, seen=Deduplicator()) == []


def test_only_installed_packages_are_found_with_version_and_license() -> None:
    packages = {
        package.name: package for package in installed_packages(("python", "pytest", "not_a_package", "pydantic"))
    }

    assert list(packages) == ["python", "pytest", "pydantic"]
    assert packages["python"].license == "PSF-2.0"
    assert packages["pydantic"].license == "MIT"
    assert packages["pydantic"].root.joinpath("main.py").is_file()


def test_the_standard_library_alone_has_enough_to_read() -> None:
    sizes = DemoSizes(retrieval_rows=250, evaluation_documents=50, limits=Limits(per_package=300))

    docstrings = read_documentation(installed_packages(("python",)), sizes)

    assert len(docstrings) >= 300
    assert (
        len({text_key(d.summary) for d in docstrings}) == len({text_key(d.body) for d in docstrings}) == len(docstrings)
    )


def test_the_demo_has_a_source_of_every_kind_in_the_requested_sizes(demo: Demo) -> None:
    assert {info.name: (str(info.kind), info.negatives, len(rows)) for info, rows in demo.sources} == {
        "docs_retrieval": ("retrieval", 6, 200),
        "package_clustering": ("clustering", 6, 40),
        "kind_classification": ("classification", 1, 30),
    }
    assert all(len(row.negatives) == info.negatives for info, rows in demo.sources for row in rows)
    assert {info.license for info, _ in demo.sources} == {"; ".join(f"pack{p}: MIT" for p in range(5))}


def test_retrieval_negatives_are_bodies_of_the_same_package(demo: Demo) -> None:
    package_of = {d.body: d.package for d in many_docstrings()}
    body_of = {d.summary: d.body for d in many_docstrings()}
    _, rows = demo.sources[0]

    for row in rows:
        assert row.positive == body_of[row.query]
        assert {package_of[text] for text in row.negatives} == {package_of[row.positive]}
        assert row.positive not in row.negatives
        assert len(set(row.negatives)) == 6


def test_clusters_are_packages(demo: Demo) -> None:
    package_of = {d.text: d.package for d in many_docstrings()}
    _, rows = demo.sources[1]

    for row in rows:
        assert row.query != row.positive
        assert package_of[row.query] == package_of[row.positive]
        assert package_of[row.query] not in {package_of[text] for text in row.negatives}
        assert len(set(row.negatives)) == 6


def test_classes_and_functions_occur_equally_often(demo: Demo) -> None:
    kind_of = {d.text: d.kind for d in many_docstrings()}
    _, rows = demo.sources[2]

    labels = {"class": CLASS_LABEL, "function": FUNCTION_LABEL}
    assert all(row.positive == labels[kind_of[row.query]] and row.negatives != (row.positive,) for row in rows)
    assert Counter(row.positive for row in rows) == {CLASS_LABEL: 15, FUNCTION_LABEL: 15}


def test_no_held_out_text_is_trained_on(demo: Demo) -> None:
    held_out, pairs = demo.evaluations
    assert isinstance(held_out, RetrievalSet)
    assert isinstance(pairs, StsSet)

    held = {text_key(text) for text in (*held_out.queries, *held_out.corpus, *pairs.text_a, *pairs.text_b)}
    trained = {
        text_key(t) for _, rows in demo.sources for row in rows for t in (row.query, row.positive, *row.negatives)
    }

    assert held.isdisjoint(trained)
    assert len(held_out.queries) == 25
    assert 40 <= len(held_out.corpus) <= 60


def test_relatedness_is_graded_by_the_place_of_the_documentation(demo: Demo) -> None:
    by_summary = {d.summary: d for d in many_docstrings()}
    by_body = {d.body: d for d in many_docstrings()}
    pairs = demo.evaluations[1]
    assert isinstance(pairs, StsSet)

    for summary, body, score in zip(pairs.text_a, pairs.text_b, pairs.scores, strict=True):
        a, b = by_summary[summary], by_body[body]
        assert score == (3 if a == b else 2 if a.module == b.module else 1 if a.package == b.package else 0)
    assert Counter(pairs.scores) == {3.0: 10, 2.0: 10, 1.0: 10, 0.0: 10}


def test_the_demo_is_the_same_every_time_and_another_with_another_seed(demo: Demo) -> None:
    again = build_demo(many_docstrings(), PACKAGES, SIZES)
    other = build_demo(many_docstrings(), PACKAGES, SIZES, seed=1)

    assert again == demo
    assert other.sources != demo.sources
    assert other.evaluations[0] == demo.evaluations[0]


def test_too_little_documentation_is_refused() -> None:
    with pytest.raises(DataError, match="source 'docs_retrieval': 4 docstrings of 2 packages are not enough"):
        build_demo(many_docstrings(2, 2), PACKAGES, SIZES)
    with pytest.raises(DataError, match="source 'package_clustering': 60 docstrings of 1 package are not enough"):
        build_demo(many_docstrings(1, 60), PACKAGES, SIZES)


def test_mined_negatives_share_the_querys_words_and_are_not_answers() -> None:
    queries = ["red apples", "red apples", "blue sky", "zebra"]
    positives = ["apples that are red", "red apples, ripe", "the sky is blue", "striped animals"]

    mined = mine_negatives(queries, positives, negatives=2)

    assert mined[2] == [text for text in mined[2] if text != "the sky is blue"]
    assert set(mined[0]) == set(mined[1]) == {"the sky is blue", "striped animals"}
    assert len(mined[3]) == 2
    assert "striped animals" not in mined[3]


def test_a_text_that_matches_as_well_as_the_answer_is_not_a_negative() -> None:
    positives = ["sorting lists quickly", "sorting numbers in lists", "painting walls", "cooking rice"]

    mined = mine_negatives(["sorting lists", "sorting numbers", "walls", "rice"], positives, negatives=3)

    assert sorted(mined[0]) == ["cooking rice", "painting walls"]
    assert "sorting lists quickly" in mined[1]  # a negative of another query: it shares one word of two


def test_the_best_match_that_is_not_an_answer_comes_first() -> None:
    positives = ["sorting lists quickly", "sorting numbers", "painting walls", "cooking rice"]

    mined = mine_negatives(["sorting lists", "sorting numbers", "walls", "rice"], positives, negatives=3)

    assert mined[0][0] == "sorting numbers"
    assert mined[1][0] == "sorting lists quickly"
