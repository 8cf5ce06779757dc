"""What a coordinator's connections hold, within the bounds that the settings name; counted for all dialects
together."""

import msgspec

from comptoir.dispatch import Core, State
from comptoir.kit.http import Bounds, HttpTraffic
from comptoir.settings import Settings


class Connections(State):
    """The connections of one coordinator."""

    def __init__(self, core: Core) -> None:
        self.traffic = HttpTraffic(bounds_of(core.settings), exempt=core.settings.trusted_proxies)
        """What they hold."""


def bounds_of(settings: Settings) -> Bounds:
    """Return the bounds by *settings*. A budget holds the largest thing that is allowed alone, whatever it is set
    to."""
    given = msgspec.structs.asdict(settings)
    named = {name: given[name] for name in Bounds.__dataclass_fields__}
    for budget, largest in (
        ("bodies_bytes_per_address_max", settings.body_bytes_max),
        ("bodies_bytes_max", settings.body_bytes_max),
        ("links_bytes_max", settings.link_message_bytes_max),
        ("heads_bytes_max", settings.head_bytes_max),
    ):
        named[budget] = max(named[budget], largest + (1 << 20))
    return Bounds(**named)
