"""``comptoir files``: put, get, ls and rm."""

from pathlib import Path
from urllib.parse import quote

import click

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.screen import moment, note, out, print_json, table
from comptoir.cli.target import find_target, json_option, server_options
from comptoir.cli.transfer import download, upload


@click.group()
def files() -> None:
    """Upload, list, download and delete files.

    A file is known by its id (file_…) and by its SHA-256, which is checked in both directions. What breaks off goes on
    by itself, and after 'Ctrl-C' when the same command is run again.

    \b
    Examples:
      comptoir files put speech.wav
      comptoir files ls
      comptoir files get file_…
      comptoir files rm file_…
    """


# -- put -----------------------------------------------------------------------------------------------------------


@files.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--name", metavar="NAME", help="What it is called there [the file's own name].")
@click.option("--media", metavar="TYPE", help="Its media type [by its name].")
@json_option
@server_options
def put(
    *,
    paths: tuple[str, ...],
    name: str | None,
    media: str | None,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """Upload files; prints an id for each.

    A file that is there already, from the same command within a day, is not sent again.

    \b
    Examples:
      comptoir files put in.mp4
      comptoir files put *.csv --json | jq -r '.[].id'
      comptoir files put scan --name scan.png --media image/png
    """
    if name is not None and len(paths) > 1:
        raise Failure("--name is for one file", "leave it out, or upload one at a time", code=Exit.USAGE)
    target = find_target(url, key, data)
    note(target.said)
    made = []
    for path in paths:
        made.append(upload(Api(target), Path(path), name=name or "", media=media or ""))
        if not as_json:
            click.echo(made[-1]["id"])
    if as_json:
        print_json(made)


# -- get -----------------------------------------------------------------------------------------------------------


@files.command()
@click.argument("file_id", metavar="ID")
@click.option(
    "--output", "-o", metavar="PATH", help="Where to [its own name, in this folder]; a folder keeps the name."
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@server_options
def get(*, file_id: str, output: str | None, force: bool, url: str | None, key: str | None, data: str | None) -> None:
    """Download a file; prints where it is.

    It has its name only once all of it is there and its SHA-256 is right. Until then it is a hidden file beside it,
    from which the same command goes on.

    \b
    Examples:
      comptoir files get file_…
      comptoir files get file_… -o results/
    """
    target = find_target(url, key, data)
    note(target.said)

    def place(name: str) -> Path:
        to = Path(output) if output else Path(name)
        if output and to.is_dir():
            to /= name
        if to.exists() and not force:
            raise Failure(f"{to} is there already", "give --output another path, or --force", code=Exit.USAGE)
        return to

    click.echo(str(download(Api(target), file_id, place)))


# -- ls, rm --------------------------------------------------------------------------------------------------------


@files.command()
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many files to list.")
@click.option("--before", metavar="ID", help="Only files older than this one: the next page.")
@json_option
@server_options
def ls(*, limit: int, before: str | None, as_json: bool, url: str | None, key: str | None, data: str | None) -> None:
    """List your files, newest first, and how much of your room they take.

    \b
    Examples:
      comptoir files ls
      comptoir files ls --json | jq -r '.files[].id'
    """
    target = find_target(url, key, data)
    page = Api(target).get(f"/house/files?limit={limit}" + (f"&before={quote(before)}" if before else "")).json()
    if as_json:
        print_json(page)
        return
    note(target.said)
    console = out()
    made = table("when", "id", "name", "bytes", "type", "until", right=("bytes",))
    for row in page["files"]:
        until = moment(row["expires_ms"]) if row["expires_ms"] else "—"
        made.add_row(moment(row["created_ms"]), row["id"], row["name"], f"{row['size']:,}", row["media"], until)
    console.print(made)
    console.print(
        f"{page['bytes_used']:,} of {page['bytes_max']:,} bytes, {page['files_used']:,} of {page['files_max']:,} files, "
        "with what is being uploaded",
        soft_wrap=True,
    )
    if page["next"]:
        console.print(f"[dim]older ones: comptoir files ls --before {page['next']}[/]", soft_wrap=True)


@files.command()
@click.argument("file_ids", metavar="ID...", nargs=-1, required=True)
@server_options
def rm(*, file_ids: tuple[str, ...], url: str | None, key: str | None, data: str | None) -> None:
    """Delete files, for good.

    \b
    Examples:
      comptoir files rm file_…
    """
    target = find_target(url, key, data)
    note(target.said)
    api = Api(target)
    for file_id in file_ids:
        api.call("DELETE", f"/house/files/{quote(file_id, safe='')}")
        click.echo(file_id)
