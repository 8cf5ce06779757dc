"""The coordinators of one trading post: which are alive, which fell silent, which left.

Owns: table ``nodes``, one row per coordinator process.
Invariant: a process has one row under its own id, created at its start and never reused; a slot belongs to at most one
live process. Silence is measured by the database's clock, so coordinators need not agree on the time.
Units: times are milliseconds of the database's clock; a slot is a small number from 0. Knows: nobody.
"""

from comptoir.nodes.service import NODE_SILENT_S, Nodes, connection_name
from comptoir.nodes.tables import TABLES
from comptoir.nodes.types import Node

__all__ = ["NODE_SILENT_S", "TABLES", "Node", "Nodes", "connection_name"]
