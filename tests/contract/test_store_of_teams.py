"""The script that sets up the teams in the platform chart's store, against a real S3 server."""

import os
import subprocess
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.support.s3_server import S3Server, find_server

SCRIPT = Path(__file__).parents[2] / "helm" / "f2llm-platform" / "files" / "store-setup.sh"


def set_up(s3: S3Server, folder: Path, **keys: str) -> None:
    """Run the script for teams with these keys, as the chart's Job does."""
    for team, key in keys.items():
        (folder / team.replace("_", "-")).write_text(key)
    environment = {
        "PATH": os.environ["PATH"],
        "PROGRAM": str(find_server()),
        "ADMIN_ENDPOINT_URL": s3.endpoint,
        "ADMIN_ACCESS_KEY_ID": s3.access_key,
        "ADMIN_SECRET_ACCESS_KEY": s3.secret_key,
    }
    done = subprocess.run(
        ["sh", str(SCRIPT), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def store(s3: S3Server, bucket: str, team: str, key: str) -> S3Store:
    return S3Store(
        bucket,
        endpoint=s3.endpoint,
        access_key_id=team,
        secret_access_key=key,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def test_a_team_can_use_its_own_bucket_and_no_other(s3: S3Server, tmp_path: Path) -> None:
    set_up(s3, tmp_path, team_a="a" * 40, team_b="b" * 40)
    own, others = store(s3, "team-a", "team-a", "a" * 40), store(s3, "team-a", "team-b", "b" * 40)

    obstore.put(own, "runs/one/model", b"weights")

    assert bytes(obstore.get(own, "runs/one/model").bytes()) == b"weights"
    for call in (
        lambda: obstore.get(others, "runs/one/model"),
        lambda: obstore.put(others, "runs/one/model", b"other"),
        lambda: obstore.delete(others, "runs/one/model"),
        lambda: obstore.list(others).collect(),
    ):
        with pytest.raises(BaseError, match=r"AccessDenied|Forbidden|403"):
            call()


def test_a_second_run_changes_keys_and_deletes_nothing(s3: S3Server, tmp_path: Path) -> None:
    set_up(s3, tmp_path, team_c="c" * 40)
    obstore.put(store(s3, "team-c", "team-c", "c" * 40), "model", b"weights")

    set_up(s3, tmp_path, team_c="d" * 40, team_d="e" * 40)

    assert bytes(obstore.get(store(s3, "team-c", "team-c", "d" * 40), "model").bytes()) == b"weights"
    with pytest.raises(BaseError):
        obstore.get(store(s3, "team-c", "team-c", "c" * 40), "model")
    obstore.put(store(s3, "team-d", "team-d", "e" * 40), "model", b"weights")
