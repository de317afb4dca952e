"""One measurement in a separate process: python -m bench.loader.child '{"method": ..., "place": {...}, ...}'.

Standard library only, because it also runs in the environment of mosaicml-streaming. Its last output line is JSON.
"""

import gc
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.loader.methods import METHODS, MICRO_BATCH, USED, MicroBatches, Place, convert_to_mds
from bench.support.slow_proxy import read_counts


def main() -> None:
    setting = json.loads(sys.argv[1])
    place = Place(**setting["place"])
    if setting["method"] == "convert":
        began = time.monotonic()
        convert_to_mds(place, Path(place.scratch))
        found: dict[str, Any] = {"seconds": time.monotonic() - began}
    else:
        found = _measure(setting, place)
    print(json.dumps(found), flush=True)
    # No regular exit: the interpreter would wait for threads that read ahead, and Ray's shutdown during a running data
    # set ends the process with an error. The parent process ends the child processes.
    os._exit(0)


def _measure(setting: dict[str, Any], place: Place) -> dict[str, Any]:
    method = METHODS[setting["method"]]
    method.prepare()
    # As in this project's worker: objects loaded once are not traversed by every garbage collection.
    gc.freeze()
    prepared = time.monotonic()
    batches = method.open(place)
    characters = _check(next(batches))
    first = time.monotonic()
    before = _counts(setting)
    examples, seconds = _run(batches, setting["seconds"])
    after = _counts(setting)
    return {
        "first_batch_s": first - prepared,
        "first_batch_from_start_s": first - setting["started"],
        "examples": examples,
        "examples_per_s": examples / seconds,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "requests_at_start": before["requests"] - setting["counts"]["requests"],
        "requests": after["requests"] - before["requests"],
        "mb": (after["bytes"] - before["bytes"]) / 1e6,
        "characters_per_example": characters / MICRO_BATCH,
        "versions": {name: version(name) for name in method.packages},
    }


def _run(batches: MicroBatches, seconds: float) -> tuple[int, float]:
    examples = 0
    began = now = time.monotonic()
    while now - began < seconds:
        examples += len(next(batches)[0])
        now = time.monotonic()
    _check(next(batches), whole=False)
    return examples, now - began


def _check(batch: Any, *, whole: bool = True) -> int:
    """Check that a method returns the same shape as the others. Returns the characters of a micro-batch."""
    assert len(batch) == 2 + USED, len(batch)
    assert all(len(column) == len(batch[0]) and isinstance(column[0], str) for column in batch)
    assert not whole or len(batch[0]) == MICRO_BATCH, len(batch[0])
    return sum(len(text) for column in batch for text in column)


def _counts(setting: dict[str, Any]) -> dict[str, int]:
    return read_counts(setting["counts_url"]) if setting["counts_url"] else {"requests": 0, "bytes": 0}


if __name__ == "__main__":
    main()
