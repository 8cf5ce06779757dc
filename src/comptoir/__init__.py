"""Comptoir: an open trading post for AI compute."""

__version__ = "0.1.0"
