"""Clusters, their keywords and the map, for points with known clusters."""

import numpy as np
import numpy.typing as npt
import pytest

from applications.grouping import NOISE, flat_map, group, middles, name_clusters

SIZES = (30, 20, 12)


def clouds(spread: float = 0.2) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Three groups far from each other, the largest not first, in mixed order."""
    chance = np.random.default_rng(1)
    centers = np.eye(3, 12) * 5
    which = chance.permutation(np.repeat([2, 0, 1], SIZES))
    rows = centers[which] + chance.normal(scale=spread, size=(len(which), 12))
    return rows.astype(np.float32), np.array([{2: 0, 0: 1, 1: 2}[int(w)] for w in which])


@pytest.mark.parametrize("clusters", [None, 3])
def test_k_means_finds_the_groups_and_their_number_largest_first(clusters: int | None) -> None:
    vectors, expected = clouds()

    found, silhouette = group(vectors, method="kmeans", clusters=clusters, smallest=5, seed=0)

    assert found.tolist() == expected.tolist()
    assert silhouette is not None
    assert silhouette > 0.8


def test_hdbscan_finds_the_groups_and_the_noise() -> None:
    vectors, expected = clouds()
    lost = np.full((1, 12), 40, dtype=np.float32)

    found, _ = group(np.concatenate([vectors, lost]), method="hdbscan", clusters=None, smallest=5, seed=0)

    inside = found[:-1] != NOISE
    assert found[-1] == NOISE
    assert inside.mean() > 0.9
    assert found[:-1][inside].tolist() == expected[inside].tolist()


def test_a_group_is_named_by_words_that_others_do_not_have() -> None:
    texts = ["the graph of nodes, and text", "nodes of a graph and text", "a matrix and text", "text: matrix rows"]

    names = name_clusters(texts, np.array([0, 0, 1, 1]), terms=2)

    assert set(names[0]) == {"graph", "nodes"}
    assert names[1][0] == "matrix"


def test_texts_without_words_have_no_names() -> None:
    assert name_clusters(["1", "2 3"], np.array([0, 1])) == [(), ()]


def test_the_middle_of_a_group_is_nearest_to_its_mean() -> None:
    vectors = np.array([[0, 0], [1, 0], [2, 0], [9, 9]], dtype=np.float32)

    assert [near.tolist() for near in middles(vectors, np.array([0, 0, 0, 1]), texts=2)] == [[1, 0], [3]]


def test_neighbors_on_the_map_are_of_the_same_group() -> None:
    vectors, expected = clouds()

    places = flat_map(vectors, seed=0)

    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(len(places)) * 1e9
    assert places.shape == (62, 2)
    assert (expected[distances.argmin(axis=1)] == expected).mean() > 0.95
    assert flat_map(vectors[:3], seed=0).shape == (3, 2)
