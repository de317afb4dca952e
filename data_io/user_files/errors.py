"""Translates errors of file systems and decoders about a user's file."""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from data_io.errors import DataError, F2LLMError, StorageError, StoreAccessError

_BZ2, _ZSTD, _CUT_ZSTD = "Invalid data stream", "ZSTD decompress failed", "Truncated compressed stream"
"""Texts of OSErrors that come from a decoder, not from the file system."""
_UNDECODABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
# fsspec passes errors of these libraries on unchanged. Importing the libraries to name the classes takes a second.
_NETWORK_LIBRARIES = ("botocore", "aiobotocore", "aiohttp")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")


@contextmanager
def readable_errors(address: str) -> Iterator[None]:
    """Turns errors of fsspec and the decoders in the `with` block into DataError, StoreAccessError or StorageError."""
    try:
        yield
    except Exception as error:
        translated = _translate(error, address)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception, address: str) -> F2LLMError | None:
    """The project's error. None if this is not an error of reading."""
    if isinstance(error, F2LLMError):
        return None
    name, library = type(error).__name__, type(error).__module__.partition(".")[0]
    if isinstance(error, FileNotFoundError):
        return DataError(f"no data file at {address}", remedy="check the path for a typo")
    if name in _NO_CREDENTIALS:
        return StoreAccessError(
            f"reading {address}: found no credentials",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile of ~/.aws",
        )
    if isinstance(error, PermissionError):
        return StoreAccessError(
            f"reading {address}: access denied",
            remedy="check the credentials in the environment, or the file's permissions",
        )
    if isinstance(error, _UNDECODABLE) or any(text in str(error) for text in (_BZ2, _ZSTD)):
        reason = str(error).splitlines()[0]
        return DataError(f"{address} cannot be decoded: {reason}", remedy="write the file again, or download it again")
    if isinstance(error, EOFError) or _CUT_ZSTD in str(error):
        return DataError(f"{address} is truncated: its compressed data end too early", remedy="download it again")
    if isinstance(error, OSError) or library in _NETWORK_LIBRARIES:
        return StorageError(
            f"reading {address} failed: {error}", remedy="check that the file can be read, then try again"
        )
    if isinstance(error, (ValueError, ImportError)) and "rotocol" in str(error):
        return DataError(f"{address}: {error}", remedy="use a local path, s3:// or https://")
    return None
