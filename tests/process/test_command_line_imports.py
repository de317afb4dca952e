"""The command line starts fast: it loads no libraries for computing, storage or plots."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "ray", "deepspeed", "transformers", "pyarrow", "numpy", "obstore", "tokenizers", "kopf", "kubernetes",
    "datasets", "mteb", "starlette", "orjson", "faiss", "sklearn",
)  # fmt: skip
# Not heavy, but not needed for `--help` and `--version`: pydantic and rich take longer than everything else together.
NOT_FOR_HELP = (*HEAVY, "pydantic", "rich", "yaml")


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    tail = "import json, sys; sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    loaded = modules_after("import jobs.cli.app")

    assert "jobs" in loaded
    assert loaded.isdisjoint(NOT_FOR_HELP)


@pytest.mark.parametrize(
    ("arguments", "not_loaded"),
    [
        (["--help"], NOT_FOR_HELP),
        (["--version"], NOT_FOR_HELP),
        (["run", "--help"], HEAVY),
        (["runs", "--help"], HEAVY),
        (["serve", "--help"], HEAVY),
        (["doctor", "--help"], HEAVY),
        (["data", "prepare", "files", "--help"], HEAVY),
        (["data", "sources"], HEAVY),
    ],
)
def test_help_and_lists_load_nothing_heavy(arguments: list[str], not_loaded: tuple[str, ...]) -> None:
    loaded = modules_after(f"from jobs.cli.app import call; assert call({arguments!r}) == 0")

    assert loaded.isdisjoint(not_loaded)


def test_a_job_spec_is_validated_without_anything_heavy() -> None:
    code = (
        "from jobs.spec.demo import demo_job_spec; from pathlib import Path; import json, tempfile;"
        "from jobs.cli.app import call; directory = Path(tempfile.mkdtemp()); file = directory / 'job.json';"
        "file.write_text(json.dumps(demo_job_spec(directory)));"
        "assert call(['validate', str(file)]) == 0; file.unlink(); directory.rmdir()"
    )

    loaded = modules_after(code)

    assert "pydantic" in loaded
    assert loaded.isdisjoint(HEAVY)
