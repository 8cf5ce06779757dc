"""``comptoir jobs``: list, show, follow, cancel."""

from typing import Any
from urllib.parse import quote

import click
from rich.table import Table
from rich.text import Text

from comptoir.cli.api import Api
from comptoir.cli.failure import Failure
from comptoir.cli.screen import (
    ago,
    amount,
    counted,
    credits,
    credits_and_usd,
    facts,
    moment,
    note,
    out,
    price_words,
    print_json,
    short,
    span,
    state,
    table,
)
from comptoir.cli.target import Target, find_target, json_option, server_options
from comptoir.cli.work.buying import follow
from comptoir.cli.work.command import chosen, following
from comptoir.cli.work.saving import check_folder
from comptoir.kinds import TOKEN_IN, TOKEN_OUT, Kinds

WELL = ("stop", "length", "tool_calls", "function_call", "content_filter")
"""Finish reasons that need no second look in a list."""

STATES = ("queued", "running", "completed", "failed", "cancelled", "expired")


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many jobs to list.")
@click.option("--before", metavar="JOB", help="Only jobs older than this one: the next page.")
@click.option("--state", "wanted", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--everyone", is_flag=True, help="All buyers' jobs (operators).")
@json_option
@server_options
@click.pass_context
def jobs(
    ctx: click.Context,
    *,
    limit: int,
    before: str | None,
    wanted: str | None,
    everyone: bool,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """List your jobs, show the history of one, follow it, or cancel it.

    Each job is counted in its kind's unit: tokens of a chat (in+out), runs of a container, seconds of a program. A
    chain of containers is one job, listed under their names with commas between; 'jobs show' has the host and the pay
    of each.

    \b
    Examples:
      comptoir jobs                       the newest twenty
      comptoir jobs --state failed --json
      comptoir jobs show job_0197…        events, attempts, times, cost
      comptoir jobs follow job_0197…      what a program writes, and its results
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
    made = table("job", "state", "model", "made", "credits", "host", "when", right=("made", "credits"))
    for job in page["jobs"]:
        made.add_row(
            job["id"],
            _state(job),
            job["model"],
            _units(job),
            credits(job["cost_uusd"]),
            short(job["host"]),
            ago(job["created_ms"]),
        )
    console.print(made)
    if page["next"]:
        console.print(f"[dim]older ones: comptoir jobs --before {page['next']}[/]", soft_wrap=True)


def _units(job: dict[str, Any]) -> str:
    """Say in a word what was counted: ``34+12`` tokens, ``2 runs``, ``12 prompt tokens, 3 images``."""
    units = job["units"]
    if [one["unit"] for one in units] == [TOKEN_IN.name, TOKEN_OUT.name]:
        return "+".join([str(one["count"]) for one in units])
    return ", ".join([counted(one) for one in units])


def _target(ctx: click.Context, url: str | None, key: str | None, data: str | None) -> Target:
    """Return the target of a subcommand: its own options, else those given before its name."""
    given = ctx.parent.params if ctx.parent is not None else {}
    return find_target(url or given.get("url"), key or given.get("key"), data or given.get("data"))


def _state(job: dict[str, Any]) -> Text:
    word = state(job["state"])
    if job["queue_position"] is not None:
        word.append(f" (after {job['queue_position']})", style="dim")
    if job["finish_reason"] not in (*WELL, None):
        word.append(f" ({job['finish_reason']})", style="yellow")
    return word


@jobs.command()
@click.argument("job_id", metavar="JOB")
@json_option
@server_options
@click.pass_context
def show(ctx: click.Context, *, job_id: str, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """Show one job with its history.

    \b
    Example:
      comptoir jobs show job_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
    """
    api = Api(_target(ctx, url, key, data))
    job = _with_files(api, api.get(f"/house/jobs/{quote(job_id)}").json())
    print_json(job) if as_json else _show(job)


@jobs.command()
@click.argument("job_id", metavar="JOB")
@json_option
@server_options
@click.pass_context
def cancel(
    ctx: click.Context, *, job_id: str, as_json: bool, url: str | None, key: str | None, data: str | None
) -> None:
    """Cancel a job: what was delivered is billed, the rest is released.

    \b
    Example:
      comptoir jobs cancel job_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
    """
    job = Api(_target(ctx, url, key, data)).call("POST", f"/house/jobs/{quote(job_id)}/cancel").json()
    print_json(job) if as_json else _show(job)


@jobs.command("follow")
@click.argument("job_id", metavar="JOB")
@following
@server_options
@click.pass_context
def follow_job(
    ctx: click.Context, /, *, job_id: str, url: str | None, key: str | None, data: str | None, **given: Any
) -> None:
    """Show what a job writes, from its start to its end, and download its results.

    Of a job that 'comptoir run KIND' bought, there or elsewhere; it may be over. Ctrl-C leaves it running.

    \b
    Examples:
      comptoir jobs follow job_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
      comptoir jobs follow job_0197… --out results
    """
    choices = chosen(given)
    check_folder(choices.folder)
    api = Api(_target(ctx, url, key, data))
    follow(api, api.get(f"/house/jobs/{quote(job_id)}").json(), choices, cancels=False)


def _show(job: dict[str, Any]) -> None:
    console = out()
    wrong = f"{job['error_message']} ({job['error_code']}, fault: {job['fault']})" if job["error_code"] else None
    console.print(
        facts(
            [
                ("job", job["id"]),
                ("state", _state(job)),
                ("wrong", wrong),
                _bought(job),
                ("bought", f"{moment(job['created_ms'])} through {job['dialect']}"),
                ("host", job["host"]),
                ("times", f"waited {span(job['waited_ms'])}, ran {span(job['ran_ms'])}"),
                _delivered(job),
                ("cost", credits_and_usd(job["cost_uusd"])),
                ("set aside", credits_and_usd(job["hold_uusd"])),
                ("finish", job["finish_reason"]),
                *(("input", _file(one)) for one in job.get("inputs", ())),
                *(("made", _file(one)) for one in job.get("artifacts", ())),
                ("receipt", job["receipt"]),
            ]
        )
    )
    console.print("\n[bold]history[/]")
    began = job["created_ms"]
    events = table("at", "state", "")
    for event in job["events"]:
        events.add_row(f"+{span(event['at_ms'] - began)}", state(event["state"]), event["detail"] or "")
    console.print(events)
    if job["attempts"]:
        console.print("\n[bold]attempts[/]")
        console.print(_stages(job["attempts"], job["noun"]) if job["containers"] else _attempts(job["attempts"]))


def _with_files(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """Return *job* with its ``inputs`` and ``artifacts``, if it is of a kind with files."""
    kind = Kinds().stored(job["kind"])
    if kind.sold and not kind.files:
        return job
    try:
        return {**job, **api.get(f"/house/jobs/{quote(job['id'])}/files").json()}
    except Failure:
        return job  # An older server, or all of it was forgotten.


def _file(one: dict[str, Any]) -> str:
    size = f", {one['size']:,} bytes" if "size" in one else ""
    return f"{one['name']} ({one.get('file') or one['url']}{size})" if "name" in one else str(one["url"])


def _bought(job: dict[str, Any]) -> tuple[str, object]:
    return "chain" if len(job["containers"]) > 1 else job["noun"], job["model"]


def _delivered(job: dict[str, Any]) -> tuple[str, object]:
    """Say how far the job came, under the name of what it makes."""
    *taken, made = job["units"]
    most = made["most"]
    if taken:
        into = f"{amount(taken[0])} in" if made["unit"] == TOKEN_OUT.name else f"{counted(taken[0])} in"
        return made["many"], f"{into}, {amount(made)} out" + (f" (at most {amount(made, most=True)})" if most else "")
    return made["many"], f"{amount(made)} of {amount(made, most=True)}" if most else amount(made)


def _attempts(attempts: list[dict[str, Any]]) -> Table:
    made = attempts[0]["units"][-1]["many"]
    shown = table("host", "state", "frames", made, "paid", "took", right=(made, "paid"))
    for one in attempts:
        frames = f"{one['first_frame']}…{one['end_frame']}"
        shown.add_row(
            one["host"],
            state(one["state"]),
            frames,
            amount(one["units"][-1]),
            credits(one["paid_uusd"]),
            _took(one),
        )
    return shown


def _stages(attempts: list[dict[str, Any]], noun: str) -> Table:
    """Return the attempts of a job in stages: which ran where, for how much, and what its host earned."""
    made = table(noun, "host", "state", "price", "paid", "took", right=("paid",))
    for one in attempts:
        asked = ", ".join([price_words(each) for each in one["prices"]]) or "—"
        paid = credits(one["paid_uusd"])
        made.add_row(one["stage"], one["host"], state(one["state"]), asked, paid, _took(one))
    return made


def _took(attempt: dict[str, Any]) -> str:
    return span(attempt["ended_ms"] - attempt["started_ms"]) if attempt["ended_ms"] else "—"
