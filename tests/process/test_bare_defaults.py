"""The environment of a user who sets nothing: no endpoint, no region, often no credentials, an empty home directory.

Every other test sets them, which once hid that plain `s3://` was broken. Nothing here reaches a network: all requests
go to a proxy of the test, which records the host and refuses the request.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.http_server import serving_in_a_thread

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-nobody", "AWS_SECRET_ACCESS_KEY": "secret-of-nobody"}
AWS = "s3.us-east-1.amazonaws.com:443"
RUN = "s3://my-bucket/runs/my-embedder"
# Packages of the extras benchmark, cluster and operator: tests have all extras, a user has only that of training.
NOT_WITH_TRAIN = ("mteb", "kubernetes", "kopf")

# The commands of README.md and docs/, each with the first object that it requests.
COMMANDS = {
    "run k8s/samples/f2llm-0.6b.yaml --dry-run": "s3://my-bucket/f2llm-data/manifest.json",
    "run k8s/samples/f2llm-0.6b.yaml": "s3://my-bucket/f2llm-data/manifest.json",
    "plan k8s/samples/f2llm-0.6b.yaml": "s3://my-bucket/f2llm-data/manifest.json",
    "plan k8s/samples/f2llm-0.6b-spot.yaml": "s3://my-bucket/f2llm-data/manifest.json",
    "plan k8s/samples/f2llm-0.6b-kueue.yaml": "s3://my-bucket/f2llm-data/manifest.json",
    "plan k8s/samples/f2llm-1.7b.yaml": "s3://my-bucket/f2llm-data/manifest.json",
    "plan k8s/samples/f2llm-4b.yaml": "s3://my-bucket/f2llm-data/manifest.json",
    f"status {RUN}": f"{RUN}/status.json",
    f"report {RUN}": f"{RUN}/job.yaml",
    "runs s3://my-bucket/runs": "s3://my-bucket/runs",
    f"export {RUN}": f"{RUN}/job.yaml",
    f"evaluate {RUN}": f"{RUN}/job.yaml",
    f"merge {RUN} --out s3://my-bucket/merged": f"{RUN}/job.yaml",
    f"embed {RUN} s3://my-bucket/texts s3://my-bucket/vectors": f"{RUN}/config_sentence_transformers.json",
    f"serve {RUN}": f"{RUN}/config_sentence_transformers.json",
    f"index s3://my-bucket/texts s3://my-bucket/index --model {RUN}": f"{RUN}/config_sentence_transformers.json",
    "search s3://my-bucket/index question": "s3://my-bucket/index/index.json",
    f"cluster s3://my-bucket/texts s3://my-bucket/map --model {RUN}": f"{RUN}/config_sentence_transformers.json",
    "classify predict s3://my-bucket/probe s3://my-bucket/texts s3://my-bucket/labels": "s3://my-bucket/probe/probe.json",
    "data validate s3://my-bucket/data": "s3://my-bucket/data/manifest.json",
    "data stats s3://my-bucket/data": "s3://my-bucket/data/manifest.json",
    "data contamination s3://my-bucket/data": "s3://my-bucket/data/manifest.json",
}


class Proxy:
    """Refuses every request, and records its host, for example `host:443`."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def refuse(self) -> None:
                asked.add(self.path)
                self.send_error(502)

            do_CONNECT = do_GET = do_PUT = do_POST = do_HEAD = refuse

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def environment(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.server.server_port}"
        return {"HTTP_PROXY": address, "HTTPS_PROXY": address}


class Ended(NamedTuple):
    code: int
    stderr: str


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    with serving_in_a_thread(proxy.server):
        yield proxy


@pytest.fixture(autouse=True)
def forgotten(proxy: Proxy) -> None:
    proxy.asked.clear()


