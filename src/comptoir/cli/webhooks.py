"""``comptoir webhooks`` and the verbs below it."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.harmless import harmless
from comptoir.cli.screen import moment, note, out, print_json, table
from comptoir.cli.target import Target, find_target, json_option, server_options

AGES = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
"""Seconds of each unit that an age can be given in."""


@click.group()
def webhooks() -> None:
    """Have your events posted to addresses, and see what became of them.

    Messages and signatures are those of Standard Webhooks (standardwebhooks.com); any of its libraries verifies them
    with the secret that 'add' shows.

    \b
    Examples:
      comptoir webhooks add https://shop.example/comptoir --type job.ended
      comptoir webhooks ls
      comptoir webhooks log webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """


def _verb(name: str, *, about: str = "WEBHOOK") -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a verb of the group, about one webhook, with the options of every command."""

    def add(function: Callable[..., None]) -> click.Command:
        function = json_option(server_options(function))
        if about:
            function = click.argument(about.lower(), metavar=about)(function)
        return webhooks.command(name)(function)

    return add


def _api(options: dict[str, Any]) -> tuple[Api, Target]:
    target = find_target(options["url"], options["key"], options["data"])
    return Api(target), target


def _path(webhook: str, verb: str = "") -> str:
    return f"/house/webhooks/{quote(webhook, safe='')}{verb}"


def _show_secret(made: dict[str, Any], words: str) -> None:
    console = out()
    console.print(Text(made["secret"], style="bold"), soft_wrap=True)
    console.print(f"[dim]{words}; shown only now. Its receiver verifies signatures with it.[/]", soft_wrap=True)


@_verb("add", about="")
@click.argument("address", metavar="URL")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only events of this type; may be repeated [all].")
@click.option(
    "--parallel",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Messages under way at once; 1 keeps them in order.",
)
@click.option("--note", "words", default="", help="For you to know it by.")
def add(*, address: str, types: tuple[str, ...], parallel: int, words: str, **options: Any) -> None:
    """Have events posted to an address, from now on.

    The secret is shown once. 'webhooks test' sends a first message.

    \b
    Examples:
      comptoir webhooks add https://shop.example/comptoir
      comptoir webhooks add https://shop.example/comptoir --type job.ended --note "orders"
    """
    api, target = _api(options)
    body = {"url": address, "types": list(types), "parallel": parallel, "note": words}
    # A key of our own makes a retry by the network harmless.
    headers = {"Idempotency-Key": os.urandom(16).hex()}
    made = api.call("POST", "/house/webhooks", body=body, headers=headers).json()
    if options["as_json"]:
        print_json(made)
        return
    note(target.said)
    _show_secret(made, f"the secret of {made['id']}")


@_verb("ls", about="")
def ls(**options: Any) -> None:
    """List your webhooks.

    \b
    Example:
      comptoir webhooks ls
    """
    api, target = _api(options)
    found = api.get("/house/webhooks").json()
    if options["as_json"]:
        print_json(found)
        return
    note(target.said)
    console = out()
    if not found["webhooks"]:
        console.print("[dim]no webhooks yet; make one with:[/] comptoir webhooks add URL")
        return
    made = table("id", "url", "events", "state", "number", "failing since", "note", right=("number",))
    for one in found["webhooks"]:
        types = " ".join(one["types"]) or "all"
        shown = one["state"] + (f": {one['why']}" if one["why"] else "")
        failing = moment(one["failing_since_ms"]) if one["failing_since_ms"] else ""
        words = (harmless(one["url"]), types, harmless(shown), str(one["number"]), failing, harmless(one["note"]))
        made.add_row(one["id"], *words)
    console.print(made)


@_verb("rm")
def rm(*, webhook: str, **options: Any) -> None:
    """Delete a webhook with its messages.

    \b
    Example:
      comptoir webhooks rm webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """
    api, target = _api(options)
    api.call("DELETE", _path(webhook))
    if options["as_json"]:
        print_json({"deleted": webhook})
        return
    note(target.said)
    out().print(f"[green]✓[/] {webhook} is deleted", soft_wrap=True)


def _say(webhook: str, verb: str, done: str, options: dict[str, Any]) -> None:
    api, target = _api(options)
    found = api.call("POST", _path(webhook, verb)).json()
    if options["as_json"]:
        print_json(found)
        return
    note(target.said)
    out().print(f"[green]✓[/] {done}", soft_wrap=True)


@_verb("pause")
def pause(*, webhook: str, **options: Any) -> None:
    """Send nothing to a webhook until it is resumed.

    \b
    Example:
      comptoir webhooks pause webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """
    _say(webhook, "/pause", f"{webhook} is paused; nothing is lost meanwhile", options)


