"""``comptoir balance``, ``statement`` and ``deposit``."""

import os
from typing import Any
from urllib.parse import quote

import click

from comptoir.cli.api import Api
from comptoir.cli.screen import credits, credits_and_usd, facts, moment, note, out, print_json, short, table
from comptoir.cli.target import find_target, json_option, server_options


@click.command()
@json_option
@server_options
def balance(*, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """Show what your account holds.

    \b
    Examples:
      comptoir balance
      comptoir balance --json | jq .account.free_uusd
    """
    target = find_target(url, key, data)
    me = Api(target).get("/house/me").json()
    if as_json:
        print_json(me)
        return
    note(target.said)
    account = me["account"]
    held = credits_and_usd(account["held_uusd"]) if account["held_uusd"] else None
    out().print(
        facts(
            [
                ("who", f"{me['name']} ({me['role']})"),
                ("id", me["id"]),
                ("free", credits_and_usd(account["free_uusd"])),
                ("set aside", held),
                ("balance", credits_and_usd(account["balance_uusd"]) if held else None),
                ("promotional", _promotional(account)),
            ]
        )
    )


def _promotional(account: dict[str, Any]) -> str | None:
    """Say how much of an account is promotional; None: nothing, or an older coordinator, which does not tell."""
    promo_uusd = account.get("promo_uusd", 0)
    return f"{credits_and_usd(promo_uusd)} of it: buys, spent first, never leaves" if promo_uusd else None


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many transfers to list.")
@click.option("--before", metavar="ID", help="Only transfers older than this one: the next page.")
@json_option
@server_options
def statement(
    *, limit: int, before: str | None, as_json: bool, url: str | None, key: str | None, data: str | None
) -> None:
    """Show every transfer of your account.

    \b
    Examples:
      comptoir statement
      comptoir statement --limit 200 --json > statement.json
    """
    target = find_target(url, key, data)
    page = Api(target).get(f"/house/statement?limit={limit}" + (f"&before={quote(before)}" if before else "")).json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    made = table("when", "what", "credits", "with", "job", right=("credits",))
    for row in page["transfers"]:
        amount = ("+" if row["amount_uusd"] > 0 else "") + credits(row["amount_uusd"])
        made.add_row(moment(row["at_ms"]), row["kind"], amount, short(row["with"]), row["job"] or "")
    console.print(made)
    console.print(f"[bold]{credits_and_usd(page['account']['balance_uusd'])}[/] in the account")
    if promotional := _promotional(page["account"]):
        console.print(f"promotional: {promotional}")
    if page["next"]:
        console.print(f"[dim]older ones: comptoir statement --before {page['next']}[/]", soft_wrap=True)


@click.command()
@click.argument("amount", metavar="CREDITS")
@click.option("--to", "owner", metavar="WHO", default="", help="Username or user id [yourself].")
@click.option("--once", "idempotency_key", metavar="KEY", help="A name for this deposit; repeating it credits nothing.")
@json_option
@server_options
def deposit(
    *,
    amount: str,
    owner: str,
    idempotency_key: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """Credit an account (operators).

    1 credit is $0.01; at most four decimals.

    \b
    Examples:
      comptoir deposit 500 --to demo
      comptoir deposit 12.50 --to ada --once invoice-2026-117
    """
    target = find_target(url, key, data, operator=True)
    # A key of our own makes a retry by the network harmless, too.
    headers = {"Idempotency-Key": idempotency_key or os.urandom(16).hex()}
    body = {"credits": amount, "owner": owner}
    made = Api(target).call("POST", "/house/deposit", body=body, headers=headers).json()
    if as_json:
        print_json(made)
        return
    out().print(
        f"[green]✓[/] {credits_and_usd(made['amount_uusd'])} to {owner or 'yourself'}; "
        f"now {credits_and_usd(made['account']['balance_uusd'])}"
    )
