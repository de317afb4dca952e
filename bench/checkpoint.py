"""The cost of a checkpoint: the pause in training, the save, and the restore of 2 workers' checkpoint on 3 workers.

    python -m bench.checkpoint [--rounds 5] [--hidden-size 640]

A Qwen3 of 101 million parameters, bf16 with fp32 master weights and moments. The methods take turns in one run: our
save and restore, to an S3 server on this machine and to a local directory; a plain upload and download of the same
bytes by as many processes with the same client; and DeepSpeed's save, its conversion to the universal format and the
load of that. Building the engine takes the same time for all and is not counted.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from bench.support.report import machine, spread, table, write_result
from data_io.data_spec import HardNegatives, S3Options
from data_io.loading.fingerprint import Fingerprint
from data_io.storage.store import Store, open_store
from ray_app.job_spec import ModelSpec, Qwen3Architecture, TrainSpec
from ray_app.run_directory.checkpoint_manifest import TrainingProgress, list_checkpoints, read_manifest
from tests.support.s3_server import find_server, run_s3_server

SAVED_BY, RESTORED_BY = 2, 3
VOCABULARY = 65_536
TAG = "global_step1"
PIECE = 8 * 2**20
THREADS = 8
MB = 1e6

Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden-size", type=int, default=640, help="of the model; 640 gives 101 million parameters")
    arguments = parser.parse_args()
    program = find_server()
    if program is None:
        raise SystemExit("no S3 server found: run tools/s3-server.sh")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with run_s3_server(program, folder / "s3") as server:
            os.environ.update(server.environment)
            place = _Place(folder, server.uri, server.options, arguments.hidden_size, arguments.rounds)
            times = {**_in_processes(_save, SAVED_BY, place), **_convert(place)}
            times |= _in_processes(_restore, RESTORED_BY, place)
            newest = list_checkpoints(place.bucket.child("run"))[0]
            size = read_manifest(place.bucket.child("run"), newest).size
    write_result("checkpoint", _page(times, size, arguments))


class _Place:
    """The paths and settings of the measurement; picklable."""

    def __init__(self, folder: Path, uri: str, s3: S3Options, hidden_size: int, rounds: int) -> None:
        self.folder, self.uri, self.s3, self.hidden_size, self.rounds = folder, uri, s3, hidden_size, rounds

    @property
    def bucket(self) -> Store:
        return open_store(self.uri, self.s3)

    @property
    def local(self) -> Store:
        return open_store(str(self.folder / "local"))

    @property
    def deepspeed(self) -> Path:
        return self.folder / "deepspeed"


def _in_processes(work: Callable[[Any, _Place], Times], count: int, place: _Place) -> Times:
    start_processes(_rank, (count, work, place), nprocs=count, start_method="spawn")
    times: Times = json.loads((place.folder / "times.json").read_text())
    return times


def _rank(rank: int, count: int, work: Callable[[Any, _Place], Times], place: _Place) -> None:
    from ray_app.models.embedder import Embedder
    from ray_app.models.loading import build_backbone
    from ray_app.training.engine import Engine

    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"}
    dist.init_process_group("gloo", init_method=f"file://{place.folder}/group-{count}", rank=rank, world_size=count)
    width = place.hidden_size
    architecture = Qwen3Architecture(
        hidden_size=width,
        num_hidden_layers=12,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        intermediate_size=3 * width,
    )
    backbone = build_backbone(
        ModelSpec(architecture=architecture), vocabulary_size=VOCABULARY, dtype=torch.bfloat16, seed=1
    )
    engine = Engine(Embedder(backbone, attention="sdpa", gradient_checkpointing=False).train(), TrainSpec())
    _step(engine, rank)
    times = work(engine, place)
    if rank == 0:
        (place.folder / "times.json").write_text(json.dumps(times))
    dist.destroy_process_group()


def _save(engine: Any, place: _Place) -> Times:
    from ray_app.checkpointing.checkpoint import CheckpointSaver

    rank = dist.get_rank()
    savers = {
        "ours, S3": CheckpointSaver(place.bucket.child("run"), engine, attempt=1, keep=1),
        "ours, local": CheckpointSaver(place.local.child("run"), engine, attempt=1, keep=1),
    }
    values = sum(fragment.values.numel() for fragment in engine.fragments())
    content = np.random.default_rng(rank).bytes(4 * values)
    times: Times = {"step": [], "step while a save is under way": [], "stall": []}
    step = 0
    for _ in range(place.rounds):
        times.setdefault("plain upload", []).append(_timed(lambda: place.bucket.put(f"plain/{rank}", content)))
        for name, saver in savers.items():
            step += 1
            progress = _progress(step)

            def save(saver: CheckpointSaver = saver, progress: TrainingProgress = progress) -> None:
                saver.start(progress)
                saver.finish()

            times.setdefault(f"save: {name}", []).append(_timed(save))
        times.setdefault("save: DeepSpeed, local", []).append(
            _timed(lambda: engine._engine.save_checkpoint(str(place.deepspeed), tag=TAG))
        )
        times["step"] += [_timed(lambda: _step(engine, rank)) for _ in range(5)]
        step += 1
        savers["ours, S3"].start(_progress(step))
        under_way = torch.ones(())
        while under_way:
            times["step while a save is under way"].append(_timed(lambda: _step(engine, rank)))
            pending = savers["ours, S3"]._pending
            assert pending is not None
            under_way = torch.tensor(float(not pending[2].done()))
            dist.all_reduce(under_way)
        saved = savers["ours, S3"].finish()
        assert saved is not None
        times["stall"].append(saved.stall_seconds)
    return times


def _restore(engine: Any, place: _Place) -> Times:
    from concurrent.futures import ThreadPoolExecutor

    from ray_app.checkpointing.checkpoint import restore

    rank = dist.get_rank()
    bucket = place.bucket
    sizes = [(info.key, info.size) for info in bucket.list("plain")]
    pieces = [(key, at, min(PIECE, size - at)) for key, size in sizes for at in range(0, size, PIECE)]
    mine = pieces[rank * len(pieces) // RESTORED_BY : (rank + 1) * len(pieces) // RESTORED_BY]
    engine._engine._config.load_universal_checkpoint = True

    def download() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda piece: bucket.get_range(*piece), mine):
                pass

    def load_universal() -> None:
        path, _ = engine._engine.load_checkpoint(str(place.deepspeed), tag=f"{TAG}_universal")
        assert path is not None

    in_place: list[float] = []
    finish = engine.finish_restore

    def note_and_finish(**facts: int) -> None:
        dist.barrier()
        in_place.append(perf_counter())
        finish(**facts)

    engine.finish_restore = note_and_finish
    fingerprint = _progress(1).fingerprint
    times: Times = {}
    for _ in range(place.rounds):
        times.setdefault("plain download", []).append(_timed(download))
        for name, store in (("S3", bucket), ("local", place.local)):
            run = store.child("run")
            seconds = _timed(partial(restore, run, engine, fingerprint))
            times.setdefault(f"restore: ours, {name}", []).append(seconds)
            times.setdefault(f"in place: ours, {name}", []).append(seconds - (perf_counter() - in_place[-1]))
        times.setdefault("load: DeepSpeed, local", []).append(_timed(load_universal))
    return times


def _convert(place: _Place) -> Times:
    """DeepSpeed's own conversion, without its imports."""
    times = []
    for _ in range(place.rounds):
        shutil.rmtree(place.deepspeed / f"{TAG}_universal", ignore_errors=True)
        start_processes(_convert_once, (place,), nprocs=1, start_method="spawn")
        times.append(float((place.folder / "seconds").read_text()))
    return {"convert: DeepSpeed, local": times}


