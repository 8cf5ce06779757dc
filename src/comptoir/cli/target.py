"""Which server a command talks to, and with whose key: flags, then the environment, then quickstart.env."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from comptoir.cli.failure import Exit, Failure
from comptoir.cli.quickstart import FILE_NAME, Quickstart, read_quickstart
from comptoir.kit.address import BadAddress, http_address
from comptoir.worker.addresses import split_addresses

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_DATA = "comptoir-data"

KEY_FILE = "comptoir.key_file"
"""Where a context keeps what ``--key-file`` holds."""
KEY_FILE_CHARS_MAX = 4096

SEEN_BY_ALL = (
    "a key in a command line can be read by everybody on this machine while the command runs: "
    "set COMPTOIR_KEY, or give --key-file FILE"
)

F = TypeVar("F", bound=Callable[..., Any])


class Target(NamedTuple):
    """A server and the key to use there."""

    url: str
    key: str
    said: str
    """Where both came from, when it was quickstart.env; for the person to know."""


def key_options(words: str) -> Callable[[F], F]:
    """Return what adds ``--key`` and ``--key-file`` to a command, which gets either as *key*."""

    def add(command: F) -> F:
        command = click.option(
            "--key", metavar="KEY", default=None, callback=_given_key, help=f"{words}; better not here."
        )(command)
        return click.option(
            "--key-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            is_eager=True,
            expose_value=False,
            callback=_key_from_file,
            help="The same from a file; '-' is standard input.",
        )(command)

    return add


def _key_from_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    with click.open_file(path, encoding="utf-8", errors="replace") as file:
        words = file.read(KEY_FILE_CHARS_MAX).split()
    if len(words) != 1:
        raise Failure(f"{path} holds no key", "it should hold the key alone, on one line", code=Exit.USAGE)
    context.meta[KEY_FILE] = words[0]


def _given_key(context: click.Context, parameter: click.Parameter, key: str | None) -> str | None:
    if key is not None:
        click.echo(click.style(SEEN_BY_ALL, fg="yellow"), err=True)
        return key
    return context.meta.get(KEY_FILE)


def server_options(command: F) -> F:
    """Add ``--url``, ``--key`` and ``--data`` to a command."""
    for option in (
        click.option(
            "--data", metavar="FOLDER", default=None, help=f"Folder whose {FILE_NAME} is read [{DEFAULT_DATA}]."
        ),
        key_options("Your key [COMPTOIR_KEY]"),
        click.option("--url", metavar="URL", default=None, help="The server [COMPTOIR_URL]."),
    ):
        command = option(command)
    return command


def json_option(command: F) -> F:
    """Add ``--json`` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def find_target(
    url: str | None,
    key: str | None,
    data: str | None,
    *,
    operator: bool = False,
    several: bool = False,
    env: Mapping[str, str] | None = None,
) -> Target:
    """Return the server and the key; the key is empty when none was found.

    A key of quickstart.env is used only at quickstart.env's address: it must not leak to another server.

    Args:
        several: keep all addresses where there are several, separated by commas; otherwise the first one is meant.

    Raises:
        Failure: an address can't be understood.
    """
    env = os.environ if env is None else env
    folder = Path(data or env.get("COMPTOIR_DATA") or DEFAULT_DATA).expanduser()
    found = read_quickstart(folder) or Quickstart()
    given_url = url or env.get("COMPTOIR_URL", "")
    typed = given_url or found.url or DEFAULT_URL
    try:
        addresses = [http_address(one) for one in split_addresses(typed) or [typed]]
    except BadAddress as error:
        raise Failure(str(error), f"give --url like {DEFAULT_URL}", code=Exit.USAGE) from error
    address = ",".join(addresses if several else addresses[:1])
    chosen = key or _key_of(env, operator=operator)
    said = ""
    if not chosen and address == found.url.rstrip("/"):
        chosen = found.admin_key if operator else found.key
        said = f"using {folder / FILE_NAME}" if chosen else ""
    return Target(address, chosen, said)


def _key_of(env: Mapping[str, str], *, operator: bool) -> str:
    names = ("COMPTOIR_ADMIN_KEY", "COMPTOIR_KEY") if operator else ("COMPTOIR_KEY",)
    return next((env[name] for name in names if env.get(name)), "")
