"""Draws a positive and negatives for every text of a class.

Every draw is a keyed hash of its text, from a sample of each class that does not depend on the order of the records. So
the same texts give the same examples in any order.
"""

from collections.abc import Iterator, Sequence

from data_io.dataset.schema import text_key
from data_io.keyed_hash import mix
from data_io.sources.clustering import NEGATIVES, Clusters
from data_io.sources.source import Counts, Example, Tables
from data_io.sources.source import field as value_of
from data_io.sources.source import text as text_of

TEXTS_PER_CLASS = 256
LARGEST_SAMPLE = 200_000
"""Maximum number of texts in memory to draw from, over all classes."""
_SAMPLE, _POSITIVE, _CLASS, _NEGATIVE = range(21, 25)
_TRIES = 8
"""Draws per negative. After that many draws the text counts as having too few texts to draw from."""


def cluster_examples(
    shape: Clusters, tables: Tables, counts: Counts, *, seed: int = 0, largest_sample: int = LARGEST_SAMPLE
) -> Iterator[Example]:
    """One example per text with another text of its class and enough texts of other classes. Reads the table twice."""
    sample = _sample(shape, tables, seed, largest_sample)
    labels = sorted(sample)
    for place, text, label in _labeled(shape, tables, counts):
        key = mix(seed, text_key(text))
        used = {text_key(text)}
        positive = _other(sample[label], used, mix(key, _POSITIVE))
        if positive is None:
            counts["only text of its class"] += 1
            continue
        used.add(text_key(positive))
        negatives: list[str] = []
        for number in range(_TRIES * shape.negatives if len(labels) > 1 else 0):
            other = labels[mix(key, _CLASS, number) % len(labels)]
            if other == label:
                continue
            negative = _other(sample[other], used, mix(key, _NEGATIVE, number))
            if negative is not None:
                used.add(text_key(negative))
                negatives.append(negative)
            if len(negatives) == shape.negatives:
                break
        if len(negatives) < shape.negatives:
            counts["too few texts of other classes"] += 1
            continue
        yield Example(text, positive, tuple(negatives), place)


def _labeled(shape: Clusters, tables: Tables, counts: Counts) -> Iterator[tuple[str, str, str]]:
    """Position, text and class of every record that has both."""
    for place, record in tables["rows"]:
        value = value_of(record, shape.label, place)
        label = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        if shape.first_word:
            label = label.partition(" ")[0]
        text = text_of(record, shape.text, place)
        if not label.strip():
            counts["unknown label"] += 1
        elif not text:
            counts["blank text"] += 1
        else:
            yield place, text, label


def _sample(shape: Clusters, tables: Tables, seed: int, largest: int) -> dict[str, list[str]]:
    """For each class the texts with the smallest hashes. With many classes, fewer texts per class."""
    limit = TEXTS_PER_CLASS
    sample: dict[str, dict[int, str]] = {}
    held = 0
    for _, text, label in _labeled(shape, tables, Counts()):
        mine = sample.setdefault(label, {})
        before = len(mine)
        key = mix(seed, _SAMPLE, text_key(text))
        mine[key] = min(mine.get(key, text), text)
        if len(mine) > 2 * limit:
            sample[label] = mine = _smallest(mine, limit)
        held += len(mine) - before
        # Repeated halving gives the same result as applying the final limit from the start.
        while held > 2 * largest and limit > 2:
            limit //= 2
            sample = {name: _smallest(texts, limit) for name, texts in sample.items()}
            held = sum(map(len, sample.values()))
    while limit > 2 and sum(min(len(texts), limit) for texts in sample.values()) > largest:
        limit //= 2
    return {name: list(_smallest(texts, limit).values()) for name, texts in sample.items()}


def _smallest(texts: dict[int, str], count: int) -> dict[int, str]:
    return {key: texts[key] for key in sorted(texts)[:count]}


def _other(texts: Sequence[str], used: set[int], key: int) -> str | None:
    """The first unused text from a drawn position on. Texts that differ only in case count as equal."""
    for step in range(min(len(texts), NEGATIVES + 2)):
        text = texts[(key + step) % len(texts)]
        if text_key(text) not in used:
            return text
    return None
