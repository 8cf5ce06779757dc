"""The settings themselves: one typed struct, and the documentation of each in docs/configuration.md."""

import ast
import functools
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400


KindTarget = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]


ServerName = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^(\*|[A-Za-z0-9.:_-]+)$")]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings in force; immutable for the life of the process. A field's docstring is its documentation."""

    # -- server --------------------------------------------------------------------------------------------------------
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    """Address to listen on. Loopback by default: opening a trading post to the network is a decision."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    """TCP port to listen on; 0 takes a free one and prints it."""
    data: Annotated[str, Meta(min_length=1, max_length=4096)] = "comptoir-data"
    """Folder for database, signing key and quickstart.env; created with mode 0700."""
    database: Annotated[
        str,
        Meta(max_length=4096, pattern=r"^$|^sqlite:.+|^postgres(ql)?://.+", examples=["postgresql://USER@HOST/NAME"]),
    ] = ""
    """Empty: SQLite file comptoir.db in the data folder. Otherwise sqlite:PATH or
    postgresql://USER:PASSWORD@HOST/NAME."""
    bus: Annotated[
        str, Meta(max_length=4096, pattern=r"^$|^(rediss?|valkeys?|unix)://.+", examples=["redis://HOST:6379"])
    ] = ""
    """Empty: this coordinator is alone on its database. Otherwise the Redis or Valkey shared by the coordinators of one
    trading post: redis://:PASSWORD@HOST:PORT/NUMBER, rediss:// for TLS, or unix:///PATH. Needs PostgreSQL."""
    public_url: Annotated[
        str, Meta(max_length=1024, pattern=r"^$|^https?://[^\s/]+(/[^\s]*)?$", examples=["https://post.example"])
    ] = ""
    """Address at which buyers reach this server, for links in answers and pages; if empty, the request's own Host is
    used."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of log lines written to standard error."""
    log_format: Literal["text", "json"] = "text"
    """Log lines for people (text), or one JSON object per line for collectors (json)."""
    cors_origins: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Browser origins whose pages may call the API, with a key, or * for all. None by default: whatever a browser
    requests for a foreign page is refused. Comma-separated in the environment."""
    server_names: Annotated[tuple[ServerName, ...], Meta(max_length=64)] = ()
    """Names and addresses (without port) by which this server is reached, in addition to loopback's and public_url's; a
    request whose Host header names another is refused. On loopback this always applies (against DNS rebinding), so list
    the names that a proxy on this machine passes on; on a network it applies if any are listed. * is any. Comma-
    separated in the environment."""
    trusted_proxies: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Addresses or networks (CIDR) whose X-Forwarded-For is believed; from anybody else it would let the sender choose
    the address that rate limits see. Comma-separated in the environment."""
    health_cache_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 1.0
    """How long a health check's result is reused, seconds, so that GET /health is never slow."""
    kinds: Annotated[tuple[KindTarget, ...], Meta(max_length=64)] = ()
    """Kinds of work that are sold in addition to the built-in ones, each as package.module:Class
    (docs/adding/a-kind.md). The same for all coordinators of a post. Comma-separated in the environment."""
    hosts_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Maximum number of registered hosts; further registrations are refused. Each costs about 2 KiB of memory."""
    models_listed_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Maximum number of models, of containers and of other names in a published list, in every API: with more on offer,
    those with most proven hosts, then with most hosts, then known for longest. Any name can be looked up and bought."""
    routing: Annotated[str, Meta(max_length=64)] = "balanced"
    """How a free host is chosen: balanced, cheapest, fastest, round_robin, equal_weighted, weighted_round_robin,
    least_connections or least_response_time."""

    # -- money ---------------------------------------------------------------------------------------------------------
    fee_bps: Annotated[int, Meta(ge=0, le=10_000)] = 1_200
    """The operator's share of each settled amount, basis points (1200 = 12 %), rounded down in the host's favour."""
    signup_credits_uusd: Annotated[int, Meta(ge=0, le=10**12)] = 1_000_000
    """Promotion for a new user, micro-dollars; 1,000,000 are 100 credits, as the published reference shows. It buys,
    and never becomes earnings that leave."""
    signup_credits_per_address: Annotated[int, Meta(ge=0, le=10**6)] = 5
    """New users of one address (IPv6: one /64) and day (UTC) that get sign-up credit; the others start without.
    Programs of this machine and users with an invitation are not counted by address."""
    signup_credits_per_day: Annotated[int, Meta(ge=0, le=10**5)] = 1_000
    """New users of one day (UTC) that get sign-up credit, over all addresses and coordinators; the others start
    without. Users with an invitation always get theirs, and count."""
    charge_for_broken_answers: bool = True
    """What an answer costs if its host was lost and none could continue it: what its buyer received (true), or nothing,
    in which case its hosts earn nothing either (false). One that was not streamed costs nothing either way."""

    # -- limits --------------------------------------------------------------------------------------------------------
    body_bytes_max: Annotated[int, Meta(ge=KIB, le=GIB)] = 32 * MIB
    """Largest request body, bytes; multi-megabyte prompts and base64 images fit, and the memory of one request stays
    bounded."""
    prompt_bytes_max: Annotated[int, Meta(ge=1, le=GIB)] = 16 * MIB
    """Largest prompt (all text of a job's input together), bytes of UTF-8; at most body_bytes_max."""
    answer_bytes_max: Annotated[int, Meta(ge=KIB, le=GIB)] = 32 * MIB
    """Largest answer of one job, bytes; a host that sends more fails the attempt. Bounds the frame buffer."""
    max_tokens_default: Annotated[int, Meta(ge=1, le=10_000_000)] = 128
    """Tokens of an answer if the buyer does not say (published default of Infrintia: 128)."""
    chat_max_tokens_default: Annotated[int, Meta(ge=1, le=10_000_000)] = 2_048
    """Tokens of a chat answer that are held at first if an OpenAI client names no limit (fewer where the model's
    context ends earlier): such clients expect as long an answer as it takes. While it runs, limit and hold grow, as far
    as context, max_tokens_max and the buyer's credit allow. Hosts that poll or are pushed end here."""
    max_tokens_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 131_072
    """Most tokens of an answer that a buyer may ask for, and that one without a limit may grow to; bounds hold and
    buffer."""
    queue_jobs_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000_000
    """Most jobs waiting for a host at once, all buyers together; further submits get 503 with Retry-After."""
    jobs_per_buyer_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """Most unfinished jobs of one buyer (waiting or running), so that one cannot fill the queue."""
    unfinished_bytes_max: Annotated[int, Meta(ge=KIB, le=1 << 40)] = 128 * MIB
    """Most bytes of unfinished jobs' bodies (those above 4 KiB), all buyers together: they are kept in memory until a
    host is done. Beyond it submits answer 503 with Retry-After."""
    unfinished_bytes_per_buyer_max: Annotated[int, Meta(ge=KIB, le=1 << 40)] = 64 * MIB
    """The same for one buyer, whatever his jobs cost, so that one cannot take all; beyond it 429."""
    unpaid_bytes_per_buyer_max: Annotated[int, Meta(ge=KIB, le=1 << 50)] = 256 * MIB
    """Most bytes of prompts and answers kept of one buyer's jobs that cost nothing (cancelled, expired, failed, free),
    but for those up to 4 KiB; beyond it the oldest are deleted before retention_days. Each coordinator counts what has
    ended there since it started."""
    webhooks_per_owner: Annotated[int, Meta(ge=0, le=16)] = 16
    """Most webhooks of one user; 0: this trading post sends none."""
    streams_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    """Most open event streams at once; one idle reader costs at most 50 KiB."""
    subscribers_per_job_max: Annotated[int, Meta(ge=1, le=100_000)] = 256
    """Most readers of one job's stream at once."""
    window_frames: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    """Most unacknowledged frames of one lease; at that point the worker stops reading its engine (back-pressure)."""
    link_message_bytes_max: Annotated[int, Meta(ge=64 * KIB, le=GIB)] = 80 * MIB
    """Largest message on a worker's link, bytes; holds the largest job body and the prefix of a resumed job."""

    # -- connections ---------------------------------------------------------------------------------------------------
    connections_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 30_000
    """Most open connections; one more is closed at once. Fewer where the process may open fewer files (ulimit -n). An
    idle one costs about 10 KiB."""
    connections_per_address_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 2_048
    """Most open connections of one address (IPv6: one /64), so that one machine can't take all; trusted_proxies have no
    such bound. A worker has two, an office behind one address a few for each person."""
    head_bytes_max: Annotated[int, Meta(ge=KIB, le=MIB)] = 64 * KIB
    """Largest head of a request, bytes (431 beyond it); browsers and SDKs send one or two KiB."""
    head_s: Annotated[float, Meta(ge=0.1, le=HOUR_S)] = 10.0
    """How long a head may take to come, and a new connection to begin one, seconds; then 408, and the connection is
    closed."""
    heads_bytes_max: Annotated[int, Meta(ge=KIB, le=GIB)] = 32 * MIB
    """Most bytes of incomplete heads, all connections together; beyond it the next piece of one is answered with
    503."""
    body_bytes_without_key_max: Annotated[int, Meta(ge=KIB, le=GIB)] = 256 * KIB
    """Largest body of a request without a key, bytes; a registration has a few KiB. Where infernet_anonymous lets
    callers buy without a key, body_bytes_max holds for the Infernet API."""
    body_bytes_per_s_min: Annotated[int, Meta(ge=1, le=GIB)] = 16 * KIB
    """Least rate of a request's body, and of a message on a worker's link, bytes a second over each body_grace_s; what
    comes slower is answered with 408, a link is cut. 16 KiB are a weak mobile connection."""
    body_grace_s: Annotated[float, Meta(ge=0.1, le=HOUR_S)] = 10.0
    """How long a body is waited for before its rate is looked at, and again, seconds."""
    bodies_bytes_max: Annotated[int, Meta(ge=KIB, le=1 << 40)] = 96 * MIB
    """Most bytes of bodies whose requests are not answered yet, all together; beyond it 503 with Retry-After. Never
    less than one body_bytes_max. A machine with more memory than 1 GiB can have a multiple of this."""
    bodies_bytes_per_address_max: Annotated[int, Meta(ge=KIB, le=1 << 40)] = 64 * MIB
    """The same for one address, so that one can't take all."""
    links_bytes_max: Annotated[int, Meta(ge=KIB, le=1 << 40)] = 96 * MIB
    """Most bytes of messages on workers' links that are not complete, all together; a link that would go beyond it is
    cut, and its worker comes again. Never less than one link_message_bytes_max."""
    reader_stall_s: Annotated[float, Meta(ge=0.1, le=DAY_S)] = 30.0
    """How long a reader may take nothing of what waits for it before it is cut, seconds; what it has not read can be
    asked for again."""
    readers_bytes_max: Annotated[int, Meta(ge=MIB, le=1 << 40)] = 64 * MIB
    """Most bytes of answers made at once for readers, beyond 16 KiB for each; who needs more waits until others have
    read. One address has half of it at most."""

    uploads_bytes_max: Annotated[int, Meta(ge=16 * MIB, le=1 << 40)] = 64 * MIB
    """Most bytes of files in memory on their way to the store, all uploads together; each has at most 8 MiB, one
    address half of all, and who finds no room waits."""

    # -- files ---------------------------------------------------------------------------------------------------------
    files_store: Annotated[str, Meta(max_length=4096, examples=["s3://BUCKET/PREFIX"])] = ""
    """Where files are kept: a folder (empty: files in the data folder), or s3://BUCKET/PREFIX, whose keys are read from
    the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL). The same place for all
    coordinators of a post."""
    file_bytes_max: Annotated[int, Meta(ge=1, le=1 << 40)] = 4 * GIB
    """Largest file, bytes."""
    files_bytes_per_owner_max: Annotated[int, Meta(ge=0, le=1 << 50)] = 10 * GIB
    """Most bytes of one user's files, unfinished uploads included; beyond it 507. 0: nobody may upload."""
    files_per_owner_max: Annotated[int, Meta(ge=0, le=10_000_000)] = 10_000
    """Most files of one user, unfinished uploads included; beyond it 507. Each costs about 300 bytes in the
    database."""
    files_bytes_max: Annotated[int, Meta(ge=0, le=1 << 60)] = 100 * GIB
    """Most bytes of all users' files together, so that they can't fill the disk; beyond it 507. Files with the same
    bytes are stored once, and count each."""
    artifacts_bytes_per_job_max: Annotated[int, Meta(ge=0, le=1 << 50)] = 8 * GIB
    """Most bytes of the files that one job makes, at one host; they count in its buyer's files as well."""
    upload_s: Annotated[float, Meta(ge=MINUTE_S, le=30.0 * DAY_S)] = float(DAY_S)
    """How long an unfinished upload waits for its next bytes, seconds; then it is given up."""
    files_retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 30
    """Days after which a file is deleted, unless something needs it still; 0 keeps it until its owner deletes it."""

    # -- times ---------------------------------------------------------------------------------------------------------
    next_job_wait_s: Annotated[float, Meta(ge=0.0, le=300.0)] = 20.0
    """How long POST /hosts/next-job is held when no job waits, seconds; below the 30 s after which most clients give
    up."""
    sse_ping_s: Annotated[float, Meta(ge=0.1, le=300.0)] = 15.0
    """Longest silence on an event stream before a comment line keeps proxies from closing it, seconds."""
    lease_s: Annotated[float, Meta(ge=0.1, le=DAY_S)] = 60.0
    """How long a host may hold a job without sending a frame, seconds; then the lease goes to another host."""
    hedge: bool = False
    """When a linked host's first frame is later than its own 95th percentile, start a second host on the job; the first
    to deliver gets it, the other is stopped and not paid. Costs hosts work that nobody pays for."""
    stall_factor: Annotated[float, Meta(ge=1.0, le=1000.0)] = 8.0
    """A linked host that is silent for this many times its own 99th percentile (between frames; before the first one,
    from lease to first frame) loses the job to one that is free to continue; at most lease_s."""
    stall_floor_s: Annotated[float, Meta(ge=0.05, le=HOUR_S)] = 1.0
    """Silence between two frames below which no host counts as lost, however fast it was, seconds."""
    stall_first_floor_s: Annotated[float, Meta(ge=0.05, le=HOUR_S)] = 10.0
    """The same before a host's first frame, in addition to the time that a slow host needs to read the prompt,
    seconds."""
    broken_wait_s: Annotated[float, Meta(ge=0.0, le=DAY_S)] = 30.0
    """How long a stream may stall after its host was lost, while every host that could continue is busy, seconds; then
    it ends as failed."""
    pulse_s: Annotated[float, Meta(ge=0.1, le=300.0)] = 10.0
    """How often a worker sends its pulse, seconds."""
    host_silent_s: Annotated[float, Meta(ge=0.1, le=DAY_S)] = 90.0
    """A host without any sign of life for this long is offered no jobs, seconds; three of the published 30 s
    heartbeats, and more than two pulses."""
    host_away_s: Annotated[float, Meta(ge=0.1, le=DAY_S)] = 45.0
    """No job waits for a host that has been offline for this long, seconds: where there is no other host, new jobs are
    refused and waiting ones of connected clients end, both with 503. Half as long again as the published 30 s
    heartbeats; a worker that restarts is back within 15 s."""
    silent_host_days: Annotated[int, Meta(ge=0, le=36_500)] = 30
    """Days without any sign of life after which a host with an owner or earnings is retired, as an act of the
    coordinator (comptoir acts); 0 keeps it. Record and earnings stay; our worker registers anew when it comes back."""
    silent_newcomer_days: Annotated[int, Meta(ge=0, le=36_500)] = 3
    """The same for a host without an owner that has earned nothing: registering one costs nothing."""
    job_ttl_s: Annotated[float, Meta(ge=1.0, le=30.0 * DAY_S)] = 900.0
    """A job not finished this long after submit expires and its hold is released, seconds (AITBC default 900). One that
    runs for as long as its order says has that time besides."""
    job_runs_max_s: Annotated[float, Meta(ge=1.0, le=30.0 * DAY_S)] = float(DAY_S)
    """Longest time that an order may ask for to run, seconds; one that asks for more is refused."""
    push_timeout_s: Annotated[float, Meta(ge=0.1, le=HOUR_S)] = 60.0
    """Longest wait for the first byte from a host that has its jobs pushed to it (endpoint_url), seconds."""
    idempotency_ttl_s: Annotated[float, Meta(ge=MINUTE_S, le=30.0 * DAY_S)] = float(DAY_S)
    """How long an Idempotency-Key returns the first answer, seconds."""
    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 30
    """Days after which prompts and answers of finished jobs are deleted (for chains of containers also what a failed
    one said and the caller's address), and events except each owner's newest; 0 keeps them. Money and receipts are kept
    for ever."""
    drain_s: Annotated[float, Meta(ge=0.0, le=HOUR_S)] = 10.0
    """How long a stopping server lets open streams finish before jobs are requeued, seconds."""
    drain_notice_s: Annotated[float, Meta(ge=0.0, le=HOUR_S)] = 0.0
    """How long a stopping server still accepts jobs after it has begun to report that it drains (GET /health,
    /house/status), seconds. Behind a balancer: a little longer than its check takes to notice, so that nobody is
    refused."""

    # -- rates ---------------------------------------------------------------------------------------------------------
    requests_per_minute_per_key: Annotated[int, Meta(ge=1, le=100_000_000)] = 6_000
    """Requests per minute of one user, all keys together."""
    requests_per_minute_per_host: Annotated[int, Meta(ge=1, le=100_000_000)] = 60_000
    """Requests per minute of one host. More than a user's: a host that polls may deliver each token in a request of its
    own."""
    requests_per_minute_per_ip: Annotated[int, Meta(ge=1, le=100_000_000)] = 600
    """Requests per minute without a key from one address (IPv6: one /64)."""
    logins_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 20
    """Password attempts per minute for one username, and for one address. Protects passwords and the processor: one
    attempt costs an argon2id hash."""

    # -- infernet ------------------------------------------------------------------------------------------------------
    infernet_anonymous: Literal["off", "loopback", "any"] = "off"
    """Who may buy through the Infernet API without a key, as its published clients do: nobody, programs on this machine
    (no proxies, no web pages), or anybody. Such callers are identified by IP address, and the operator pays. The
    quickstart (comptoir up on loopback) uses loopback."""
    infernet_anonymous_uusd_per_day: Annotated[int, Meta(ge=0, le=10**12)] = 1_000_000
    """Most that all callers without a key may spend a day (UTC) together, micro-dollars; it is credited day by day to
    the operator's account unnamed, and the ledger refuses anything beyond."""
    infernet_requests_per_minute: Annotated[int, Meta(ge=1, le=100_000_000)] = 60
    """Requests per minute from one address without a key to each path of the Infernet API; Ritual's node allows 60."""
    infernet_chain_id: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Chain for which delegated requests have to be signed; 0: none is known, and none is checked. Needs
    infernet_coordinator and comptoir[chain]."""
    infernet_coordinator: Annotated[str, Meta(max_length=42, pattern=r"^$|^0x[0-9a-fA-F]{40}$")] = ""
    """Address of the coordinator contract for which delegated requests have to be signed."""

    # -- security ------------------------------------------------------------------------------------------------------
    host_registration: Literal["open", "key", "invitation", "bond"] = "open"
    """What registering a host asks for: nothing (open, as in the published reference), a user's key, so that the host
    has an owner (key), an invitation (comptoir invite), or a user's key and a bond from that user's account
    (bond, host_bond_uusd). An operator's key is always enough. Where strangers can
    reach the server (it listens on a network, or public_url, server_names or trusted_proxies are set), comptoir up uses
    key unless told otherwise."""
    host_bond_uusd: Annotated[int, Meta(ge=1, le=10**12)] = 10_000_000
    """What a host's owner puts up where host_registration is bond, micro-dollars; 10,000,000 are 1,000 credits. It is
    moved out of the account when the host is registered, and comes back after host_bond_days; promotional credit is no
    bond."""
    host_bond_days: Annotated[int, Meta(ge=0, le=3_650)] = 14
    """Days after a host was retired until its bond goes back to its owner: the time in which what comes to light can
    still cost it."""
    user_registration: Literal["open", "invitation", "closed"] = "open"
    """Who may sign up: anybody, with or without an invitation (open), only with one (invitation), or nobody
    (closed)."""
    allow_private_endpoint_urls: bool = False
    """Hosts may give endpoint URLs on loopback and private networks; true would let a stranger point the coordinator at
    its own neighbours."""
    allow_query_keys: bool = True
    """Accept ?api_key= where a published API documents it; keys in addresses end up in the logs of proxies."""
    argon2_memory_kib: Annotated[int, Meta(ge=8, le=4 * MIB)] = 19_456
    """Memory of one password hash, KiB; 19,456 with two passes is OWASP's first choice for argon2id."""
    argon2_passes: Annotated[int, Meta(ge=1, le=100)] = 2
    """Passes of one password hash."""
    argon2_threads_max: Annotated[int, Meta(ge=1, le=64)] = 2
    """Password hashes computed at once; bounds memory and leaves cores to the event loop."""
    key_cache_size: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Keys whose owner is cached in memory (about 400 bytes each); others cost a database read."""

    def data_path(self) -> Path:
        """Return the data folder as an absolute path."""
        return Path(self.data).expanduser().resolve()

    def database_address(self) -> str:
        """Return what `kit.db.open_database` takes: a PostgreSQL URL, or the path of the SQLite file."""
        return self.database.removeprefix("sqlite:") or str(self.data_path() / "comptoir.db")


class Field(msgspec.Struct, frozen=True):
    """A setting as this module documents and checks it."""

    name: str
    type: Any
    default: Any
    bounds: str
    """What is allowed, in words."""
    is_list: bool


def reference() -> str:
    """Return the text of ``docs/configuration.md``."""
    lines = [_REFERENCE_HEAD]
    group = ""
    for name, (heading, doc) in documentation().items():
        field = FIELDS[name]
        if heading != group:
            group = heading
            lines.append(f"\n## {group}\n\n| Setting | Default | Allowed | Meaning |\n|--|--|--|--|")
        default = msgspec.json.encode(field.default).decode()
        allowed = field.bounds.replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{default}` | {allowed} | {doc} |")
    return "\n".join(lines) + "\n"


_REFERENCE_HEAD = """\
# Configuration

