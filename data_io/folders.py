"""The files of a store as a folder, for libraries that read nothing else."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_io.storage import Store


@contextmanager
def local_copy(store: Store) -> Iterator[Path]:
    """A folder with the store's files: itself where it is local, else a copy for as long as the block runs."""
    if store.is_local:
        yield Path(store.uri)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for info in store.list():
            target = Path(temporary) / info.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.get(info.key))
        yield Path(temporary)


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError and ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))
