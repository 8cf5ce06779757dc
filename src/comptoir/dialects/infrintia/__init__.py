"""The Infrintia dialect: the published marketplace API, word for word, and what hosts and buyers need beside it.

One credit is one US cent; ``price_per_token`` is in dollars. Known deviations: docs/dialects/infrintia.md.
"""

from comptoir.dialects.infrintia.routes import DIALECT

__all__ = ["DIALECT"]
