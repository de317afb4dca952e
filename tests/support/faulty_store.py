"""An HTTP proxy between a client and the real S3 server that injects the faults of networks and object stores.

Requests pass through byte for byte: the client has signed the Host header for this proxy's address, and the server
checks the signature against that header as it came. Each fault is a share of the GETs of objects. Which ones follows
from the seed, the object, the range, and how often that range was asked for before; so it does not depend on the order
in which threads ask. Only bursts of 503 follow the number of the request.

    python -m tests.support.faulty_store --upstream http://127.0.0.1:7070 --latency-ms 25

runs it as a process of its own (see `run_proxy_process`), for measurements that it should not disturb.
"""

import argparse
import hashlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from io import BufferedReader
from urllib.parse import urlsplit

_COUNTS = "/-/counts"
_REQUESTS_A_READ = 8
_BLOCK = 256 * 1024
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass(frozen=True)
class Faults:
    """Shares of the GETs of objects, each from 0 to 1, and how long the slow ones take."""

    seed: int = 0
    only: str = ""
    """Only GETs of objects with this in their path get faults."""
    latency_seconds: float = 0.0
    """Added to every request before it is forwarded."""
    busy: float = 0.0
    """Answered 503 SlowDown, `busy_burst` requests in a row."""
    busy_burst: int = 8
    cut: float = 0.0
    """The connection closes in the middle of the body."""
    stalled: float = 0.0
    """Half of the body arrives, then nothing, until the client gives up."""
    flipped: float = 0.0
    """One bit of the body is flipped; the next requests of the same range get the right body."""
    slow: float = 0.0
    """The answer is delayed by `slow_seconds`, or missing if the client gives up before; the next answer is on time."""
    slow_seconds: float = 60.0
    expired_key: str = ""
    """Requests signed with this access key are answered 403 ExpiredToken."""


class FaultyStore:
    """The proxy with its counters: `requests`, `bytes` (of bodies sent to the client), and one counter per fault."""

    def __init__(self, upstream: str, faults: Faults | None = None) -> None:
        self.faults = Faults() if faults is None else faults
        """Can be changed at any time."""
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "", address.port or 80)
        self._counts: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def counts(self) -> dict[str, int]:
        """A copy of the counters since the start."""
        with self._lock:
            return dict(self._counts)

    def asked(self) -> dict[str, int]:
        """The number of requests per object and range, as `path range`."""
        with self._lock:
            return dict(self._asked)

    def close(self) -> None:
        """Close every connection."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One connection of a client, with its own connection to the server. It handles one request after another."""
        server: _Upstream | None = None
        with self._lock:
            self._open.add(client)
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = _Upstream(self._upstream)
            with client.makefile("rb", _BLOCK) as incoming:
                while (request := _read_head(incoming)) is not None:
                    if not self._answer(client, incoming, request, server):
                        return
        except OSError:
            pass  # one side closed the connection, as clients do to cancel a request
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()
            if server is not None:
                server.close()

    def _answer(self, client: socket.socket, incoming: BufferedReader, request: "_Head", server: "_Upstream") -> bool:
        """Whether the connection stays open."""
        body = incoming.read(request.length)
        if request.path == _COUNTS:
            _send(client, b"200 OK", json.dumps(self.counts()).encode())
            return True
        faults = self.faults
        self._count("requests")
        is_object = request.method == "GET" and "?" not in request.path and request.path.count("/") > 1
        is_object = is_object and faults.only in request.path
        draw = _Draw(faults.seed, *self._number(request)) if is_object else None
        if faults.latency_seconds:
            time.sleep(faults.latency_seconds)
        if faults.expired_key and f"Credential={faults.expired_key}/" in request.header("authorization"):
            self._count("expired")
            _send(client, b"403 Forbidden", _EXPIRED)
            return True
        if draw is not None and draw.in_burst(faults.busy, faults.busy_burst):
            self._count("busy")
            _send(client, b"503 Slow Down", _SLOW_DOWN)
            return True
        if draw is not None and draw.happens_once("slow", faults.slow):
            self._count("slow")
            if _wait_until_gone(client, faults.slow_seconds):
                return False
        answer, reader = server.ask(request.raw + body)
        return self._relay(client, request, answer, reader, draw)

    def _relay(
        self, client: socket.socket, request: "_Head", answer: "_Head", reader: BufferedReader, draw: "_Draw | None"
    ) -> bool:
        status = answer.path
        if request.method == "HEAD" or status in {"204", "304"}:
            client.sendall(answer.raw)
            return True
        if answer.header("transfer-encoding") == "chunked":
            client.sendall(answer.raw)
            _relay_chunked(client, reader)
            return True
        length, faults = answer.length, self.faults
        sent, flip, stop = 0, None, None
        if draw is not None and status in {"200", "206"} and length:
            if draw.happens_once("flipped", faults.flipped):
                self._count("flipped")
                flip = draw.place(length)
            if draw.happens("cut", faults.cut):
                self._count("cut")
                stop = length // 2
            elif draw.happens("stalled", faults.stalled):
                self._count("stalled")
                stop = length // 2
        client.sendall(answer.raw)
        while sent < length:
            block = reader.read1(min(_BLOCK, length - sent))
            if not block:
                return False
            if flip is not None and sent <= flip < sent + len(block):
                block = block[: flip - sent] + bytes([block[flip - sent] ^ 1 << flip % 8]) + block[flip - sent + 1 :]
            if stop is not None and sent + len(block) >= stop:
                client.sendall(block[: stop - sent])
                if not (draw is not None and draw.happens("cut", faults.cut)):
                    _wait_until_gone(client, 3600)
                return False
            client.sendall(block)
            sent += len(block)
        with self._lock:
            self._counts["bytes"] += length
        return True

    def _number(self, request: "_Head") -> tuple[int, str, int]:
        """The number of the GET, its object and range, and the number of earlier requests for these."""
        what = f"{request.path} {request.header('range')}"
        with self._lock:
            before = self._asked[what]
            self._asked[what] += 1
            number = self._counts["gets"]
            self._counts["gets"] += 1
        return number, what, before

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


