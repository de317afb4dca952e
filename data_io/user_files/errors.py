"""What file systems and decoders say about a user's file, as errors that a user can read."""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from data_io.errors import DataError, F2LLMError, StorageError, StoreAccessError

_BZ2, _ZSTD, _CUT_ZSTD = "Invalid data stream", "ZSTD decompress failed", "Truncated compressed stream"
"""What an OSError says that is a decoder's and not the file system's."""
_UNDECODABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
# Errors of these libraries come through fsspec as they are; importing them to name the classes would take a second.
_NETWORK_LIBRARIES = ("botocore", "aiobotocore", "aiohttp")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError")


@contextmanager
def readable_errors(address: str) -> Iterator[None]:
    """Turns what fsspec and the decoders raise in the `with` block into DataError, StoreAccessError or StorageError."""
    try:
        yield
    except Exception as error:
        translated = _translate(error, address)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception, address: str) -> F2LLMError | None:
    """None for what is not an error of reading."""
    if isinstance(error, F2LLMError):
        return None
    name, library = type(error).__name__, type(error).__module__.partition(".")[0]
    if isinstance(error, FileNotFoundError):
        return DataError(f"no data file at {address}", remedy="check the path for a typing error")
    if name in _NO_CREDENTIALS:
        return StoreAccessError(
            f"reading {address}: found no credentials",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile of ~/.aws",
        )
    if isinstance(error, PermissionError):
        return StoreAccessError(
            f"reading {address} was refused",
            remedy="check the credentials in the environment, or the file's permissions",
        )
    if isinstance(error, _UNDECODABLE) or any(text in str(error) for text in (_BZ2, _ZSTD)):
        reason = str(error).splitlines()[0]
        return DataError(f"{address} cannot be decoded: {reason}", remedy="write the file again, or fetch it again")
    if isinstance(error, EOFError) or _CUT_ZSTD in str(error):
        return DataError(f"{address} is cut short: its compressed data end too early", remedy="fetch it again")
    if isinstance(error, OSError) or library in _NETWORK_LIBRARIES:
        return StorageError(
            f"reading {address} failed: {error}", remedy="see whether it can be read at all, then try again"
        )
    if isinstance(error, (ValueError, ImportError)) and "rotocol" in str(error):
        return DataError(f"{address}: {error}", remedy="use a local path, s3:// or https://")
    return None
