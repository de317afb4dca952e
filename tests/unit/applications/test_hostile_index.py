"""An index whose files somebody else replaced is searched without running code of theirs, or refused with one error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from applications.index import build_index
from applications.search import open_index
from applications.vectors import Vectors
from data_io.errors import DataError, F2LLMError
from data_io.storage.store import open_store
from ray_app.inference.model_source import find_exported
from tests.support.exported import export_small_model
from tests.support.hostile import hostile_contents
from tests.support.memory import forget_the_peak, memory_mib

TEXTS = [f"text {i} of many words" for i in range(12)]
FILES = (
    "bm25/data.csc.index.npy",
    "bm25/indices.csc.index.npy",
    "bm25/indptr.csc.index.npy",
    "bm25/params.index.json",
    "bm25/vocab.index.json",
    "files.json",
    "index.json",
    "rows.parquet",
    "vectors.faiss",
)


MIB = 300
"""More memory than a search of this index needs."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    model = find_exported(open_store(str(export_small_model(folder / "model", TEXTS))))
    pq.write_table(pa.table({"id": [f"t{i}" for i in range(12)], "text": TEXTS}), folder / "texts.parquet")
    build_index(model, str(folder / "texts.parquet"), open_store(str(folder / "made")), vectors="hnsw")
    return folder / "made"


def search(place: Path) -> None:
    def encode(texts: object) -> npt.NDArray[np.float32]:
        return np.ones((1, 48), dtype=np.float32)

    with open_index(open_store(str(place))) as opened:
        for method in ("dense", "bm25"):
            list(opened.search(["many words"], encode, method=method, k=3))  # type: ignore[arg-type]


def with_right_sizes(place: Path) -> None:
    """The list of files as an attacker would write it."""
    listed = json.loads((place / "files.json").read_text())
    for name, entry in listed["files"].items():
        entry["size"] = (place / name).stat().st_size
    (place / "files.json").write_text(json.dumps(listed))


def test_no_file_is_left_out(index: Path) -> None:
    assert {path.relative_to(index).as_posix() for path in index.rglob("*") if path.is_file()} == set(FILES)
    search(index)


@pytest.mark.parametrize("file", FILES)
def test_a_hostile_file_is_refused_or_not_needed(file: str, index: Path, tmp_path: Path) -> None:
    marker = tmp_path / "code-ran"
    bugs = []
    for hostile in hostile_contents((index / file).read_bytes(), marker):
        place = tmp_path / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(index, place)
        hostile.write(place / file)
        if file != "files.json":
            with_right_sizes(place)
        forget_the_peak()
        before = memory_mib("VmRSS")
        try:
            search(place)
        except F2LLMError:
            pass
        except Exception as error:
            bugs.append(f"{hostile}: {type(error).__name__}: {error}"[:200])
        if (used := memory_mib("VmHWM") - before) > MIB:
            bugs.append(f"{hostile}: used {used} MiB")
    assert bugs == []
    assert not marker.exists()


def other_kind(path: Path) -> None:
    made = faiss.index_factory(48, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    vectors = np.random.default_rng(0).normal(size=(100, 48)).astype(np.float32)
    made.train(vectors)
    made.add(vectors)
    faiss.write_index(made, str(path))


def other_width(path: Path) -> None:
    made = Vectors.empty("hnsw", 16)
    made.add(np.ones((12, 16), dtype=np.float32))
    made.save(path)


def fewer_vectors(path: Path) -> None:
    made = Vectors.empty("hnsw", 48)
    made.add(np.ones((11, 48), dtype=np.float32))
    made.save(path)


def neighbor_beyond_the_end(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.rfind(np.array([-1, -1], dtype=np.int32).tobytes())  # places of absent neighbors
    content[place : place + 4] = np.array([10**9], dtype=np.int32).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (other_kind, "it is not an index of kind hnsw"),
        (other_width, "12 vectors of 16 dimensions, expected 12 of 48"),
        (fewer_vectors, "11 vectors of 48 dimensions, expected 12 of 48"),
        (neighbor_beyond_the_end, "out of range"),
    ],
)
def test_a_file_of_faiss_that_is_not_that_of_the_index_is_refused(
    write: Callable[[Path], None], words: str, index: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(index, tmp_path / "copy"))
    write(place / "vectors.faiss")
    with_right_sizes(place)

    with pytest.raises(DataError, match=words):
        search(place)
