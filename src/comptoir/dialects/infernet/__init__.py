"""The Infernet dialect: the REST API of Ritual's node, exactly as published, over chains of containers.

Jobs belong to the key that came with them, or to the caller's address. Known deviations: docs/dialects/infernet.md.
"""

from comptoir.dialects.infernet.routes import DIALECT

__all__ = ["DIALECT"]
