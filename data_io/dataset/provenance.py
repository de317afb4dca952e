"""Whether an existing data set was made from the same recipe and is complete, so that it need not be made again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_io.bounded_json import read_json
from data_io.dataset.manifest import Manifest, load_manifest
from data_io.errors import DataError, NotFoundInStore
from data_io.execution import Say, silent
from data_io.storage.folder_copy import sha256_of
from data_io.storage.store import Store

RECIPE_KEY = "recipe.json"
_FORMAT_VERSION = 2
"""Increased whenever the same recipe would give different rows."""

Counts = Mapping[str, Mapping[str, int]]
"""By source: rows kept, and rows left out by reason."""


def reuse(
    store: Store,
    recipe: Mapping[str, object],
    *,
    files: Sequence[str] = (),
    say: Say = silent,
) -> Manifest | None:
    """The manifest of an existing data set with this recipe. None if there is none, or an object is missing or damaged.

    `files` are further keys that the recipe writes. `say` gets a line if any data set is here, because runs of another
    data set cannot resume after it is replaced. Reads every object once.
    """
    try:
        manifest = load_manifest(store)
    except (DataError, ValueError):
        return None
    if _is_whole(store, recipe, manifest, files):
        say("the data set already exists")
        return manifest
    say(f"replacing another data set, version {manifest.version}")
    return None


def _is_whole(store: Store, recipe: Mapping[str, object], manifest: Manifest, files: Sequence[str]) -> bool:
    recorded = _recorded(store)
    # The version ties the record to the manifest: another preparation may have stopped between the two writes.
    if recorded != _document(recipe, manifest, recorded.get("files", {}), recorded.get("counts", {})):
        return False
    if set(recorded["files"]) != set(files):
        return False
    expected = {key: str(sha256) for key, sha256 in recorded["files"].items()}
    for source in manifest.sources:
        expected |= {shard.key: shard.sha256 for shard in manifest.shards(source.name)}
    for evaluation in manifest.evaluations:
        expected |= {stored.key: stored.sha256 for stored in evaluation.files.values()}
    return all(_sha256(store, key) == sha256 for key, sha256 in expected.items())


def record(
    store: Store,
    recipe: Mapping[str, object],
    manifest: Manifest,
    *,
    files: Sequence[str] = (),
    counts: Counts | None = None,
) -> None:
    """Record how the data set was made, and the counts of each source's rows. This is written last."""
    checksums = {key: _sha256(store, key) for key in files}
    document = _document(recipe, manifest, checksums, counts or {})
    store.put(RECIPE_KEY, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")


def remove_recorded_files(store: Store) -> None:
    """Remove the extra files of an earlier data set: its tokenizer does not belong to this data set."""
    store.delete(_recorded_files(store))


def damaged_files(store: Store) -> list[str]:
    """Keys of the recorded files that are missing or changed since `record`. Empty if nothing is recorded."""
    return [key for key, sha256 in _recorded_files(store).items() if _sha256(store, key) != sha256]


def read_counts(store: Store, manifest: Manifest) -> Counts:
    """The counts that `record` stored for this data set, by source. Empty if there is no record."""
    recorded = _recorded(store)
    counts = recorded.get("counts", {}) if recorded.get("manifest_version") == manifest.version else {}
    return counts if isinstance(counts, dict) else {}


def _recorded_files(store: Store) -> dict[str, str]:
    files = _recorded(store).get("files", {})
    return files if isinstance(files, dict) else {}


def _recorded(store: Store) -> dict[str, Any]:
    """The content that `record` wrote. Empty if there is none, or if it is damaged."""
    try:
        recorded = read_json(store.get(RECIPE_KEY))
    except (NotFoundInStore, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _document(
    recipe: Mapping[str, object], manifest: Manifest, files: Mapping[str, str | None], counts: Counts
) -> dict[str, object]:
    said = {
        "format_version": _FORMAT_VERSION,
        "recipe": recipe,
        "manifest_version": manifest.version,
        "files": files,
        "counts": counts,
    }
    # Through JSON, so that the values have the same types as the content of the file.
    return json.loads(json.dumps(said))  # type: ignore[no-any-return]


def _sha256(store: Store, key: str) -> str | None:
    try:
        return sha256_of(store, key)
    except NotFoundInStore:
        return None
