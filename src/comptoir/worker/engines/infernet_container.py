"""One entry of ``containers`` in a Ritual configuration: what becomes of each of its keys, and what it describes.

A key that can't be honoured refuses the container, and so does an unknown one: what it would have protected is not
known.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import msgspec

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.container import checked_spec
from comptoir.worker.engines.container_spec import ContainerSpec, Managed
from comptoir.worker.engines.infernet_values import flag, integer, kind, mapping, text, texts, whole

ID_CHARS_MAX = 256
"""Longest name the catalogue takes."""

PORT_DEFAULT = 3000
"""Port of a container that names none, as the node has it."""

PORT_MAX = 65535

_ID = re.compile(r"[^\s,\x00-\x1f\x7f]+")
_MANAGED_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_MODES = frozenset(
    (
        "ro",
        "rw",
        "z",
        "Z",
        "nocopy",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "cached",
        "delegated",
    )
)


class KeyVerdict(StrEnum):
    """What becomes of a key."""

    USED = "used"
    """It holds here too."""
    NOT_NEEDED = "not needed"
    """Nothing is lost without it."""
    REFUSED = "refused"
    """It can't be honoured; on a container, the container is not offered."""


class KeyFinding(msgspec.Struct, frozen=True):
    """What becomes of one key. Never holds its value where that may be a secret."""

    path: str
    """Where it is in the document: ``containers[0].port``."""
    verdict: KeyVerdict
    why: str = ""
    """For a person; always there unless *verdict* is used."""


class Rate(msgspec.Struct, frozen=True):
    """Most jobs of one caller within a period."""

    requests: int
    period_s: float


class Surroundings(msgspec.Struct, frozen=True):
    """What the rest of the file says for every container."""

    managed: bool
    rate: Rate | None
    """None: the file's limit can't be honoured."""
    registry_user: str = ""
    registry_password: str = ""

    def __repr__(self) -> str:
        return f"Surroundings(managed={self.managed}, rate={self.rate})"


class _KeyRefused(Exception):
    """This key refuses the container; the text says why."""


def translate(
    fields: Mapping[str, Any], path: str, *, port: int | None, around: Surroundings
) -> tuple[ContainerSpec | None, list[KeyFinding]]:
    """Return the container that *fields* describe, None if anything about it is refused, and a finding for each key.

    *port* is the one given to it; None for one that is reached by its url. Pure.

    Raises:
        BadValue: a known key has a value of the wrong type.
    """
    reader = _ContainerReader(fields, path, port, around)
    spec = reader.read()
    return spec, reader.findings


def rate_of(fields: Mapping[str, Any], path: str, default: Rate) -> tuple[Rate | None, list[KeyFinding]]:
    """Return the limit at ``rate_limit``; None (and why) if it can't be honoured."""
    if fields["rate_limit"] is None:
        return default, [KeyFinding(path, KeyVerdict.USED)]
    limit = mapping(fields["rate_limit"], path)
    findings = [
        KeyFinding(f"{path}.{key}", KeyVerdict.REFUSED, "unknown here")
        for key in limit
        if key not in ("num_requests", "period")
    ]
    requests = whole(limit, "num_requests", f"{path}.num_requests", default=default.requests)
    period = whole(limit, "period", f"{path}.period", default=int(default.period_s))
    if requests < 1 or period < 1:
        why = "num_requests and period must be at least 1; nothing is offered with a weaker limit"
        return None, [*findings, KeyFinding(path, KeyVerdict.REFUSED, why)]
    return Rate(requests, float(period)), [KeyFinding(path, KeyVerdict.USED), *findings]


