"""``comptoir recover``: which commits the database lost, and what an operator decides about it."""

from typing import Any

import click

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit
from comptoir.cli.screen import moment, note, out, print_json
from comptoir.cli.target import find_target, json_option, server_options

SHOWN_MAX = 20
"""Ids shown; --json prints up to 1,000."""


@click.command()
@click.option("--accept-loss", is_flag=True, help="What is missing stays missing; take work again.")
@click.option("--reason", metavar="TEXT", default="", help="Kept with the new epoch of the commit record.")
@json_option
@server_options
def recover(
    *, accept_loss: bool, reason: str, as_json: bool, url: str | None, key: str | None, data: str | None
) -> None:
    """Show which commits the database lost, or accept the loss (operators).

    A coordinator keeps a record of what it confirmed outside its database. If the database comes back without its last
    commits, no work is taken and nothing is settled until you bring the right database back or accept the loss. Exit
    code 1 while commits are missing.

    \b
    Examples:
      comptoir recover
      comptoir recover --accept-loss --reason "the standby was two seconds behind"
    """
    target = find_target(url, key, data, operator=True)
    api = Api(target)
    if accept_loss:
        found = api.call("POST", "/house/recover", body={"accept_loss": True, "reason": reason}).json()
    else:
        found = api.get("/house/recover").json()
    if as_json:
        print_json(found)
    else:
        note(target.said)
        _say(found, accepted=accept_loss)
    if found["lost"]:
        raise click.exceptions.Exit(Exit.REFUSED)


def _say(found: dict[str, Any], *, accepted: bool) -> None:
    console = out()
    if found["missing"]:
        when = f" [dim](seen {moment(found['since_ms'])})[/]" if found["since_ms"] else ""
        console.print(f"[bold red]✗ {found['missing']:,} confirmed receipts, transfers and jobs are missing[/]{when}")
        for name in found["names"][:SHOWN_MAX]:
            console.print(f"  {name}", markup=False)
        more = found["missing"] - min(len(found["names"]), SHOWN_MAX)
        if more:
            console.print(f"  [dim]and {more:,} more[/]")
    if found["elsewhere"]:
        console.print(f"[bold red]✗ {found['elsewhere']} other coordinators miss commits[/]: ask each with --url")
    if not found["lost"]:
        done = (
            f"epoch {found['epoch']} has begun, work is taken"
            if accepted and found["missing"]
            else "nothing is missing"
        )
        count = f"{found['entries']:,} confirmed in epoch {found['epoch']} since {moment(found['began_ms'])}"
        console.print(f"[green]✓[/] {done} [dim]({count})[/]")
    elif found["restart_first"]:
        console.print(
            "It was seen while the coordinator ran: bring the right database back, or restart it and decide then."
        )
    else:
        console.print("Bring the right database back and restart, or: comptoir recover --accept-loss --reason …")
