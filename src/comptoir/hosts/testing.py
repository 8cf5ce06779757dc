"""Builders for tests of this room and of rooms that use it."""

from comptoir.hosts.fleet import Fleet
from comptoir.hosts.host import Host
from comptoir.hosts.types import LINK, OFFLINE, POLL, HostRow, NewHost
from comptoir.kit.clock import Clock, FakeClock
from comptoir.link import ModelOffer


def make_offer(
    *,
    name: str = "m",
    kinds: tuple[str, ...] = ("chat", "completion"),
    context_tokens: int = 4096,
    price_in: int = 0,
    price_out: int = 1_000_000,
    can_continue: bool = True,
    text_only: bool = False,
) -> ModelOffer:
    """Return an offer at $1 per million answer tokens."""
    return ModelOffer(name, list(kinds), context_tokens, price_in, price_out, can_continue, text_only=text_only)


def make_new_host(
    *,
    gpu: str = "NVIDIA A100 80GB",
    models: tuple[ModelOffer, ...] = (make_offer(),),
    slots: int = 2,
    backend: str = "worker",
    region: str = "eu",
    transport: str = POLL,
    endpoint_url: str | None = None,
    owner_id: bytes | None = None,
    public_key: bytes | None = None,
    vram_mib: int = 81_920,
    speaks: str | None = None,
) -> NewHost:
    """Return a valid registration."""
    return NewHost(
        gpu=gpu,
        models=models,
        slots=slots,
        backend=backend,
        region=region,
        transport=transport,
        vram_mib=vram_mib,
        endpoint_url=endpoint_url,
        owner_id=owner_id,
        public_key=public_key,
        speaks=speaks,
    )


def make_row(
    *,
    n: int = 1,
    models: tuple[ModelOffer, ...] = (make_offer(),),
    slots: int = 2,
    transport: str = LINK,
    region: str = "eu",
    owner_id: bytes | None = None,
    speaks: str | None = None,
) -> HostRow:
    """Return a stored host; *n* is its id."""
    return HostRow(
        id=n.to_bytes(16, "big"),
        owner_id=owner_id,
        gpu="NVIDIA A100 80GB",
        vram_mib=81_920,
        region=region,
        tier="",
        backend="worker",
        transport=transport,
        endpoint_url=None,
        models=models,
        slots=slots,
        status=OFFLINE,
        public_key=bytes(32),
        created_ms=1_750_000_000_000,
        last_seen_ms=0,
        speaks=speaks,
    )


def make_fleet(*rows: HostRow, clock: Clock | None = None) -> Fleet:
    """Return a fleet of *rows*, all connected and idle (polling hosts hold as many polls as they have slots)."""
    fleet = Fleet(clock if clock is not None else FakeClock())
    for row in rows:
        make_active(fleet, row)
    return fleet


def make_active(fleet: Fleet, row: HostRow) -> Host:
    """Add a host and make it active."""
    host = fleet.add(row)
    if row.transport == LINK:
        fleet.mark_linked(row.id)
    fleet.seen(row.id)
    for _ in range(row.slots if row.transport == POLL else 0):
        fleet.poll_began(row.id)
    return host