Generated from `src/comptoir/settings/fields.py` (`comptoir.settings.reference()`); a test compares the two.

A setting is given as a flag (`--port 9000`, or `--set fee_bps=500`), in the environment (`COMPTOIR_PORT=9000`) or in a
TOML file (`port = 9000` in `comptoir.toml` in the data folder, or in the file named by `--config` or
`COMPTOIR_CONFIG`). Flags win over the environment, the environment over the file, the file over the default. Unknown
names and values out of bounds stop the start with a line that says which, why and where it came from. `comptoir config`
prints what is in force. Money is in micro-dollars (10,000 are one credit), times are in seconds, sizes in bytes; a name
ends in its unit."""


@functools.cache
def documentation() -> dict[str, tuple[str, str]]:
    """Return (heading, docstring) of every setting in order, read from this module's source: `Settings` itself."""
    source = inspect.getsource(Settings)
    lines = source.splitlines()
    found: dict[str, tuple[str, str]] = {}
    heading, name, at = "", "", 0
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        for line in lines[at : node.lineno]:
            heading = mark[1].capitalize() if (mark := re.fullmatch(r"    # -- (\w+) -+", line)) else heading
        at = node.lineno
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = (heading, " ".join(str(node.value.value).split()))
    return found


def _fields() -> dict[str, Field]:
    hints = get_type_hints(Settings, include_extras=True)
    fields: dict[str, Field] = {}
    for info in msgspec.structs.fields(Settings):
        hint = hints[info.name]
        annotated = get_origin(hint) is Annotated
        bare, metas = (hint.__origin__, hint.__metadata__) if annotated else (hint, ())
        fields[info.name] = Field(
            name=info.name,
            type=hint,
            default=info.default,
            bounds=_bounds(bare, metas),
            is_list=get_origin(bare) is tuple,
        )
    return fields


def _bounds(bare: Any, metas: Sequence[Meta]) -> str:
    """Describe in words what the type and its metas allow."""
    if bare is bool:
        return "true or false"
    if get_origin(bare) is Literal:
        return " or ".join(get_args(bare))
    limits = {
        name: value
        for meta in metas
        for name in ("ge", "le", "min_length", "max_length", "pattern", "examples")
        if (value := getattr(meta, name)) is not None
    }
    if bare is int or bare is float:
        return f"{'whole number' if bare is int else 'number'} {limits['ge']:,} to {limits['le']:,}"
    if get_origin(bare) is tuple:
        return f"list of at most {limits['max_length']} texts"
    shape = ", of the form described" if "pattern" in limits else ""
    if "examples" in limits:
        shape = f", like {limits['examples'][0]}"
    return f"text of {limits.get('min_length', 0)} to {limits['max_length']:,} characters{shape}"


FIELDS: Final[dict[str, Field]] = _fields()
"""Every setting by name, in the order of the struct."""
