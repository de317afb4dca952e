"""The memory of a process, as Linux counts it."""

import re
from pathlib import Path
from typing import Literal


def memory_mib(what: Literal["VmRSS", "VmHWM"], process: int | str = "self") -> int:
    """Resident memory now (VmRSS), or the most since `forget_the_peak` (VmHWM), in MiB."""
    (kib,) = re.findall(rf"{what}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(kib) // 1024


def forget_the_peak() -> None:
    """Count the most memory of this process from now on."""
    Path("/proc/self/clear_refs").write_text("5")
