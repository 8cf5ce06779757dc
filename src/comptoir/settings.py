"""Every setting of the coordinator: one typed struct, and where each value came from.

Sources, strongest first: flags, environment (``COMPTOIR_<NAME>``), file (``comptoir.toml`` in the data folder,
or the one named by ``--config``), default. A name nobody knows and a value out of bounds are refused with the
field, the limit and the source. ``docs/configuration.md`` is this module's :func:`reference`, checked by a test.
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

ENVIRONMENT_PREFIX = "COMPTOIR_"
FILE_NAME = "comptoir.toml"
FILE_BYTES_MAX = 1 << 20
"""A configuration file is a page or two; a mebibyte says that the path names something else."""

ENVIRONMENT_NOT_OURS = frozenset(
    {"COMPTOIR_URL", "COMPTOIR_KEY", "COMPTOIR_ADMIN_KEY", "COMPTOIR_HOST_KEY", "COMPTOIR_CONFIG"}
)
"""What the command line as a client reads (``quickstart.env``), and the file's own place: no coordinator setting."""

ENVIRONMENT_PREFIXES_NOT_OURS = ("COMPTOIR_TEST_", "COMPTOIR_BENCH_")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400


def _group(name: str) -> Meta:
    """Mark a field with the heading it stands under in the reference."""
    return Meta(extra={"group": name})


