"""Ray's own Grafana dashboards: `python -m ray_app.ray_runtime.dashboards | kubectl apply -f -`.

They depend on Ray's version. Therefore they are generated from the installed Ray, and are not stored in the repository.
Each is a ConfigMap with the label that the Grafana sidecar of kube-prometheus-stack looks for.
"""

import argparse
import json
import sys
from typing import Any

import yaml
from ray.dashboard.modules.metrics import grafana_dashboard_factory as ray_dashboards

_OF_TRAINING = {
    "cluster": ray_dashboards.generate_default_grafana_dashboard,
    "train": ray_dashboards.generate_train_grafana_dashboard,
    "data": ray_dashboards.generate_data_grafana_dashboard,
}


def config_maps(namespace: str) -> list[dict[str, Any]]:
    """One ConfigMap for each Ray dashboard that is relevant for a job: cluster, Ray Train and Ray Data."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"ray-dashboard-{name}",
                "namespace": namespace,
                "labels": {"grafana_dashboard": "1"},
            },
            "data": {f"ray-{name}.json": json.dumps(json.loads(make()[0]))},
        }
        for name, make in _OF_TRAINING.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write Ray's own Grafana dashboards as ConfigMaps to standard output.")
    parser.add_argument("-n", "--namespace", default="f2llm-system", help="namespace to use (default: %(default)s)")
    yaml.safe_dump_all(config_maps(parser.parse_args().namespace), sys.stdout, sort_keys=False, width=10**6)


if __name__ == "__main__":
    main()
