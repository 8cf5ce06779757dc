"""``comptoir hosts evidence`` and ``comptoir hosts forfeit``."""

import base64
import json
import os
from typing import Any
from urllib.parse import quote

import click

from comptoir.cli.acts import hosts
from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.receipt import REGISTRY_BYTES_MAX, read_file
from comptoir.cli.screen import moment, note, out, print_json, table
from comptoir.cli.target import Target, find_target, json_option, server_options
from comptoir.receipts import EXHIBITS_BYTES_MAX, BadRegistry, ExhibitVerdict, read_registry, verify_exhibits

__all__ = ["hosts"]


@hosts.command()
@click.argument("host", metavar="HOST", required=False)
@click.option("--verify", "file", metavar="FILE", help="Check a file of evidence instead; '-' is standard input.")
@click.option("--keys", "keys_file", metavar="FILE", help="With --verify: keys saved before, for checking offline.")
@json_option
@server_options
@click.pass_context
def evidence(
    ctx: click.Context,
    *,
    host: str | None,
    file: str | None,
    keys_file: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """List what a host signed that what arrived contradicts, or verify such a list.

    For operators, the host's owner, and the host. Each exhibit holds two signed statements about the same frames: the
    host's, and the coordinator's about what arrived. Only the holder of the host's key can have signed the first; what
    arrived is the coordinator's word.

    \b
    Examples:
      comptoir hosts evidence host_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
      comptoir hosts evidence host_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f --json > evidence.json
      comptoir keys --json > keys.json
      comptoir hosts evidence --verify evidence.json --keys keys.json
    """
    if (host is None) is (file is None):
        raise Failure("give a host, or --verify FILE", "see 'comptoir hosts evidence --help'", code=Exit.USAGE)
    given = ctx.parent.params if ctx.parent is not None else {}
    target = find_target(url or given.get("url"), key or given.get("key"), data or given.get("data"), operator=True)
    if file is not None:
        _say(_verified(file, keys_file, target), as_json=as_json)
        return
    page = Api(target).get(f"/house/hosts/{quote(host or '', safe='')}/evidence").json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    _list(page)


@hosts.command()
@click.argument("host", metavar="HOST")
@click.option("--evidence", "exhibit", metavar="ID", required=True, help="The exhibit against it (exhibit_…).")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is recorded with the evidence.")
@click.option("--once", metavar="KEY", help="A name for this act; repeating it decides nothing new.")
@json_option
@server_options
def forfeit(
    *,
    host: str,
    exhibit: str,
    reason: str,
    once: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """Forfeit a host's bond, for evidence against it (operators).

    The whole bond moves to the operator's account 'forfeits', once, and is recorded ('comptoir acts'). The host goes on
    as it was; to stop it, suspend or retire it.

    \b
    Example:
      comptoir hosts forfeit host_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f \\
        --evidence exhibit_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b --reason "signed frames that it never sent"
    """
    target = find_target(url, key, data, operator=True)
    headers = {"Idempotency-Key": once or os.urandom(16).hex()}
    body = {"evidence": exhibit, "reason": reason}
    act = Api(target).call("POST", f"/house/hosts/{quote(host, safe='')}/forfeit", body=body, headers=headers).json()
    if as_json:
        print_json(act)
        return
    note(target.said)
    out().print(f"[green]✓[/] the bond of {host} is forfeited [dim](act {act['number']} by {act['operator']})[/]")


def _verified(file: str, keys_file: str | None, target: Target) -> list[ExhibitVerdict]:
    listed = read_file(file, EXHIBITS_BYTES_MAX)
    if keys_file is not None:
        keys = read_file(keys_file, REGISTRY_BYTES_MAX)
    else:
        keys = Api(Target(target.url, "", "")).get("/house/keys").body
    try:
        return verify_exhibits(listed, read_registry(keys))
    except BadRegistry as error:
        raise Failure(error.message, "'comptoir keys --json' prints them", code=Exit.REFUSED) from error
    except ValueError as error:
        raise Failure(
            f"{file}: {error}", "'comptoir hosts evidence HOST --json' writes one", code=Exit.REFUSED
        ) from error


def _say(verdicts: list[ExhibitVerdict], *, as_json: bool) -> None:
    if as_json:
        print_json([{"exhibit": one.exhibit, "ok": one.ok, "detail": one.detail} for one in verdicts])
    else:
        for one in verdicts:
            out().print(f"{'[green]✓[/]' if one.ok else '[red]✗[/]'} {one.exhibit}: {one.detail}", soft_wrap=True)
        if not verdicts:
            out().print("[dim]no evidence in this file[/]")
    if not all(one.ok for one in verdicts):
        raise click.exceptions.Exit(Exit.REFUSED)


def _list(page: dict[str, Any]) -> None:
    console = out()
    if not page["evidence"]:
        console.print("[dim]nothing that this host signed was contradicted by what arrived[/]")
        return
    made = table("evidence", "when", "job", "what", "used")
    for one in page["evidence"]:
        used = moment(one["used_ms"]) if one["used_ms"] is not None else ""
        made.add_row(one["id"], moment(one["at_ms"]), one["job"], one["says"], used)
    console.print(made)
    for one in page["evidence"]:
        signed, came = (json.loads(base64.b64decode(one[side]["payload"])) for side in ("stated", "arrived"))
        console.print(
            f"[dim]{one['id']}, frames {came['first_frame']} to {came['end_frame']}:[/] signed "
            f"{signed['completion_tokens']} units, hash {signed['chain'][:16]}…; arrived "
            f"{came['completion_tokens']} units, hash {came['chain'][:16]}…",
            soft_wrap=True,
        )
    console.print(f"[dim]to keep it: comptoir hosts evidence {page['host']} --json[/]", soft_wrap=True)
