"""The files of a path or URI, whether a file has changed, and the lines and columns of a file."""

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_io.user_files.addresses import holds_address
from data_io.user_files.records import find_files, find_text_files, fingerprint, read_records, read_text_lines
from tests.support.http_server import serving_in_a_thread


class Website:
    """One file at /rows.jsonl. `headers` are sent with its length."""

    def __init__(self) -> None:
        self.content = b'{"query": "q", "positive": "p"}\n'
        self.headers: dict[str, str] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                for name, value in {"Content-Length": str(len(site.content)), **site.headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                self.wfile.write(site.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/rows.jsonl"


@pytest.fixture
def website() -> Iterator[Website]:
    website = Website()
    with serving_in_a_thread(website.server):
        yield website


@pytest.mark.parametrize(
    "headers", [{"ETag": '"1"'}, {"Last-Modified": "Sat, 03 Jan 2026 10:00:00 GMT"}, {"Content-MD5": "abc"}]
)
def test_a_file_on_https_is_unchanged_while_the_server_says_so(website: Website, headers: dict[str, str]) -> None:
    website.headers = {**headers, "Date": "now", "Content-Type": "text/plain"}
    before = fingerprint(website.address)

    unchanged = fingerprint(website.address)
    website.headers = {name: f"{value}2" for name, value in website.headers.items()}
    changed = fingerprint(website.address)

    assert unchanged == before
    assert changed != before


def test_a_file_on_https_with_another_size_has_changed(website: Website) -> None:
    website.headers = {"Last-Modified": "Sat, 03 Jan 2026 10:00:00 GMT"}
    before = fingerprint(website.address)

    website.content *= 2

    assert fingerprint(website.address) != before


def test_a_file_without_a_version_from_the_server_never_counts_as_unchanged(website: Website) -> None:
    assert [file.address for file in find_files(website.address)] == [website.address]
    assert fingerprint(website.address) != fingerprint(website.address)


@pytest.mark.parametrize("name", ["texts.txt", "TEXTS.TXT", "texts.txt.gz"])
def test_lines_of_plain_text_come_decompressed_with_their_place_and_without_a_byte_order_mark(
    tmp_path: Path, name: str
) -> None:
    content = b"\xef\xbb\xbffirst text\r\n\n  second text"
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    lines = [line for file in find_text_files(str(path), remedy="") for line in read_text_lines(file)]

    assert lines == [(f"{path}, line 1", "first text"), (f"{path}, line 2", ""), (f"{path}, line 3", "second text")]


def write(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"query": "q", "positive": "p"}\n')
    return str(path)


def names(address: str) -> list[str]:
    return [file.address for file in find_files(address)]


@pytest.mark.parametrize("name", ["data[1].jsonl", "what?.jsonl", "all*.jsonl"])
def test_an_existing_file_is_not_a_glob(tmp_path: Path, name: str) -> None:
    address = write(tmp_path / name)
    write(tmp_path / "data1.jsonl")
    write(tmp_path / "allow.jsonl")
    (tmp_path / "texts[1].txt").write_text("a text")

    assert names(address) == [address]
    assert [next(iter(read_records(file, ())))[0] for file in find_files(address)] == [f"{address}, line 1"]
    assert len(find_text_files(str(tmp_path / "texts[1].txt"), remedy="")) == 1


def test_an_existing_directory_is_not_a_glob(tmp_path: Path) -> None:
    address = write(tmp_path / "data[1]" / "rows.jsonl")

    assert names(str(tmp_path / "data[1]")) == [address]


def test_a_path_that_does_not_exist_is_a_glob(tmp_path: Path) -> None:
    first, second = write(tmp_path / "data1.jsonl"), write(tmp_path / "data2.jsonl")
    write(tmp_path / "data3.jsonl")

    assert names(str(tmp_path / "data[12].jsonl")) == [first, second]


@pytest.mark.parametrize(
    ("address", "data", "holds"),
    [
        ("s3://bucket/raw", "s3://bucket/raw", True),
        ("s3://bucket/raw/", "s3://bucket/raw/set", True),
        ("s3://bucket", "s3://bucket/set", True),
        ("s3://bucket/raw", "s3://bucket/raw2", False),
        ("s3://bucket/raw/rows.jsonl", "s3://bucket/raw", False),
        ("s3://bucket/raw/*.jsonl", "s3://bucket/raw", False),
        ("s3://bucket/raw", "/bucket/raw", False),
        ("https://host/raw", "/raw", False),
        ("/", "/raw", True),
        ("/", "s3://bucket/raw", False),
    ],
)
def test_a_directory_contains_its_own_path_and_those_below(address: str, data: str, holds: bool) -> None:
    assert holds_address(address, data) == holds


def test_hidden_files_below_a_directory_are_not_data(tmp_path: Path) -> None:
    folder = tmp_path / ".given" / "fold"
    address = write(folder / "x.jsonl")
    write(folder / ".ipynb_checkpoints" / "x.jsonl")
    write(folder / "deep" / ".x.jsonl")

    assert names(str(folder)) == names(f"{folder}/") == [address]
    assert names(str(folder / "deep" / ".x.jsonl")) == [str(folder / "deep" / ".x.jsonl")]
