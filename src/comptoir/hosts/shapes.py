"""What a host's shape means for its offer, also if an earlier version's coordinator wrote or announced it."""

from msgspec.structs import replace

from comptoir.hosts.types import INFRINTIA, LINK
from comptoir.link import ModelOffer


def shape_of(transport: str, speaks: str | None) -> str | None:
    """Return the shape that a host speaks; one without a link that says nothing of it speaks the published one."""
    return speaks or (None if transport == LINK else INFRINTIA)


def in_shape(speaks: str | None, models: tuple[ModelOffer, ...]) -> tuple[ModelOffer, ...]:
    """Return an offer as the host can honour it: in `INFRINTIA` a job is one text, whatever the offer says."""
    if speaks != INFRINTIA or all(offer.text_only for offer in models):
        return models
    return tuple([replace(offer, text_only=True) for offer in models])
