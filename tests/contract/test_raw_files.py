"""Users' own files on a real S3 server."""

from collections.abc import Iterator

import pytest
import s3fs

from data_io.errors import DataError, F2LLMError, StorageError, StoreAccessError
from data_io.user_files.columns import open_rows
from tests.support.s3_server import S3Server, free_port


@pytest.fixture
def folder(s3: S3Server) -> Iterator[str]:
    """A directory with two files in its own bucket. s3fs caches clients, so each test begins without any."""
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = s3.make_bucket()
    raw = s3.folder / bucket / "raw"
    raw.mkdir()
    for name in ("b", "a"):
        raw.joinpath(f"{name}.jsonl").write_text(f'{{"query": "{name}", "positive": "p"}}\n' * 3)
    yield f"s3://{bucket}/raw"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(("suffix", "queries"), [("/a.jsonl", "aaa"), ("/*.jsonl", "aaabbb"), ("", "aaabbb")])
def test_files_are_read_from_a_bucket(folder: str, suffix: str, queries: str) -> None:
    rows = list(open_rows(folder + suffix))

    assert [row.query for row in rows] == list(queries)
    assert rows[0].place == f"{folder}/a.jsonl, line 1"


@pytest.mark.parametrize("suffix", ["/absent.jsonl", "/*.parquet"])
def test_a_missing_file_is_named(folder: str, suffix: str) -> None:
    with pytest.raises(DataError, match=r"no data file at s3://.*"):
        open_rows(folder + suffix)


@pytest.mark.parametrize("suffix", ["/a.jsonl", "/*.jsonl", ""])
def test_a_refusal_is_reported_without_the_secret(
    s3: S3Server, folder: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.stranger_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.stranger_secret_key)

    with pytest.raises(F2LLMError, match=r"access denied") as caught:
        list(open_rows(folder + suffix))
    assert isinstance(caught.value, StoreAccessError)
    assert s3.stranger_secret_key not in str(caught.value)


def test_an_unreachable_service_is_a_retryable_error(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")

    with pytest.raises(StorageError, match="failed: Could not connect") as caught:
        open_rows(f"{folder}/a.jsonl")
    assert caught.value.retryable


def test_missing_credentials_are_reported(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(StoreAccessError, match="found no credentials"):
        open_rows(f"{folder}/a.jsonl")
