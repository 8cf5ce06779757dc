"""The native dialect: what command line, console and host owners need and no published API has, under ``/house``.

Amounts are micro-dollars (``_uusd``; 10,000 are one credit), times are milliseconds since 1970 UTC (``_ms``).
"""

from comptoir.dialects.native.routes import DIALECT

__all__ = ["DIALECT"]
