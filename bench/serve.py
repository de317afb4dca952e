"""`f2llm serve` under load compared with sentence-transformers and FastAPI, in turn in one run.

    python -m bench.serve [--seconds 4] [--rounds 3] [--width 384] [--layers 6]

All serve the same model, a Qwen3 with random weights and a tokenizer trained on the texts: one process that embeds with
all CPUs, and also `f2llm serve` on Ray Serve with one replica per CPU. All run for the whole benchmark, and the clients
share their CPUs. The texts are documentation on this machine: `short` are summaries of one line, `mixed` are summaries
and bodies of all lengths, `batch` is 16 of those per request. Each text is requested once per round by plain HTTP; the
`openai` package is measured in one row.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import getsid, sysconf
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import aiohttp
import openai

from bench.support.report import machine, spread, table, write_result
from data_io.demo.docstrings import Deduplicator, Limits, read_package
from data_io.demo.packages import installed_packages
from tests.support.exported import export_small_model
from tests.support.s3_server import free_port

MAX_TOKENS = 512
BATCH = 16
LOADS = (
    ("short", 1), ("short", 8), ("short", 32), ("mixed", 1), ("mixed", 8), ("mixed", 32), ("batch", 8), ("openai", 8),
)  # fmt: skip
COPIES = 2
ALONE, ON_RAY, PLAIN = SIDES = ("f2llm serve", "on Ray Serve", "FastAPI")
_TICKS = sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        session, ticks = self.process.pid, 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if getsid(int(entry.name)) == session:
                        fields = (entry / "stat").read_text().rpartition(")")[2].split()
                        ticks += int(fields[11]) + int(fields[12])
                except (OSError, ValueError):
                    continue
        return ticks / _TICKS


@dataclass(frozen=True)
class Measured:
    """One turn of one server: the number of answered texts and the durations."""

    latencies: Sequence[float]
    texts: int
    seconds: float
    cpu_seconds: float

    @property
    def texts_per_second(self) -> float:
        return self.texts / self.seconds

    def quantile(self, share: float) -> float:
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--directory", type=Path, default=Path("build/serve"))
    parser.add_argument("--only", help="only one load, such as short:8; writes no page")
    arguments = parser.parse_args()
    texts = _texts()
    model = arguments.directory / f"model-{arguments.width}-{arguments.layers}"
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        export_small_model(
            model, [*texts["short"], *texts["mixed"]], max_tokens=MAX_TOKENS, width=arguments.width,
            layers=arguments.layers,
        )  # fmt: skip
    loads = [load for load in LOADS if arguments.only in (None, f"{load[0]}:{load[1]}")]
    with _servers(model) as servers:
        idle = _idle(servers)
        found = _measure(servers, texts, loads, arguments)
    text = _page(found, idle, arguments)
    if arguments.only:
        print(text)
    else:
        write_result("serve", text)


def _texts() -> dict[str, list[str]]:
    """Summaries, and summaries and bodies, in an order that is independent of their lengths."""
    seen, limits = Deduplicator(), Limits(per_package=600, body_max=1500)
    packages = installed_packages(("networkx", "numpy", "pandas", "scipy"))
    docs = [doc for package in packages for doc in read_package(package.name, package.root, limits=limits, seen=seen)]
    docs.sort(key=lambda doc: doc.summary[::-1])
    return {
        "short": [doc.summary for doc in docs],
        "mixed": [text for doc in docs for text in (doc.body, doc.summary)],
    }


@contextmanager
def _servers(model: Path) -> Iterator[dict[str, Server]]:
    """All servers, running and warmed up."""
    ports = {side: free_port() for side in SIDES}
    serve = ["-m", "jobs.cli", "serve", str(model), "--name", "m", "--port"]
    commands = {
        ALONE: [*serve, str(ports[ALONE])],
        ON_RAY: [*serve, str(ports[ON_RAY]), "--replicas", str(COPIES)],
        PLAIN: ["-m", "bench.support.plain_server", str(model), str(ports[PLAIN])],
    }
    servers = {
        side: Server(
            f"http://127.0.0.1:{ports[side]}",
            subprocess.Popen([sys.executable, *commands[side]], start_new_session=True),
        )
        for side in SIDES
    }
    try:
        for server in servers.values():
            while not _is_healthy(server):
                if server.process.poll() is not None:
                    raise SystemExit(f"a server exited with {server.process.returncode}")
                sleep(0.2)
        yield servers
    finally:
        for server in servers.values():
            server.process.terminate()
            server.process.wait()


def _is_healthy(server: Server) -> bool:
    try:
        with urlopen(f"{server.url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _idle(servers: Mapping[str, Server]) -> dict[str, float]:
    """Share of a CPU that each server uses without requests."""
    before = {side: server.cpu_seconds() for side, server in servers.items()}
    sleep(5)
    return {side: (server.cpu_seconds() - before[side]) / 5 for side, server in servers.items()}


def _measure(
    servers: Mapping[str, Server],
    texts: Mapping[str, Sequence[str]],
    loads: Sequence[tuple[str, int]],
    arguments: argparse.Namespace,
) -> dict[tuple[str, int], dict[str, list[Measured]]]:
    found: dict[tuple[str, int], dict[str, list[Measured]]] = {load: {side: [] for side in SIDES} for load in loads}
    for server in servers.values():
        asyncio.run(_load(server, "mixed", 4, texts["mixed"], 1.0))
    for turn in range(arguments.rounds):
        for load in loads:
            for side in SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]:
                asked = texts["short" if load[0] == "short" else "mixed"]
                measured = asyncio.run(_load(servers[side], *load, asked, arguments.seconds))
                found[load][side].append(measured)
                print(
                    f"{turn} {load} {side}: {measured.texts_per_second:.0f} texts/s, "
                    f"p50 {measured.quantile(0.5) * 1000:.0f} ms",
                    flush=True,
                )
    return found


async def _load(server: Server, kind: str, clients: int, texts: Sequence[str], seconds: float) -> Measured:
    """Run this number of clients; each sends its next request as soon as it has its answer."""
    latencies: list[float] = []
    places = iter(range(10**9))
    size = BATCH if kind == "batch" else 1
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

        async def ask(asked: list[str]) -> None:
            if kind == "openai":
                await client.embeddings.create(model="m", input=asked, extra_body={"truncate": True})
                return
            body = {"model": "m", "input": asked if size > 1 else asked[0], "encoding_format": "base64",
                    "truncate": True}  # fmt: skip
            async with session.post(f"{server.url}/v1/embeddings", json=body) as answer:
                content: Any = await answer.json()
                assert answer.status == 200, content
                assert len(content["data"]) == size

        async def run() -> None:
            while perf_counter() < end:
                first = next(places) * size
                asked = [texts[(first + i) % len(texts)] for i in range(size)]
                began = perf_counter()
                await ask(asked)
                latencies.append(perf_counter() - began)

        cpu, began = server.cpu_seconds(), perf_counter()
        end = began + seconds
        await asyncio.gather(*(run() for _ in range(clients)))
        took = perf_counter() - began
        await client.close()
    return Measured(latencies, len(latencies) * size, took, server.cpu_seconds() - cpu)


def _page(
    found: Mapping[tuple[str, int], Mapping[str, Sequence[Measured]]],
    idle: Mapping[str, float],
    arguments: argparse.Namespace,
) -> str:
    rates, costs = [], []
    for (kind, clients), sides in found.items():
        name = {"openai": "mixed, openai package", "batch": f"mixed, {BATCH} per request"}.get(kind, kind)
        load = [name, str(clients)]
        rates.append(
            [
                *load,
                *(f"{median(each.texts_per_second for each in sides[side]):,.0f}" for side in SIDES),
                *(_ratio(sides[side], sides[PLAIN]) for side in (ALONE, ON_RAY)),
            ]
        )
        costs.append(
            [
                *load,
                *(_milliseconds(sides[side]) for side in SIDES),
                *(f"{sum(e.cpu_seconds for e in s) / sum(e.texts for e in s) * 1000:.1f}" for s in sides.values()),
            ]
        )
    load = ["texts", "clients"]
    return "\n".join(
        [
            "# Serving, compared with sentence-transformers and FastAPI\n",
            f"`python -m bench.serve --seconds {arguments.seconds:g} --rounds {arguments.rounds} --width "
            f"{arguments.width} --layers {arguments.layers}`: {arguments.rounds} turns of {arguments.seconds:g} s, the "
            "servers one after another, clients on the same CPUs. `f2llm serve` and FastAPI are one process on all "
            f"CPUs; on Ray Serve there are {COPIES} replicas (`--replicas {COPIES}`). Medians.\n",
            "Texts per second; the ratios are of each turn, lowest to highest in brackets:\n",
            table([*load, *SIDES, *(f"{side} / {PLAIN}" for side in (ALONE, ON_RAY))], rates),
            "\np50 / p99 of a request in ms, and CPU ms per text:\n",
            table([*load, *SIDES, *(f"{side}, CPU" for side in SIDES)], costs),
            "\nWithout requests they use "
            + ", ".join(f"{share:.0%} ({side})" for side, share in idle.items())
            + " of a CPU.\n",
            machine("ray", "torch", "sentence-transformers", "fastapi", "openai"),
        ]
    )


def _ratio(ours: Sequence[Measured], theirs: Sequence[Measured]) -> str:
    return spread([a.texts_per_second / b.texts_per_second for a, b in zip(ours, theirs, strict=True)], 2)


def _milliseconds(turns: Sequence[Measured]) -> str:
    return " / ".join(f"{median(turn.quantile(share) for turn in turns) * 1000:,.0f}" for share in (0.5, 0.99))


if __name__ == "__main__":
    main()
