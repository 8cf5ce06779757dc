"""The Infrintia dialect: the marketplace API exactly as published, and what hosts and buyers need beside it.

One credit is one US cent; ``price_per_token`` is in dollars. Known deviations: docs/dialects/infrintia.md.
"""

from comptoir.dialects.infrintia.routes import DIALECT

__all__ = ["DIALECT"]
