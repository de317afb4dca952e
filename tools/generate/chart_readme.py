"""helm/f2llm-platform/README.md, from the chart's schema and defaults: `python -m tools.generate.chart_readme`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.spec.yaml12 import read_yaml

CHART = Path(__file__).parents[2] / "helm" / "f2llm-platform"
_HEAD = """\
<!-- Written by `make generate` from values.schema.json and values.yaml; do not edit. -->

# f2llm-platform

GPU nodes, storage, quotas, dashboards and alerts around [f2llm-operator](../f2llm-operator). Everything is off until a
value turns it on; [docs/cluster/platform.md](../../docs/cluster/platform.md) says what to take, and what a chart cannot do.

```
helm install f2llm-platform helm/f2llm-platform -n f2llm-system -f helm/f2llm-platform/values-trial.yaml
```
"""


def readme() -> str:
    """The whole page."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = read_yaml((CHART / "values.yaml").read_text(encoding="utf-8"), "values.yaml", holds="values").value
    rows = [f"| `{path}` | {_shown(default)} | {words} |" for path, default, words in leaves(schema, values)]
    return "\n".join([_HEAD, "| value | default | what it is |", "| --- | --- | --- |", *rows, ""])


def leaves(schema: Mapping[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """(path, default, words) of every value; fields of a list's entries have `[]` in their path and no default."""
    for name, field in schema["properties"].items():
        here, default = f"{path}{name}", values.get(name) if isinstance(values, Mapping) else None
        entries = field.get("items", {})
        if "properties" in field:
            yield from leaves(field, default, f"{here}.")
        elif name != "global":  # Helm's own
            yield here, default, field.get("description", "")
        if "properties" in entries:
            yield from leaves(entries, None, f"{here}[].")


def _shown(default: Any) -> str:
    return "" if default is None else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme(), encoding="utf-8")
