"""Serve a model from this machine: in this process if one replica is enough, on Ray Serve if not."""

import socket
from collections.abc import Callable

from data_io.errors import ConfigError
from data_io.wording import counted
from ray_app.ray_runtime.environment import EMBEDDED, check_gpus
from ray_app.serving.model import find_served
from ray_app.serving.settings import ServeSettings
from ray_app.serving.standalone import serve_alone


def serve_here(settings: ServeSettings, *, host: str, port: int, say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT and return the signal's number. Accepted requests are answered first, unless a
    second signal arrives.

    One replica runs in this process, several on an embedded Ray. If RAY_ADDRESS is set, all replicas run on that
    cluster. Raises ModelError if no model is found, StorageError if the model cannot be downloaded, ConfigError if the
    port is in use, and CapacityError if there are too few GPUs or the replicas do not start.
    """
    if EMBEDDED:
        _check_address(host, port)
        check_gpus(settings.replicas * settings.gpus)
    model = find_served(settings)
    shown = f"[{host}]" if ":" in host else host
    each = counted(settings.gpus, "GPU") if settings.gpus else counted(settings.cpus, "CPU")
    commit = ""
    if model.hub_id is not None:  # all replicas load the same commit, also if the branch moves
        settings, commit = settings.model_copy(update={"model": model.hub_id}), f" ({model.hub_id})"
    ready = f"serving {model.name}{commit} at http://{shown}:{port}/v1, {settings.replicas} x {each}"
    if EMBEDDED and settings.replicas == 1:
        return serve_alone(model, settings, host=host, port=port, say=say, ready=ready)
    from ray_app.serving.ray_serve import serve_on_ray  # Ray takes seconds to import

    return serve_on_ray(settings, host=host, port=port, say=say, ready=ready)


def _check_address(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}", remedy="choose another with --port N or --host"
        ) from error
