"""Makes the demo's data set from the documentation of the packages that are installed on this machine."""

from collections.abc import Sequence
from dataclasses import asdict

from data_io.curation import tokenizer_training
from data_io.dataset.manifest import Manifest
from data_io.dataset.provenance import record, reuse
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.dataset.writer import write_dataset
from data_io.demo.dataset import PACKAGES, DemoSizes, build_demo, read_documentation
from data_io.demo.packages import installed_packages
from data_io.execution import Say, silent
from data_io.storage.store import Store


def prepare_documentation(
    store: Store,
    *,
    sizes: DemoSizes | None = None,
    packages: Sequence[str] = PACKAGES,
    vocabulary_size: int = tokenizer_training.VOCABULARY_SIZE,
    seed: int = 0,
    progress: Say | None = None,
) -> Manifest:
    """Write the demo's data set, and a tokenizer trained on it, to `store`. Takes about half a minute on one CPU.

    `packages` are import names; packages that are not installed are skipped. Raises DataError if too little
    documentation is installed.
    """
    sizes, say = sizes or DemoSizes(), progress or silent
    installed = installed_packages(packages)
    recipe = {
        "made_of": "documentation",
        "sizes": asdict(sizes),
        "packages": [[package.name, package.version] for package in installed],
        "vocabulary_size": vocabulary_size,
        "seed": seed,
    }
    if (manifest := reuse(store, recipe, files=TOKENIZER_KEYS, say=say)) is not None:
        return manifest
    docstrings = read_documentation(installed, sizes, progress=say)
    say("mining negatives and splitting")
    demo = build_demo(docstrings, installed, sizes, seed=seed)
    say("training the tokenizer")
    texts = (text for _, rows in demo.sources for row in rows for text in (row.query, row.positive))
    tokenizer = tokenizer_training.train_tokenizer(texts, vocabulary_size=vocabulary_size)
    say("writing")
    tokenizer_training.save_tokenizer(store, tokenizer)
    removed: dict[str, int] = {}
    manifest = write_dataset(store, demo.sources, demo.evaluations, seed=seed, removed=removed)
    counts = {name: {"repeated": count} for name, count in removed.items()}
    record(store, recipe, manifest, files=TOKENIZER_KEYS, counts=counts)
    return manifest
