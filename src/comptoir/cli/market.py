"""``comptoir hosts`` and ``comptoir models``."""

from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from comptoir.cli.api import Api
from comptoir.cli.harmless import harmless
from comptoir.cli.screen import (
    ago,
    credits,
    note,
    out,
    price,
    price_words,
    print_json,
    run_price_words,
    state,
    table,
)
from comptoir.cli.target import find_target, json_option, server_options
from comptoir.cli.work import command_for
from comptoir.kinds import ContainerChain
from comptoir.kinds.capabilities import words

COMMANDS_TOLD = 4
"""Commands that buy what is listed, told below the list."""


@click.group(invoke_without_command=True)
@click.option("--model", metavar="NAME", help="Only hosts that offer this model.")
@click.option(
    "--status", type=click.Choice(("active", "draining", "offline", "suspended")), help="Only hosts with this status."
)
@click.option("--mine", is_flag=True, help="Only your own, with what they earned.")
@click.option("--why", is_flag=True, help="Explain each host's reputation.")
@json_option
@server_options
@click.pass_context
def hosts(
    ctx: click.Context,
    *,
    model: str | None,
    status: str | None,
    mine: bool,
    why: bool,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """List hosts with speed and reputation.

    \b
    Examples:
      comptoir hosts
      comptoir hosts --model comptoir-demo --why
      comptoir hosts --mine --json
      comptoir hosts --status suspended            with an operator's key
      comptoir hosts suspend host_0197… --reason "answers in another model's name"
    """
    if ctx.invoked_subcommand is not None:
        return
    target = find_target(url, key, data, operator=status == "suspended" and not mine)
    query = [f"{name}={quote(value)}" for name, value in (("model", model), ("status", status)) if value]
    page = Api(target).get("/house/hosts?" + "&".join([*query, "limit=200", *(["mine=true"] if mine else [])])).json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    if not page["hosts"]:
        console.print("[dim]no hosts yet; serve from this machine with:[/] comptoir host --help")
        return
    names = ["host", "status", "runs on", "slots", "models", "reputation", "first token", "tokens/s", "seen"]
    money = ["earned", "bond"] if mine else []
    made = table(*names, *money, right=("slots", "first token", "tokens/s", *money))
    for host in page["hosts"]:
        paces = [one["pace"] for one in host["models"] if one["pace"]["measured"]]
        best = min(paces, key=lambda pace: float(pace["token_p50_ms"]), default=None)
        reputation = host["reputation"]
        row = [
            host["id"],
            state(host["status"]),
            host["gpu"],
            f"{host['running']}/{host['slots']}",
            ", ".join(one["name"] for one in host["models"]),
            f"{reputation['score']:.2f}",
            f"{best['first_token_p50_ms']:.0f} ms" if best else "—",
            f"{1000 / best['token_p50_ms']:.0f}" if best and best["token_p50_ms"] else "—",
            ago(host["last_seen_ms"]),
        ]
        # An older server knows no bonds.
        made.add_row(*row, *([_earned(host), credits(host.get("bond_uusd") or 0)] if mine else []))
    console.print(made)
    for host in page["hosts"] if why else ():
        console.print(Text.assemble("\n", (host["id"], "bold"), "\n", harmless(host["reputation"]["sentence"])))
    if page["total"] > len(page["hosts"]):
        console.print(f"[dim]{page['total']:,} in total; --json and /house/hosts?offset= list the others[/]")


def _earned(host: dict[str, Any]) -> str:
    promo_uusd = host.get("promo_uusd") or 0
    return credits(host["earned_uusd"] or 0) + (f" ({credits(promo_uusd)} promotional)" if promo_uusd else "")


@click.group(invoke_without_command=True)
@json_option
@server_options
@click.pass_context
def models(ctx: click.Context, *, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """List models and containers that can be bought now.

    Ask models with 'comptoir run'; you pay by the token. Buy runs of containers through the Infernet API: POST
    /api/jobs with {"containers": ["NAME"], "data": {…}}, then GET /api/jobs?id=…. Work in other units is listed with
    its price in them; buy it with 'comptoir run KIND', where KIND is what it serves.

    \b
    Examples:
      comptoir models
      comptoir models --json | jq -r '.models[].name'
      comptoir models --json | jq -r '.containers[].name'
      comptoir models quarantine llama-3-8b --reason "three hosts serve another model under this name"
    """
    if ctx.invoked_subcommand is not None:
        return
    target = find_target(url, key, data)
    api = Api(target)
    page = api.get("/house/models").json() | api.get("/house/containers").json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    # An older server knows no others.
    lists = (
        (_list_models, page["models"]),
        (_list_containers, page["containers"]),
        (_list_others, page.get("others", [])),
    )
    for at, (show, offered) in enumerate([(show, offered) for show, offered in lists if offered]):
        if at:
            console.print()
        show(offered)
    if not any(offered for _, offered in lists):
        console.print("[dim]nothing for sale now; serve a model or a container with:[/] comptoir host --help")


def _list_models(offered: list[dict[str, Any]]) -> None:
    console = out()
    names = ("model", "serves", "can do", "hosts", "context", "in", "out", "waiting")
    made = table(*names, right=("hosts", "context", "waiting"))
    for one in offered:
        made.add_row(
            Text(harmless(one["name"]), style="bold"),
            ", ".join(one["kinds"]),
            # An older server does not say.
            words(one.get("capabilities", {})),
            str(one["hosts"]),
            f"{one['context_tokens']:,}",
            price(one["price_in_uusd_per_mtok"]),
            price(one["price_out_uusd_per_mtok"]),
            str(one["waiting"]),
        )
    console.print(made)
    console.print("[dim]prices are dollars per million tokens[/]")


def _list_others(offered: list[dict[str, Any]]) -> None:
    """List what is sold in units of its own."""
    console = out()
    made = table("name", "what", "serves", "can do", "hosts", "price", "waiting", right=("hosts", "waiting"))
    for one in offered:
        made.add_row(
            Text(harmless(one["name"]), style="bold"),
            one["noun"],
            ", ".join(one["kinds"]),
            # An older server does not say.
            words(one.get("capabilities", {})),
            str(one["hosts"]),
            ", ".join([price_words(each) for each in one["prices"]]),
            str(one["waiting"]),
        )
    console.print(made)
    commands = dict.fromkeys(command_for(one, named=False) for one in offered)
    console.print(Text(f"buy with: {', '.join(list(commands)[:COMMANDS_TOLD])}", style="dim"))


def _list_containers(offered: list[dict[str, Any]]) -> None:
    console = out()
    made = table(
        ContainerChain.noun, "begins a job", "says of itself", "hosts", "price", "waiting", right=("hosts", "waiting")
    )
    for one in offered:
        made.add_row(
            Text(harmless(one["name"]), style="bold"),
            "yes" if one["external"] else "no",
            one["description"] or one["image"],
            str(one["hosts"]),
            run_price_words(one["price_uusd_per_run"]),
            str(one["waiting"]),
        )
    console.print(made)
    console.print("[dim]containers are bought by the run: POST /api/jobs, see comptoir models --help[/]")
