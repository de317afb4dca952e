"""Renders the HTML pages: each is one file with its charts, has a light and a dark style, and needs no network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.offline
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data_io.wording import counted, shown

_OWN_PACKAGE = "ray_app.reporting"


@dataclass(frozen=True)
class Chart:
    """A figure on a page. `figure` is Plotly's JSON."""

    title: str
    figure: str
    note: str = ""


def render_page(
    template: str,
    filters: Mapping[str, Callable[..., str]] | None = None,
    *,
    package: str = _OWN_PACKAGE,
    **values: Any,
) -> str:
    """Render a template of `package`, which can extend and import the templates of ray_app.reporting.

    Every text is escaped, and its control characters are shown. The page loads no external resources.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _OWN_PACKAGE))]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters.update({"in_script": _in_script, "counted": counted, **(filters or {})})
    script = plotly.offline.get_plotlyjs()
    plotly_js = Markup(script)  # nosec B704
    return environment.get_template(template).render(plotly_js=plotly_js, **values)


def _in_script(text: str) -> Markup:
    """JSON for a script element, escaped so that it cannot end the element."""
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)  # nosec B704
