"""A linear probe: logistic regression over fixed embeddings. N rows, D dimensions, L labels.

scikit-learn trains and evaluates. Only the labels and the weights are stored, so that no file has to be unpickled.
"""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split

from data_io.errors import DataError
from data_io.wording import counted

Floats = npt.NDArray[np.float32]
STRENGTHS = (1.0, 10.0, 100.0)
"""The inverse regularization strengths that are tried."""
_FOLDS = 3
_ITERATIONS = 1000


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelMeasure(_Record):
    """Metrics of one label on the held-out rows."""

    label: str
    rows: int
    precision: float
    recall: float
    f1: float


class Measure(_Record):
    """Metrics on the held-out rows. `most_frequent` is the accuracy of always predicting the most frequent label."""

    trained_on: int
    held_out: int
    accuracy: float
    macro_f1: float
    most_frequent: float
    labels: tuple[LabelMeasure, ...]


class Probe:
    """Weights float32 [L, D] and biases [L] over labels in their alphabetical order."""

    def __init__(self, labels: Sequence[str], weights_LD: Floats, bias_L: Floats) -> None:
        self.labels, self.weights_LD, self.bias_L = tuple(labels), weights_LD, bias_L

    def probabilities(self, vectors_ND: Floats) -> Floats:
        """float32 [N, L], each row sums to 1."""
        logits_NL = vectors_ND @ self.weights_LD.T + self.bias_L
        powers_NL = np.exp(logits_NL - logits_NL.max(axis=1, keepdims=True))
        found: Floats = (powers_NL / powers_NL.sum(axis=1, keepdims=True)).astype(np.float32)
        return found


def train_probe(
    vectors_ND: Floats, labels: Sequence[str], *, held_out: float, seed: int
) -> tuple[Probe, Measure, float]:
    """Train on a part of the rows of each label, and evaluate on the held-out part.

    Also returns the inverse regularization strength, which three-fold cross-validation of the training rows chose. If
    the labels have too few rows, two folds or no cross-validation are used. Raises DataError if the rows have fewer
    than two labels, or if a label has only one row.
    """
    counts = Counter(labels)
    if len(counts) < 2:
        raise DataError(
            f"the rows have {counted(len(counts), 'label')}; expected two or more",
            remedy="name another column with --label",
        )
    if alone := sorted(label for label, rows in counts.items() if rows < 2):
        raise DataError(
            f"{counted(len(alone), 'label')} with only one row ({alone[0]!r}); expected "
            "two or more rows per label, to train and to evaluate",
            remedy="remove these rows, or merge labels",
        )
    size = max(round(held_out * len(labels)), len(counts))
    try:
        train_ND, test_ND, train, test = train_test_split(
            vectors_ND, np.array(labels), test_size=size, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(
            f"{counted(len(labels), 'row')} with {counted(len(counts), 'label')} cannot be split: {error}",
            remedy="give more rows",
        ) from error
    if len(np.unique(train)) < 2:
        raise DataError(
            f"all rows that are not held out ({len(train)}) have the label {train[0]}; expected two or more labels",
            remedy="lower --held-out, or give more rows of the other labels",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        strength = _strength(train_ND, train, seed)
        fitted = LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(train_ND, train)
    probe = _probe(fitted)
    return probe, _measure(probe, test_ND, test, train), strength


def _strength(vectors_ND: Floats, labels: npt.NDArray[np.str_], seed: int) -> float:
    """The best strength in cross-validation of the labels with a row for each fold. For tiny data, the first."""
    names, counts = np.unique(labels, return_counts=True)
    most = min(_FOLDS, int(np.sort(counts)[-2]))
    if most < 2:
        return STRENGTHS[0]
    folds = StratifiedKFold(most, shuffle=True, random_state=seed)
    rows = np.isin(labels, names[counts >= most])
    means = [
        float(cross_val_score(LogisticRegression(C=c, max_iter=_ITERATIONS), vectors_ND[rows], labels[rows],
                              cv=folds).mean())
        for c in STRENGTHS
    ]  # fmt: skip
    return STRENGTHS[int(np.argmax(means))]


def _probe(fitted: LogisticRegression) -> Probe:
    weights, bias = fitted.coef_.astype(np.float32), fitted.intercept_.astype(np.float32)
    if len(fitted.classes_) == 2:  # scikit-learn gives one row, for the second label
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(fitted.classes_.tolist(), weights, bias)


def _measure(
    probe: Probe, vectors_ND: Floats, labels: npt.NDArray[np.str_], trained_on: npt.NDArray[np.str_]
) -> Measure:
    found = np.array(probe.labels)[probe.probabilities(vectors_ND).argmax(axis=1)]
    columns = precision_recall_fscore_support(labels, found, labels=list(probe.labels), zero_division=0)
    (usual,) = Counter(trained_on.tolist()).most_common(1)
    return Measure(
        trained_on=len(trained_on),
        held_out=len(labels),
        accuracy=float(accuracy_score(labels, found)),
        macro_f1=float(np.mean(columns[2])),
        most_frequent=float(np.mean(labels == usual[0])),
        labels=tuple(
            LabelMeasure(label=label, rows=int(rows), precision=float(p), recall=float(r), f1=float(f))
            for label, p, r, f, rows in zip(probe.labels, *columns, strict=True)
        ),
    )