class _ContainerReader:
    """Reads one container, key by key, and notes what it finds."""

    def __init__(self, fields: Mapping[str, Any], path: str, port: int | None, around: Surroundings) -> None:
        self.findings: list[KeyFinding] = []
        self._fields = fields
        self._path = path
        self._port = port
        self._around = around
        self._refused = False

    def read(self) -> ContainerSpec | None:
        fields, around = self._fields, self._around
        values = {key: self._try(key, read) for key, read in _READERS.items() if key in fields}
        for key in fields:
            if key not in _READERS:
                self._refuse(key, "unknown here, and what it would protect is not known")
        rate = self._rate()
        url = values.get("url") or values.get("port")
        if not url and not self._refused:
            url = self._try("port", _ContainerReader._port_key)
        if around.managed and not fields.get("image"):
            self._refuse("image", "not given, and manage_containers is true: there is nothing to start")
        if self._refused or rate is None:
            return None
        managed = self._managed(values) if around.managed else None
        shared = {key: values[key] for key in _SHARED if key in values}
        spec = ContainerSpec(
            url=str(url), rate_requests=rate.requests, rate_period_s=rate.period_s, managed=managed, **shared
        )
        try:
            return checked_spec(spec)
        except EngineError as error:
            self.findings.append(KeyFinding(self._path, KeyVerdict.REFUSED, error.message))
            return None

    def _managed(self, values: Mapping[str, Any]) -> Managed:
        given = {key: values[key] for key in ("image", "command", "env", "gpu", "volumes") if key in values}
        around = self._around
        return Managed(
            port=self._port or 0,
            registry_user=around.registry_user,
            registry_password=around.registry_password,
            **given,
        )

    def _rate(self) -> Rate | None:
        if "rate_limit" not in self._fields:
            if self._around.rate is None:
                self._refuse("rate_limit", "not given, and server.rate_limit can't be honoured")
            return self._around.rate
        rate, found = rate_of(self._fields, f"{self._path}.rate_limit", self._around.rate or Rate(60, 60.0))
        self.findings += found
        self._refused |= any(finding.verdict is KeyVerdict.REFUSED for finding in found)
        return rate

    def _try(self, key: str, read: Callable[["_ContainerReader", str], Any]) -> Any:
        """Read *key* and note what becomes of it."""
        before = len(self.findings)
        try:
            value = read(self, f"{self._path}.{key}")
        except _KeyRefused as refused:
            self._refuse(key, str(refused))
            return None
        if key in self._fields and len(self.findings) == before and key != "rate_limit":
            self.findings.append(KeyFinding(f"{self._path}.{key}", KeyVerdict.USED))
        return value

    def _refuse(self, key: str, why: str) -> None:
        self._refused = True
        self.findings.append(KeyFinding(f"{self._path}.{key}", KeyVerdict.REFUSED, why))

    def _note(self, path: str, verdict: KeyVerdict, why: str) -> None:
        self.findings.append(KeyFinding(path, verdict, why))

    def _only_managed(self, path: str) -> None:
        """Note that *path* is for who starts the container, where that is not us."""
        if not self._around.managed:
            self._note(path, KeyVerdict.NOT_NEEDED, "you start the container yourself, as manage_containers is false")

    # -- one method a key --------------------------------------------------------------------------------------------

    def _id(self, path: str) -> str:
        name = text(self._fields, "id", path)
        if len(name) > ID_CHARS_MAX or not _ID.fullmatch(name):
            raise _KeyRefused(f"must have no spaces and no commas, and {ID_CHARS_MAX} characters at most")
        if self._around.managed and not _MANAGED_ID.fullmatch(name):
            raise _KeyRefused("a container's name begins with a letter or digit and has only these, '_', '.' and '-'")
        return name

    def _image(self, path: str) -> str:
        image = text(self._fields, "image", path)
        if any(char.isspace() for char in image):
            raise _KeyRefused("no name of an image has spaces")
        return image

    def _url(self, path: str) -> str:
        url = text(self._fields, "url", path)
        if not url:
            return ""
        if self._around.managed:
            raise _KeyRefused("manage_containers is true: a container is either started here or reached at its url")
        try:
            parts = urlsplit(url)
            understood = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            understood = False
        if not understood:
            raise _KeyRefused("must look like http://host:port or https://host")
        if parts.username is not None or parts.query or parts.fragment:
            raise _KeyRefused("must have no user, no query and no fragment; a secret belongs into bearer")
        return url.rstrip("/")

    def _bearer(self, path: str) -> str:
        bearer = text(self._fields, "bearer", path)
        if not all(" " <= char <= "~" for char in bearer):
            raise _KeyRefused("has characters that no header can carry")
        return bearer

    def _port_key(self, path: str) -> str:
        """Return the address of a container that is reached by its port; empty for one reached at its url."""
        if self._port is None:
            whole(self._fields, "port", path)
            self._note(path, KeyVerdict.NOT_NEEDED, "the container is reached at its url")
            return ""
        if not 1 <= self._port <= PORT_MAX:
            raise _KeyRefused(f"must be 1 to {PORT_MAX}")
        asked = whole(self._fields, "port", path, default=PORT_DEFAULT)
        if asked != self._port:
            self._note(
                path,
                KeyVerdict.USED,
                f"{asked} is another container's; this one has {self._port}, as the node moves it",
            )
        return f"http://127.0.0.1:{self._port}"

    def _external(self, path: str) -> bool:
        return flag(self._fields, "external", path, default=True)

    def _gpu(self, path: str) -> bool:
        self._only_managed(path)
        return flag(self._fields, "gpu", path, default=False)

    def _proofs(self, path: str) -> bool:
        return flag(self._fields, "generates_proofs", path, default=False)

    def _description(self, path: str) -> str:
        return text(self._fields, "description", path)

    def _command(self, path: str) -> str:
        self._only_managed(path)
        command = text(self._fields, "command", path)
        try:
            shlex.split(command)
        except ValueError as error:
            raise _KeyRefused("a quotation mark has no other") from error
        return command

    def _env(self, path: str) -> dict[str, str]:
        self._only_managed(path)
        env = {}
        for name, value in mapping(self._fields["env"], path).items():
            if not name or "=" in name or "\0" in name:
                raise _KeyRefused("a variable's name is empty or has '=' in it")
            if not isinstance(value, str | int | float) or "\0" in str(value):
                raise _KeyRefused(f"{name} must be a text or a number, is {kind(value)}")
            # As the node's own library writes them: True, not true.
            env[name] = str(value)
        return env

    def _volumes(self, path: str) -> tuple[str, ...]:
        self._only_managed(path)
        volumes = texts(self._fields, "volumes", path)
        for place, volume in enumerate(volumes):
            why = _volume_fault(volume)
            if why:
                raise _KeyRefused(f"number {place + 1}: {why}")
        return volumes

    def _ips(self, path: str) -> tuple[str, ...]:
        networks = texts(self._fields, "allowed_ips", path)
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise _KeyRefused(f"{error}; a network is written like 10.0.0.0/8") from error
        return networks

    def _payments(self, path: str) -> dict[str, int]:
        least: dict[str, int] = {}
        for asset, amount in mapping(self._fields["accepted_payments"], path).items():
            if not _ADDRESS.fullmatch(asset):
                raise _KeyRefused(f"{asset!r} is no address (0x and 40 hexadecimal digits)")
            wei = integer(amount, f"{path}.{asset}")
            if wei < 0 or asset.lower() in least:
                raise _KeyRefused(f"{asset} is below zero, or there twice")
            least[asset.lower()] = wei
        return least

    def _owners(self, path: str) -> tuple[str, ...]:
        owners = texts(self._fields, path.rpartition(".")[2], path)
        for owner in owners:
            if not _ADDRESS.fullmatch(owner):
                raise _KeyRefused(f"{owner!r} is no address (0x and 40 hexadecimal digits)")
        return tuple(owner.lower() for owner in owners)

    def _limit(self, path: str) -> None:
        """Read with the server's limit, see `_rate`."""


