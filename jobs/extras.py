"""Optional dependencies: the extra of this package that installs a library, and the error that names it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from jobs.errors import ConfigError

Extra = Literal["data", "train", "serve", "benchmark", "applications", "cluster", "flash-attn"]

_CLONE = Path(__file__).parents[1]
_WHEEL = "f2llm_ray-VERSION-py3-none-any.whl"
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
    """Use it around the import of a module of `jobs.workflows` whose libraries the extra installs.

    With `quiet` (default: True), libraries print neither progress bars nor advice; this must be set before they are
    imported. Raises ConfigError that names the extra if a library is not installed. A missing module of this project is
    a bug and stays an ImportError.
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
            remedy=f"{install_hint(_EXTRA_OF.get(library, extra))}; `f2llm doctor` shows what is installed",
        ) from error


def install_hint(extra: Extra) -> str:
    """The command that installs an extra: from the clone that this program runs from, or from a wheel.

    f2llm-ray is not on PyPI, so its name alone installs nothing.
    """
    if (_CLONE / "pyproject.toml").is_file():
        return f"run `pip install '.[{extra}]'` in {_CLONE}"
    return f"run `pip install '{_WHEEL}[{extra}]'` with the path of your wheel"


def missing_data_libraries() -> list[str]:
    """Libraries of the extra `data` that are not installed."""
    return [name for name in _DATA_LIBRARIES if find_spec(name) is None]


def quiet_libraries() -> None:
    """Turn off progress bars and advice of libraries that are imported later, unless the environment asks for them."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"torch\.")
