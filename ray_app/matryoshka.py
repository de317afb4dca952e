"""Matryoshka representation learning (arXiv 2205.13147): the first values of an embedding are an embedding themselves.

As F2LLM-v2 trains it (arXiv 2603.19223, section 3.3, and its released code): both losses are computed on the first d
values too, L2-normalised again, for several d, and summed with weights; the whole embedding always counts.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from ray_app.config import TrainSpec
from ray_app.dims import too_wide
from ray_app.errors import ModelError

Terms = tuple[tuple[int, float], ...]


def cut(embeddings: Tensor, dims: int) -> Tensor:
    """The first `dims` values of embeddings [..., D], L2-normalised; L2-normalised ones themselves where those are all
    of them.
    """
    if dims == embeddings.shape[-1]:
        return embeddings
    return F.normalize(embeddings[..., :dims], dim=-1)


def terms_of(train: TrainSpec, dimensions: int) -> Terms:
    """(d, what the losses of the first d values weigh), the whole embedding of D = `dimensions` values first.

    Weights that the document leaves out are those of F2LLM-v2's code: 1 / (n sqrt(D / d)), n counting from 1, the
    largest d first. Raises ModelError for a d above D.
    """
    if mend := too_wide(train.matryoshka_dims, dimensions):
        says, _, remedy = mend.rpartition("; ")
        raise ModelError(says, remedy=remedy)
    dims = [dim for dim in reversed(train.matryoshka_dims) if dim < dimensions]
    if train.matryoshka_weights is None:
        given = {dim: 1 / (n * math.sqrt(dimensions / dim)) for n, dim in enumerate(dims, start=2)}
    else:
        given = dict(zip(train.matryoshka_dims, train.matryoshka_weights, strict=True))
    return ((dimensions, given.get(dimensions, 1.0)), *((dim, given[dim]) for dim in dims))


def weighed_sum(terms: Terms, loss: Callable[[int], Tensor]) -> Tensor:
    """Sum over the terms of their weight times `loss(d)`; that of one term of weight 1 is its loss, to the bit."""
    return torch.stack([weight * loss(dims) for dims, weight in terms]).sum()
