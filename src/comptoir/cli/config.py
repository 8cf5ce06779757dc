"""``comptoir config``: what is in force, and where it came from."""

import os
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import click
import msgspec
from rich.text import Text

from comptoir.cli.failure import Exit, Failure
from comptoir.cli.screen import out, print_json, table
from comptoir.cli.target import json_option
from comptoir.kinds import Kinds, KindsError, load_kinds
from comptoir.settings import Loaded, SettingsError, load

ON_LOOPBACK = "default on loopback"
"""Origin of a setting that nobody gave, where only this machine can reach the trading post."""

ON_NETWORK = "default on a network"
"""Origin of a setting that nobody gave, where strangers can reach the trading post."""


def settings_from(flags: dict[str, object], pairs: Sequence[str], config_file: str | None) -> Loaded:
    """Merge flags, ``--set`` pairs, environment and file; add the defaults of where it listens, loopback or a network.

    Raises:
        Failure: a setting is unknown or out of bounds.
    """
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Failure(
                f"--set {pair!r} must look like name=value", "'comptoir config' lists the names", code=Exit.USAGE
            )
        flags[name.strip().replace("-", "_")] = value
    try:
        loaded = load(flags, dict(os.environ), Path(config_file).expanduser() if config_file else None)
    except SettingsError as error:
        raise Failure(str(error), "'comptoir config' lists all settings", code=Exit.USAGE) from error
    for words in loaded.renamed:
        click.echo(click.style(words, fg="yellow"), err=True)
    return among_strangers(at_home(loaded))


def kinds_from(targets: Sequence[str]) -> Kinds:
    """Return the kinds that ship and those that *targets* name, as the setting ``kinds`` and the option ``--kind`` do.

    Raises:
        Failure: one can't be loaded.
    """
    try:
        return load_kinds(targets)
    except KindsError as error:
        raise Failure(str(error), "see docs/adding/a-kind.md", code=Exit.USAGE) from error


def at_home(loaded: Loaded) -> Loaded:
    """Return *loaded*, with the Infernet API open to programs of this machine where nobody said anything about that.

    Only where nobody but they can come: the address is loopback, and no setting says that a proxy or a balancer stands
    before it, whose callers would all look as if they were of this machine.
    """
    settings, origin = loaded.settings, loaded.origin
    before_it = settings.public_url or settings.trusted_proxies or settings.bus or settings.server_names
    if origin["infernet_anonymous"] != "default" or before_it or not is_loopback(settings.host):
        return loaded
    chosen = msgspec.structs.replace(settings, infernet_anonymous="loopback")
    return msgspec.structs.replace(loaded, settings=chosen, origin={**origin, "infernet_anonymous": ON_LOOPBACK})


def among_strangers(loaded: Loaded) -> Loaded:
    """Return *loaded*, taking only hosts that have an owner where strangers can come, unless somebody said otherwise.

    A host without an owner is nobody's: its operator can't tell whose machines belong together, and a new name costs
    nothing. On loopback, where whoever comes is at home, registering stays open.
    """
    settings, origin = loaded.settings, loaded.origin
    before_it = settings.public_url or settings.trusted_proxies or settings.server_names
    if origin["host_registration"] != "default" or (is_loopback(settings.host) and not before_it):
        return loaded
    chosen = msgspec.structs.replace(settings, host_registration="key")
    return msgspec.structs.replace(loaded, settings=chosen, origin={**origin, "host_registration": ON_NETWORK})


def is_loopback(host: str) -> bool:
    """Tell whether a server that listens on *host* can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.command()
@click.option("--data", metavar="FOLDER", help="Data folder whose comptoir.toml is read.")
@click.option("--config", "config_file", metavar="FILE", help="Settings file instead of the data folder's.")
@click.option("--set", "pairs", metavar="NAME=VALUE", multiple=True, help="A setting, as for 'comptoir up'.")
@click.option("--changed", is_flag=True, help="Only settings that differ from their defaults.")
@json_option
def config(*, data: str | None, config_file: str | None, pairs: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """Print the settings in force and where each came from.

    Flags win over the environment (COMPTOIR_<NAME>), the environment over the file, the file over the default.
    "default on loopback" is a default that 'comptoir up' uses when only this machine can reach it, "default on a
    network" one that it uses when strangers can.

    \b
    Examples:
      comptoir config
      comptoir config --changed
      COMPTOIR_PORT=9000 comptoir config --set fee_bps=500 --json
    """
    rows = settings_from({"data": data}, pairs, config_file).describe()
    if changed:
        rows = [row for row in rows if not row.origin.startswith("default")]
    if as_json:
        print_json(
            {row.name: {"value": msgspec.json.decode(row.value), "origin": row.origin, "doc": row.doc} for row in rows}
        )
        return
    made = table("setting", "value", "from", "meaning")
    for row in rows:
        style = "dim" if row.origin.startswith("default") else "cyan"
        made.add_row(Text(row.name, style="bold"), row.value, Text(row.origin, style=style), Text(row.doc, style="dim"))
    out().print(made)