_READERS: dict[str, Callable[[_ContainerReader, str], Any]] = {
    "id": _ContainerReader._id,
    "image": _ContainerReader._image,
    "url": _ContainerReader._url,
    "bearer": _ContainerReader._bearer,
    "port": _ContainerReader._port_key,
    "external": _ContainerReader._external,
    "gpu": _ContainerReader._gpu,
    "accepted_payments": _ContainerReader._payments,
    "allowed_ips": _ContainerReader._ips,
    "allowed_addresses": _ContainerReader._owners,
    "allowed_delegate_addresses": _ContainerReader._owners,
    "description": _ContainerReader._description,
    "command": _ContainerReader._command,
    "env": _ContainerReader._env,
    "generates_proofs": _ContainerReader._proofs,
    "volumes": _ContainerReader._volumes,
    "rate_limit": _ContainerReader._limit,
}
"""Every key a container may have."""

_SHARED = (
    "id", "image", "bearer", "external", "accepted_payments", "allowed_ips", "allowed_addresses",
    "allowed_delegate_addresses", "description", "generates_proofs",
)  # fmt: skip


def _volume_fault(volume: str) -> str:
    """Return why Docker would not take *volume*; empty if it would."""
    parts = volume.split(":")
    if len(parts) > 3 or not all(parts):
        return "must look like /here:/there or /here:/there:ro"
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    if not target.startswith("/"):
        return "the path inside the container must begin with /"
    if source.startswith(("./", "../", "~")) or source in (".", ".."):
        return "the path on this machine must begin with /; Docker takes no relative one"
    if source and not source.startswith("/") and not _MANAGED_ID.fullmatch(source):
        return "neither a path that begins with / nor the name of a volume"
    if len(parts) == 3 and not set(parts[2].split(",")) <= _MODES:
        return f"{parts[2]!r} is no way to mount"
    return ""
