"""A linear probe: training, stored weights and refused inputs."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from applications.probe import train_probe
from data_io.errors import DataError


def clouds(labels: int, rows: int = 40, seed: int = 0) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Rows around a center for each label, in mixed order."""
    chance = np.random.default_rng(seed)
    centers = chance.normal(size=(labels, 8)) * 2
    which = chance.permutation(np.repeat(np.arange(labels), rows))
    return (centers[which] + chance.normal(size=(len(which), 8))).astype(np.float32), [f"label {i}" for i in which]


@pytest.mark.parametrize("labels", [2, 3])
def test_probabilities_are_those_of_scikit_learn(labels: int) -> None:
    vectors, names = clouds(labels)

    probe, measure, strength = train_probe(vectors, names, held_out=0.25, seed=0)

    from sklearn.model_selection import train_test_split

    train, test, known, wanted = train_test_split(
        vectors, names, test_size=round(0.25 * len(names)), stratify=names, random_state=0
    )
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(train, known)
    assert np.abs(probe.probabilities(test) - fitted.predict_proba(test)).max() < 1e-4
    assert measure.accuracy == pytest.approx(fitted.score(test, wanted))
    assert measure.accuracy > 0.9 > measure.most_frequent
    assert (measure.trained_on, measure.held_out) == (len(train), len(test))


def test_random_labels_are_not_learned() -> None:
    vectors, names = clouds(2)

    _, measure, _ = train_probe(vectors, names[1:] + names[:1], held_out=0.5, seed=0)

    assert measure.accuracy < 0.75


def test_the_measure_of_a_label_counts_its_held_out_rows() -> None:
    vectors, names = clouds(3)

    _, measure, _ = train_probe(vectors, names, held_out=0.2, seed=3)

    assert [(each.label, each.rows) for each in measure.labels] == [(f"label {i}", 8) for i in range(3)]
    assert measure.macro_f1 == pytest.approx(np.mean([each.f1 for each in measure.labels]))


@pytest.mark.parametrize("rows", [(2, 2), (3, 2), (4, 4), (2, 2, 2)])
def test_few_rows_of_each_label_are_enough(rows: tuple[int, ...]) -> None:
    names = [f"label {i}" for i, count in enumerate(rows) for _ in range(count)]
    vectors = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float32)

    probe, measure, _ = train_probe(vectors, names, held_out=0.2, seed=0)

    assert probe.labels == tuple(dict.fromkeys(names))
    assert measure.trained_on + measure.held_out == len(names)


def test_a_label_with_one_training_row_does_not_affect_the_strength() -> None:
    vectors, names = clouds(2)
    rare = np.concatenate([vectors, vectors[:2]])

    _, _, strength = train_probe(rare, [*names, "rare", "rare"], held_out=0.2, seed=0)

    assert strength == train_probe(vectors, names, held_out=0.2, seed=0)[2]


def test_labels_that_cannot_be_trained_are_refused() -> None:
    vectors, names = clouds(2)

    with pytest.raises(DataError, match="have 1 label; expected two or more"):
        train_probe(vectors, ["same"] * len(names), held_out=0.2, seed=0)
    with pytest.raises(DataError, match=r"1 label with only one row \('rare'\)"):
        train_probe(vectors, ["rare", *names[1:]], held_out=0.2, seed=0)
    with pytest.raises(DataError, match="cannot be split"):
        train_probe(vectors[:4], ["a", "a", "b", "b"], held_out=0.9, seed=0)
    with pytest.raises(DataError, match=r"all rows that are not held out \(8\) have the label usual"):
        train_probe(vectors, ["rare", "rare", *["usual"] * 78], held_out=0.9, seed=0)
