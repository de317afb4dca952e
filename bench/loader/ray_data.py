"""The job of `bench.embed` with Ray Data's own operators: read, map over batches, write, with its checkpoints.

    python -m bench.loader.ray_data MODEL TEXTS.parquet OUT WORKERS BATCH_ROWS

A checkpoint of Ray Data (beta in Ray 2.60) has the values of a unique column of the written rows. A restarted job
skips those rows.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from ray_app.ray_runtime.cluster import cluster


class _Embed:
    def __init__(self, model: Path) -> None:
        import torch

        from ray_app.inference.encoder import load_encoder

        torch.set_num_threads(1)
        self._encoder = load_encoder(model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "embedding": np.asarray(self._encoder.encode(batch["text"].tolist()))}


def main() -> None:
    """Vectors for TEXTS.parquet, which has the columns `id` and `text`."""
    import ray.data
    from ray.data.checkpoint import CheckpointConfig

    model, texts, out = (Path(each).absolute() for each in sys.argv[1:4])
    workers, batch_rows = map(int, sys.argv[4:])
    # Ray Data's own processes also count as CPUs: with as many CPUs as workers, a restarted job would wait for a free
    # CPU indefinitely.
    with cluster(cpus=workers + 4):
        context = ray.data.DataContext.get_current()
        context.checkpoint_config = CheckpointConfig("id", str(out.with_name(f"{out.name}-checkpoint")))
        rows = ray.data.read_parquet(str(texts)).repartition(target_num_rows_per_block=batch_rows)
        embedded = rows.map_batches(_Embed, fn_constructor_args=[model], batch_size=batch_rows, concurrency=workers)
        embedded.write_parquet(str(out))


if __name__ == "__main__":
    main()
