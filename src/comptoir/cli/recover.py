"""``comptoir recover``: which commits the database lost, and what an operator decides about it."""

import contextlib
import time
from typing import Any

import click
from rich.markup import escape

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit
from comptoir.cli.screen import err, moment, note, out, print_json, table
from comptoir.cli.target import find_target, json_option, server_options

LOOK_S = 0.2
"""How often a repair under way is looked at."""

SHOWN_MAX = 20
"""Ids shown; --json prints up to 1,000."""


@click.command()
@click.option("--bring-back", is_flag=True, help="Post again what workers' receipts and our own record prove.")
@click.option("--accept-loss", is_flag=True, help="What is missing stays missing; take work again.")
@click.option("--reason", metavar="TEXT", default="", help="Kept with the new epoch of the commit record.")
@json_option
@server_options
def recover(
    *,
    bring_back: bool,
    accept_loss: bool,
    reason: str,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """Show which commits the database lost, bring them back, or accept the loss (operators).

    A coordinator keeps a record of what it confirmed outside its database. If the database comes back without its last
    commits, no work is taken and nothing is settled until you bring the right database back or accept the loss. Exit
    code 1 while commits are missing.

    --bring-back asks all linked workers for the receipts they keep, and posts again, once, what they prove; deposits
    come from the coordinator's own record. If nothing is missing then, work is taken again. What can't be brought back
    is named, and stays missing until you accept it.

    \b
    Examples:
      comptoir recover
      comptoir recover --bring-back
      comptoir recover --accept-loss --reason "the standby was two seconds behind"
    """
    target = find_target(url, key, data, operator=True)
    api = Api(target)
    if bring_back and accept_loss:
        raise click.UsageError(
            "--bring-back and --accept-loss are two steps: bring back first, then accept what is left"
        )
    if bring_back:
        found = _bring_back(api, shown=not as_json)
    elif accept_loss:
        found = api.call("POST", "/house/recover", body={"accept_loss": True, "reason": reason}).json()
    else:
        found = api.get("/house/recover").json()
    if as_json:
        print_json(found)
    else:
        note(target.said)
        _say(found, accepted=accept_loss)
        if bring_back:
            say_repair(found["repair"])
    if found["lost"]:
        raise click.exceptions.Exit(Exit.REFUSED)


def _bring_back(api: Api, *, shown: bool) -> dict[str, Any]:
    """Begin to bring back, and follow it to its end; return what is missing then."""
    api.call("POST", "/house/recover", body={"bring_back": True})
    with err().status("asking workers") if shown else contextlib.nullcontext() as status:
        while True:
            found: dict[str, Any] = api.get("/house/recover").json()
            repair = found["repair"]
            if not repair["running"]:
                return found
            if status is not None:
                status.update(
                    f"asking {repair['asking']} workers, {repair['waiting']:,} receipts handed in, "
                    f"{repair['receipts']:,} receipts and {repair['transfers']:,} transfers posted"
                )
            time.sleep(LOOK_S)


def say_repair(repair: dict[str, Any]) -> None:
    """Print how a repair ended."""
    console = out()
    console.print(f"{repair['receipts']:,} receipts and {repair['transfers']:,} transfers were posted again")
    if repair["refused"]:
        console.print(
            f"{repair['refused']:,} receipts were not taken: this trading post did not sign them; see the log"
        )
    if repair["failed"]:
        console.print(f"[bold red]✗ it ended early[/]: {escape(repair['failed'])}; run it again")
    if repair["left"]:
        made = table("receipt", "why it is not posted")
        for one in repair["left"]:
            made.add_row(one["receipt"], escape(one["why"]))
        console.print(made)
    if repair["more_left"]:
        console.print(f"  [dim]and {repair['more_left']:,} more[/]")


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
        console.print(
            "Bring the right database back and restart, or: comptoir recover --bring-back, and for what is left: "
            "comptoir recover --accept-loss --reason …"
        )
