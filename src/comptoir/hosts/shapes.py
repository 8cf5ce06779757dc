"""What a host's message format, its shape, means for its offer; also for rows and messages of the version before."""

from msgspec.structs import replace

from comptoir.hosts.types import INFRINTIA, LINK
from comptoir.link import ModelOffer


def shape_of(transport: str, speaks: str | None) -> str | None:
    """Return the shape that a host uses; without a link and a declaration it is the published one."""
    return speaks or (None if transport == LINK else INFRINTIA)


def in_shape(speaks: str | None, models: tuple[ModelOffer, ...]) -> tuple[ModelOffer, ...]:
    """Return the offer limited to what the shape can carry: with `INFRINTIA` a job is one text, whatever it says."""
    if speaks != INFRINTIA or all(offer.text_only for offer in models):
        return models
    return tuple([replace(offer, text_only=True) for offer in models])
