"""Clusters of vectors, keywords for each cluster, and a two-dimensional map, computed with scikit-learn. Pure.

N texts, D dimensions, C clusters.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
GroupMethod = Literal["kmeans", "hdbscan"]

NOISE = -1
"""HDBSCAN's label for a text in no cluster."""
MOST_CLUSTERS = 20
"""The largest number of clusters that is tried by default."""
_JUDGED = 2000
"""Texts in the sample for the silhouette, which compares all pairs."""
_DENSE_DIMENSIONS = 10
"""HDBSCAN needs few dimensions: in many dimensions all points are far from each other."""
_MAP_DIMENSIONS = 50
_PERPLEXITY = 30
_WORD = r"(?u)\b[^\W\d_]{3,}\b"


def group(
    vectors_ND: Floats, *, method: GroupMethod, clusters: int | None, smallest: int, seed: int
) -> tuple[Ids, float | None]:
    """The cluster of each text, int64 [N], and the mean silhouette of the texts in clusters.

    Cluster 0 is the largest. A text in no cluster has NOISE. The silhouette is None for fewer than two clusters.
    k-means makes `clusters` clusters; None chooses the number from 2 to 20 with the best silhouette. HDBSCAN chooses
    the number of clusters itself. Its clusters have at least `smallest` texts; it uses the first ten principal
    components.
    """
    if method == "hdbscan":
        flat = PCA(min(_DENSE_DIMENSIONS, *vectors_ND.shape), random_state=seed).fit_transform(vectors_ND)
        found = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(flat)
    else:
        sizes = [clusters] if clusters else range(2, min(MOST_CLUSTERS, len(vectors_ND) - 1) + 1)
        tried = [KMeans(size, n_init=10, random_state=seed).fit_predict(vectors_ND) for size in sizes]
        scores = [_silhouette(vectors_ND, labels, seed) or 0.0 for labels in tried] if len(tried) > 1 else [0.0]
        found = tried[int(np.argmax(scores))]
    ordered = _largest_first(found.astype(np.int64))
    return ordered, _silhouette(vectors_ND, ordered, seed)


def name_clusters(texts: Sequence[str], cluster_N: Ids, *, terms: int = 4) -> list[tuple[str, ...]]:
    """The keywords of each cluster, by class-based TF-IDF (Grootendorst: BERTopic, arXiv 2203.05794, section 3.3).

    The weight of a word is its share of the cluster's words times log(1 + A / f). A is the mean number of words per
    cluster, f is the frequency of the word in all clusters. English stop words and words of fewer than three letters
    are ignored.
    """
    count = int(cluster_N.max()) + 1
    joined = [" ".join(texts[i] for i in np.flatnonzero(cluster_N == c).tolist()) for c in range(count)]
    vectorizer = CountVectorizer(stop_words="english", token_pattern=_WORD)
    try:
        counts_CW = vectorizer.fit_transform(joined).toarray().astype(np.float64)
    except ValueError:  # no words at all
        return [() for _ in range(count)]
    shares_CW = counts_CW / np.maximum(counts_CW.sum(axis=1, keepdims=True), 1)
    weights_CW = shares_CW * np.log(1 + counts_CW.sum() / count / counts_CW.sum(axis=0))
    words = vectorizer.get_feature_names_out()
    best_CT = np.argsort(-weights_CW, axis=1, kind="stable")[:, :terms]
    return [tuple(str(words[w]) for w in row if weights_CW[c, w] > 0) for c, row in enumerate(best_CT)]


def middles(vectors_ND: Floats, cluster_N: Ids, *, texts: int = 3) -> list[Ids]:
    """For each cluster, the positions of the texts nearest to its mean, nearest first."""
    found = []
    for cluster in range(int(cluster_N.max()) + 1):
        members = np.flatnonzero(cluster_N == cluster)
        distances = np.linalg.norm(vectors_ND[members] - vectors_ND[members].mean(axis=0), axis=1)
        found.append(members[np.argsort(distances, kind="stable")[:texts]])
    return found


def flat_map(vectors_ND: Floats, *, seed: int) -> Floats:
    """Positions float32 [N, 2] on a map that keeps neighbors together.

    Computed by t-SNE (van der Maaten and Hinton, 2008) from the first 50 principal components. Distances between groups
    that are far apart have no meaning.
    """
    if len(vectors_ND) < 5:
        return np.pad(vectors_ND, ((0, 0), (0, 2)))[:, :2]
    small = PCA(min(_MAP_DIMENSIONS, *vectors_ND.shape), random_state=seed).fit_transform(vectors_ND)
    perplexity = min(_PERPLEXITY, (len(vectors_ND) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found: Floats = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(small)
    return found.astype(np.float32)


def _silhouette(vectors_ND: Floats, cluster_N: Ids, seed: int) -> float | None:
    inside = np.flatnonzero(cluster_N != NOISE)
    if len(inside) > _JUDGED:
        inside = np.sort(np.random.default_rng(seed).choice(inside, _JUDGED, replace=False))
    labels = cluster_N[inside]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(vectors_ND[inside], labels))


def _largest_first(labels_N: Ids) -> Ids:
    names, sizes = np.unique(labels_N[labels_N != NOISE], return_counts=True)
    renamed = {int(name): new for new, name in enumerate(names[np.argsort(-sizes, kind="stable")])}
    return np.array([renamed.get(int(label), NOISE) for label in labels_N], dtype=np.int64)
