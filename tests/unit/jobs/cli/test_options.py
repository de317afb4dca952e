"""Options that commands share, and how a command gets them."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from jobs.cli.options import ClusterOptions, takes


@dataclass(frozen=True)
class Place:
    city: Annotated[str, typer.Option("--city")] = "Rome"


def total(first: Annotated[int, typer.Option("--first")] = 1, second: Annotated[int, typer.Option("-s")] = 2) -> int:
    return first + second


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["who"], ("who", 3, "Rome", False)),
        (["who", "--city", "Bern", "--first", "5", "-s", "6", "--loud"], ("who", 11, "Bern", True)),
    ],
)
def test_a_command_has_the_options_that_it_takes_and_gets_what_is_made_of_them(
    arguments: list[str], expected: tuple[object, ...]
) -> None:
    app = typer.Typer()
    found: list[object] = []

    @app.command()
    @takes(total)
    @takes(Place)
    def command(place: Place, number: int, name: str, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        found.append((name, number, place.city, loud))

    app(arguments, standalone_mode=False)

    assert found == [expected]


def test_a_command_keeps_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @takes(Place)
    def command(place: Place, name: str) -> None:
        """Greet NAME."""

    app(["--help"], standalone_mode=False)

    out = capsys.readouterr().out
    assert "Greet NAME." in out
    assert "--city" in out
    assert "place" not in out


def test_any_option_of_a_cluster_makes_it_given() -> None:
    assert not ClusterOptions().given
    assert all(ClusterOptions(**{name: "x"}).given for name in ("namespace", "context", "kubeconfig"))
