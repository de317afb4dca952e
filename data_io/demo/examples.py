"""Training rows of the three task types, and pairs of graded relatedness, made from docstrings. Pure functions.

Every draw is a keyed hash of the seed and of the docstring that it is for, so one more docstring changes little.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from data_io.curation.lexical_negatives import mine_negatives
from data_io.dataset.evaluation_sets import StsSet
from data_io.dataset.rows import Row
from data_io.dataset.schema import text_key
from data_io.demo.docstrings import Docstring
from data_io.keyed_hash import mix, permutation

K = TypeVar("K", bound=Hashable)

CLASS_LABEL, FUNCTION_LABEL = "a class", "a function or method"
_SMALLEST_CLUSTER = 10
_FILL, _CLUSTER, _KIND, _PAIRS = range(11, 15)


def retrieval_rows(docstrings: Sequence[Docstring], *, negatives: int, seed: int) -> list[Row]:
    """Summary -> body. The negatives are bodies of the same package that share words with the summary.

    If the package has too few other bodies, bodies of other packages are added. Empty if there are too few in total.
    """
    if len(docstrings) <= negatives:
        return []
    bodies = [d.body for d in docstrings]
    rows = []
    for of_package in _grouped(docstrings, lambda d: d.package).values():
        queries, positives = [d.summary for d in of_package], [d.body for d in of_package]
        for query, positive, mined in zip(
            queries, positives, mine_negatives(queries, positives, negatives=negatives), strict=True
        ):
            if len(mined) < negatives:
                taken = {text_key(text) for text in (query, positive, *mined)}
                mined += _draw(bodies, negatives - len(mined), taken, mix(seed, _FILL, text_key(query)))
            if len(mined) == negatives:
                rows.append(Row(query, positive, tuple(mined)))
    return rows


def clustering_rows(docstrings: Sequence[Docstring], *, count: int, negatives: int, seed: int) -> list[Row]:
    """A docstring -> another docstring of the package. Negatives come from the other packages, about equally often."""
    clusters = {
        name: ds for name, ds in _grouped(docstrings, lambda d: d.package).items() if len(ds) >= _SMALLEST_CLUSTER
    }
    names = list(clusters)
    if len(names) < 2:
        return []
    members = [d for of_package in clusters.values() for d in of_package]
    texts = {name: [d.text for d in of_package] for name, of_package in clusters.items()}
    rows = []
    for i in permutation(mix(seed, _CLUSTER), len(members))[:count]:
        own, query = members[i].package, members[i].text
        key = mix(seed, _CLUSTER, text_key(query))
        others = [name for name in names if name != own]
        positive = _draw(texts[own], 1, {text_key(query)}, key)
        taken = {text_key(text) for text in (query, *positive)}
        found: list[str] = []
        for turn in range(negatives):
            other = others[mix(key, turn) % len(others)]
            found += _draw(texts[other], 1, taken, mix(key, turn, 1))
        if positive and len(found) == negatives:
            rows.append(Row(query, positive[0], tuple(found)))
    return rows


def classification_rows(docstrings: Sequence[Docstring], *, count: int, seed: int) -> list[Row]:
    """A docstring -> the label of the thing it documents. Classes and functions occur equally often."""
    by_kind = _grouped([d for d in docstrings if d.kind != "topic"], lambda d: str(d.kind))
    each = min(count // 2, len(by_kind.get("class", ())), len(by_kind.get("function", ())))
    rows = []
    for kind, label, other in (("class", CLASS_LABEL, FUNCTION_LABEL), ("function", FUNCTION_LABEL, CLASS_LABEL)):
        of_kind = by_kind.get(kind, [])
        chosen = permutation(mix(seed, _KIND, len(label)), len(of_kind))[:each]
        rows += [Row(of_kind[i].text, label, (other,)) for i in chosen]
    return rows


def relatedness_set(
    name: str, docstrings: Sequence[Docstring], *, count: int, seed: int, license: str, origin: str
) -> StsSet:
    """Pairs of a summary and a body. Grades: 3 its own body, 2 same module, 1 same package, 0 another package.

    Each grade has a quarter of the pairs, if there are enough such pairs.
    """
    same: dict[int, Callable[[Docstring, Docstring], bool]] = {
        3: lambda a, b: a is b,
        2: lambda a, b: a is not b and a.module == b.module,
        1: lambda a, b: a.module != b.module and a.package == b.package,
        0: lambda a, b: a.package != b.package,
    }
    pairs: list[tuple[str, str, float]] = []
    for grade, fits in same.items():
        of_grade: list[tuple[str, str, float]] = []
        for i in permutation(mix(seed, _PAIRS, grade), len(docstrings)):
            if len(of_grade) == count // len(same):
                break
            first = docstrings[i]
            candidates = [d for d in docstrings if fits(first, d)]
            if candidates:
                second = _pick(candidates, mix(seed, _PAIRS, grade, text_key(first.summary)))
                of_grade.append((first.summary, second.body, float(grade)))
        pairs += of_grade
    text_a, text_b, scores = map(list, zip(*pairs, strict=True))
    return StsSet(name, "", text_a, text_b, scores, license=license, origin=origin)


def _grouped(docstrings: Sequence[Docstring], key: Callable[[Docstring], K]) -> dict[K, list[Docstring]]:
    groups: dict[K, list[Docstring]] = defaultdict(list)
    for docstring in docstrings:
        groups[key(docstring)].append(docstring)
    return groups


def _pick(candidates: Sequence[Docstring], key: int) -> Docstring:
    return candidates[key % len(candidates)]


def _draw(texts: Sequence[str], count: int, taken: set[int], key: int) -> list[str]:
    """`count` of the texts whose key is not in `taken`, or fewer if there are fewer. Adds their keys to `taken`."""
    found: list[str] = []
    for i in range(len(texts)):
        if len(found) == count:
            break
        text = texts[(key + i) % len(texts)]
        if text_key(text) not in taken:
            taken.add(text_key(text))
            found.append(text)
    return found
