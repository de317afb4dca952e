"""One line of a doctor's report."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "missing", "absent", "unknown"]


@dataclass(frozen=True)
class Check:
    """One line of the report. `missing`: not even a run on CPU can work; `warn`: it works, but worse; `absent`: not
    there and not needed; `unknown`: could not be looked at.
    """

    name: str
    status: Status
    found: str
    mend: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
