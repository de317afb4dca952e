"""Learning rate of a step: linear warm-up, then a cosine to zero that is clamped to a floor.

See docs/developers/design.md, "The training step".
"""

from math import cos, pi


def learning_rate(step: int, *, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Learning rate of the `step`-th update, counted from 0.

    The first step has a rate above 0. The floor does not apply during warm-up. Like the released F2LLM code, this
    clamps the cosine at the floor (1e-7 there) and does not stretch it to end there.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(floor, peak * 0.5 * (1 + cos(pi * min(1.0, progress))))
