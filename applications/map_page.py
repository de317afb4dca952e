"""The page of `f2llm cluster`: a map of the texts, and the keywords of each cluster. Pure: values in, HTML out."""

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from data_io.wording import counted
from ray_app.reporting.charts import PALETTE, figure_json
from ray_app.reporting.page import Chart, render_page

MOST_POINTS = 5000
"""Maximum of texts on a map, because a browser draws each as an element. Of more texts, a sample is shown."""
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")
"""After the last color, the colors repeat with another symbol."""
_UNASSIGNED = "#9aa3af"
_HOVER_CHARACTERS, _HOVER_WIDTH = 280, 60
_LABEL_TERMS = 2


def render_map(
    found: Mapping[str, Any], texts: Sequence[str], number_N: npt.NDArray[np.int64], places_N2: npt.NDArray[np.float32]
) -> str:
    """The whole page. `found` is the content of clusters.json. Texts, cluster numbers (0: none) and positions are those
    of the shown texts.
    """
    sample = f" The map shows a sample of {counted(len(texts), 'text')}." if len(texts) < found["texts"] else ""
    note = (
        "Each point is a text. Texts with similar meaning are close together. Distances between groups have no meaning "
        f"(t-SNE).{sample}"
    )
    return render_page(
        "clusters.html.j2",
        {"excerpt": _excerpt, "color": _color},
        package="applications",
        found=found,
        map=Chart("Map", _figure(found["clusters"], texts, number_N, places_N2), note),
    )


def _figure(
    clusters: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    number_N: npt.NDArray[np.int64],
    places_N2: npt.NDArray[np.float32],
) -> str:
    figure = go.Figure()
    named = [(0, "in no cluster"), *((each["number"], _name(each)) for each in clusters)]
    for number, name in named:
        members = np.flatnonzero(number_N == number)
        if not members.size:
            continue
        figure.add_trace(
            go.Scatter(
                x=[round(float(x), 2) for x in places_N2[members, 0]],
                y=[round(float(y), 2) for y in places_N2[members, 1]],
                mode="markers",
                name=html.escape(name),
                marker={"color": _color(number), "size": 7, "opacity": 0.8, "symbol": _symbol(number)},
                text=[_hover(texts[i]) for i in members.tolist()],
                hovertemplate=f"%{{text}}<extra>{html.escape(name)}</extra>",
            )
        )
    for number, _ in named[1:]:
        members = np.flatnonzero(number_N == number)
        if members.size:
            x, y = np.median(places_N2[members], axis=0)
            figure.add_annotation(
                x=float(x), y=float(y), text=f"<b>{number}</b>", showarrow=False, font={"size": 13, "color": "#ffffff"},
                bgcolor=_color(number), borderpad=3,
            )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure_json(figure, height=560, x_title=None, legend=False)


def _name(cluster: Mapping[str, Any]) -> str:
    return f"{cluster['number']} {', '.join(cluster['terms'][:_LABEL_TERMS])}"


def _color(number: int) -> str:
    return _UNASSIGNED if number == 0 else PALETTE[(number - 1) % len(PALETTE)]


def _symbol(number: int) -> str:
    return _SYMBOLS[(max(number, 1) - 1) // len(PALETTE) % len(_SYMBOLS)]


def _hover(text: str) -> str:
    short = textwrap.shorten(text, _HOVER_CHARACTERS, placeholder=" ...")
    return "<br>".join(html.escape(line) for line in textwrap.wrap(short, _HOVER_WIDTH))


def _excerpt(text: str) -> str:
    return textwrap.shorten(text, 160, placeholder=" ...")
