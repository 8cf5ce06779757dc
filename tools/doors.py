"""An import-linter contract: what a room keeps to itself is imported by that room alone.

It names no room, so a new one has its door from its first day. A room is any package right under the root.
"""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class DoorsContract(Contract):
    """Private modules are imported from inside their own room, or by a named guest.

    Options:
        private_modules: names of modules right inside a room, such as ``store``.
        guests: packages that may look inside every room.
    """

    type_name = "doors"

    private_modules = fields.SetField(subfield=fields.StringField())
    guests = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find every import of a private module from another room; *verbose* changes nothing."""
        (root,) = self.session_options["root_packages"]
        found = []
        for room in sorted(graph.find_children(root)):
            allowed = (room, *self.guests)  # type: ignore[misc]
            for name in sorted(self.private_modules):  # type: ignore[call-overload]
                door = f"{room}.{name}"
                if door not in graph.modules:
                    continue
                for private in sorted({door, *graph.find_descendants(door)}):
                    importers = graph.find_modules_that_directly_import(private)
                    found += [f"{one} -> {private}" for one in sorted(importers) if not _inside(one, allowed)]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import that comes in by the window."""
        for line in check.metadata["found"]:
            output.print_error(f"- {line}: ask the room's service instead", bold=False)


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)