_SERVER, _MONEY, _LIMITS = _group("Server"), _group("Money"), _group("Limits")
_TIMES, _RATES, _SECURITY = _group("Times"), _group("Rates"), _group("Security")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in force; immutable for the life of the process. A field's description is its documentation."""

    # -- server --------------------------------------------------------------------------------------------------
    host: Annotated[
        str,
        _SERVER,
        Meta(
            min_length=1,
            max_length=255,
            description=(
                "Address to listen on. Loopback by default: opening a trading post to the network is a decision."
            ),
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, _SERVER, Meta(ge=0, le=65_535, description=("TCP port to listen on; 0 takes a free one and prints it."))
    ] = 8080
    data: Annotated[
        str,
        _SERVER,
        Meta(
            min_length=1,
            max_length=4096,
            description=("Folder for database, signing key and quickstart.env; created with mode 0700."),
        ),
    ] = "comptoir-data"
    database: Annotated[
        str,
        _SERVER,
        Meta(
            max_length=4096,
            pattern=r"^$|^sqlite:.+|^postgres(ql)?://.+",
            description=(
                "Empty: SQLite file comptoir.db in the data folder. Else sqlite:PATH or postgresql://USER:PASSWORD@HOST/NAME."
            ),
        ),
    ] = ""
    public_url: Annotated[
        str,
        _SERVER,
        Meta(
            max_length=1024,
            pattern=r"^$|^https?://[^\s/]+(/[^\s]*)?$",
            description=(
                "Address buyers reach this server at, for links in answers and pages; empty uses the request's own Host."
            ),
        ),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _SERVER,
        Meta(description=("Least level of log lines written to standard error.")),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        _SERVER,
        Meta(description=("Lines for people (text) or one JSON object a line for collectors (json).")),
    ] = "text"
    cors_origins: Annotated[
        tuple[str, ...],
        _SERVER,
        Meta(
            max_length=64,
            description=(
                "Browser origins that may call the API with a key, or * for all. None by default: scripts of a foreign page "
                "then cannot read answers. Comma-separated in the environment."
            ),
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        _SERVER,
        Meta(
            max_length=64,
            description=(
                "Addresses or networks (CIDR) whose X-Forwarded-For is believed; anybody else could choose the address that "
                "rate limits see. Comma-separated in the environment."
            ),
        ),
    ] = ()
    health_cache_s: Annotated[
        float,
        _SERVER,
        Meta(
            ge=0.0,
            le=60.0,
            description=("How long a health check's result is reused, seconds, so that GET /health is never slow."),
        ),
    ] = 1.0
    routing: Annotated[
        str,
        _SERVER,
        Meta(
            max_length=64,
            description=(
                "How a free host is chosen: balanced, cheapest, fastest, round_robin, equal_weighted, weighted_round_robin, "
                "least_connections or least_response_time."
            ),
        ),
    ] = "balanced"
    hosts_max: Annotated[
        int,
        _SERVER,
        Meta(
            ge=1,
            le=10_000_000,
            description=("Most registered hosts; registration beyond it is refused. Each costs about 2 KiB of memory."),
        ),
    ] = 100_000

    # -- money ---------------------------------------------------------------------------------------------------
    fee_bps: Annotated[
        int,
        _MONEY,
        Meta(
            ge=0,
            le=10_000,
            description=(
                "The platform's part of each settled amount, basis points (1200 = 12 %), rounded down in the host's favour."
            ),
        ),
    ] = 1_200
    signup_credits_uusd: Annotated[
        int,
        _MONEY,
        Meta(
            ge=0,
            le=10**12,
            description=(
                "Promotion for a new user, micro-dollars; 1,000,000 are 100 credits, as the published reference shows."
            ),
        ),
    ] = 1_000_000

    # -- limits --------------------------------------------------------------------------------------------------
    body_bytes_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=KIB,
            le=GIB,
            description=(
                "Largest request body, bytes; multi-megabyte prompts and base64 images fit, memory of one request stays known."
            ),
        ),
    ] = 32 * MIB
    prompt_bytes_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1,
            le=GIB,
            description=(
                "Largest prompt (all text of a job's input together), bytes of UTF-8; at most body_bytes_max."
            ),
        ),
    ] = 16 * MIB
    answer_bytes_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=KIB,
            le=GIB,
            description=(
                "Largest answer of one job, bytes; a host that sends more fails the attempt. Bounds the frame buffer."
            ),
        ),
    ] = 32 * MIB
    max_tokens_default: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1,
            le=10_000_000,
            description=("Tokens of an answer when the buyer does not say (published default of Infrintia: 128)."),
        ),
    ] = 128
    max_tokens_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1, le=10_000_000, description=("Most tokens of an answer a buyer may ask for; bounds hold and buffer.")
        ),
    ] = 131_072
    queue_jobs_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1,
            le=10_000_000,
            description=(
                "Most jobs waiting for a host at once, all buyers together; beyond it submits answer 503 with Retry-After."
            ),
        ),
    ] = 1_000_000
    jobs_per_buyer_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1,
            le=10_000_000,
            description=("Most unfinished jobs of one buyer (waiting or running), so that one cannot fill the queue."),
        ),
    ] = 10_000
    streams_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1, le=1_000_000, description=("Most open event streams at once; one idle reader costs at most 50 KiB.")
        ),
    ] = 20_000
    subscribers_per_job_max: Annotated[
        int, _LIMITS, Meta(ge=1, le=100_000, description=("Most readers of one job's stream at once."))
    ] = 256
    subscriber_bytes_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=KIB,
            le=64 * MIB,
            description=(
                "Bytes waiting in one reader's socket before it is no longer fed; it catches up by replay from the job's own "
                "buffer, so a slow reader slows nobody."
            ),
        ),
    ] = 256 * KIB
    window_frames: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=1,
            le=1_000_000,
            description=(
                "Most unacknowledged frames of one lease; the worker stops reading its engine there (back-pressure)."
            ),
        ),
    ] = 4_096
    link_message_bytes_max: Annotated[
        int,
        _LIMITS,
        Meta(
            ge=64 * KIB,
            le=GIB,
            description=(
                "Largest message on a worker's link, bytes; holds the largest job body and the prefix of a resumed job."
            ),
        ),
    ] = 80 * MIB

    # -- times ---------------------------------------------------------------------------------------------------
    next_job_wait_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=0.0,
            le=300.0,
            description=(
                "How long POST /hosts/next-job is held when no job waits, seconds; below the 30 s most clients give up at."
            ),
        ),
    ] = 20.0
    sse_ping_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=0.1,
            le=300.0,
            description=(
                "Longest silence on an event stream before a comment line keeps proxies from closing it, seconds."
            ),
        ),
    ] = 15.0
    lease_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=0.1,
            le=DAY_S,
            description=(
                "How long a host may hold a job without sending a frame, seconds; then the lease goes to another host."
            ),
        ),
    ] = 60.0
    pulse_s: Annotated[
        float, _TIMES, Meta(ge=0.1, le=300.0, description=("How often a worker sends its pulse, seconds."))
    ] = 10.0
    host_silent_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=0.1,
            le=DAY_S,
            description=(
                "A host without any sign of life for this long is not offered jobs, seconds; three of the published 30 s "
                "heartbeats, and more than two pulses."
            ),
        ),
    ] = 90.0
    job_ttl_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=1.0,
            le=30.0 * DAY_S,
            description=(
                "A job not finished this long after submit expires and its hold is released, seconds (AITBC default 900)."
            ),
        ),
    ] = 900.0
    push_timeout_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=0.1,
            le=HOUR_S,
            description=("Longest wait for the first byte of a host that is pushed its jobs (endpoint_url), seconds."),
        ),
    ] = 60.0
    idempotency_ttl_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=MINUTE_S, le=30.0 * DAY_S, description=("How long an Idempotency-Key returns the first answer, seconds.")
        ),
    ] = float(DAY_S)
    retention_days: Annotated[
        int,
        _TIMES,
        Meta(
            ge=0,
            le=36_500,
            description=(
                "Days after which prompts and answers of finished jobs are deleted; 0 keeps them. Money and receipts are "
                "kept for ever."
            ),
        ),
    ] = 30
    drain_s: Annotated[
        float,
        _TIMES,
        Meta(
            ge=0.0,
            le=HOUR_S,
            description=("How long a stopping server lets open streams finish before jobs are requeued, seconds."),
        ),
    ] = 10.0

    # -- rates ---------------------------------------------------------------------------------------------------
    requests_per_minute_per_key: Annotated[
        int, _RATES, Meta(ge=1, le=100_000_000, description=("Requests a minute of one key (user or host)."))
    ] = 6_000
    requests_per_minute_per_ip: Annotated[
        int,
        _RATES,
        Meta(ge=1, le=100_000_000, description=("Requests a minute without a key from one address (IPv6: one /64).")),
    ] = 600
    logins_per_minute: Annotated[
        int,
        _RATES,
        Meta(
            ge=1,
            le=100_000,
            description=(
                "Password attempts a minute for one username, and for one address. Guards passwords and the processor: one "
                "attempt costs an argon2id hash."
            ),
        ),
    ] = 20

    # -- security ------------------------------------------------------------------------------------------------
    allow_open_host_registration: Annotated[
        bool,
        _SECURITY,
        Meta(
            description=(
                "Anybody may register a host, as the published reference has it; false asks for an operator's key."
            )
        ),
    ] = True
    allow_private_endpoint_urls: Annotated[
        bool,
        _SECURITY,
        Meta(
            description=(
                "Hosts may give endpoint URLs on loopback and private networks; true would let a stranger point the "
                "coordinator at its own neighbours."
            )
        ),
    ] = False
    allow_query_keys: Annotated[
        bool,
        _SECURITY,
        Meta(
            description=(
                "Where a published API documents ?api_key=, accept it; keys in addresses end up in the logs of proxies."
            )
        ),
    ] = True
    argon2_memory_kib: Annotated[
        int,
        _SECURITY,
        Meta(
            ge=8,
            le=4 * MIB,
            description=(
                "Memory of one password hash, KiB; 19,456 with two passes is OWASP's first choice for argon2id."
            ),
        ),
    ] = 19_456
    argon2_passes: Annotated[int, _SECURITY, Meta(ge=1, le=100, description=("Passes of one password hash."))] = 2
    argon2_threads_max: Annotated[
        int,
        _SECURITY,
        Meta(
            ge=1,
            le=64,
            description=("Password hashes computed at once; bounds memory and leaves cores to the event loop."),
        ),
    ] = 2
    key_cache_size: Annotated[
        int,
        _SECURITY,
        Meta(
            ge=1,
            le=10_000_000,
            description=(
                "Keys whose owner is remembered in memory (about 400 bytes each); others cost a database read."
            ),
        ),
    ] = 100_000

    def data_path(self) -> Path:
        """Return the data folder as an absolute path."""
        return Path(self.data).expanduser().resolve()

    def database_address(self) -> str:
        """Return what `kit.db.open_database` takes: a PostgreSQL URL, or the path of the SQLite file."""
        return self.database.removeprefix("sqlite:") or str(self.data_path() / "comptoir.db")


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
    """``flag``, ``environment COMPTOIR_<NAME>``, ``file <path>`` or ``default``."""
    doc: str


