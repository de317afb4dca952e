"""The objects of a store, for tests that compare the results of two jobs."""

from data_io.storage.store import Store


def stored(store: Store) -> dict[str, bytes]:
    """Every object by its key. A local store does not list incomplete objects of a killed writer."""
    return {info.key: store.get(info.key) for info in store.list()}
