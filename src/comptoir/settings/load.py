"""Where settings come from: flags, environment and file over the defaults, and the checks between them."""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from comptoir.settings.fields import FIELDS, Settings, documentation

ENVIRONMENT_PREFIX = "COMPTOIR_"
FILE_NAME = "comptoir.toml"
FILE_BYTES_MAX = 1 << 20
"""A configuration file is a page or two; with a mebibyte, the path must name something else."""

ENVIRONMENT_NOT_OURS = frozenset(
    {
        "COMPTOIR_URL",
        "COMPTOIR_KEY",
        "COMPTOIR_ADMIN_KEY",
        "COMPTOIR_HOST_KEY",
        "COMPTOIR_INVITATION",
        "COMPTOIR_CONFIG",
    }
)
"""Variables that the command line reads as a client (``quickstart.env``), and the file's location: no settings."""

ENVIRONMENT_PREFIXES_NOT_OURS = ("COMPTOIR_TEST_", "COMPTOIR_BENCH_")

RENAMED: Mapping[str, tuple[str, Mapping[bool, str]]] = {
    "allow_open_host_registration": ("host_registration", {True: "open", False: "key"})
}
"""Settings of the release before that have another name now, which of their values is which, until the next one."""


class SettingsError(Exception):
    """A setting is refused; says which, why and where it came from."""

    def __init__(self, name: str, reason: str, origin: str) -> None:
        super().__init__(f"{name}: {reason} (from {origin})")
        self.name = name
        self.reason = reason
        self.origin = origin


class Row(msgspec.Struct, frozen=True):
    """One line of ``comptoir config``."""

    name: str
    value: str
    """As JSON; a password in an address is shown as ``***``."""
    origin: str
    """``flag``, ``environment COMPTOIR_<NAME>``, ``file <path>``, ``default``, or ``default on loopback``."""
    doc: str


class Loaded(msgspec.Struct, frozen=True):
    """Settings in force and, per field, where each came from."""

    settings: Settings
    origin: dict[str, str]
    renamed: tuple[str, ...] = ()
    """What to tell whoever still gives a setting under a name that the next release no longer knows."""

    def describe(self) -> list[Row]:
        """Return one row per setting, in the order of the struct, secrets masked."""
        docs = documentation()
        return [
            Row(
                name,
                masked(msgspec.json.encode(getattr(self.settings, name)).decode()),
                self.origin[name],
                docs[name][1],
            )
            for name in FIELDS
        ]


def load(
    flags: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None, file: Path | None = None
) -> Loaded:
    """Merge flags, environment and file over the defaults.

    Args:
        flags: by field name; ``None`` as a value means that the flag was not given.
        env: the process environment; names that do not start with ``COMPTOIR_`` are ignored.
        file: TOML file named by ``--config``; without it (nor ``COMPTOIR_CONFIG``) ``comptoir.toml`` in the data
            folder, if there is one. A named file must exist.

    Raises:
        SettingsError: unknown name, wrong type, out of bounds, two settings that contradict each other, or a file
            that cannot be read; the first problem found, weakest source first.
    """
    told: list[str] = []
    from_env = _renamed(_from_environment(env or {}), told)
    from_flags = {name: (value, "flag") for name, value in (flags or {}).items() if value is not None}
    from_flags = _renamed(from_flags, told)
    if file is None and env and env.get("COMPTOIR_CONFIG"):
        file = Path(env["COMPTOIR_CONFIG"]).expanduser()
    given = _renamed(_from_file(file, {**from_env, **from_flags}), told)
    given.update(from_env)
    given.update(from_flags)

    values = {name: _checked(name, value, origin) for name, (value, origin) in given.items()}
    origins = {name: given[name][1] if name in given else "default" for name in FIELDS}
    settings = Settings(**values)
    _check_together(settings, origins)
    return Loaded(settings, origins, tuple(told))


