"""The host's key survives a restart and is nobody else's to read."""

import stat
from pathlib import Path

import msgspec
import pytest
from nacl.signing import SigningKey

from comptoir.worker.errors import StateUnusable
from comptoir.worker.state import HostState, StateFile, default_directory, kept_directory

URL = "http://127.0.0.1:1"


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "deep" / "state", [URL])


class TestStateFile:
    def test_a_fresh_one_has_a_new_seed_and_nothing_is_written(self, file: StateFile) -> None:
        state = file.open()
        file.close()

        assert len(bytes(SigningKey(bytes.fromhex(state.seed)))) == 32
        assert state.api_key == ""
        assert not file.path.exists()

    def test_what_is_written_is_read_back(self, file: StateFile) -> None:
        state = msgspec.structs.replace(file.open(), host_id="host_1", api_key="hk")
        file.write(state)
        file.close()

        assert file.open() == state
        file.close()

    def test_only_its_owner_can_read_it(self, file: StateFile) -> None:
        file.write(file.open())
        file.close()

        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700

    def test_a_failed_write_leaves_the_old_one_and_no_litter(
        self, file: StateFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = file.open()
        file.write(state)

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(StateUnusable, match="No space left"):
            file.write(msgspec.structs.replace(state, host_id="host_2"))
        file.close()

        assert msgspec.json.decode(file.path.read_bytes(), type=HostState) == state
        assert sorted(path.name for path in file.path.parent.iterdir()) == ["host.json", "host.lock"]

    def test_two_workers_do_not_share_one(self, file: StateFile) -> None:
        file.open()

        with pytest.raises(StateUnusable, match="another worker is running"):
            StateFile(file.path.parent, [URL]).open()

        file.close()
        again = StateFile(file.path.parent, [URL])
        again.open()
        again.close()

    @pytest.mark.parametrize("content", [b"", b"{}", b'{"url":"x","seed":"zz"}', b'{"url":"x","seed":"00"}'])
    def test_a_damaged_one_is_explained(self, file: StateFile, content: bytes) -> None:
        file.path.parent.mkdir(parents=True)
        file.path.write_bytes(content)

        with pytest.raises(StateUnusable, match="Delete it"):
            file.open()

    def test_another_coordinators_is_not_used(self, file: StateFile) -> None:
        file.write(file.open())
        file.close()

        with pytest.raises(StateUnusable, match="belongs to"):
            StateFile(file.path.parent, ["http://127.0.0.1:2"]).open()

    def test_one_of_several_addresses_of_its_trading_post_will_do(self, file: StateFile) -> None:
        state = file.open()
        file.write(state)
        file.close()
        again = StateFile(file.path.parent, ["http://127.0.0.1:2", URL])

        assert again.open() == state
        again.close()

    def test_a_place_that_is_no_directory_is_explained(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("")

        with pytest.raises(StateUnusable, match="--state"):
            StateFile(tmp_path / "x", [URL]).open()


class TestDefaultDirectory:
    def test_each_coordinator_has_its_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

        assert default_directory("http://a") == default_directory("http://a/")
        assert default_directory("http://a") != default_directory("http://b")
        assert default_directory("http://a").is_relative_to(tmp_path / "comptoir")

    def test_without_a_setting_it_is_below_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))

        assert default_directory("http://a").is_relative_to(tmp_path / ".local" / "state" / "comptoir")


class TestKeptDirectory:
    def test_of_several_addresses_the_one_with_a_state_is_used(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """So naming a second coordinator, or another first, makes no new host."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert kept_directory(["http://a", "http://b"]) == default_directory("http://a")
        file = StateFile(kept_directory(["http://b"]), ["http://b"])
        file.write(file.open())
        file.close()

        assert kept_directory(["http://a", "http://b"]) == default_directory("http://b")
