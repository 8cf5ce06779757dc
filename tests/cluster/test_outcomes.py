"""Outcomes of a host that moved to another coordinator count there, by the buyer whose job it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from comptoir.cluster.fleet_view import FleetView
from comptoir.cluster.messages import Outcome
from comptoir.hosts import RemoteHosts
from comptoir.hosts.reputation import MERIT_UUSD, START, group_of
from tests.street import open_street

NODE, BUYER = b"n" * 16, b"b" * 16


class Board:
    """A bus that notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self.heard: dict[type, Callable[[bytes, Any], None]] = {}
        self.on_gap: list[Any] = []
        self.on_change: list[Any] = []

    def on(self, kind: type, act: Callable[[bytes, Any], None]) -> None:
        self.heard[kind] = act

    def send(self, node_id: bytes, message: Any) -> None:
        self.sent.append((node_id, message))


class TestOutcome:
    async def test_is_told_with_its_buyer_and_counted_where_the_host_is(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            fleet, board = street.core.fleet, Board()
            FleetView(street.core, board)  # type: ignore[arg-type]
            gone, _ = await street.host()
            here, _ = await street.host()
            street.unlink(gone)
            RemoteHosts(fleet).note_remote(gone, node_id=NODE, status="active", free=1, total=1)

            fleet.outcome(gone, "done", buyer=BUYER, tokens=3, paid_uusd=MERIT_UUSD)
            board.heard[Outcome](NODE, Outcome(here, "done", 3, BUYER, MERIT_UUSD))

            assert board.sent == [(NODE, Outcome(gone, "done", 3, BUYER, MERIT_UUSD))]
            assert fleet.get(gone).reputation.groups == {}
            assert fleet.get(here).reputation.groups == {group_of(BUYER): (1.0, 0.0)}

    async def test_of_an_older_version_is_no_merit(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            board = Board()
            FleetView(street.core, board)  # type: ignore[arg-type]
            here, _ = await street.host()

            board.heard[Outcome](NODE, Outcome(here, "done", 3))

            assert street.core.fleet.explain_reputation(here).score == START
            assert street.core.fleet.get(here).jobs_done == 1