def masked(text: str) -> str:
    """Return *text* with the password of every URL in it replaced by ``***``; if in doubt, it masks too much."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def _from_environment(env: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    given: dict[str, tuple[object, str]] = {}
    for variable, text in env.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in ENVIRONMENT_NOT_OURS:
            continue
        if variable.startswith(ENVIRONMENT_PREFIXES_NOT_OURS):
            continue
        given[variable.removeprefix(ENVIRONMENT_PREFIX).lower()] = (text, f"environment {variable}")
    return given


def _from_file(file: Path | None, stronger: Mapping[str, tuple[object, str]]) -> dict[str, tuple[object, str]]:
    """Read the file that applies; *stronger* decides where the data folder is."""
    named = file is not None
    if file is None:
        data, origin = stronger.get("data", (FIELDS["data"].default, "default"))
        file = Path(_checked("data", data, origin)).expanduser() / FILE_NAME
        if not file.is_file():
            return {}
    origin = f"file {file}"
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise SettingsError("config", f"is larger than {FILE_BYTES_MAX:,} bytes", origin)
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise SettingsError("config", f"cannot be read: {error.strerror}", origin) from error
    except ValueError as error:  # Not UTF-8, or not TOML.
        raise SettingsError("config", f"is not TOML: {error}", origin) from error
    if "data" in table and not named:
        raise SettingsError("data", "cannot be set in the file inside the data folder", origin)
    return {name: (value, origin) for name, value in table.items()}


def _renamed(given: dict[str, tuple[object, str]], told: list[str]) -> dict[str, tuple[object, str]]:
    """Return what one source gives, under today's names; add to *told* what to say of each old one."""
    for old, (new, values) in RENAMED.items():
        if old not in given:
            continue
        value, origin = given.pop(old)
        if new in given:
            raise SettingsError(old, f"is now called {new}, which is given too: leave {old} out", origin)
        try:
            meant = values[msgspec.convert(value, bool, strict=origin.startswith("file "))]
        except msgspec.ValidationError as error:
            raise SettingsError(old, f"must be true or false, not {str(value)[:200]!r}: {error}", origin) from error
        told.append(f"{old} (from {origin}) is now called {new}: write {new}={meant}; the next release refuses {old}")
        given[new] = (meant, origin)
    return given


def _checked(name: str, value: object, origin: str) -> Any:
    """Return *value* as the field's type, or refuse it."""
    field = FIELDS.get(name)
    if field is None:
        raise SettingsError(name, "is no setting; `comptoir config` lists them", origin)
    from_text = isinstance(value, str) and not origin.startswith("file ")
    if from_text and field.is_list:
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        converted = msgspec.convert(value, field.type, strict=not from_text)
    except msgspec.ValidationError as error:
        shown = masked(str(value))[:200]
        # The bounds say what to write; a regular expression says it to nobody.
        why = "" if "matching regex" in str(error) and "like " in field.bounds else f": {error}"
        raise SettingsError(name, f"must be {field.bounds}, not {shown!r}{why}", origin) from error
    if converted != converted:  # A NaN is neither below nor above any bound.
        raise SettingsError(name, f"must be {field.bounds}, not NaN", origin)
    return converted


def _check_together(settings: Settings, origin: Mapping[str, str]) -> None:
    """Refuse settings that are each in bounds and contradict each other."""
    for low, high in (
        ("prompt_bytes_max", "body_bytes_max"),
        ("max_tokens_default", "max_tokens_max"),
        ("pulse_s", "host_silent_s"),
        ("body_bytes_max", "link_message_bytes_max"),
    ):
        if getattr(settings, low) > getattr(settings, high):
            raise SettingsError(
                low,
                f"is {getattr(settings, low)}, more than {high}, which is "
                f"{getattr(settings, high)} (from {origin[high]})",
                origin[low],
            )
    if bool(settings.infernet_chain_id) != bool(settings.infernet_coordinator):
        given = "infernet_chain_id" if settings.infernet_chain_id else "infernet_coordinator"
        raise SettingsError(given, "needs both infernet_chain_id and infernet_coordinator", origin[given])
    if settings.bus and not settings.database.startswith(("postgresql://", "postgres://")):
        reason = "several coordinators need PostgreSQL: give database = postgresql://… too, or no bus"
        raise SettingsError("bus", reason, origin["bus"])
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SettingsError(
                "trusted_proxies", f"must be addresses or networks: {error}", origin["trusted_proxies"]
            ) from error
