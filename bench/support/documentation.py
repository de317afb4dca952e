"""All installed documentation: tens of thousands of real texts."""

from collections.abc import Iterator
from importlib.metadata import packages_distributions

from data_io.demo.docstrings import Deduplicator, Docstring, Limits, read_package, read_topics
from data_io.demo.packages import STANDARD_LIBRARY, installed_packages


class _Everything(Deduplicator):
    def is_new(self, docstring: Docstring) -> bool:
        return True


def documentation() -> Iterator[tuple[str, str]]:
    """Summary and body of every docstring and topic."""
    # Less strict than the demo: any text is suitable.
    limits = Limits(per_package=10**6, per_module=10**6, summary_min=5, summary_max=400, body_min=15, body_min_words=2)
    names = [STANDARD_LIBRARY, *sorted(name for name in packages_distributions() if name.isidentifier())]
    for package in installed_packages(names):
        found = read_package(package.name, package.root, limits=limits, seen=_Everything())
        if package.name == STANDARD_LIBRARY:
            found += read_topics(package.name, package.root, limits=limits, seen=_Everything())
        for docstring in found:
            yield docstring.summary, docstring.body
