"""A street on each database."""

from tests.dispatch.conftest import street

__all__ = ["street"]