class Loaded(msgspec.Struct, frozen=True):
    """Settings in force and, per field, where each came from."""

    settings: Settings
    origin: dict[str, str]

    def describe(self) -> list[Row]:
        """Return one row per setting, in the order of the struct, secrets masked."""
        return [
            Row(
                field.name,
                masked(msgspec.json.encode(getattr(self.settings, field.name)).decode()),
                self.origin[field.name],
                field.doc,
            )
            for field in FIELDS.values()
        ]


class Field(msgspec.Struct, frozen=True):
    """A setting as this module documents and checks it."""

    name: str
    type: Any
    default: Any
    doc: str
    bounds: str
    group: str
    is_list: bool


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
    from_env = _from_environment(env or {})
    from_flags = {name: (value, "flag") for name, value in (flags or {}).items() if value is not None}
    if file is None and env and env.get("COMPTOIR_CONFIG"):
        file = Path(env["COMPTOIR_CONFIG"]).expanduser()
    given = _from_file(file, {**from_env, **from_flags})
    given.update(from_env)
    given.update(from_flags)

    values = {name: _checked(name, value, origin) for name, (value, origin) in given.items()}
    origins = {name: given[name][1] if name in given else "default" for name in FIELDS}
    settings = Settings(**values)
    _check_together(settings, origins)
    return Loaded(settings, origins)


