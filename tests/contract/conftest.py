"""The stores that the contract tests use."""

import uuid
from pathlib import Path

import pytest

from data_io.storage.store import Store, open_store
from tests.support.s3_server import S3Server


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store."""
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}/prefix")
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    return open_store(f"{server.uri}/{uuid.uuid4().hex}", server.options)


@pytest.fixture(params=["local", "s3"])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store that other processes can also read."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    return open_store(f"{server.uri}/{uuid.uuid4().hex}", server.options)
