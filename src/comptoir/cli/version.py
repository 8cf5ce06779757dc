"""``comptoir version``."""

import platform

import click

from comptoir import __version__


@click.command()
def version() -> None:
    """Print the version.

    \b
    Example:
      comptoir version
    """
    click.echo(f"comptoir {__version__} (Python {platform.python_version()}, {platform.system()} {platform.machine()})")
