"""Clusters a user's texts: groups of similar texts, their keywords, and a map.

<out>/clusters.parquet   the rows of the input with the number of their cluster, and their position on the map
<out>/map.html           the map and the clusters, one file that needs no network
<out>/clusters.json      the clusters and how they were made; written last
"""

from time import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from applications.embedded_texts import embed_for
from applications.grouping import NOISE, Floats, GroupMethod, Ids, flat_map, group, middles, name_clusters
from applications.map_page import MOST_POINTS, render_map
from data_io.errors import DataError
from data_io.execution import Executor, Say, in_process, silent
from data_io.storage.resumable import end_work
from data_io.storage.store import Store
from data_io.wording import counted
from ray_app.inference.embed_files import OnEmbedding
from ray_app.inference.model_source import ExportedModel

MANIFEST, ROWS, PAGE = "clusters.json", "clusters.parquet", "map.html"
CLUSTER, X, Y = "cluster", "map_x", "map_y"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cluster(_Record):
    number: int = Field(description="Counted from 1, the largest cluster first.")
    texts: int
    terms: tuple[str, ...]
    middle: tuple[str, ...] = Field(description="The texts nearest to the mean of the cluster.")


class Clusters(_Record):
    """clusters.json."""

    version: int = 1
    model: str
    fingerprint: str
    instruction: str
    dimensions: int
    method: GroupMethod
    seed: int
    column: str
    texts: int
    unassigned: int = Field(description="Texts that HDBSCAN assigns to no cluster. Their cluster number is 0.")
    silhouette: float | None = Field(description="Mean over the texts in clusters, -1 to 1. None for one cluster.")
    clusters: tuple[Cluster, ...]


def cluster_texts(
    model: ExportedModel,
    address: str,
    out: Store,
    *,
    column: str | None = None,
    instruction: str = "",
    dimensions: int | None = None,
    method: GroupMethod = "kmeans",
    clusters: int | None = None,
    smallest: int = 10,
    seed: int = 0,
    executor: Executor = in_process,
    say: Say = silent,
    on_progress: OnEmbedding = lambda progress: None,
) -> Clusters:
    """Cluster the texts at `address` and write the result to `out`, replacing an earlier result.

    Rows without a text are left out. All vectors are in memory at once. Raises DataError if the number of texts is not
    larger than `clusters`, or less than three.
    """
    began = time()
    made, read = embed_for(
        model, address, out, column=column, adds=(CLUSTER, X, Y), instruction=instruction, dimensions=dimensions,
        executor=executor, say=say, on_progress=on_progress,
    )  # fmt: skip
    parts = list(read)
    vectors = np.concatenate([part.vectors_ND for part in parts])
    rows = pa.concat_tables([part.table for part in parts])
    texts: list[str] = rows.column(made.column).to_pylist()
    if len(texts) < max(3, (clusters or 0) + 1):
        raise DataError(
            f"found {counted(len(texts), 'text')}; expected at least {max(3, (clusters or 0) + 1)}, more than clusters",
            remedy="give more texts, or a lower -k",
        )
    say("clustering")
    if method == "hdbscan" and len(texts) < smallest:
        raise _no_group(smallest, len(texts))
    cluster_N, silhouette = group(vectors, method=method, clusters=clusters, smallest=smallest, seed=seed)
    if (cluster_N == NOISE).all():
        raise _no_group(smallest, len(texts))
    say("drawing the map")
    shown = _shown(len(texts), seed)
    places = np.full((len(texts), 2), np.nan, dtype=np.float32)
    places[shown] = flat_map(vectors[shown], seed=seed)
    terms, sizes = name_clusters(texts, cluster_N), np.bincount(cluster_N[cluster_N != NOISE])
    found = Clusters(
        model=model.name,
        fingerprint=model.fingerprint,
        instruction=instruction,
        dimensions=made.dimensions,
        method=method,
        seed=seed,
        column=made.column,
        texts=len(texts),
        unassigned=int((cluster_N == NOISE).sum()),
        silhouette=silhouette,
        clusters=tuple(
            Cluster(number=c + 1, texts=int(sizes[c]), terms=terms[c], middle=tuple(texts[i] for i in near))
            for c, near in enumerate(middles(vectors, cluster_N))
        ),
    )
    page = render_map(found.model_dump(), [texts[i] for i in shown], cluster_N[shown] + 1, places[shown])
    out.put(ROWS, _rows(rows, cluster_N, places))
    out.put(PAGE, page.encode())
    out.put(MANIFEST, found.model_dump_json(indent=1).encode() + b"\n")
    end_work(out, began=began)
    return found


def _no_group(smallest: int, texts: int) -> DataError:
    return DataError(
        f"HDBSCAN finds no cluster of at least {counted(smallest, 'text')}; the input has {texts}",
        remedy="lower --smallest, or use k-means",
    )


def _shown(texts: int, seed: int) -> Ids:
    """Positions of the texts that are on the map: all texts, or a sample."""
    if texts <= MOST_POINTS:
        return np.arange(texts)
    return np.sort(np.random.default_rng(seed).choice(texts, MOST_POINTS, replace=False))


def _rows(rows: pa.Table, cluster_N: Ids, places_N2: Floats) -> bytes:
    x_N, y_N = (pa.array(values, mask=np.isnan(values)) for values in places_N2.T)
    for name, values in ((CLUSTER, pa.array(cluster_N + 1)), (X, x_N), (Y, y_N)):
        rows = rows.append_column(name, values)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data
