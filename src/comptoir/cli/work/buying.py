"""Buys a job with files and follows it: upload, order, watch, settle, save."""

import json
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from comptoir.cli.answer import PASSING, PAUSES_S, job_of_key
from comptoir.cli.api import Api
from comptoir.cli.ending import ended_by_signals, settled
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.harmless import as_read, harmless
from comptoir.cli.screen import counted, credits, err, note, print_json, short, span
from comptoir.cli.target import find_target
from comptoir.cli.transfer import upload
from comptoir.cli.work.following import JobReader
from comptoir.cli.work.order import WorkOrder
from comptoir.cli.work.outcome import STDERR, STDOUT, WorkOutcome
from comptoir.cli.work.saving import check_folder, save
from comptoir.cli.work.screen import WorkScreen
from comptoir.kinds import Kinds

NO_FILE = "file_" + "0" * 32
"""Stands for files that are still to be uploaded."""

SHIPPED = Kinds()

COMPLETED, WELL = "completed", "stop"
"""State and finish reason of a job whose program did what it was to do."""


@dataclass(frozen=True)
class Choices:
    """How a job is followed, and where its results go."""

    folder: Path
    force: bool
    """Write over files that are there."""
    again_for_s: float
    as_json: bool


def buy(
    order: WorkOrder,
    choices: Choices,
    *,
    model: str | None,
    detach: bool,
    server: tuple[str | None, str | None, str | None],
) -> None:
    """Buy *order* at *server* (address, key and data folder as given) and follow it to its end.

    Raises:
        Failure: it is refused, or the job did not do what it was to do.
    """
    target = find_target(*server)
    note(target.said)
    check_folder(choices.folder)
    _check_body(order)
    api = Api(target)
    request: dict[str, Any] = {"kind": order.kind, "model": model or first_offer(api, order.kind), "body": order.body}
    if order.inputs:
        sent = [upload(api, one.path) if one.path is not None else None for one in order.inputs]
        request["body"] |= {"inputs": [one.named(file) for one, file in zip(order.inputs, sent, strict=True)]}
    if order.output_max is not None:
        request["output_max"] = order.output_max
    job = _order(api, request, again_for_s=choices.again_for_s)
    if detach:
        print_json(job) if choices.as_json else click.echo(job["id"])
        note(f"see it with: comptoir jobs follow {job['id']}")
        return
    follow(api, job, choices, cancels=True, tells=order.tells)


def _check_body(order: WorkOrder) -> None:
    """Refuse, before anything is uploaded, what the kind would refuse; of one that is not known here nothing is known.

    Raises:
        Failure: the body is none of this kind.
    """
    kind = SHIPPED.stored(order.kind)
    inputs = [
        one.named({"name": one.path.name, "id": NO_FILE, "sha256": "0" * 64} if one.path else None)
        for one in order.inputs
    ]
    wrong = kind.check(json.dumps(order.body | ({"inputs": inputs} if inputs else {})).encode()) if kind.sold else ""
    if wrong:
        raise Failure(f"the order's body: {wrong}", f"see: comptoir run {order.kind} --help", code=Exit.USAGE)


def first_offer(api: Api, kind: str) -> str:
    """Return the first thing on offer that serves *kind*.

    Raises:
        Failure: nothing does.
    """
    page = api.get("/house/models").json()
    for one in [*page["models"], *page.get("others", [])]:
        if kind in one["kinds"]:
            return str(one["name"])
    hint = f"see 'comptoir models'; offer it yourself with: comptoir host --engine {kind}"
    raise Failure(f"nobody sells {kind} at {api.target.url} now", hint)


def _order(api: Api, request: dict[str, Any], *, again_for_s: float) -> dict[str, Any]:
    """Place an order once, however often it has to be said."""
    key, until, tries = secrets.token_hex(16), time.monotonic() + again_for_s, 0
    with ended_by_signals():
        while True:
            try:
                found = api.call("POST", "/house/jobs", body=request, headers={"Idempotency-Key": key}).json()
                return dict(found)
            except KeyboardInterrupt:
                if job := job_of_key(api, key):
                    api.call("POST", f"/house/jobs/{quote(job)}/cancel")
                raise
            except Failure as failure:
                refused = not tries and isinstance(failure.__cause__, ConnectionRefusedError)
                passing = failure.code == Exit.UNREACHABLE or (tries and failure.status in PASSING)
                if refused or not passing or time.monotonic() > until:
                    raise
            time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1


