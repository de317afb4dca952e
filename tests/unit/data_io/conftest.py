"""Data sets and stores for the tests of data_io."""

from pathlib import Path

import pytest

from data_io.storage.store import Store, open_store
from tests.support.datasets import write_example


@pytest.fixture
def dataset(tmp_path: Path) -> Store:
    """A local data set with two sources and two evaluation sets (tests.support.datasets)."""
    store = open_store(str(tmp_path / "data"))
    write_example(store)
    return store
