"""What operators do about misbehaviour: verbs below ``comptoir hosts``, ``users`` and ``models``, and ``acts``."""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from comptoir.cli.api import Api
from comptoir.cli.market import hosts, models
from comptoir.cli.screen import moment, note, out, print_json, table
from comptoir.cli.target import Target, find_target, json_option, server_options

__all__ = ["acts", "hosts", "models", "users"]


@click.group()
def users() -> None:
    """Suspend and resume users (operators).

    A suspended user's keys and password are refused with the reason, unfinished jobs are cancelled, and the user's
    hosts are suspended too, until the user is resumed.

    \b
    Examples:
      comptoir users suspend mallory --reason "buys with stolen cards"
      comptoir users resume mallory --reason "cleared up with support"
    """


def _verb(group: click.Group, name: str, what: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a verb of *group* about *what*, with a reason and the options of every command."""

    def add(function: Callable[..., None]) -> click.Command:
        for option in (
            click.pass_context,
            server_options,
            json_option,
            click.option("--once", metavar="KEY", help="A name for this act; repeating it decides nothing new."),
            click.option("--reason", metavar="TEXT", required=True, help="Why; whoever is refused reads it."),
            click.argument("subject", metavar=what),
        ):
            function = option(function)
        return group.command(name)(function)

    return add


def _act(ctx: click.Context, path: str, done: str, options: dict[str, Any], *, model: str | None = None) -> None:
    """Record an act, and say what it did."""
    target = _target(ctx, options)
    body = {"reason": options["reason"]} | ({"model": model} if model is not None else {})
    headers = {"Idempotency-Key": options["once"] or os.urandom(16).hex()}
    act = Api(target).call("POST", path, body=body, headers=headers).json()
    if options["as_json"]:
        print_json(act)
        return
    note(target.said)
    out().print(f"[green]✓[/] {done} [dim](act {act['number']}, {moment(act['at_ms'])} by {act['operator']})[/]")


def _target(ctx: click.Context, options: dict[str, Any]) -> Target:
    """Return the target of a verb: its own options, else those given before its name."""
    given = ctx.parent.params if ctx.parent is not None else {}
    url, key, data = (options[name] or given.get(name) for name in ("url", "key", "data"))
    return find_target(url, key, data, operator=True)


@_verb(hosts, "suspend", "HOST")
def suspend_host(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Suspend a host until it is resumed (operators).

    It gets no more jobs, its running ones go on at other hosts and what it delivered is paid; its key is refused with
    the reason. Nobody is offered its models.

    \b
    Example:
      comptoir hosts suspend host_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f --reason "answers in another model's name"
    """
    _act(ctx, f"/house/hosts/{quote(subject)}/suspend", f"{subject} is suspended", options)


@_verb(hosts, "resume", "HOST")
def resume_host(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Resume a suspended host; it serves again as soon as it is heard (operators).

    \b
    Example:
      comptoir hosts resume host_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f --reason "its owner replaced the weights"
    """
    _act(ctx, f"/house/hosts/{quote(subject)}/resume", f"{subject} may serve again", options)


@_verb(hosts, "retire", "HOST")
def retire_host(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Retire a host for good (operators).

    As suspending it, and for ever: its keys are revoked. Its record and earnings stay.

    \b
    Example:
      comptoir hosts retire host_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f --reason "its owner asked for it"
    """
    _act(ctx, f"/house/hosts/{quote(subject)}/retire", f"{subject} is retired for good", options)


@_verb(users, "suspend", "USER")
def suspend_user(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Suspend a user, by username or id, with all hosts of theirs (operators).

    The last operator can't be suspended.

    \b
    Example:
      comptoir users suspend mallory --reason "buys with stolen cards"
    """
    _act(ctx, f"/house/users/{quote(subject)}/suspend", f"{subject} is suspended", options)


@_verb(users, "resume", "USER")
def resume_user(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Resume a suspended user; hosts that are suspended themselves stay so (operators).

    \b
    Example:
      comptoir users resume mallory --reason "cleared up with support"
    """
    _act(ctx, f"/house/users/{quote(subject)}/resume", f"{subject} may buy and serve again", options)


@_verb(models, "quarantine", "MODEL")
def quarantine(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Let nobody offer or buy a name, of a model or a container (operators).

    Offers of it are ignored, orders are refused with the reason, and waiting jobs end without cost; jobs that run end
    as they would.

    \b
    Example:
      comptoir models quarantine llama-3-8b --reason "three hosts serve another model under this name"
    """
    _act(ctx, "/house/models/quarantine", f"{subject} is in quarantine", options, model=subject)


@_verb(models, "release", "MODEL")
def release(ctx: click.Context, *, subject: str, **options: Any) -> None:
    """Release a name from quarantine: those who offer it are offered again (operators).

    \b
    Example:
      comptoir models release llama-3-8b --reason "the three hosts are retired"
    """
    _act(ctx, "/house/models/release", f"{subject} can be offered and bought again", options, model=subject)


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many acts to list.")
@click.option(
    "--before", metavar="NUMBER", type=click.IntRange(1), help="Only acts older than this one: the next page."
)
@json_option
@server_options
def acts(*, limit: int, before: int | None, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """List what operators decided, newest first (operators).

    Acts are never changed or deleted. "the coordinator" retires hosts that were not heard for too long.

    \b
    Examples:
      comptoir acts
      comptoir acts --before 120 --json
    """
    target = find_target(url, key, data, operator=True)
    page = Api(target).get(f"/house/acts?limit={limit}" + (f"&before={before}" if before else "")).json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    if not page["acts"]:
        console.print("[dim]no operator has had to act yet[/]")
        return
    made = table("number", "when", "operator", "verb", "about", "reason", right=("number",))
    for act in page["acts"]:
        when = moment(act["at_ms"])
        made.add_row(str(act["number"]), when, act["operator"], act["verb"], act["subject"], act["reason"])
    console.print(made)
    if page["next"]:
        console.print(f"[dim]older ones: comptoir acts --before {page['next']}[/]", soft_wrap=True)
