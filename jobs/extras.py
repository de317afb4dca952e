"""Optional dependencies: which extra of the package brings a library, and the error that names it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

from jobs.errors import ConfigError

Extra = Literal["data", "train", "serve", "benchmark", "applications", "cluster", "flash-attn"]

_DATA_LIBRARIES = ("numpy", "obstore", "pyarrow", "tokenizers", "xxhash")
_OURS = ("data_io", "ray_app", "applications", "jobs")
_EXTRA_OF: dict[str, Extra] = {
    "kubernetes": "cluster",
    "mteb": "benchmark",
    "faiss": "applications",
    "sklearn": "applications",
}


@contextmanager
def needs(extra: Extra, *, quiet: bool = True) -> Iterator[None]:
    """Around the import of a module of `jobs.workflows`, whose libraries the extra installs.

    With `quiet` (default: True) libraries are told to print neither progress bars nor advice, which must be said before
    they are imported. Raises ConfigError that names the extra when a library is not installed; a missing module of this
    project is a bug and stays an ImportError.
    """
    if quiet:
        quiet_libraries()
    try:
        yield
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library in _OURS:
            raise
        raise ConfigError(
            f"a library that this command needs cannot be loaded: {error}",
            remedy=f"{install_hint(_EXTRA_OF.get(library, extra))} (what is installed: `f2llm doctor`)",
        ) from error


def install_hint(extra: Extra) -> str:
    """The command that installs an extra."""
    return f"pip install 'f2llm-ray[{extra}]'"


def missing_data_libraries() -> list[str]:
    """Libraries of the extra `data` that are not installed."""
    return [name for name in _DATA_LIBRARIES if find_spec(name) is None]


def quiet_libraries() -> None:
    """Turn off progress bars and advice of libraries imported from now on, unless the environment asks for them."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"torch\.")