def _convert_once(_: int, place: _Place) -> None:
    from deepspeed.checkpoint.ds_to_universal import main as convert

    source = place.deepspeed / TAG
    arguments = argparse.Namespace(
        input_folder=str(source),
        output_folder=f"{source}_universal",
        num_extract_workers=2,
        num_merge_workers=2,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    begin = perf_counter()
    convert(arguments)
    (place.folder / "seconds").write_text(str(perf_counter() - begin))


def _step(engine: Any, seed: int) -> None:
    """A training step on 8 texts of 32 tokens per rank."""
    from ray_app.models.packing import pack

    ids = np.random.default_rng(seed).integers(0, VOCABULARY, 256, dtype=np.int32)
    batch = pack(ids, np.full(8, 32, dtype=np.int32), layout="rows")
    engine.backward(engine.embed(batch).square().mean(), last=True)
    engine.update(1e-6)


def _timed(work: Callable[[], object]) -> float:
    """Seconds until the last rank is finished."""
    dist.barrier()
    begin = perf_counter()
    work()
    dist.barrier()
    return perf_counter() - begin


def _progress(step: int) -> TrainingProgress:
    fingerprint = Fingerprint(
        planner_version=1,
        data_version="bench",
        sources=("bench",),
        micro_batch_size=32,
        micro_batches_per_step=16,
        step_source="mixed",
        source_sampling="proportional",
        seed=1,
        hard_negatives=HardNegatives(),
        token_deletion=0.0,
        tokenizer="bench",
    )
    return TrainingProgress(step=step, micro_batches_consumed=16 * step, fingerprint=fingerprint)


def _page(times: Times, size: int, arguments: argparse.Namespace) -> str:
    def line(what: str, seconds: list[float], peer: list[float] | None = None, *, share: bool = True) -> list[str]:
        rate = f"{size / MB / median(seconds):.0f} MB/s" if share else ""
        ratio = spread([b / a for a, b in zip(seconds, peer, strict=True)], 2) if peer else ""
        return [what, spread(seconds, 2), rate, ratio]

    def total(*names: str) -> list[float]:
        return [sum(parts) for parts in zip(*(times[name] for name in names), strict=True)]

    convert_and_load = total("convert: DeepSpeed, local", "load: DeepSpeed, local")
    rows = [
        line(f"plain upload by {SAVED_BY}", times["plain upload"]),
        line("our save to S3", times["save: ours, S3"], times["plain upload"]),
        line("our save to a directory", times["save: ours, local"], times["save: DeepSpeed, local"]),
        line("DeepSpeed's save to a directory", times["save: DeepSpeed, local"]),
        line(f"plain download by {RESTORED_BY}", times["plain download"]),
        line(f"our restore by {RESTORED_BY} from S3", times["restore: ours, S3"], times["plain download"]),
        line("part of that: until all tensors are filled", times["in place: ours, S3"], times["plain download"]),
        line(f"our restore by {RESTORED_BY} from a directory", times["restore: ours, local"], convert_and_load),
        line("DeepSpeed's conversion", times["convert: DeepSpeed, local"], share=False),
        line(f"DeepSpeed's load by {RESTORED_BY}", times["load: DeepSpeed, local"], share=False),
        line("its conversion and load", convert_and_load, share=False),
    ]
    step, during = median(times["step"]), median(times["step while a save is under way"])
    stall = median(times["stall"])
    return "\n".join(
        [
            "# Checkpoints\n",
            f"`python -m bench.checkpoint --rounds {arguments.rounds} --hidden-size {arguments.hidden_size}`: "
            f"{size / MB:,.0f} MB of master weights and moments; median of {arguments.rounds} rounds, lowest to "
            "highest in brackets. The ratio of our save and restore on S3 is relative to the plain transfer of the "
            "same bytes, in a directory relative to DeepSpeed; higher is better. After all tensors are filled, the "
            "bf16 weights are computed and exchanged between the workers.\n",
            table(["what", "seconds", "rate", "ratio"], rows) + "\n",
            f"Training pauses {stall * 1e3:.0f} ms for a checkpoint, {stall / step:.2f} of a step of {step:.2f} s on "
            f"8 texts of 32 tokens per rank. A step during the save takes {during / step:.2f} times as "
            "long, because both share the CPUs.\n",
            machine("torch", "deepspeed", "obstore"),
        ]
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
