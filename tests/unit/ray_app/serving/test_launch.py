"""What is served: the model at one commit, which the first line names."""

from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.serving import launch
from ray_app.serving.settings import ServeSettings

COMMIT = "c" * 40


@pytest.mark.parametrize(
    ("hub_id", "model", "line"),
    [
        (f"team/embedder@{COMMIT}", f"team/embedder@{COMMIT}", f"serving search (team/embedder@{COMMIT}) at http"),
        (None, "team/embedder", "serving search at http"),
    ],
)
def test_a_model_of_the_hub_is_served_at_one_commit_which_the_first_line_names(
    hub_id: str | None, model: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[ServeSettings] = []

    def alone(_: Any, settings: ServeSettings, *, ready: str, **__: Any) -> int:
        served.append(settings)
        assert ready.startswith(line)
        return 15

    monkeypatch.setattr(launch, "find_served", lambda settings: SimpleNamespace(name="search", hub_id=hub_id))
    monkeypatch.setattr(launch, "serve_alone", alone)

    launch.serve_here(ServeSettings(model="team/embedder"), host="127.0.0.1", port=0, say=lambda _: None)

    assert [each.model for each in served] == [model]
