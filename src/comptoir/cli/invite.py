"""``comptoir invite`` and ``invitations``."""

import os
from urllib.parse import quote

import click
from rich.text import Text

from comptoir.cli.api import Api
from comptoir.cli.harmless import harmless
from comptoir.cli.screen import credits, moment, note, out, print_json, table
from comptoir.cli.target import find_target, json_option, server_options

USE = {
    "host": "COMPTOIR_INVITATION={} comptoir host --url {} --engine …",
    "user": 'curl {1}/users -H \'Content-Type: application/json\' -d \'{{"invitation": "{0}", "username": …}}\'',
}
"""How each kind of invitation is used, for the person who gives it away."""


@click.command()
@click.option(
    "--for",
    "invited_as",
    type=click.Choice(("host", "user")),
    required=True,
    help="host: to register hosts; user: to sign up.",
)
@click.option("--uses", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="How many may come.")
@click.option("--days", type=click.IntRange(1, 3_650), default=7, show_default=True, help="Until it expires.")
@click.option("--credits", "amount", metavar="CREDITS", help="What a user who comes with it gets [as everybody].")
@click.option("--note", "words", default="", help="For you to know it by.")
@json_option
@server_options
def invite(
    *,
    invited_as: str,
    uses: int,
    days: int,
    amount: str | None,
    words: str,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """Make an invitation to sign up or to register hosts (operators).

    It is shown once. Where the settings host_registration or user_registration say 'invitation', nobody gets in without
    one; elsewhere it can still carry a user's first credit.

    \b
    Examples:
      comptoir invite --for host
      comptoir invite --for host --uses 8 --days 30 --note "the cluster at Ada's"
      comptoir invite --for user --uses 100 --credits 50
    """
    target = find_target(url, key, data, operator=True)
    body = {"invited_as": invited_as, "uses": uses, "days": days, "note": words}
    if amount is not None:
        body["credits"] = amount
    # A key of our own makes a retry by the network harmless.
    headers = {"Idempotency-Key": os.urandom(16).hex()}
    made = Api(target).call("POST", "/house/invitations", body=body, headers=headers).json()
    if as_json:
        print_json(made)
        return
    console = out()
    console.print(Text(made["invitation"], style="bold"), soft_wrap=True)
    until = moment(made["expires_ms"])
    console.print(f"[dim]for {uses} {invited_as}{'s' if uses > 1 else ''} until {until}; shown only now. Used with:[/]")
    console.print(Text("  " + USE[invited_as].format(made["invitation"], target.url)), soft_wrap=True)
    console.print(f"[dim]revoke it with: comptoir invitations --revoke {made['id']}[/]", soft_wrap=True)


@click.command()
@click.option("--revoke", "revoked", metavar="ID", help="Revoke this one: nobody else gets in with it.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many to list.")
@click.option("--before", metavar="ID", help="Only invitations older than this one: the next page.")
@json_option
@server_options
def invitations(
    *,
    revoked: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """List invitations and how often each was used, or revoke one (operators).

    Whoever came with a revoked invitation stays.

    \b
    Examples:
      comptoir invitations
      comptoir invitations --revoke invitation_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """
    target = find_target(url, key, data, operator=True)
    api = Api(target)
    if revoked:
        gone = api.call("POST", f"/house/invitations/{quote(revoked, safe='')}/revoke").json()
        if as_json:
            print_json(gone)
            return
        out().print(f"[green]✓[/] revoked; {gone['uses']} of {gone['uses_max']} came with it")
        return
    page = api.get(f"/house/invitations?limit={limit}" + (f"&before={quote(before)}" if before else "")).json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    if not page["invitations"]:
        console.print("[dim]no invitations yet; make one with:[/] comptoir invite --help")
        return
    made = table("id", "for", "state", "used", "credits", "until", "note", right=("used", "credits"))
    for one in page["invitations"]:
        carries = "" if one["credit_uusd"] is None else credits(one["credit_uusd"])
        used = f"{one['uses']}/{one['uses_max']}"
        words = harmless(one["note"])
        made.add_row(one["id"], one["invited_as"], one["state"], used, carries, moment(one["expires_ms"]), words)
    console.print(made)
    if page["next"]:
        console.print(f"[dim]older ones: comptoir invitations --before {page['next']}[/]", soft_wrap=True)
