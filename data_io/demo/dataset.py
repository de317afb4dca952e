"""The demo's data set: texts and held-out sets from the documentation of this Python and its packages.

`read_documentation` reads files. `build_demo` is a pure function of those texts, the sizes and the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from data_io.curation.held_out import choose_held_out, retrieval_set
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.manifest import SourceInfo
from data_io.dataset.rows import Row
from data_io.demo.docstrings import Deduplicator, Docstring, Limits, read_package, read_topics
from data_io.demo.examples import classification_rows, clustering_rows, relatedness_set, retrieval_rows
from data_io.demo.packages import STANDARD_LIBRARY, Package
from data_io.errors import DataError
from data_io.execution import Say
from data_io.keyed_hash import mix, permutation
from data_io.task import Kind
from data_io.wording import counted

PACKAGES = (
    STANDARD_LIBRARY, "numpy", "scipy", "sklearn", "torch", "transformers", "pandas", "networkx", "sympy", "ray",
    "pyarrow", "pydantic", "huggingface_hub", "sentence_transformers", "deepspeed", "datasets", "polars",
    "narwhals", "rich", "click", "jinja2", "fsspec", "werkzeug", "urllib3", "requests", "aiohttp", "joblib",
    "pyparsing", "hypothesis", "mpmath", "grpc", "triton", "packaging", "setuptools", "pip", "botocore",
    "virtualenv", "anyio", "docker", "google", "mypy", "pygments",
)  # fmt: skip
"""Packages whose documentation is read, best first. Packages that are not installed are skipped."""

# Short, because a model with a few hundred thousand weights must learn within minutes to ignore the instruction.
RETRIEVAL_INSTRUCTION = "Find the documentation."
CLUSTERING_INSTRUCTION = "Name the package."
CLASSIFICATION_INSTRUCTION = "Class or function?"

_TRAIN_ORDER = 1


@dataclass(frozen=True)
class DemoSizes:
    """Numbers of rows. If fewer packages are installed, there are fewer rows, in the same proportions."""

    retrieval_rows: int = 6000
    clustering_rows: int = 1300
    classification_rows: int = 800
    evaluation_documents: int = 2000
    evaluation_queries: int = 400
    relatedness_pairs: int = 300
    negatives: int = 24
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Demo:
    """Everything to write: sources with their rows, and evaluation sets."""

    sources: tuple[tuple[SourceInfo, list[Row]], ...]
    evaluations: tuple[RetrievalSet | StsSet, ...]


def read_documentation(
    packages: Sequence[Package], sizes: DemoSizes, *, progress: Say | None = None
) -> list[Docstring]:
    """Distinct docstrings, package by package, until there are as many as `sizes` requests."""
    wanted = sizes.retrieval_rows + sizes.evaluation_documents
    seen = Deduplicator()
    found: list[Docstring] = []
    for package in packages:
        if len(found) >= wanted:
            break
        if package.name == STANDARD_LIBRARY:
            found += read_topics(package.name, package.root, limits=sizes.limits, seen=seen)
        found += read_package(package.name, package.root, limits=sizes.limits, seen=seen)
        if progress is not None:
            progress(f"{package.name} read, {len(found)} docstrings so far")
    return found


def build_demo(
    docstrings: Sequence[Docstring], packages: Sequence[Package], sizes: DemoSizes, *, seed: int = 0
) -> Demo:
    """Split, mine negatives and pair. Raises DataError if there is too little documentation for a source."""
    share = sizes.evaluation_documents / (sizes.retrieval_rows + sizes.evaluation_documents)
    held_out = choose_held_out(
        (Row(d.summary, d.body) for d in docstrings), fraction=share, max_queries=sizes.evaluation_documents
    )
    train = [d for d in docstrings if not any(map(held_out.holds, (d.summary, d.body, d.text)))]
    train = [train[i] for i in permutation(mix(seed, _TRAIN_ORDER), len(train))[: sizes.retrieval_rows]]
    names = {d.package for d in docstrings}
    used = [package for package in packages if package.name in names]
    license = "; ".join(f"{package.name}: {package.license}" for package in used)
    origin = "docstrings of " + ", ".join(f"{package.name} {package.version}" for package in used)

    def source(
        name: str, kind: Kind, negatives: int, instruction: str, rows: list[Row]
    ) -> tuple[SourceInfo, list[Row]]:
        if not rows:
            raise DataError(
                f"source {name!r}: {len(docstrings)} docstrings of {counted(len(names), 'package')} are not enough",
                remedy="install more packages (pip install 'f2llm-ray[train]'), or prepare a data set from files",
            )
        return SourceInfo(
            name=name, kind=kind, negatives=negatives, instruction=instruction, license=license, origin=origin
        ), rows  # fmt: skip

    retrieval = retrieval_rows(train, negatives=sizes.negatives, seed=seed)
    clustering = clustering_rows(train, count=sizes.clustering_rows, negatives=sizes.negatives, seed=seed)
    classification = classification_rows(train, count=sizes.classification_rows, seed=seed)
    held_queries = {row.query for row in held_out.rows}
    held = [d for d in docstrings if d.summary in held_queries]
    return Demo(
        sources=(
            source("docs_retrieval", Kind.RETRIEVAL, sizes.negatives, RETRIEVAL_INSTRUCTION, retrieval),
            source("package_clustering", Kind.CLUSTERING, sizes.negatives, CLUSTERING_INSTRUCTION, clustering),
            source("kind_classification", Kind.CLASSIFICATION, 1, CLASSIFICATION_INSTRUCTION, classification),
        ),
        evaluations=(
            retrieval_set(
                "docs_heldout", held_out, instruction=RETRIEVAL_INSTRUCTION, license=license, origin=origin,
                max_queries=sizes.evaluation_queries,
            ),
            relatedness_set(
                "docs_relatedness", held, count=sizes.relatedness_pairs, seed=seed, license=license, origin=origin
            ),
        ),
    )  # fmt: skip
