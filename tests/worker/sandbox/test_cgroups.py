"""Control groups: where they may be made, what is written, what is read. Version 2 is tried on a folder that looks like
it, because a machine has either; version 1's and 2's real ones are used by the runs of the other files."""

from pathlib import Path

import pytest

from comptoir.worker.sandbox.cgroups import GroupParent, find_parent

LINE = "30 20 0:25 / {place} rw,relatime - {kind} {kind} rw,{options}"


def second(tmp_path: Path, *, handed: str) -> tuple[str, str]:
    """Return what the kernel would say of a worker in app.slice/worker of a version-2 hierarchy at *tmp_path*."""
    inner = tmp_path / "app.slice" / "worker"
    inner.mkdir(parents=True)
    (inner / "cgroup.subtree_control").write_text("\n")
    (tmp_path / "app.slice" / "cgroup.subtree_control").write_text(handed)
    (tmp_path / "cgroup.subtree_control").write_text("")
    return "0::/app.slice/worker\n", LINE.format(place=tmp_path, kind="cgroup2", options="") + "\n"


class TestFindParent:
    def test_on_version_2_the_nearest_folder_that_hands_the_controllers_down(self, tmp_path: Path) -> None:
        own, mounts = second(tmp_path, handed="cpu memory pids\n")

        assert find_parent(own=own, mounts=mounts) == GroupParent(2, {"memory": tmp_path / "app.slice"})

    def test_none_without_memory(self, tmp_path: Path) -> None:
        own, mounts = second(tmp_path, handed="cpu pids\n")

        assert find_parent(own=own, mounts=mounts) is None

    def test_on_version_1_the_workers_own_group_of_each_controller(self, tmp_path: Path) -> None:
        for name in ("memory", "pids"):
            (tmp_path / name / "mine").mkdir(parents=True)
        mounts = "\n".join(
            LINE.format(place=tmp_path / name, kind="cgroup", options=name) for name in ("memory", "pids", "cpuacct")
        )

        found = find_parent(own="4:memory:/mine\n8:pids:/mine\n1:name=systemd:/\n", mounts=mounts)

        assert found == GroupParent(1, {"memory": tmp_path / "memory/mine", "pids": tmp_path / "pids/mine"})

    def test_in_a_container_that_sees_only_its_part(self, tmp_path: Path) -> None:
        (tmp_path / "memory").mkdir()
        mounts = LINE.format(place=tmp_path / "memory", kind="cgroup", options="memory")

        assert find_parent(own="4:memory:/docker/abc\n", mounts=mounts) == GroupParent(
            1, {"memory": tmp_path / "memory"}
        )

    def test_none_where_none_is_mounted(self) -> None:
        assert find_parent(own="0::/\n", mounts=LINE.format(place="/", kind="ext4", options="rw")) is None


class TestGroup:
    def test_version_2_is_given_memory_without_swap_and_processes(self, tmp_path: Path) -> None:
        """And the kernel kills the whole of it, not the largest process alone."""
        parent = GroupParent(2, {"memory": tmp_path})
        for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max"):
            (tmp_path / name).write_text("max")
        group = parent.make("w-1", memory_bytes=1000, processes=5)
        folder = group.folders["memory"]

        # The kernel makes these files with the folder; those that are a limit's condition are written in any case.
        assert (folder / "memory.max").read_text() == "1000"
        assert (folder / "pids.max").read_text() == "5"
        for name in ("memory.swap.max", "memory.oom.group"):
            (folder / name).write_text("max")
        written = {path.name: value for path, value, _ in group.limits(memory_bytes=1000, processes=5)}
        assert written == {"memory.max": "1000", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "5"}

    def test_version_2_is_read(self, tmp_path: Path) -> None:
        group = GroupParent(2, {"memory": tmp_path}).make("w-1", memory_bytes=1, processes=1)
        folder = group.folders["memory"]
        (folder / "memory.current").write_text("5000\n")
        (folder / "memory.peak").write_text("9000\n")
        (folder / "memory.stat").write_text("anon 1\nfile 3000\nshmem 1000\n")
        (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
        (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")

        used = group.usage()

        assert (used.memory_bytes, used.memory_bytes_peak, used.cpu_s, used.out_of_memory) == (3000, 9000, 1.5, True)

    def test_a_limit_that_can_not_be_set_leaves_no_group(self, tmp_path: Path) -> None:
        """A group without its limit would be worse than none."""
        parent = GroupParent(1, {"memory": tmp_path, "pids": tmp_path / "missing"})

        with pytest.raises(FileNotFoundError):
            parent.make("w-1", memory_bytes=1, processes=1)

        assert list(tmp_path.iterdir()) == []
