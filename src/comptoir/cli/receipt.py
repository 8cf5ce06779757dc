"""``comptoir receipt`` and ``comptoir keys``: show what was signed, and check it without trusting anybody."""

import sys
from pathlib import Path
from urllib.parse import quote

import click
from rich.text import Text

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.screen import credits_and_usd, facts, moment, note, out, print_json, table
from comptoir.cli.target import Target, find_target, json_option, server_options
from comptoir.kinds import Kinds
from comptoir.receipts import ENVELOPE_BYTES_MAX, Check, InTotoStatement, UnitEntry, Verdict, read_registry, verify

REGISTRY_BYTES_MAX = 64 * 1024 * 1024

_KINDS = Kinds()
"""Those that ship, for the words of their units."""

CHECKS = {
    Check.ENVELOPE: "a DSSE envelope with one signature",
    Check.COORDINATOR_KEY: "signed with a key that the registry lists for a coordinator",
    Check.COORDINATOR_SIGNATURE: "the coordinator's signature is good",
    Check.STATEMENT: "an in-toto statement about one job",
    Check.COORDINATOR_KEY_TIME: "the key was valid when the job was settled",
    Check.SEGMENT_SIGNATURES: "every host signed exactly what it delivered",
    Check.FRAMES: "the parts of the answer follow each other without gap",
    Check.UNITS: "the units that were counted add up",
    Check.AMOUNTS: "the money adds up, within the agreed prices",
}


@click.group()
def receipt() -> None:
    """Show a receipt, or verify one offline.

    \b
    Examples:
      comptoir receipt show rcpt_0197…
      comptoir receipt show rcpt_0197… --json > receipt.json
      comptoir keys --json > keys.json
      comptoir receipt verify receipt.json --keys keys.json
    """


