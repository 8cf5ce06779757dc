"""``comptoir audit``: the books recomputed, by the server or on a data folder at rest."""

import asyncio
import time
from typing import Any

import click

from comptoir.cli.api import Api
from comptoir.cli.config import settings_from
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.screen import note, out, print_json, table
from comptoir.cli.target import find_target, json_option, key_options
from comptoir.kit.db import RECORDS_NAME, open_database
from comptoir.reports import audit as audit_books


@click.command()
@click.option("--data", metavar="FOLDER", help="Audit this data folder itself, without a server.")
@click.option("--url", metavar="URL", help="The server [COMPTOIR_URL].")
@key_options("An operator's key [COMPTOIR_ADMIN_KEY]")
@json_option
def audit(*, data: str | None, url: str | None, key: str | None, as_json: bool) -> None:
    """Recompute the books; exit code 1 on any difference.

    Recomputes every balance from its transfers and every hold from its job, then checks jobs against holds, attempts,
    events and receipts, and the database with the record of what was confirmed. It may run while jobs do.

    \b
    Examples:
      comptoir audit                            the running server, with an operator's key
      comptoir audit --data ./comptoir-data     the folder itself, also while no server runs
    """
    if data is not None:
        found = asyncio.run(_local(data))
    else:
        target = find_target(url, key, None, operator=True)
        found = Api(target).get("/house/audit").json()
        if not as_json:
            note(target.said)
    if as_json:
        print_json(found)
    else:
        _say(found)
    if not found["ok"]:
        raise click.exceptions.Exit(Exit.REFUSED)


async def _local(data: str) -> dict[str, Any]:
    settings = settings_from({"data": data}, (), None).settings
    if not settings.database and not (settings.data_path() / "comptoir.db").is_file():
        folder = settings.data_path()
        if (folder / "postgres").is_dir():
            raise Failure(
                f"{folder} belongs to a cluster, whose books are in PostgreSQL",
                "while it runs, name the database that it prints: COMPTOIR_DATABASE=postgresql://… comptoir audit --data …",
            )
        raise Failure(f"{folder} holds no trading post", "name the folder that 'comptoir up' uses")
    began = time.monotonic()
    db = open_database(settings.database_address())
    try:
        differences = await audit_books(db, settings.data_path() / RECORDS_NAME)
    finally:
        await db.close()
    return {
        "ok": not differences,
        "differences": [
            {"what": one.what, "subject": one.subject, "recorded": one.recorded, "recomputed": one.recomputed}
            for one in differences
        ],
        "took_ms": round((time.monotonic() - began) * 1000),
    }


def _say(found: dict[str, Any]) -> None:
    console = out()
    if found["ok"]:
        console.print(f"[green]✓[/] zero differences [dim]({found['took_ms']} ms)[/]")
        return
    count = len(found["differences"])
    console.print(f"[bold red]✗ {count} difference{'s' if count > 1 else ''}[/]")
    made = table("what", "of", "recorded", "recomputed", right=("recorded", "recomputed"))
    for one in found["differences"]:
        made.add_row(one["what"], one["subject"] or "the whole ledger", one["recorded"], one["recomputed"])
    console.print(made)
