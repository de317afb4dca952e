"""What a store holds, for tests that compare what two jobs left."""

from data_io.storage.store import Store


def stored(store: Store) -> dict[str, bytes]:
    """Every object by its key. A local store does not list what a killed writer had begun."""
    return {info.key: store.get(info.key) for info in store.list()}
