import json

import pytest

from ray_app.ray_runtime.dashboards import config_maps

# Ray does not close the files that it reads.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*grafana_dashboard_base:ResourceWarning")


def test_each_of_rays_dashboards_is_a_config_map_that_grafana_finds_and_kubernetes_accepts() -> None:
    made = config_maps("monitoring")

    assert [each["metadata"]["name"] for each in made] == [
        f"ray-dashboard-{name}" for name in ("cluster", "train", "data")
    ]
    for each in made:
        assert each["metadata"]["namespace"] == "monitoring"
        assert each["metadata"]["labels"] == {"grafana_dashboard": "1"}
        (text,) = each["data"].values()
        assert len(text) < 700_000  # the limit of a ConfigMap is 1 MB, and kubectl's annotation doubles the size
        board = json.loads(text)
        assert board["uid"]
        assert board["panels"]


def test_rays_dashboards_can_all_be_in_one_grafana() -> None:
    uids = [json.loads(text)["uid"] for each in config_maps("monitoring") for text in each["data"].values()]

    assert len({*uids}) == 3
