"""The root: ``/``, ``/health`` and ``/metrics``, shared by several APIs, the page, and every dialect's reference."""

from comptoir.dialects.root.routes import root_dialect

__all__ = ["root_dialect"]
