"""`make lint` checks the layers: a forbidden import, a cycle or a file outside every package makes it fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("data_io", "ray_app", "applications", "jobs", "tools")

PLANTED = {
    # file to write -> (its text, the message that lint-imports must print)
    "data_io/storage/wrong.py": (
        "import data_io.dataset.manifest\n",
        "data_io.storage is not allowed to import data_io.dataset",
    ),
    "data_io/user_files/wrong.py": (
        "import data_io.loading.loader\n",
        "data_io.user_files is not allowed to import data_io.loading",
    ),
    "data_io/sources/wrong_below.py": ("import ray_app.job_spec\n", "data_io is not allowed to import ray_app"),
    "data_io/curation/wrong.py": ("import obstore\n", "data_io.curation.wrong -> obstore"),
    "ray_app/models/wrong.py": (
        "import ray_app.training.losses\n",
        "ray_app.models is not allowed to import ray_app.training",
    ),
    "ray_app/export/wrong.py": ("import ray_app.training.engine\n", "ray_app.export.wrong -> ray_app.training.engine"),
    "ray_app/evaluation/wrong.py": ("import ray\n", "ray_app.evaluation.wrong -> ray"),
    "ray_app/run_directory/wrong.py": ("import torch\n", "ray_app.run_directory.wrong -> torch"),
    "applications/wrong.py": ("import jobs.errors\n", "applications is not allowed to import jobs"),
    "jobs/spec/wrong.py": ("import jobs.kube.names\n", "jobs.spec is not allowed to import jobs.kube"),
    "jobs/manifests/wrong.py": ("import jobs.kube.api\n", "jobs.manifests.wrong -> jobs.kube.api"),
    "jobs/doctor/wrong.py": ("import jobs.workflows.data\n", "jobs.doctor.wrong -> jobs.workflows.data"),
    "jobs/controller/wrong.py": (
        "import ray_app.ray_runtime.cluster\n",
        "jobs.controller.wrong -> ray_app.ray_runtime",
    ),
    "data_io/stray.py": ("", "data_io.stray"),
    "ray_app/stray.py": ("", "ray_app.stray"),
    "jobs/stray.py": ("", "jobs.stray"),
    "jobs/cli/one.py": ("import jobs.cli.two\n", "No cycles are allowed in jobs.cli"),
    "jobs/cli/two.py": ("import jobs.cli.one\n", ".one"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> str:
    """The output of lint-imports for a copy of the project that has all wrong files."""
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(pytestconfig.rootpath / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(pytestconfig.rootpath / "pyproject.toml", folder)
    for file, (text, _) in PLANTED.items():
        (folder / file).write_text(text)
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 1, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("file", PLANTED)
def test_a_forbidden_import_is_named(file: str, said: str) -> None:
    assert PLANTED[file][1] in said


def test_a_module_level_import_of_a_heavy_module_in_the_command_line_is_refused(project_root: Path) -> None:
    wrong = "from jobs.workflows.data import data_size\n"
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "jobs/cli/wrong.py", "-"]

    done = subprocess.run(command, input=wrong, capture_output=True, text=True, cwd=project_root, check=False)

    assert done.returncode == 1
    assert "TID253" in done.stdout
