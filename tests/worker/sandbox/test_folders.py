"""Folders of runs: erased whatever is in them, and cleared of what a killed worker left."""

import asyncio
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comptoir.worker.sandbox.folders import PARTS, RunsFolder, erase, give_to
from comptoir.worker.sandbox.layers import Layer
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.usage import DEPTH_MAX, deleted_but_open, read_folder
from tests.worker.busy_threads import threads_busy


def deep(folder: Path, levels: int) -> None:
    """Make folders in folders, far beyond what a path can name or a recursion follow."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


class TestErase:
    def test_depth_is_no_obstacle(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        deep(folder, 3000)

        erase(folder)

        assert not folder.exists()

    def test_links_are_removed_and_not_followed(self, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        kept.mkdir()
        (kept / "file").write_text("x")
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "link").symlink_to(kept)
        (folder / "broken").symlink_to("/nowhere")
        os.link(kept / "file", folder / "hard")
        os.mkfifo(folder / "pipe")

        erase(folder)

        assert not folder.exists() and (kept / "file").read_text() == "x"

    def test_twice_is_once(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()

        erase(folder)
        erase(folder)

        assert not folder.exists()


async def test_a_run_is_erased_also_if_who_waits_for_it_is_cancelled(tmp_path: Path) -> None:
    """A thread that had not begun to erase never began."""
    folder = tmp_path / "1"
    folder.mkdir()
    async with threads_busy():
        erasing = asyncio.create_task(SandboxRun(Layer("none"), folder, "run").erase())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        erasing.cancel()
        await asyncio.wait((erasing,))

    async with asyncio.timeout(10):
        while folder.exists():
            await asyncio.sleep(0.001)


class TestRunsFolder:
    def test_several_that_open_at_the_same_time_wait_for_each_other(self, tmp_path: Path) -> None:
        """Two engines of one worker start together; the second was refused as if the place were taken."""
        folders = [RunsFolder(tmp_path) for _ in range(8)]
        with ThreadPoolExecutor(len(folders)) as threads:
            list(threads.map(RunsFolder.open, folders))

        assert len({folder.path for folder in folders}) == len(folders)
        assert all(folder.path.is_dir() and not folder.cleared for folder in folders)
        for folder in folders:
            folder.close()

    def test_only_what_a_worker_that_is_gone_left_is_cleared(self, tmp_path: Path) -> None:
        gone, alive, fresh = RunsFolder(tmp_path), RunsFolder(tmp_path), RunsFolder(tmp_path)
        gone.open()
        (gone.new_run(1) / "work" / "left").write_text("x")
        alive.open()
        (alive.new_run(1) / "work" / "mine").write_text("x")
        assert gone._lock is not None
        gone._lock.release()

        fresh.open()

        assert fresh.cleared == [gone.name] and not gone.path.exists()
        assert (alive.path / "1" / "work" / "mine").exists()
        for each in (alive, fresh):
            each.close()
        assert [each.name for each in tmp_path.iterdir()] == ["lock"]

    def test_a_run_has_places_for_its_own_user_alone(self, tmp_path: Path) -> None:
        runs = RunsFolder(tmp_path / "new" / "folder")
        runs.open()
        folder = runs.new_run(7)

        assert {stat.S_IMODE((folder / part).stat().st_mode) for part in PARTS} == {0o700}
        assert stat.S_IMODE(runs.path.stat().st_mode) == 0o700
        runs.close()


class TestGiveTo:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_what_a_link_leads_to_is_not_given(self, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        kept.write_text("x")
        folder = tmp_path / "run"
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "file").write_text("x")
        (folder / "a" / "link").symlink_to(kept)

        give_to(folder, 54_321, 54_321)

        assert kept.stat().st_uid == os.geteuid()
        assert (folder / "a" / "file").stat().st_uid == (folder / "a" / "link").lstat().st_uid == 54_321


class TestReadFolder:
    def test_it_counts_until_a_limit_is_passed(self, tmp_path: Path) -> None:
        for number in range(30):
            (tmp_path / str(number)).write_bytes(b"x" * 8192)

        whole = read_folder(tmp_path, bytes_max=1 << 30, files_max=1000)
        assert whole.files == 30 and whole.disk_bytes >= 30 * 8192
        assert read_folder(tmp_path, bytes_max=1 << 30, files_max=10).files == 11
        assert read_folder(tmp_path, bytes_max=16_384, files_max=1000).files < 30

    def test_a_link_out_counts_as_itself(self, tmp_path: Path) -> None:
        (tmp_path / "out").symlink_to("/usr")

        assert read_folder(tmp_path, bytes_max=1 << 30, files_max=10).files == 1

    def test_folders_in_folders_are_bounded(self, tmp_path: Path) -> None:
        deep(tmp_path, DEPTH_MAX + 1)

        assert read_folder(tmp_path, bytes_max=1 << 30, files_max=1000).too_deep
        erase(tmp_path / "d")

    def test_a_deleted_file_counts_while_it_is_open(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with path.open("wb") as file:
            file.write(b"x" * 65_536)
            file.flush()
            path.unlink()

            assert deleted_but_open((os.getpid(),), tmp_path.stat().st_dev) >= 65_536
