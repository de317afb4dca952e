"""Rules of `train.matryoshka_dims`, as the document, the plan and a start hold to them. Standard library only.

Each gives what to say, with a mend behind the last semicolon, or None where there is nothing wrong.
"""

from collections.abc import Iterable, Sequence


def out_of_order(dims: Sequence[int], weights: Sequence[float] | None) -> str | None:
    """Dims that do not ascend, or weights that are not one each."""
    if list(dims) != (ascending := sorted(set(dims))):
        return (
            f"matryoshka_dims={_text(dims)} does not ascend; set matryoshka_dims: {_text(ascending)} "
            "and matryoshka_weights: null"
        )
    if weights is not None and len(weights) != len(dims):
        return (
            f"matryoshka_weights={_text(weights)} are {len(weights)}, and matryoshka_dims={_text(dims)} are "
            f"{len(dims)}; set matryoshka_weights: null"
        )
    return None


def too_wide(dims: Sequence[int], hidden_size: int) -> str | None:
    """Dims that embeddings of `hidden_size` values do not have."""
    if not dims or dims[-1] <= hidden_size:
        return None
    return (
        f"train.matryoshka_dims={_text(dims)} asks for {dims[-1]} values, and the model's embeddings have "
        f"hidden_size={hidden_size}; set train.matryoshka_dims: {_text(dim for dim in dims if dim <= hidden_size)}"
    )


def _text(values: Iterable[float]) -> str:
    """Numbers as a document lists them."""
    return f"[{','.join(f'{value:g}' for value in values)}]"
