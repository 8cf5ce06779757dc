"""A Ritual node's ``config.json``, as it is: which containers it describes, and what becomes of each of its keys.

Every key is *used*, *not needed* here, or *refused* with a reason. Where a container says something that can't be
honoured, it is not offered at all: none is ever served with weaker protection than its owner wrote. `translate` is
pure; `read_config` reads the file. No finding, error or ``repr`` holds a value that may be secret (bearer, environment,
passwords, keys).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from comptoir.worker.engines import infernet_container as one_container
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.infernet_container import PORT_DEFAULT, KeyFinding, KeyVerdict, Rate, Surroundings
from comptoir.worker.engines.infernet_values import BadValue, flag, mapping, sequence, text, whole

CONFIG_BYTES_MAX = 1024 * 1024
"""Largest file that is read; one of a hundred containers has 60 KB."""

PORT_SPARE = 3999
"""A port that is asked for twice becomes this one, or the next below it that is free, as the node does."""

RATE_DEFAULT = Rate(requests=60, period_s=60.0)
"""The node's own limit where its file names none."""

NOT_NEEDED = {
    "redis": "the coordinator's database keeps the jobs",
    "log": "the worker logs to standard error",
    "log_path": "the worker logs to standard error",
    "forward_stats": "nothing is sent to Ritual",
    "startup_wait": "a container is offered as soon as it answers, not after a fixed time",
    "snapshot_sync": "no chain is followed",
}
"""What the worker does without, and why."""

CHAIN_KEYS = (
    "enabled",
    "rpc_url",
    "trail_head_blocks",
    "registry_address",
    "coordinator_address",
    "wallet",
    "snapshot_sync",
)

CHAIN_REFUSED = "this host delivers nothing on a chain yet; its containers serve off-chain jobs"

_CONTAINER = re.compile(r"containers\[\d+\]")


class Translation(msgspec.Struct, frozen=True):
    """What a file comes to."""

    specs: tuple[ContainerSpec, ...]
    """The containers to offer, in the file's order."""
    findings: tuple[KeyFinding, ...]
    """One for each key of the file, sections that are not needed as a whole once."""

    def lines(self) -> list[str]:
        """Return the findings for a person to read: a line for the used keys of each section, one for each other key.

        A container that is refused has a line of its own, last: what was taken of it changes nothing.
        """
        said, used = [], dict[str, list[str]]()
        gone = dict.fromkeys(
            match[0]
            for finding in self.findings
            if finding.verdict is KeyVerdict.REFUSED and (match := _CONTAINER.match(finding.path))
        )
        for finding in self.findings:
            if finding.verdict is KeyVerdict.USED and not finding.why:
                section, _, key = finding.path.rpartition(".")
                used.setdefault(section, []).append(key)
                continue
            said.append(f"{finding.verdict}: {finding.path}: {finding.why}")
        plain = [f"{KeyVerdict.USED}: {name + ': ' if name else ''}{', '.join(keys)}" for name, keys in used.items()]
        order = [str(verdict) for verdict in KeyVerdict]
        said += [f"{KeyVerdict.REFUSED}: {section}: so this container is not offered" for section in gone]
        return sorted(plain + said, key=lambda line: order.index(line.partition(":")[0]))


