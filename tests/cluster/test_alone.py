"""Without a bus there is one coordinator, and who comes second is told so."""

from pathlib import Path

import pytest

from comptoir.app import open_core
from comptoir.cluster import NotAlone, single
from comptoir.kit.folderlock import FolderLock, FolderTaken
from comptoir.kit.ids import new_id
from comptoir.nodes import NODE_SILENT_S, Nodes
from comptoir.settings import Settings


class TestAlone:
    async def test_a_second_process_on_the_data_folder_is_refused(self, tmp_path: Path) -> None:
        settings = Settings(data=str(tmp_path))
        async with open_core(settings):
            with pytest.raises(FolderTaken, match="stop it first"):
                async with open_core(settings):
                    raise AssertionError("it was let in")
        async with open_core(settings):
            pass

    async def test_a_second_coordinator_on_the_database_is_refused(
        self, tmp_path: Path, postgres_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = Settings(data=str(tmp_path / "a"), database=postgres_address)
        second = Settings(data=str(tmp_path / "b"), database=postgres_address)
        async with open_core(first):
            monkeypatch.setattr(single, "NODE_SILENT_S", -single.BEAT_S)  # It is looked at twice.
            with pytest.raises(NotAlone, match="--bus"):
                async with open_core(second):
                    raise AssertionError("it was let in")

    async def test_one_that_died_is_waited_for_until_it_is_silent(self, tmp_path: Path, postgres_address: str) -> None:
        settings = Settings(data=str(tmp_path), database=postgres_address)
        async with open_core(settings) as core:
            dead = Nodes(core.db, new_id())
            await dead.join(version="x")
            # Its silence is nearly over.
            older = "UPDATE nodes SET seen_ms = seen_ms - ? WHERE id = ?"
            await core.db.run(lambda tx: tx.execute(older, [int(NODE_SILENT_S * 1000) - 500, dead.node_id]))
        async with open_core(settings) as core:
            assert [node.id for node in await core.nodes.others()] == []

    async def test_its_own_folder_tells_that_the_one_before_is_gone(
        self, tmp_path: Path, postgres_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After kill -9 nobody waits: whoever has the folder's lock knows that its last holder is dead."""
        settings = Settings(data=str(tmp_path), database=postgres_address)
        async with open_core(settings) as core:
            killed = Nodes(core.db, new_id())
            await killed.join(version="x")
        lock = FolderLock(tmp_path, name="coordinator.lock")
        lock.take()
        lock.note(killed.node_id)
        lock.release()
        monkeypatch.setattr(single, "NODE_SILENT_S", -10.0)  # Whoever has to wait is refused.

        async with open_core(settings) as core:
            assert await core.nodes.others() == []
