"""A trading post with a buyer and hosts that talk HTTP, as the tests of Infrintia have it."""

from tests.dialects.infrintia.conftest import market, settings, shared

__all__ = ["market", "settings", "shared"]
