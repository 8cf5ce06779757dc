"""What a kind's command asks for: a body, and inputs that are on this machine, at the trading post or at an address."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from comptoir.cli.failure import Exit, Failure
from comptoir.kit.ids import parse

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class JobInput:
    """One input; exactly one of *path*, *file* and *url* is said."""

    path: Path | None = None
    """On this machine: uploaded first."""
    file: str = ""
    """``file_…``"""
    url: str = ""
    name: str = ""
    """What the program finds it as; empty: the file's own name, or the last part of the address."""

    def named(self, sent: dict[str, Any] | None) -> dict[str, Any]:
        """Return it as an order has it; *sent* is what was uploaded, of one with a *path*."""
        if sent is not None:
            return {"name": self.name or sent["name"], "file": sent["id"], "sha256": sent["sha256"]}
        said = {"url": self.url} if self.url else {"file": self.file}
        return {"name": self.name, **said} if self.name else said


@dataclass(frozen=True)
class WorkOrder:
    """What a command line asks for."""

    kind: str
    body: dict[str, Any]
    """The kind's own fields, without ``inputs``."""
    inputs: tuple[JobInput, ...] = ()
    """In the order in which the body shall have them."""
    output_max: int | None = None
    """Most units of output; None: what the body can lead to."""
    tells: bool = True
    """Whether what it returns is worth printing, besides the files that it makes."""


def read_input(text: str) -> JobInput:
    """Read ``[NAME=]PATH``, an address, or a file's id; what is there under the whole text is no name and path.

    Raises:
        Failure: there is nothing there, or it is a folder.
    """
    name, text = _name_apart(text)
    if text.startswith(("http://", "https://")):
        return JobInput(url=text, name=name)
    if parse("file", text) is not None and not Path(text).exists():
        return JobInput(file=text, name=name)
    return JobInput(path=checked_file(text), name=name)


def checked_file(text: str) -> Path:
    """Return the path of a file that is there.

    Raises:
        Failure: it is not, or it is none.
    """
    path = Path(text)
    if path.is_dir():
        raise Failure(f"{text} is a folder", "give its files one by one, or pack it: tar czf in.tgz …", code=Exit.USAGE)
    try:
        path.open("rb").close()
    except OSError as error:
        hint = "an input is a file here, an address (https://…) or a file's id (file_…)"
        raise Failure(f"{text} can't be read: {error.strerror}", hint, code=Exit.USAGE) from error
    return path


def _name_apart(text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    # Addresses and paths may have an equals sign of their own.
    if equals and name and rest and not any(sign in name for sign in "/:?") and not Path(text).exists():
        return name, rest
    return "", text


def inputs_option(*, required: bool = False, help: str) -> Callable[[F], F]:
    """Return the option ``--input`` for a command; the function gets `JobInput`s as *inputs*."""

    def read(ctx: click.Context, param: click.Parameter, texts: Iterable[str]) -> tuple[JobInput, ...]:
        return tuple(read_input(text) for text in texts)

    return click.option(
        "--input", "-i", "inputs", metavar="[NAME=]FILE", multiple=True, required=required, callback=read, help=help
    )
