"""Every call that can run code from data, or fill the memory with it, is listed here with the reason why it is safe.

A new call fails the test. Use `data_io.bounded_json` and `data_io.bounded_yaml` for text, safetensors for arrays.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("data_io", "ray_app", "applications", "jobs", "tools")

WATCHED = {
    "ast.literal_eval", "cloudpickle", "dill", "eval", "exec", "extract", "extractall", "faiss.read_index",
    "from_pretrained", "joblib", "json.load", "json.loads", "marshal", "model_validate_json", "np.load", "numpy.load",
    "orjson.loads", "pd.read_pickle", "pickle", "safe_open", "SentenceTransformer", "shelve", "tarfile", "torch.load",
    "trust_remote_code", "unpack_archive", "yaml.full_load", "yaml.load", "yaml.unsafe_load", "zipfile",
}  # fmt: skip
"""Calls by name, modules whose import is watched, and a keyword argument."""

ALLOWED = {
    ("data_io/bounded_json.py", "json.loads"): "the reader of all stored JSON: bounds depth and numbers",
    ("data_io/bounded_yaml.py", "yaml.load"): "BoundedLoader, a SafeLoader with bounds",
    ("data_io/dataset/provenance.py", "json.loads"): "of a text that this function has just made",
    ("data_io/demo/docstrings.py", "ast.literal_eval"): "source code of installed packages; literals only",
    ("data_io/dataset/manifest.py", "model_validate_json"): "pydantic's reader: bounds depth and digits",
    ("data_io/storage/chunk_files.py", "model_validate_json"): "pydantic's reader: bounds depth and digits",
    (
        "ray_app/run_directory/checkpoint_manifest.py",
        "model_validate_json",
    ): "pydantic's reader; the checksum is checked",
    ("ray_app/evaluation/mteb_task.py", "model_validate_json"): "mteb's model of its own result files",
    ("data_io/user_files/records.py", "json.loads"): "a line of the user's own files; too deep a line is named",
    (
        "ray_app/checkpointing/weights.py",
        "safe_open",
    ): "safetensors has no code; files outside of the directory are refused",
    ("ray_app/export/model_folder.py", "json.loads"): "of a text that transformers has just made",
    ("ray_app/ray_runtime/dashboards.py", "json.loads"): "dashboards of the installed Ray",
    ("ray_app/serving/request.py", "orjson.loads"): "bounds depth; the server bounds the length of a request",
    (
        "ray_app/models/loading.py",
        "from_pretrained",
    ): "with trust_remote_code=False; transformers loads weights without code",
    ("ray_app/models/loading.py", "trust_remote_code"): "False",
    ("ray_app/inference/sentence_transformer.py", "SentenceTransformer"): "with trust_remote_code=False",
    ("ray_app/inference/sentence_transformer.py", "trust_remote_code"): "False",
    ("applications/vectors.py", "faiss.read_index"): "only of the two kinds whose numbers faiss 1.15 checks",
    ("jobs/cli/options.py", "json.loads"): "of a text that this function has just made",
    ("jobs/doctor/machine.py", "json.loads"): "output of a process of doctor",
    ("jobs/kube/api.py", "json.loads"): "answers of the API server, which bounds objects and their depth",
    ("jobs/spec/job.py", "json.loads"): "of a value that was read with bounds",
    ("jobs/spec/job.py", "model_validate_json"): "of a value that was read with bounds",
    ("jobs/spec/sources_file.py", "model_validate_json"): "of a value that was read with bounds",
    ("jobs/spec/study.py", "model_validate_json"): "of a value that was read with bounds",
    ("jobs/spec/yaml12.py", "json.loads"): "bounds length, depth and digits",
    ("tools/generate/chart_readme.py", "json.loads"): "files of this repository",
    ("tools/generate/dashboards/grafana_json.py", "json.loads"): "of a text that this function has just made",
}
"""By file and call, why it is safe."""


def found_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call():
                names = {ast.unparse(node.func), _method(node.func)}
                yield from names & WATCHED
                yield from (each.arg for each in node.keywords if each.arg in WATCHED)
            case ast.Import():
                yield from (each.name for each in node.names if each.name.partition(".")[0] in WATCHED)
            case ast.ImportFrom():
                if (node.module or "").partition(".")[0] in WATCHED:
                    yield str(node.module)


def _method(function: ast.expr) -> str:
    """The name of a called method. `model.eval()` of torch runs no text."""
    return function.attr if isinstance(function, ast.Attribute) and function.attr != "eval" else ""


def all_found() -> set[tuple[str, str]]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {(path.relative_to(ROOT).as_posix(), name) for path in paths for name in found_in(path)}


def test_every_call_that_can_run_code_from_data_is_listed_with_its_reason() -> None:
    assert all_found() - ALLOWED.keys() == set()


def test_no_reason_is_left_of_a_call_that_is_gone() -> None:
    assert ALLOWED.keys() - all_found() == set()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import pickle", "pickle"),
        ("from torch import load\nimport torch\ntorch.load(x)", "torch.load"),
        ("import numpy as np\nnp.load(x, allow_pickle=True)", "np.load"),
        ("yaml.load(x, Loader=yaml.Loader)", "yaml.load"),
        ("AutoModel.from_pretrained(x)", "from_pretrained"),
        ("f(trust_remote_code=True)", "trust_remote_code"),
        ("with tarfile.open(x) as t:\n    t.extractall()", "extractall"),
        ("eval(x)", "eval"),
    ],
)
def test_such_a_call_is_found(tmp_path: Path, code: str, name: str) -> None:
    (tmp_path / "new.py").write_text(code)

    assert name in set(found_in(tmp_path / "new.py"))
