"""Learning rate of a step: linear warm-up, then a cosine to zero that is clamped to a floor (docs/developers/design.md, "The
training step").
"""

from math import cos, pi


def learning_rate(step: int, *, peak: float, floor: float, warmup_steps: int, total_steps: int) -> float:
    """Rate of the `step`-th update, counted from 0. The first step already learns; the floor does not hold in warm-up.

    The released code clamps the cosine at 1e-7 rather than stretching it to end there; so does this.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(floor, peak * 0.5 * (1 + cos(pi * min(1.0, progress))))