@dataclass(frozen=True)
class _Draw:
    """The fault of one GET."""

    seed: int
    number: int
    what: str
    before: int

    def happens(self, fault: str, share: float) -> bool:
        return share > 0 and _unit(self.seed, fault, self.what, self.before) < share

    def happens_once(self, fault: str, share: float) -> bool:
        """No fault if one of the last requests for the same range had it: one read of a client is several requests if
        the client hedges late requests and retries failed ones.
        """
        earlier = (replace(self, before=n) for n in range(max(0, self.before - _REQUESTS_A_READ), self.before))
        return self.happens(fault, share) and not any(each.happens(fault, share) for each in earlier)

    def in_burst(self, share: float, burst: int) -> bool:
        return share > 0 and _unit(self.seed, "busy", self.number // burst) < share

    def place(self, length: int) -> int:
        return int(_unit(self.seed, "place", self.what, self.before) * length)


def _unit(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts alone."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class _Head:
    """A request or an answer without its body. `method` and `path` of an answer are its protocol and its status."""

    raw: bytes
    method: str
    path: str

    @property
    def length(self) -> int:
        return int(self.header("content-length") or 0)

    def header(self, name: str) -> str:
        for line in self.raw.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name:
                return value.strip().decode("latin-1")
        return ""


def _read_head(stream: BufferedReader) -> _Head | None:
    """The message; None at the end of the connection."""
    lines = [stream.readline()]
    if not lines[0]:
        return None
    while lines[-1] not in {b"\r\n", b""}:
        lines.append(stream.readline())
    method, path = lines[0].decode("latin-1").split(" ", 2)[:2]
    return _Head(b"".join(lines), method, path.strip())


class _Upstream:
    """A connection to the server that reconnects if the server closed it between two requests."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connect()

    def ask(self, request: bytes) -> tuple[_Head, BufferedReader]:
        for last in (False, True):
            with suppress(OSError):
                self._socket.sendall(request)
                if (answer := _read_head(self._reader)) is not None:
                    return answer, self._reader
            if not last:
                self.close()
                self._connect()
        raise ConnectionError("the server closed the connection")

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb", _BLOCK)


def _relay_chunked(client: socket.socket, reader: BufferedReader) -> None:
    while True:
        line = reader.readline()
        size = int(line.split(b";")[0], 16)
        client.sendall(line + reader.read(size + 2))
        if size == 0:
            return


def _send(client: socket.socket, status: bytes, body: bytes) -> None:
    client.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def _wait_until_gone(client: socket.socket, seconds: float) -> bool:
    """Whether the client closed the connection within that time."""
    readable, _, _ = select.select([client], [], [], seconds)
    return bool(readable) and not client.recv(1, socket.MSG_PEEK)


@contextmanager
def run_faulty_store(upstream: str, faults: Faults | None = None) -> Iterator[FaultyStore]:
    """The proxy in threads of this process, in front of the server at `upstream`."""
    with closing(FaultyStore(upstream, faults)) as store:
        yield store


@dataclass(frozen=True)
class ProxyProcess:
    """The proxy as a separate process."""

    endpoint: str

    def counts(self) -> dict[str, int]:
        """The counters since the start."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback goes through no proxy
        with opener.open(self.endpoint + _COUNTS, timeout=10) as answer:
            return dict(json.load(answer))


@contextmanager
def run_proxy_process(upstream: str, faults: Faults | None = None) -> Iterator[ProxyProcess]:
    """Start the proxy in front of the server at `upstream`, and stop it at the end."""
    command = [sys.executable, "-m", "tests.support.faulty_store", "--upstream", upstream]
    command += ["--faults", json.dumps(asdict(faults or Faults()))]
    if killer := shutil.which("setpriv"):  # so that a killed measurement leaves no process running
        command = [killer, "--pdeathsig", "KILL", *command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.getenv("PYTHONPATH")]))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise RuntimeError("the proxy does not start")
        yield ProxyProcess(endpoint)
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upstream", required=True, help="address of the S3 server")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every request")
    parser.add_argument("--faults", default="{}", help=f"JSON with {', '.join(f.name for f in fields(Faults))}")
    arguments = parser.parse_args()
    faults = Faults(**json.loads(arguments.faults))
    if arguments.latency_ms:
        faults = replace(faults, latency_seconds=arguments.latency_ms / 1000)
    store = FaultyStore(arguments.upstream, faults)
    print(store.endpoint, flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
