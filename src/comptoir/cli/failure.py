"""How a command ends badly: one line what happened, one line what to do, and an exit code that scripts can read."""

from enum import IntEnum
from typing import IO, Any

import click

from comptoir.cli.harmless import harmless


class Exit(IntEnum):
    """Exit codes; ``comptoir --help`` prints them."""

    OK = 0
    REFUSED = 1
    """The answer is no: a receipt that does not verify, books that differ, a request that was refused."""
    USAGE = 2
    """The command line itself is wrong (click's own code)."""
    UNREACHABLE = 3
    """Nothing answers at the address, or it broke off."""
    KEY = 4
    """No key, or one that the server does not accept."""
    INTERRUPTED = 130
    """Ctrl-C."""


class Failure(click.ClickException):
    """What happened, and what the person can do about it."""

    def __init__(self, message: str, hint: str = "", *, code: Exit = Exit.REFUSED, status: int = 0) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        self.status = status
        """HTTP status of the refusal; 0: it was none."""

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """Where click looks for it."""
        return int(self.code)

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both lines to standard error."""
        click.echo(f"{click.style('✗', fg='red', bold=True)} {harmless(self.message)}", file=file, err=file is None)
        if self.hint:
            click.echo(f"  {click.style(harmless(self.hint), dim=True)}", file=file, err=file is None)
