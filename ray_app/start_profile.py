"""Where the time of a start goes, from the beginning of a worker's train function to the end of its first step."""

from time import monotonic


class StartProfile:
    """Seconds by phase, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def mark(self, phase: str) -> None:
        """`phase` ends now."""
        now = monotonic()
        self.seconds[phase] = round(now - self._last, 2)
        self._last = now
