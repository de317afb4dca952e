"""Where the time of a worker's start goes. Standard library only, so that the driver loads no torch for it."""

from time import monotonic


class StartProfile:
    """Seconds by phase, in order, from the beginning of a worker's train function to the end of its first step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def mark(self, phase: str) -> None:
        """`phase` ends now."""
        now = monotonic()
        self.seconds[phase] = round(now - self._last, 2)
        self._last = now