@_verb("resume")
def resume(*, webhook: str, **options: Any) -> None:
    """Go on sending to a webhook: what waits, then the events since.

    \b
    Example:
      comptoir webhooks resume webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """
    _say(webhook, "/resume", f"{webhook} is active", options)


@_verb("test")
def test(*, webhook: str, **options: Any) -> None:
    """Send a message of type webhook.test to a webhook.

    \b
    Example:
      comptoir webhooks test webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """
    _say(webhook, "/test", f"sent; see what becomes of it with: comptoir webhooks log {webhook}", options)


@_verb("rotate")
def rotate(*, webhook: str, **options: Any) -> None:
    """Give a webhook a new secret; the old one still signs for 24 hours.

    \b
    Example:
      comptoir webhooks rotate webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
    """
    api, target = _api(options)
    made = api.call("POST", _path(webhook, "/rotate")).json()
    if options["as_json"]:
        print_json(made)
        return
    note(target.said)
    until = moment(made["old_secret_until_ms"])
    _show_secret(made, f"the new secret of {webhook}; the old one signs too until {until}")


@_verb("log")
@click.option("--state", type=click.Choice(("waiting", "delivered", "dead")), help="Only these; dead: given up.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many to list.")
@click.option("--before", metavar="ID", help="Only messages older than this one: the next page.")
def log(*, webhook: str, state: str | None, limit: int, before: str | None, **options: Any) -> None:
    """List a webhook's messages, newest first, with what its address answered.

    \b
    Examples:
      comptoir webhooks log webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b
      comptoir webhooks log webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b --state dead --json
    """
    api, target = _api(options)
    more = (f"&state={state}" if state else "") + (f"&before={quote(before)}" if before else "")
    page = api.get(_path(webhook, f"/log?limit={limit}{more}")).json()
    if options["as_json"]:
        print_json(page)
        return
    note(target.said)
    console = out()
    if not page["messages"]:
        console.print("[dim]no messages yet; send one with:[/] comptoir webhooks test WEBHOOK")
        return
    made = table(
        "message", "type", "number", "state", "tries", "last", "ms", "answer", "next", right=("number", "tries")
    )
    for one in page["messages"]:
        last = one["attempts"][-1] if one["attempts"] else None
        made.add_row(
            one["id"], one["type"], str(one["number"]), one["state"], str(len(one["attempts"])),
            moment(last["at_ms"]) if last else "", str(last["took_ms"]) if last else "", _answer(last),
            moment(one["next_ms"]) if one["next_ms"] else "",
        )  # fmt: skip
    console.print(made)
    if page["next"]:
        console.print(f"[dim]older ones: comptoir webhooks log {webhook} --before {page['next']}[/]", soft_wrap=True)


def _answer(attempt: dict[str, Any] | None) -> str:
    """Return what an attempt came to in a few words; the address may say what it likes."""
    if attempt is None:
        return ""
    words = attempt["error"] or " ".join(attempt["answer"].split())[:40]
    return harmless(f"{attempt['status'] or ''} {words}".strip())


@_verb("replay")
@click.option("--message", metavar="ID", help="This message.")
@click.option(
    "--since", metavar="TIME", help="All events since then: 30m, 12h, 2d ago, or 2026-12-01T08:00 (UTC); as kept."
)
def replay(*, webhook: str, message: str | None, since: str | None, **options: Any) -> None:
    """Send one message again, or all events since a time.

    A message keeps its webhook-id and body, so a receiver that remembers ids does nothing twice.

    \b
    Examples:
      comptoir webhooks replay webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b --since 2h
      comptoir webhooks replay webhook_01981a2b3c4d7e8f9a0b1c2d3e4f5a6b --message msg_5f0c…
    """
    if (message is None) is (since is None):
        raise Failure("give --message or --since", "see 'comptoir webhooks replay --help'", code=Exit.USAGE)
    body: dict[str, Any] = {"message": message} if message else {"since_ms": since_ms(since or "", now_s=time.time())}
    api, target = _api(options)
    again = api.call("POST", _path(webhook, "/replay"), body=body).json()
    if options["as_json"]:
        print_json(again)
        return
    note(target.said)
    words = {0: "there is nothing to send again"}.get(again["again"], f"gone through again: {again['again']}")
    out().print(f"[green]✓[/] {words}", soft_wrap=True)


def since_ms(text: str, *, now_s: float) -> int:
    """Return the time that *text* means, in milliseconds since 1970: an age, or a date and time in UTC.

    Raises:
        Failure: it is neither.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and len(number) <= 9 and unit in AGES:
        return max(0, round((now_s - int(number) * AGES[unit]) * 1000))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(
            f"{text!r} is no time", "give an age (30m, 12h, 2d) or a date: 2026-12-01T08:00", code=Exit.USAGE
        ) from None
    return max(0, round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000))