def call_bare(commands: Iterable[str], *environments: Mapping[str, str], home: Path) -> list[list[Ended]]:
    """Run each command in each environment without other variables, in one process that loads torch only once.

    Libraries that the extra `train` does not install cannot be imported.
    """
    program = (
        "import contextlib, io, json, os, sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_WITH_TRAIN!r}))\n"
        "from data_io.storage import store\n"
        "from jobs.cli.app import call\n"
        "def said(command):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as out:\n"
        "        return call(command.split(' ')), out.getvalue()\n"
        "store.FIRST_ANSWER_SECONDS = 0.3\n"
        "ended = []\n"
        "for environment in json.loads(sys.argv[2]):\n"
        "    os.environ.update(environment)\n"
        "    store._clients.clear()\n"
        "    ended.append([said(command) for command in json.loads(sys.argv[1])])\n"
        "    for name in environment:\n"
        "        del os.environ[name]\n"
        "sys.stdout.write('\\n' + json.dumps(ended))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(list(commands)), json.dumps(environments)],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [[Ended(*each) for each in group] for group in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def ended(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Ended, Ended]]:
    """The result of each command without credentials, and with keys that do not exist."""
    environments = (proxy.environment, {**proxy.environment, **KEYS})
    without, with_keys = call_bare(COMMANDS, *environments, home=tmp_path_factory.mktemp("home"))
    return dict(zip(COMMANDS, zip(without, with_keys, strict=True), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_without_credentials_a_command_reports_that_it_found_none(
    ended: dict[str, tuple[Ended, Ended]], command: str
) -> None:
    without, _ = ended[command]

    assert without.code == 5
    assert without.stderr.startswith(f"error: {COMMANDS[command]} ")
    assert "found no credentials" in without.stderr
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in without.stderr
    assert "aws configure export-credentials" in without.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_with_only_keys_aws_is_contacted_and_named_if_it_does_not_answer(
    ended: dict[str, tuple[Ended, Ended]], command: str
) -> None:
    _, with_keys = ended[command]

    assert with_keys.code == 5
    assert with_keys.stderr.startswith(
        f"error: {COMMANDS[command]} (endpoint https://s3.us-east-1.amazonaws.com): cannot connect"
    )
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in with_keys.stderr


@pytest.mark.parametrize(
    ("environment", "asked", "named"),
    [
        ({}, AWS, "https://s3.us-east-1.amazonaws.com"),
        ({"AWS_REGION": "eu-central-1"}, "s3.eu-central-1.amazonaws.com:443", "https://s3.eu-central-1.amazonaws.com"),
        ({"AWS_REGION": "cn-north-1"}, "s3.cn-north-1.amazonaws.com.cn:443", "https://s3.cn-north-1.amazonaws.com.cn"),
        ({"AWS_ENDPOINT_URL": "", "AWS_REGION": ""}, AWS, "https://s3.us-east-1.amazonaws.com"),
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, AWS, "https://s3.us-east-1.amazonaws.com"),
        ({"AWS_ENDPOINT": "https://store.example:9000"}, "store.example:9000", "https://store.example:9000"),
    ],
)
def test_the_host_in_a_message_is_the_contacted_host(
    proxy: Proxy, tmp_path: Path, environment: dict[str, str], asked: str, named: str
) -> None:
    [[ended]] = call_bare([f"status {RUN}"], {**proxy.environment, **KEYS, **environment}, home=tmp_path)

    assert proxy.asked == {asked}
    assert f"{RUN}/status.json (endpoint {named}): cannot connect" in ended.stderr


@pytest.mark.parametrize(
    ("environment", "code", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "key"}, 3, "AWS_SECRET_ACCESS_KEY is not set, but the other key is"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 3, "AWS_ACCESS_KEY_ID is empty"),
        ({**KEYS, "AWS_ACCESS_KEY_ID": "key\n"}, 3, "AWS_ACCESS_KEY_ID contains white space or a line break"),
        ({**KEYS, "AWS_SESSION_TOKEN": "token\n"}, 3, "AWS_SESSION_TOKEN contains white space or a line break"),
        ({**KEYS, "AWS_REGION": "eu central"}, 3, "'eu central' is not a region"),
        ({**KEYS, "AWS_ENDPOINT_URL": "https://store.example:port"}, 3, "is not a URL"),
        ({**KEYS, "AWS_S3_EXPRESS": ""}, 3, "these are empty: AWS_S3_EXPRESS"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": str(ROOT / "LICENSE"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/nobody"},
            5,
            "AWS's token service gave none for the role in AWS_ROLE_ARN",
        ),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "arn:aws:iam::1:role/nobody"},
            5,
            "the file that AWS_WEB_IDENTITY_TOKEN_FILE names",
        ),
    ],
)
def test_an_environment_that_no_store_accepts_is_a_user_error(
    proxy: Proxy, tmp_path: Path, environment: dict[str, str], code: int, message: str
) -> None:
    [[ended]] = call_bare([f"status {RUN}"], {**proxy.environment, **environment}, home=tmp_path)

    assert (ended.code, message in ended.stderr) == (code, True), ended.stderr
    assert "this is a bug" not in ended.stderr


def test_an_unreachable_hub_is_not_reported_as_a_bug(proxy: Proxy, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": f"q {n}", "positive": f"p {n}"}) + "\n" for n in range(40)))
    data, mined = tmp_path / "data", tmp_path / "mined"
    commands = (
        f"data prepare files {data} --source pairs:retrieval={pairs} -q",
        f"data prepare recipe {mined} squad --max-rows 10 -q",
        f"data mine {data} {mined} --model nobody/nothing -q",
        "serve nobody/nothing -q",
    )

    [[prepared, *ended]] = call_bare(commands, proxy.environment, home=tmp_path)

    assert prepared.code == 0, prepared.stderr
    assert [each.code for each in ended] == [5, 5, 5], ended
    assert all("Hugging Face Hub" in each.stderr and "this is a bug" not in each.stderr for each in ended), ended
    assert proxy.asked == {"huggingface.co:443"}


def test_files_in_a_bucket_are_read_with_credentials_or_their_absence_is_reported(proxy: Proxy, tmp_path: Path) -> None:
    environment = {**proxy.environment, "AWS_EC2_METADATA_DISABLED": "true"}

    [[ended]] = call_bare(
        [f"data prepare files {tmp_path}/data --source pairs:retrieval=s3://my-bucket/pairs.jsonl -q"],
        environment,
        home=tmp_path,
    )

    assert ended.code == 5
    assert ended.stderr.startswith("error: reading s3://my-bucket/pairs.jsonl: found no credentials")
    assert not proxy.asked