def masked(text: str) -> str:
    """Return *text* with the password of every URL in it replaced by ``***``; in doubt it hides too much."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def reference() -> str:
    """Return the text of ``docs/configuration.md``."""
    lines = [_REFERENCE_HEAD]
    group = ""
    for field in FIELDS.values():
        if field.group != group:
            group = field.group
            lines.append(f"\n## {group}\n\n| Setting | Default | Allowed | Meaning |\n|--|--|--|--|")
        default = msgspec.json.encode(field.default).decode()
        allowed = field.bounds.replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{default}` | {allowed} | {field.doc} |")
    return "\n".join(lines) + "\n"


_REFERENCE_HEAD = """\
# Configuration

Generated from `src/comptoir/settings.py` (`comptoir.settings.reference()`); a test compares the two.

A setting is given as a flag (`--port 9000`), in the environment (`COMPTOIR_PORT=9000`) or in a TOML file
(`port = 9000` in `comptoir.toml` in the data folder, or the file named by `--config` or `COMPTOIR_CONFIG`). A flag wins
over the environment, the environment over the file, the file over the default. Names nobody knows and values out of
bounds stop the start with a line that says which, why and where it came from. `comptoir config` prints what is in
force. Money is in micro-dollars (10,000 are one credit), times are in seconds, sizes in bytes; a name ends in
its unit."""


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
        raise SettingsError(name, f"must be {field.bounds}, not {shown!r}: {error}", origin) from error
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
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SettingsError(
                "trusted_proxies", f"must be addresses or networks: {error}", origin["trusted_proxies"]
            ) from error


def _fields() -> dict[str, Field]:
    hints = get_type_hints(Settings, include_extras=True)
    fields: dict[str, Field] = {}
    for info in msgspec.structs.fields(Settings):
        bare, *metas = get_args(hints[info.name])
        doc = next(meta.description for meta in metas if meta.description)
        group = next(meta.extra["group"] for meta in metas if meta.extra)
        fields[info.name] = Field(
            name=info.name,
            type=hints[info.name],
            default=info.default,
            doc=doc,
            group=group,
            bounds=_bounds(bare, metas),
            is_list=get_origin(bare) is tuple,
        )
    return fields


def _bounds(bare: Any, metas: list[Meta]) -> str:
    """Say in words what the type and its metas allow."""
    if bare is bool:
        return "true or false"
    if get_origin(bare) is Literal:
        return " or ".join(get_args(bare))
    limits = {
        name: value
        for meta in metas
        for name in ("ge", "le", "min_length", "max_length", "pattern")
        if (value := getattr(meta, name)) is not None
    }
    if bare is int or bare is float:
        return f"{'whole number' if bare is int else 'number'} {limits['ge']:,} to {limits['le']:,}"
    if get_origin(bare) is tuple:
        return f"list of at most {limits['max_length']} texts"
    shape = ", of the form described" if "pattern" in limits else ""
    return f"text of {limits.get('min_length', 0)} to {limits['max_length']:,} characters{shape}"


FIELDS: Final[dict[str, Field]] = _fields()
"""Every setting by name, in the order of the struct."""
