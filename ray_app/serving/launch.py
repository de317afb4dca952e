"""Serve a model from this machine: in this process where one copy is enough, else on Ray Serve."""

import socket
from collections.abc import Callable

from data_io.errors import ConfigError
from ray_app.ray_runtime.environment import EMBEDDED, check_gpus
from ray_app.serving.model import find_served
from ray_app.serving.settings import ServeSettings
from ray_app.serving.standalone import serve_alone


def serve_here(settings: ServeSettings, *, host: str, port: int, say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT, whose number is given back; what was accepted is answered first, unless a second
    one comes.

    More than one copy is served by an embedded Ray, any number by the cluster that RAY_ADDRESS names. Raises ModelError
    where there is no model, ConfigError where the port is taken, and CapacityError where there are too few GPUs or the
    copies do not come up.
    """
    if EMBEDDED:
        _check_address(host, port)
        check_gpus(settings.replicas * settings.gpus)
    model = find_served(settings)
    shown = f"[{host}]" if ":" in host else host
    each = f"{settings.gpus} GPU" if settings.gpus else f"{settings.cpus} cores"
    ready = f"serving {model.name} at http://{shown}:{port}/v1, {settings.replicas} x {each}"
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
            f"{host}, port {port} cannot be listened on: {error.strerror}", remedy="give another one: --port N, --host"
        ) from error
