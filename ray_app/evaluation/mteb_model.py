"""A model with mteb's interface. Only this module, own_tasks.py and mteb_task.py import mteb here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_implementations.codefuse_models import prompts_dict
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

from ray_app.errors import ModelError
from ray_app.inference.encoder import Encoder

F2LLM_INSTRUCTIONS: Mapping[str, str] = prompts_dict
"""The instructions that F2LLM was evaluated with, by task (arXiv 2510.02294, Table 5), as in mteb."""
_WITH_QUERIES = ("Retrieval", "Reranking")


def model_meta(name: str, fingerprint: str, *, experiment: Mapping[str, object]) -> Any:
    """mteb's description of a model (`ModelMeta`). Results of an `experiment` are kept apart from those without one."""
    return ModelMeta.create_empty(
        {
            "name": name if "/" in name else f"f2llm-ray/{name}",
            "revision": fingerprint,
            "languages": ["eng-Latn"],
            "framework": ["PyTorch", "Transformers", "Sentence Transformers"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": True,
            "open_weights": True,
            "experiment_kwargs": experiment or None,
        }
    )


class MtebModel(AbsEncoder):  # type: ignore[misc] # mteb is untyped here
    """Puts each task's instruction before its queries, and before all texts of a symmetric task.

    `instructions` take precedence. Other tasks use mteb's own instruction.
    """

    def __init__(self, meta: Any, encoder: Callable[[], Encoder], instructions: Mapping[str, str]) -> None:
        """`encoder` is called when the first text is embedded, so a task with stored results needs no encoder."""
        self.mteb_model_meta = meta
        self._encoder = encoder
        self._instructions = instructions

    def query_instruction(self, task: Any) -> str:
        """The instruction before a query of this task, or before every text of a task without queries."""
        return self._instruction(task, PromptType.query if task.type in _WITH_QUERIES else None)

    def _instruction(self, task: Any, prompt_type: Any) -> str:
        if prompt_type == PromptType.document:
            return ""
        given = self._instructions.get(task.name)
        return self.get_instruction(task, prompt_type) if given is None else given

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> npt.NDArray[np.float32]:
        """Embeddings float32 [N, D] of mteb's batches of texts. Raises ModelError for a value that is not finite."""
        texts = [text for batch in inputs for text in batch["text"]]
        embeddings = self._encoder().encode(texts, instruction=self._instruction(task_metadata, prompt_type))
        bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if bad.size:
            raise ModelError(
                f"task {task_metadata.name}: the embedding of {texts[int(bad[0])][:60]!r} has values that are not "
                f"finite ({bad.size} of {len(texts)} texts)",
                remedy="the weights are damaged or the training diverged: evaluate an earlier checkpoint",
            )
        return embeddings
