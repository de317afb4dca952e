"""The README of each chart, from its schema and its default values: `python -m tools.generate.chart_readme`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.spec.yaml12 import read_yaml

CHARTS = Path(__file__).parents[2] / "helm"
_OPERATOR = """\
The operator trains text-embedding models from `EmbeddingJob`s, on KubeRay. Install KubeRay and build the images first:
[your first job](../../docs/cluster/first-job.md).

<!-- not run: cluster -->
```console
$ helm upgrade --install f2llm-operator helm/f2llm-operator -n f2llm-system --create-namespace \\
    --set image=registry.example.org/f2llm-operator:0.1.0 --set jobs.image=registry.example.org/f2llm-ray:0.1.0
```

Names of values are in camelCase. Fields inside `jobs.profiles` are in snake_case, like fields of a job spec:
[Pod profiles](../../docs/cluster/pod-profiles.md). `global` is reserved by Helm.
"""
_PLATFORM = """\
GPU nodes, storage, quotas, dashboards and alerts for [f2llm-operator](../f2llm-operator). Every part is off by default.
[The platform chart](../../docs/cluster/platform.md) says which values file to use and lists the prerequisites.

<!-- not run: cluster -->
```console
$ helm upgrade --install f2llm-platform helm/f2llm-platform -n f2llm-system -f helm/f2llm-platform/values-trial.yaml
```
"""
HEADS: Mapping[str, str] = {"f2llm-operator": _OPERATOR, "f2llm-platform": _PLATFORM}
"""Text before the table, by the name of the chart."""


def readme(chart: str) -> str:
    """The whole page of a chart."""
    rows = [f"| `{path}` | {_shown(default)} | {words} |" for path, default, words in described_values(chart)]
    mark = "<!-- Written by `make generate` from values.schema.json and values.yaml; do not edit. -->"
    return "\n".join(
        [mark, "", f"# {chart}", "", HEADS[chart], "| value | default | meaning |", "| --- | --- | --- |", *rows, ""]
    )


def described_values(chart: str) -> Iterator[tuple[str, Any, str]]:
    """(path, default, description) of every value of a chart."""
    folder = CHARTS / chart
    schema = json.loads((folder / "values.schema.json").read_text(encoding="utf-8"))
    values = read_yaml((folder / "values.yaml").read_text(encoding="utf-8"), "values.yaml", holds="values").value
    return leaves(schema, values)


def leaves(schema: Mapping[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """(path, default, description) of every value below `path`. Fields of a list's entries have `[]` in their path and
    no default.
    """
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
    for each in HEADS:
        (CHARTS / each / "README.md").write_text(readme(each), encoding="utf-8")
