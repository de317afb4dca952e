"""The losses of arXiv 2510.02294, section 3, written from their equations one term at a time. Slow; shares no code with
ray_app.training.losses or ray_app.training.contrastive: no matrix product, no cross entropy, no pool tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReferencePart:
    """The rows of one source in a micro-batch: embeddings of their texts, one vector each, float64 [D]; `retrieval`
    says whether they have an in-batch loss, `micro_batch` is a number that parts of one micro-batch share.
    """

    queries: Sequence[Tensor]
    positives: Sequence[Tensor]
    negatives: Sequence[Sequence[Tensor]]
    positive_texts: Sequence[str]
    retrieval: bool
    micro_batch: int


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """s(a, b) = cosine of the angle between the last hidden states."""
    product = torch.stack([x * y for x, y in zip(a, b, strict=True)]).sum()
    return product / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt())


def reference_matryoshka_loss(
    parts: Sequence[ReferencePart], weights: Mapping[int, float], *, temperature: float, in_batch: str
) -> Tensor:
    """The loss as if the model gave only the first d values of each vector, for every d, times its weight, added up."""
    total = torch.zeros((), dtype=torch.float64)
    for dims, weight in weights.items():
        shorter = [
            ReferencePart(
                queries=[query[:dims] for query in part.queries],
                positives=[positive[:dims] for positive in part.positives],
                negatives=[[negative[:dims] for negative in row] for row in part.negatives],
                positive_texts=part.positive_texts,
                retrieval=part.retrieval,
                micro_batch=part.micro_batch,
            )
            for part in parts
        ]
        total = total + weight * reference_step_loss(shorter, temperature=temperature, in_batch=in_batch)
    return total


def reference_distillation(parts: Sequence[ReferencePart], taught: Sequence[ReferencePart], dims: int) -> Tensor:
    """The mean over all queries of the squared distances of a query, its positive and, on average, its negatives to the
    teacher's vectors of the same texts; of the first `dims` values, each one unit long.
    """

    def distance(mine: Tensor, theirs: Tensor) -> Tensor:
        a, b = mine[:dims], theirs[:dims]
        a, b = a / a.pow(2).sum().sqrt(), b / b.pow(2).sum().sqrt()
        return torch.stack([(x - y) ** 2 for x, y in zip(a, b, strict=True)]).sum()

    total = torch.zeros((), dtype=torch.float64)
    for part, teacher in zip(parts, taught, strict=True):
        for i in range(len(part.queries)):
            total = total + distance(part.queries[i], teacher.queries[i])
            total = total + distance(part.positives[i], teacher.positives[i])
            pairs = list(zip(part.negatives[i], teacher.negatives[i], strict=True))
            if pairs:
                total = total + torch.stack([distance(mine, theirs) for mine, theirs in pairs]).mean()
    return total / sum(len(part.queries) for part in parts)


def reference_step_loss(parts: Sequence[ReferencePart], *, temperature: float, in_batch: str) -> Tensor:
    """The loss of a step: the mean over all its queries of l_hard + l_in-batch.

    `in_batch`: "step" takes the positives of all retrieval parts, those of other micro-batches as constants;
    "micro_batch" those of the own micro-batch; "off" leaves the term out. Positives whose text equals the query's own
    positive are left out of the denominator.
    """
    total = torch.zeros((), dtype=torch.float64)
    for part in parts:
        for i, query in enumerate(part.queries):
            own = torch.exp(similarity(query, part.positives[i]) / temperature)
            others = [torch.exp(similarity(query, negative) / temperature) for negative in part.negatives[i]]
            total = total - torch.log(own / (own + sum(others)))
            if part.retrieval and in_batch != "off":
                denominator = own
                for other in parts:
                    near = other.micro_batch == part.micro_batch
                    if not other.retrieval or (in_batch == "micro_batch" and not near):
                        continue
                    for j, positive in enumerate(other.positives):
                        if other.positive_texts[j] == part.positive_texts[i]:
                            continue
                        document = positive if near else positive.detach()
                        denominator = denominator + torch.exp(similarity(query, document) / temperature)
                total = total - torch.log(own / denominator)
    return total / sum(len(part.queries) for part in parts)
