"""Facts about one heavy library on this machine: `python -m jobs.doctor.library_probes NAME`.

It runs in a separate process, since importing torch or DeepSpeed takes seconds and can crash if a driver is broken. It
prints the facts as one JSON object, last on standard output.
"""

import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def probe_torch() -> dict[str, Any]:
    """Version, GPUs with their memory in bytes, and the available attention kernels."""
    torch = import_module("torch")
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append({"name": properties.name, "memory": properties.total_memory})
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "varlen_attn": find_spec("torch.nn.attention.varlen") is not None,
        "flash_attn": _version("flash_attn"),
    }


def probe_ray() -> dict[str, Any]:
    """Version. Importing ray.train proves that the extra is complete."""
    import_module("ray.train")
    return {"version": import_module("ray").__version__}


def probe_deepspeed() -> dict[str, Any]:
    """Version."""
    return {"version": import_module("deepspeed").__version__}


def probe_transformers() -> dict[str, Any]:
    """Version. The class of the backbone must exist."""
    transformers = import_module("transformers")
    _ = transformers.Qwen3Model
    return {"version": transformers.__version__}


PROBES = {
    "torch": probe_torch,
    "ray": probe_ray,
    "deepspeed": probe_deepspeed,
    "transformers": probe_transformers,
}


def _version(module: str) -> str | None:
    try:
        return str(import_module(module).__version__)
    except ImportError:
        return None


def main(name: str) -> int:
    """Print the facts of one library, or its import error. Returns the exit code."""
    out = os.dup(1)
    os.dup2(2, 1)  # libraries print to standard output while they load
    try:
        facts, code = PROBES[name](), 0
    except ImportError as error:
        facts, code = {"error": str(error)}, 1
    os.write(out, json.dumps(facts).encode() + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
