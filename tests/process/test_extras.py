"""A library that is not installed is named with the extra that installs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.extras import install_hint, needs


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("obstore", ("plan", "k8s/samples/demo-cpu.yaml"), "data"),
        ("ray", ("run", "k8s/samples/demo-cpu.yaml"), "train"),
        ("torch", ("export", "runs/none"), "train"),
        ("starlette", ("serve", "runs/none"), "serve"),
        ("faiss", ("index", "texts.jsonl", "out", "--model", "m"), "applications"),
        ("kubernetes", ("list",), "cluster"),
    ],
)
def test_a_missing_library_is_reported_with_its_extra(library: str, arguments: tuple[str, ...], extra: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"  # an import of it now fails as if it were not installed
        f"from jobs.cli.app import call; sys.exit(call({list(arguments)!r}))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 3
    assert library in done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr


def test_an_installed_wheel_names_the_wheel_in_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("jobs.extras._CLONE", tmp_path)

    assert "pip install 'f2llm_ray-VERSION-py3-none-any.whl[train]'" in install_hint("train")


def test_a_missing_module_of_this_project_is_a_bug_and_not_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError), needs("train"):
        import ray_app.nowhere  # type: ignore[import-not-found]  # noqa: F401
