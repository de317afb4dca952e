"""What all tests share: a quiet environment, and a real S3 server for those that ask for one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.s3_server import S3Server, find_server, run_s3_server

# Set before anything is imported or started: nothing is fetched, nothing is reported home, everything runs on the CPU.
os.environ.update({"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"})
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# Tests run side by side, and their tensors are small: threads of torch's own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
    del os.environ[name]  # the developer's own credentials are none of a test's business

# A slow moment of the machine is not a broken law.
settings.register_profile("f2llm", deadline=None)
settings.load_profile("f2llm")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the session (one for each worker of pytest-xdist), stopped at its end."""
    program = find_server()
    if program is None:
        reason = "there is no S3 server here: run tools/s3-server.sh to build it (it needs a Go compiler)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with run_s3_server(program, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, its root user's credentials in the environment for the length of the test."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def project_root() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent
