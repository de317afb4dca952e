"""Times of the phases of a worker's start. Standard library only, so that the driver does not load torch for it."""

from time import monotonic


class StartProfile:
    """Seconds by phase, in order, from the start of a worker's train function to the end of its first step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def mark(self, phase: str) -> None:
        """Record that `phase` ends now."""
        now = monotonic()
        self.seconds[phase] = round(now - self._last, 2)
        self._last = now
