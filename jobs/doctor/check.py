"""One line of a doctor's report."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "missing", "absent", "unknown"]


@dataclass(frozen=True)
class Check:
    """One line of the report. `missing`: even a run on CPU cannot work; `warn`: works with a drawback; `absent`: not
    installed and not needed; `unknown`: could not be checked.
    """

    name: str
    status: Status
    found: str
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
