"""Makes commands of kinds: the options that all of them have, around those of each."""

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar

import click

from comptoir.cli.target import json_option, server_options
from comptoir.cli.work.buying import Choices, buy
from comptoir.cli.work.order import WorkOrder

RECONNECT_S = 60.0
"""How long a broken connection is tried again: files are as patient."""

Asks = Callable[..., WorkOrder]
F = TypeVar("F", bound=Callable[..., Any])


def sells(word: str) -> Callable[[Asks], click.Command]:
    """Make the command of a kind from the function that turns its options into an order; its docstring is the help."""

    def decorate(asks: Asks) -> click.Command:
        def command(
            *, model: str | None, detach: bool, url: str | None, key: str | None, data: str | None, **given: Any
        ) -> None:
            choices = chosen(given)
            buy(asks(**given), choices, model=model, detach=detach, server=(url, key, data))

        update_wrapper(command, asks)
        made: Callable[..., None] = command
        for option in (
            server_options,
            following,
            click.option("--detach", is_flag=True, help="Print the job's id once it is bought, and leave."),
            click.option(
                "--model", "-m", metavar="NAME", help="Which offer, by its name [the first that serves this kind]."
            ),
        ):
            made = option(made)
        finished = click.command(word)(made)
        # Its own options come first in the help; click has what was added last before them.
        own = {param.name for param in click.command()(asks).params}
        finished.params.sort(key=lambda param: param.name not in own)
        return finished

    return decorate


def following(command: F) -> F:
    """Add the options of whatever follows a job to its end; `chosen` takes them."""
    for option in (
        json_option,
        click.option(
            "--reconnect",
            type=click.FloatRange(0, 86_400),
            default=RECONNECT_S,
            show_default=True,
            metavar="SECONDS",
            help="How long to retry when the connection breaks; the job goes on meanwhile, and after it.",
        ),
        click.option("--force", is_flag=True, help="Write over files that are there [results get another name]."),
        click.option(
            "--out", "-o", metavar="FOLDER", default=".", help="Where results go; made if it is not there [here]."
        ),
    ):
        command = option(command)
    return command


def chosen(given: dict[str, Any]) -> Choices:
    """Take the options of `following` out of those that were *given*."""
    return Choices(
        Path(given.pop("out")),
        force=given.pop("force"),
        again_for_s=given.pop("reconnect"),
        as_json=given.pop("as_json"),
    )
