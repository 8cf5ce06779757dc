"""A machine and its offers as registered in JSON by our worker and by hosts of the native shape."""

from typing import Annotated

import msgspec

from comptoir.hosts import Host
from comptoir.identity import INVITATION_CHARS_MAX
from comptoir.link import ContainerCard, ModelOffer
from comptoir.routing import Capacity

Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]
"""An Ed25519 verify key."""

Address = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Addresses = Annotated[list[Address], msgspec.Meta(max_length=1000)]
Unit = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Price = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
InvitationText = Annotated[str, msgspec.Meta(min_length=1, max_length=INVITATION_CHARS_MAX)]
"""An invitation as an operator gave it away."""
Wei = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,78}$")]


OFFERS_A_PAGE = 2_000
"""Offers shown on one page of a list of hosts; each host may have 256, and shows `OFFERS_A_HOST_MIN` in any case."""

OFFERS_A_HOST_MIN = 4


def offers_shown(host: Host, *, hosts: int, first: str | None = None) -> list[ModelOffer]:
    """Return the offers that *host* shows on a page of *hosts* hosts, the one called *first* in any case."""
    most = max(OFFERS_A_HOST_MIN, OFFERS_A_PAGE // max(1, hosts))
    offers = list(host.offers)
    if len(offers) > most and first is not None:
        offers.sort(key=lambda offer: offer.name != first)
    return offers[:most]


class Card(msgspec.Struct, kw_only=True):
    """What a host declares about a container at registration; see `comptoir.link.ContainerCard`."""

    description: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    image: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    external: bool = True
    generates_proofs: bool = False
    allowed_ips: Addresses = []
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 180.0
    rate_requests: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    rate_period_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    accepted_payments: Annotated[dict[Address, Wei], msgspec.Meta(max_length=1000)] = {}
    allowed_addresses: Addresses = []
    allowed_delegate_addresses: Addresses = []

    def card(self) -> ContainerCard:
        """Return it in the link's own shape."""
        return ContainerCard(**msgspec.structs.asdict(self))


class RegisteredOffer(msgspec.Struct, kw_only=True):
    """One model (or container) as a host registers it."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    kinds: Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(min_length=1, max_length=8)]
    context_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 4096
    price_in_uusd_per_mtok: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    price_out_uusd_per_mtok: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 0
    """Price per million units of output: runs of a container; for anything else at most 10^12."""
    can_continue: bool = False
    fingerprint: Annotated[str, msgspec.Meta(max_length=128)] = ""
    container: Card | None = None
    """For kind ``container``, which must be the only one."""
    prices: Annotated[dict[Unit, Price], msgspec.Meta(max_length=16)] = {}
    """Micro-dollars per million of each unit that the kinds are sold in; empty: the two prices above."""
    text_only: bool = False
    """Whether it takes only one text with a length and a temperature."""
    no_promotions: bool = False
    """Whether it takes no job that might be paid from promotional credit, which never leaves."""
    capabilities: Annotated[dict[Word, Word], msgspec.Meta(max_length=16)] = {}
    """``probed``, ``claimed`` or ``lacking`` by capability: ``tools``, ``vision``, ``schema``, ``reasoning``."""

    def offer(self) -> ModelOffer:
        """Return it in the link's own shape."""
        return ModelOffer(
            self.name,
            self.kinds,
            self.context_tokens,
            self.price_in_uusd_per_mtok,
            self.price_out_uusd_per_mtok,
            self.can_continue,
            self.fingerprint,
            self.container.card() if self.container is not None else None,
            self.prices,
            self.text_only,
            self.no_promotions,
            self.capabilities,
        )


class Machine(msgspec.Struct, kw_only=True):
    """What a registration declares about the machine."""

    gpu: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "CPU"
    vram_mib: Amount = 0
    gpus: Amount = 0
    cpu_millis: Amount = 0
    """Thousandths of a processor core."""
    memory_mib: Amount = 0
    disk_mib: Amount = 0
    """Disk space free for jobs. In these four fields 0 means unknown, which excludes orders that need any."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    """Jobs at once."""
    region: Annotated[str, msgspec.Meta(max_length=64)] = ""
    backend: Annotated[str, msgspec.Meta(max_length=64)] = ""
    invitation: InvitationText | None = None
    """Where the trading post registers hosts by invitation: the one that its operator gave."""

    def capacity(self) -> Capacity:
        """Return what orders may require of it."""
        return Capacity(self.gpus, self.cpu_millis, self.memory_mib, self.disk_mib)
