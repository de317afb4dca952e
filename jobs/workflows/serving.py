"""Serve a model over HTTP. Needs the extra `serve`."""

from data_io.execution import Say
from ray_app.serving.launch import serve_here
from ray_app.serving.settings import ServeSettings


def serve_model(settings: ServeSettings, *, host: str, port: int, say: Say) -> int:
    """Serve until SIGTERM or SIGINT; returns its number. Raises ModelError, ConfigError or CapacityError."""
    return serve_here(settings, host=host, port=port, say=say)
