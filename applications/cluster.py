"""Clusters of a user's texts: what belongs together, what each group is about, and a map.

<out>/clusters.parquet   the input's rows with the number of their cluster, and their place on the map
<out>/map.html           the map and the clusters, one file without a network
<out>/clusters.json      the clusters and how they were made; the last thing that is written
"""

from collections.abc import Callable
from time import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from applications.embedded import VECTOR, read_embedded
from applications.grouping import NOISE, Floats, GroupMethod, Ids, flat_map, group, middles, name_clusters
from applications.map_page import MOST_POINTS, render_map
from data_io.errors import ConfigError, DataError
from data_io.storage import Store
from data_io.work import WORK_PREFIX, Run, Say, end_work, in_process
from ray_app.embed_job import Progress, embed_texts
from ray_app.embedding_model import ExportedModel
from ray_app.encoder import Cut

MANIFEST, ROWS, PAGE = "clusters.json", "clusters.parquet", "map.html"
CLUSTER, X, Y = "cluster", "map_x", "map_y"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cluster(_Record):
    number: int = Field(description="From 1, the largest first.")
    texts: int
    terms: tuple[str, ...]
    middle: tuple[str, ...] = Field(description="The texts nearest to its mean.")


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
    unassigned: int = Field(description="Texts that HDBSCAN puts into no cluster; their number is 0.")
    silhouette: float | None = Field(description="Mean over texts in clusters, -1 to 1; None for one cluster.")
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
    run: Run = in_process,
    say: Say = lambda text: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Clusters:
    """Group the texts at `address` into `out`, over what an earlier start left. A row without a text is left out.

    All vectors are in memory at once. Raises DataError where there are fewer texts than clusters, or less than three.
    """
    began = time()
    place = out.child(WORK_PREFIX).child("embeddings")
    made = embed_texts(
        model, address, place, column=column, into=VECTOR, instruction=instruction, cut=Cut(dimensions), run=run,
        say=say, on_progress=on_progress,
    ).embeddings  # fmt: skip
    parts = list(read_embedded(place, made))
    vectors = np.concatenate([part.vectors_ND for part in parts])
    rows = pa.concat_tables([part.table for part in parts])
    texts: list[str] = rows.column(made.column).to_pylist()
    if len(texts) < max(3, (clusters or 0) + 1):
        raise DataError(
            f"{len(texts)} texts are too few for {clusters or 'any'} clusters", remedy="give more texts, or a lower -k"
        )
    say("grouping")
    cluster_N, silhouette = group(vectors, method=method, clusters=clusters, smallest=smallest, seed=seed)
    if (cluster_N == NOISE).all():
        raise DataError(
            f"HDBSCAN finds no group of {smallest} texts among {len(texts)}", remedy="lower --smallest, or use k-means"
        )
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


def _shown(texts: int, seed: int) -> Ids:
    """Positions of the texts on the map: all, or a sample."""
    if texts <= MOST_POINTS:
        return np.arange(texts)
    return np.sort(np.random.default_rng(seed).choice(texts, MOST_POINTS, replace=False))


def _rows(rows: pa.Table, cluster_N: Ids, places_N2: Floats) -> bytes:
    x_N, y_N = (pa.array(values, mask=np.isnan(values)) for values in places_N2.T)
    for name, values in ((CLUSTER, pa.array(cluster_N + 1)), (X, x_N), (Y, y_N)):
        if name in rows.column_names:
            raise ConfigError(f"the rows have a column {name!r} already", remedy="rename it, or leave it out")
        rows = rows.append_column(name, values)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data
