"""Findings of the doctor about other machines than this one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_io.errors import StoreAccessError
from jobs.doctor import machine as doctor
from jobs.doctor.check import Check

GIB = 2**30
CPU: dict[str, Any] = {"version": "2.13.0", "cuda": None, "gpus": [], "varlen_attn": True, "flash_attn": None}
GPU = {**CPU, "cuda": "13.0", "gpus": [{"name": "NVIDIA H200", "memory": 141 * GIB}]}


def torch_checks(facts: dict[str, Any]) -> dict[str, Check]:
    return {check.name: check for check in doctor.check_torch(facts)}


def test_a_cpu_is_sufficient_and_uses_sdpa() -> None:
    checks = torch_checks(CPU)

    assert doctor.can_run(list(checks.values()))
    assert "CPU" in checks["device"].found
    assert "sdpa" in checks["attention kernel"].found


def test_a_gpu_is_reported_with_its_memory_and_the_kernel_of_auto() -> None:
    plain, with_flash = torch_checks(GPU), torch_checks({**GPU, "flash_attn": "2.8.3"})

    assert "NVIDIA H200 (141 GiB)" in plain["device"].found
    assert "varlen_attn" in plain["attention kernel"].found
    assert "flash-attn 2.8.3" in with_flash["attention kernel"].found
    assert torch_checks({**GPU, "varlen_attn": False})["attention kernel"].status == "warn"


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(doctor.check_torch({"error": "No module named 'torch'"})),
        lambda: [doctor.check_library("ray", {"error": "No module named 'ray'"})],
        lambda: [doctor.check_python((3, 10, 4))],
    ],
)
def test_a_missing_requirement_has_a_remedy(make: Callable[[], list[Check]]) -> None:
    checks = make()

    missing = [check for check in checks if check.status == "missing"]
    assert len(missing) == 1
    assert missing[0].remedy
    assert not doctor.can_run(checks)


@pytest.mark.parametrize(
    ("enough", "little"),
    [
        (doctor.check_cpus(2), doctor.check_cpus(1.5)),
        (doctor.check_memory(8 * GIB), doctor.check_memory(3 * GIB)),
        (doctor.check_shared_memory(2 * GIB), doctor.check_shared_memory(64 * 2**20)),
        (doctor.check_disk(9 * GIB, Path("runs")), doctor.check_disk(GIB, Path("runs"))),
    ],
)
def test_scarce_resources_are_only_a_warning(enough: Check, little: Check) -> None:
    assert (enough.status, enough.remedy) == ("ok", None)
    assert little.status == "warn"
    assert little.remedy
    assert doctor.can_run([enough, little])


def test_a_store_is_ok_or_reports_its_error() -> None:
    def refuse() -> list[str]:
        raise StoreAccessError("s3://bucket: access denied to put", remedy="allow s3:PutObject")

    assert doctor.check_store("s3://bucket", lambda: ["put", "get"]).found == "s3://bucket: put, get"
    assert doctor.check_store("s3://bucket", refuse) == Check(
        "store", "missing", "s3://bucket: access denied to put", "allow s3:PutObject"
    )


def test_this_machine_has_cpus_and_memory() -> None:
    assert doctor._cpus() >= 1
    assert doctor._memory_bytes() > 2**28


def test_a_probe_prints_facts_as_its_only_line_whatever_the_library_prints() -> None:
    code = (
        "import sys, types; sys.modules['ray'] = types.SimpleNamespace(__version__='1'); sys.modules['ray.train'] = 1;"
        "from jobs.doctor import library_probes as probes;"
        "probes.PROBES['ray'] = lambda: print('noise') or {'version': '1'};"
        "sys.exit(probes.main('ray'))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == {"version": "1"}
    assert "noise" in done.stderr


def test_an_import_error_of_a_library_is_reported() -> None:
    code = (
        "import sys; from jobs.doctor import library_probes as probes; sys.modules['torch'] = None;"
        "sys.exit(probes.main('torch'))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "torch" in json.loads(done.stdout)["error"]
