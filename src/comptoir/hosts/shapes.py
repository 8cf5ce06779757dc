"""What the shape that a host speaks means for its offer, also where a coordinator of the version before wrote or told it."""

from msgspec.structs import replace

from comptoir.hosts.types import INFRINTIA, LINK
from comptoir.link import ModelOffer


def shape_of(transport: str, speaks: str | None) -> str | None:
    """Return the shape that a host speaks; one without a link that says nothing of it speaks the published one."""
    return speaks or (None if transport == LINK else INFRINTIA)


def in_shape(speaks: str | None, models: tuple[ModelOffer, ...]) -> tuple[ModelOffer, ...]:
    """Return an offer as the host can keep it: in `INFRINTIA` a job is one text, whatever the offer says or leaves unsaid."""
    if speaks != INFRINTIA or all(offer.text_only for offer in models):
        return models
    return tuple([replace(offer, text_only=True) for offer in models])