@receipt.command()
@click.argument("receipt_id", metavar="ID")
@json_option
@server_options
def show(*, receipt_id: str, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """Show the receipt of a job; --json gives the signed envelope, byte for byte.

    \b
    Examples:
      comptoir receipt show rcpt_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f
      comptoir receipt show job_01979a7d2f6b7c4e9f1d2a3b4c5d6e7f --json > receipt.json
    """
    target = find_target(url, key, data)
    api = Api(target)
    envelope = api.get(f"/house/receipts/{quote(receipt_id)}").body
    if as_json:
        click.echo(envelope)
        return
    note(target.said)
    verdict = verify(envelope, read_registry(api.get("/house/keys").body))
    if verdict.statement is not None:
        _show(verdict.statement)
    _say(verdict, whose=f"the keys published by {target.url}")


@receipt.command(name="verify")
@click.argument("file", metavar="FILE")
@click.option("--keys", "keys_file", metavar="FILE", help="Key registry, from 'comptoir keys --json'. Works offline.")
@json_option
@server_options
def verify_file(
    *, file: str, keys_file: str | None, as_json: bool, url: str | None, key: str | None, data: str | None
) -> None:
    """Verify a receipt against the published keys; if it is rejected, print the reason and exit with 1.

    FILE is the envelope printed by 'comptoir receipt show --json'; '-' is standard input. With --keys nothing leaves
    this machine; without it, the keys are fetched from the server.

    \b
    Examples:
      comptoir receipt verify receipt.json --keys keys.json
      comptoir receipt verify receipt.json --url https://post.example
    """
    envelope = read_file(file, ENVELOPE_BYTES_MAX)
    if keys_file is not None:
        registry, whose = read_file(keys_file, REGISTRY_BYTES_MAX), keys_file
    else:
        target = find_target(url, key, data)
        registry = Api(Target(target.url, "", "")).get("/house/keys").body
        whose = f"the keys published by {target.url}"
    verdict = verify(envelope, read_registry(registry))
    if as_json:
        print_json(_json(verdict))
    else:
        _say(verdict, whose=whose)
    if not verdict.ok:
        raise click.exceptions.Exit(Exit.REFUSED)


def read_file(name: str, limit: int) -> bytes:
    """Return at most one byte more than *limit* of a file; ``-`` is standard input.

    Raises:
        Failure: it can't be read.
    """
    try:
        if name == "-":
            return sys.stdin.buffer.read(limit + 1)
        with Path(name).open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{name} can't be read: {error.strerror}", "is the path right?", code=Exit.USAGE) from error


def _json(verdict: Verdict) -> dict[str, object]:
    predicate = verdict.statement.predicate if verdict.statement is not None else None
    return {
        "ok": verdict.ok,
        "checks": [{"check": check.value, "ok": check in verdict.checks} for check in CHECKS],
        "reason": verdict.reason.value if verdict.reason is not None else None,
        "detail": verdict.detail,
        "unsigned_segments": verdict.unsigned_segments,
        "unbounded_segments": verdict.unbounded_segments,
        "claimed_beyond": [
            {"host": host, "unit": unit.unit, "claimed": unit.claimed, "billed": unit.count}
            for host, unit in _claims(verdict.statement)
        ],
        "job": predicate.job if predicate is not None else None,
        "charged_uusd": predicate.amounts.charged_uusd if predicate is not None else None,
    }


def _say(verdict: Verdict, *, whose: str) -> None:
    console = out()
    for check, words in CHECKS.items():
        if check in verdict.checks:
            console.print(f"[green]✓[/] {words}")
        else:
            console.print(f"[red]✗[/] {words}")
            break
    if verdict.ok:
        unsigned = verdict.unsigned_segments
        vouched = f"; {unsigned} part(s) are attested by the coordinator alone" if unsigned else ""
        if verdict.unbounded_segments:
            vouched += f"; {verdict.unbounded_segments} part(s) don't say how many bytes were delivered for the price"
        for host, unit in _claims(verdict.statement):
            one = _KINDS.unit(unit.unit)
            console.print(
                f"[yellow]![/] {host} claimed {one.format(unit.claimed or 0)}; at most {one.amount(unit.count)} "
                "were delivered, and more was not paid",
                soft_wrap=True,
            )
        console.print(f"[bold green]valid[/], checked against {whose}{vouched}", soft_wrap=True)
    else:
        console.print(Text.assemble(("rejected", "bold red"), f": {verdict.detail} ({verdict.reason})"), soft_wrap=True)


def _claims(statement: InTotoStatement | None) -> list[tuple[str, UnitEntry]]:
    """Return what hosts claimed beyond what they may be paid for."""
    segments = statement.predicate.segments if statement is not None else []
    return [(part.host, unit) for part in segments for unit in part.units if unit.claimed is not None]


def _made(units: list[UnitEntry]) -> tuple[str, str]:
    """Return what the output was counted in, and how much; a unit that is not built in is shown by its name."""
    entry = next((each for each in units if not each.once), None)
    return (_KINDS.unit(entry.unit).many, _amount(entry)) if entry is not None else ("counted", "0")


def _amount(entry: UnitEntry) -> str:
    return _KINDS.unit(entry.unit).amount(entry.count)


def _counted(units: list[UnitEntry]) -> str:
    """Say what was counted: ``12 in, 34 out``; a kind without an input, what there was: ``2``."""
    taken, (_, made) = [_amount(each) for each in units if each.once], _made(units)
    return f"{taken[0]} in, {made} out" if taken else made


def _show(statement: InTotoStatement) -> None:
    one = statement.predicate
    kind = _KINDS.stored(one.kind)
    console = out()
    console.print(
        facts(
            [
                ("receipt", one.receipt),
                ("job", one.job),
                ("buyer", one.buyer),
                (f"{kind.noun}s" if kind.staged else kind.noun, one.model),
                ("weights", one.fingerprint or None),
                ("state", one.state),
                ("settled", moment(one.times.settled_ms)),
                (_made(one.units)[0], _counted(one.units)),
                ("charged", credits_and_usd(one.amounts.charged_uusd)),
                ("of which fee", credits_and_usd(one.amounts.fee_uusd)),
                ("given back", credits_and_usd(one.amounts.released_uusd)),
                ("input", f"sha256 {one.input_sha256}"),
                ("answer", f"sha256 {statement.subject[0].digest.sha256} (frame chain)"),
            ]
        )
    )
    parts = table("host", "frames", _made(one.units)[0], "believed because")
    for part in one.segments:
        why = "the host signed it" if part.signature is not None else "it came with the host's key"
        parts.add_row(part.host, f"{part.first_frame}…{part.end_frame}", _made(part.units)[1], why)
    console.print(parts)
    if one.files is not None:
        files = table("", "file", "bytes", "sha256")
        for which, listed in (("in", one.files.inputs), ("out", one.files.artifacts)):
            for file in listed:
                said = " (fetched, by its host's word)" if file.fetched else ""
                files.add_row(which, f"{file.name}{said}", f"{file.size:,}", file.sha256)
        console.print(files)
    console.print()


@click.command()
@json_option
@server_options
def keys(*, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """Print the keys that receipts are verified with.

    \b
    Examples:
      comptoir keys
      comptoir keys --json > keys.json
    """
    target = find_target(url, key, data)
    body = Api(Target(target.url, "", "")).get("/house/keys").body
    if as_json:
        click.echo(body)
        return
    note(target.said)
    made = table("key", "holder", "valid from", "revoked")
    for one in read_registry(body).by_keyid.values():
        revoked = moment(one.revoked_ms) if one.revoked_ms is not None else ""
        made.add_row(one.keyid[:16] + "…", one.holder, moment(one.valid_from_ms), revoked)
    out().print(made)