def read_config(path: Path) -> Translation:
    """Read the file at *path* and translate it.

    Raises:
        EngineError: there is no such file, it is no JSON, or a key has a value of the wrong type; says which.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise _unusable(f"{path}: {error.strerror or error}") from error
    if len(data) > CONFIG_BYTES_MAX:
        raise _unusable(f"{path}: longer than {CONFIG_BYTES_MAX:,} bytes, which no configuration is")
    try:
        return translate(parse(data))
    except BadValue as bad:
        raise _unusable(f"{path}: {bad}") from bad


def parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object in *data*, whole numbers of any size exact.

    Raises:
        BadValue: no JSON, no object, or a key given twice in one object.
    """
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise BadValue("", f"no JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadValue("", "no JSON: not UTF-8, or nested too deep") from error
    except BadValue:
        raise
    except ValueError as error:
        raise BadValue("", "no JSON that is understood: a number has too many digits") from error
    return dict(mapping(document, ""))


def translate(document: Mapping[str, Any]) -> Translation:
    """Say which containers *document* describes and what becomes of its keys. Pure.

    Raises:
        BadValue: a known key has a value of the wrong type.
    """
    findings: list[KeyFinding] = []
    document = {key: value for key, value in document.items() if value is not None}
    managed = flag(document, "manage_containers", "manage_containers", default=True)
    rate: Rate | None = RATE_DEFAULT
    user = password = ""
    for key in document:
        if key == "server":
            rate = _server(_section(document, key), findings)
        elif key == "chain":
            _chain(_section(document, key), findings)
        elif key == "docker":
            user, password = _docker(_section(document, key), managed, findings)
        elif key == "manage_containers":
            findings.append(
                KeyFinding(key, KeyVerdict.USED, "" if managed else "you keep the containers running yourself")
            )
        elif key in NOT_NEEDED:
            findings.append(KeyFinding(key, KeyVerdict.NOT_NEEDED, NOT_NEEDED[key]))
        elif key != "containers":
            findings.append(KeyFinding(key, KeyVerdict.REFUSED, "unknown here"))
    if "rate_limit" not in _section(document, "server"):
        why = (
            f"not given: {RATE_DEFAULT.requests} jobs of a caller in {RATE_DEFAULT.period_s:.0f} s, as the node has it"
        )
        findings.append(KeyFinding("server.rate_limit", KeyVerdict.USED, why))
    around = Surroundings(managed=managed, rate=rate, registry_user=user, registry_password=password)
    specs = _containers(sequence(document.get("containers", []), "containers"), around, findings)
    return Translation(tuple(specs), tuple(findings))


def _containers(entries: Sequence[Any], around: Surroundings, findings: list[KeyFinding]) -> list[ContainerSpec]:
    named: list[tuple[str, Mapping[str, Any], str]] = []
    for place, entry in enumerate(entries):
        path = f"containers[{place}]"
        fields = mapping(entry, path)
        name = text(fields, "id", f"{path}.id")
        if not name:
            findings.append(KeyFinding(f"{path}.id", KeyVerdict.REFUSED, "not given: a container needs a name"))
            continue
        named.append((path, fields, name))
    times = Counter(name for _, _, name in named)
    unique = []
    for path, fields, name in named:
        if times[name] > 1:
            why = f"{name!r} is there {times[name]} times: which of them is meant can't be known"
            findings.append(KeyFinding(f"{path}.id", KeyVerdict.REFUSED, why))
        else:
            unique.append((path, fields))
    ports = _ports(unique, around)
    specs = []
    for path, fields in unique:
        spec, found = one_container.translate(fields, path, port=ports[path], around=around)
        findings += found
        if spec is not None:
            specs.append(spec)
    return specs


def _ports(entries: Sequence[tuple[str, Mapping[str, Any]]], around: Surroundings) -> dict[str, int | None]:
    """Give every container that is reached by a port its own, in the node's way; None for one reached by its url."""
    given: dict[str, int | None] = {}
    for path, fields in entries:
        if not around.managed and fields.get("url"):
            given[path] = None
            continue
        port = whole(fields, "port", f"{path}.port", default=PORT_DEFAULT)
        used = set(given.values())
        if port in used:
            port = next(spare for spare in range(PORT_SPARE, 0, -1) if spare not in used)
        given[path] = port
    return given


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return mapping(document.get(key, {}), key)


def _server(server: Mapping[str, Any], findings: list[KeyFinding]) -> Rate | None:
    """Return the limit that holds for every container; None: one that can't be honoured."""
    rate: Rate | None = RATE_DEFAULT
    for key in server:
        path = f"server.{key}"
        if key == "port":
            whole(server, key, path)
            findings.append(
                KeyFinding(path, KeyVerdict.NOT_NEEDED, "this host opens no port; buyers ask the coordinator")
            )
        elif key == "rate_limit":
            rate, found = one_container.rate_of(server, path, RATE_DEFAULT)
            findings += found
        else:
            findings.append(KeyFinding(path, KeyVerdict.REFUSED, "unknown here"))
    return rate


def _chain(chain: Mapping[str, Any], findings: list[KeyFinding]) -> None:
    if flag(chain, "enabled", "chain.enabled", default=False):
        findings.append(KeyFinding("chain", KeyVerdict.REFUSED, CHAIN_REFUSED))
    else:
        findings.append(KeyFinding("chain", KeyVerdict.NOT_NEEDED, "it is not enabled"))
    findings += [
        KeyFinding(f"chain.{key}", KeyVerdict.REFUSED, "unknown here") for key in chain if key not in CHAIN_KEYS
    ]


def _docker(docker: Mapping[str, Any], managed: bool, findings: list[KeyFinding]) -> tuple[str, str]:
    unknown = [key for key in docker if key not in ("username", "password")]
    findings += [KeyFinding(f"docker.{key}", KeyVerdict.REFUSED, "unknown here") for key in unknown]
    user = text(docker, "username", "docker.username")
    password = text(docker, "password", "docker.password")
    if not docker:
        return "", ""
    if not managed:
        findings.append(
            KeyFinding("docker", KeyVerdict.NOT_NEEDED, "no image is pulled, as manage_containers is false")
        )
        return "", ""
    if not (user and password):
        why = "username and password belong together; images are pulled without"
        findings.append(KeyFinding("docker", KeyVerdict.REFUSED, why))
        return "", ""
    findings.append(
        KeyFinding("docker", KeyVerdict.USED, "sent to every registry that an image comes from, as the node does")
    )
    return user, password


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadValue(twice, "given twice in one object: which of them is meant can't be known")
    return found


def _no_number(name: str) -> Any:
    raise BadValue("", f"no JSON: {name} is no number")


def _unusable(message: str) -> EngineError:
    return EngineError("infernet_config", message)