def follow(api: Api, job: dict[str, Any], choices: Choices, *, cancels: bool, tells: bool = True) -> None:
    """Show a job to its end, and bring its results into the folder.

    Args:
        cancels: Ctrl-C cancels the job; else it only leaves.
        tells: print what it returned.

    Raises:
        Failure: it did not do what it was to do.
        Exit: it was interrupted.
    """
    path, began_s = f"/house/jobs/{quote(job['id'])}", time.monotonic()
    screen = WorkScreen(
        job["model"], lambda: dict(api.get(path).json()), quiet=choices.as_json,
        ctrl_c="Ctrl-C cancels" if cancels else "Ctrl-C leaves it",
    )  # fmt: skip
    reader = JobReader(api, job["id"], screen, again_for_s=choices.again_for_s)
    interrupted = False
    screen.start()
    try:
        with ended_by_signals():
            reader.read()
    except KeyboardInterrupt:
        if not cancels:
            screen.stop()
            note(f"the job goes on; come back with: comptoir jobs follow {job['id']}")
            raise
        interrupted = True
        reader.cancel()
    except BrokenPipeError:
        # Whoever read the output left (`comptoir run … | head`): it must not go on for nobody.
        if cancels:
            reader.cancel()
        raise
    finally:
        screen.stop()
    over = settled(api, job["id"]) or job
    saved = save(api, reader.outcome.artifacts, choices.folder, force=choices.force)
    bill = _bill(over, reader.outcome, saved, total_s=time.monotonic() - began_s)
    if choices.as_json:
        print_json(bill)
    else:
        if tells and bill["result"] is not None:
            _tell(bill["result"])
        _say(bill, interrupted=interrupted)
    if interrupted:
        raise click.exceptions.Exit(Exit.INTERRUPTED)
    _check(bill)


def _bill(job: dict[str, Any], outcome: WorkOutcome, saved: list[dict[str, Any]], *, total_s: float) -> dict[str, Any]:
    """Say what came and what it cost, as the books have it."""
    end = outcome.end
    return {
        "job": job["id"],
        "kind": job["kind"],
        "model": job["model"],
        "state": end.get("state") or job["state"],
        "finish_reason": end.get("finish_reason") or job["finish_reason"],
        "error_code": end.get("error_code") or job["error_code"],
        "error_message": end.get("error_message") or job["error_message"],
        "fault": job["fault"],
        "result": outcome.result,
        "stdout": outcome.written[STDOUT].text,
        "stderr": outcome.written[STDERR].text,
        "failed": outcome.failed or None,
        "artifacts": saved,
        "fetched": outcome.fetched,
        "begun_again": outcome.begun_again,
        "units": job["units"],
        "cost_uusd": end.get("cost_uusd", job["cost_uusd"]),
        "hold_uusd": job["hold_uusd"],
        "host": job["host"],
        "receipt": job["receipt"],
        "total_s": round(total_s, 4),
    }


def _say(bill: dict[str, Any], *, interrupted: bool) -> None:
    """Print the last lines, to standard error: what was made, and what it cost."""
    console = err()
    for one in bill["artifacts"]:
        if one["said"]:
            console.print(f"[yellow]▲[/] {_plain(one['said'])}", soft_wrap=True)
        console.print(f"→ {_plain(one['path'])} [dim]{one['size']:,} bytes[/]", soft_wrap=True)
    ok = bill["state"] == COMPLETED and bill["finish_reason"] in (WELL, None)
    parts = [", ".join(counted(unit) for unit in bill["units"]), f"[bold]{credits(bill['cost_uusd'])} credits[/]"]
    parts += [f"total {span(bill['total_s'] * 1000)}", *([short(bill["host"])] if bill["host"] else [])]
    if not ok:
        parts.insert(0, "[yellow]cancelled[/]" if interrupted else f"[red]{bill['state']}[/]")
    console.print(f"{'[green]✓[/]' if ok else '■'} {' · '.join(parts)}", soft_wrap=True)
    if bill["receipt"]:
        console.print(f"  [dim]receipt {bill['receipt']}[/]", soft_wrap=True)


def _tell(result: Any) -> None:
    if isinstance(result, str):
        click.echo(as_read(result, sys.stdout), color=True)  # Else a pipe gets it without its colours.
    else:
        print_json(result)


def _plain(text: str) -> str:
    return harmless(text).replace("[", r"\[")


def _check(bill: dict[str, Any]) -> None:
    paid = f"you paid {credits(bill['cost_uusd'])} credits" if bill["cost_uusd"] else "you paid nothing"
    hint = f"{paid}; its history: comptoir jobs show {bill['job']}"
    if bill["state"] != COMPLETED:
        whose = f" (fault: {bill['fault']})" if bill["fault"] else ""
        raise Failure(f"the job {bill['state']}: {bill['error_message'] or 'nobody said why'}{whose}", hint)
    failed, finish = bill["failed"] or {}, bill["finish_reason"]
    if failed or finish not in (WELL, None):
        why = failed.get("message") or f"it ended by {failed.get('reason') or finish}"
        raise Failure(f"the program failed: {harmless(str(why))}", hint)
