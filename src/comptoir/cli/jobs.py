"""``comptoir jobs``: list, show, cancel."""

from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from comptoir.cli.api import Api
from comptoir.cli.screen import (
    ago,
    credits,
    credits_and_usd,
    facts,
    moment,
    note,
    out,
    print_json,
    short,
    span,
    state,
    table,
)
from comptoir.cli.target import Target, find_target, json_option, server_options

STATES = ("queued", "running", "completed", "failed", "cancelled", "expired")


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Most jobs listed.")
@click.option("--before", metavar="JOB", help="Only jobs older than this one: the next page.")
@click.option("--state", "wanted", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--everyone", is_flag=True, help="All buyers' jobs (operators).")
@json_option
@server_options
@click.pass_context
def jobs(
    ctx: click.Context, *, limit: int, before: str | None, wanted: str | None, everyone: bool, as_json: bool,
    url: str | None, key: str | None, data: str | None,
) -> None:  # fmt: skip
    """List your jobs, show one with its life, or cancel it.

    \b
    Examples:
      comptoir jobs                       the newest twenty
      comptoir jobs --state failed --json
      comptoir jobs show job_0197…        events, attempts, times, cost
      comptoir jobs cancel job_0197…
    """
    if ctx.invoked_subcommand is not None:
        return
    target = find_target(url, key, data, operator=everyone)
    query = f"limit={limit}" + (f"&before={quote(before)}" if before else "") + (f"&state={wanted}" if wanted else "")
    page = Api(target).get(f"/house/jobs?{query}" + ("&everyone=true" if everyone else "")).json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    if not page["jobs"]:
        console.print('[dim]no jobs yet; buy one with:[/] comptoir run "Explain quantum computing."')
        return
    made = table("job", "state", "model", "tokens", "credits", "host", "when", right=("tokens", "credits"))
    for job in page["jobs"]:
        made.add_row(
            job["id"], _state(job), job["model"], f"{job['prompt_tokens']}+{job['completion_tokens']}",
            credits(job["cost_uusd"]), short(job["host"]), ago(job["created_ms"]),
        )  # fmt: skip
    console.print(made)
    if page["next"]:
        console.print(f"[dim]older ones: comptoir jobs --before {page['next']}[/]", soft_wrap=True)


def _target(ctx: click.Context, url: str | None, key: str | None, data: str | None) -> Target:
    """Return the target of a subcommand: its own options, else those given before its name."""
    given = ctx.parent.params if ctx.parent is not None else {}
    return find_target(url or given.get("url"), key or given.get("key"), data or given.get("data"))


def _state(job: dict[str, Any]) -> Text:
    word = state(job["state"])
    if job["queue_position"] is not None:
        word.append(f" (after {job['queue_position']})", style="dim")
    return word


@jobs.command()
@click.argument("job_id", metavar="JOB")
@json_option
@server_options
@click.pass_context
def show(ctx: click.Context, *, job_id: str, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """Show one job with its life.

    \b
    Example:
      comptoir jobs show job_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
    """
    job = Api(_target(ctx, url, key, data)).get(f"/house/jobs/{quote(job_id)}").json()
    print_json(job) if as_json else _show(job)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@json_option
@server_options
@click.pass_context
def cancel(
    ctx: click.Context, *, job_id: str, as_json: bool, url: str | None, key: str | None, data: str | None
) -> None:
    """Stop a job; what was delivered is paid, the rest goes back.

    \b
    Example:
      comptoir jobs cancel job_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
    """
    job = Api(_target(ctx, url, key, data)).call("POST", f"/house/jobs/{quote(job_id)}/cancel").json()
    print_json(job) if as_json else _show(job)


def _show(job: dict[str, Any]) -> None:
    console = out()
    wrong = f"{job['error_message']} ({job['error_code']}, fault: {job['fault']})" if job["error_code"] else None
    console.print(
        facts(
            [
                ("job", job["id"]), ("state", _state(job)), ("wrong", wrong), ("model", job["model"]),
                ("bought", f"{moment(job['created_ms'])} through {job['dialect']}"), ("host", job["host"]),
                ("times", f"waited {span(job['waited_ms'])}, ran {span(job['ran_ms'])}"),
                ("tokens", f"{job['prompt_tokens']} in, {job['completion_tokens']} out (at most {job['max_tokens']})"),
                ("cost", credits_and_usd(job["cost_uusd"])), ("set aside", credits_and_usd(job["hold_uusd"])),
                ("finish", job["finish_reason"]), ("receipt", job["receipt"]),
            ]
        )
    )  # fmt: skip
    console.print("\n[bold]life[/]")
    began = job["created_ms"]
    events = table("at", "state", "")
    for event in job["events"]:
        events.add_row(f"+{span(event['at_ms'] - began)}", state(event["state"]), event["detail"] or "")
    console.print(events)
    if job["attempts"]:
        console.print("\n[bold]attempts[/]")
        made = table("host", "state", "frames", "tokens", "paid", "took", right=("tokens", "paid"))
        for one in job["attempts"]:
            took = span(one["ended_ms"] - one["started_ms"]) if one["ended_ms"] else "—"
            frames = f"{one['first_frame']}…{one['end_frame']}"
            made.add_row(one["host"], state(one["state"]), frames, str(one["tokens"]), credits(one["paid_uusd"]), took)
        console.print(made)
