"""Which server, with whose key; and quickstart.env."""

import stat
from pathlib import Path

import click
import pytest

from comptoir.cli.failure import Failure
from comptoir.cli.prices import read_price
from comptoir.cli.quickstart import Quickstart, read_quickstart, write_quickstart
from comptoir.cli.target import DEFAULT_URL, find_target

KNOWN = Quickstart("http://127.0.0.1:9000", "ck_buyer", "ck_operator")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A data folder with a quickstart.env."""
    write_quickstart(tmp_path, KNOWN)
    return str(tmp_path)


class TestQuickstart:
    def test_what_is_written_is_read(self, folder: str) -> None:
        assert read_quickstart(Path(folder)) == KNOWN

    def test_only_its_owner_reads_it_also_when_it_replaces_a_looser_one(self, folder: str) -> None:
        path = Path(folder) / "quickstart.env"
        path.chmod(0o644)

        write_quickstart(Path(folder), KNOWN._replace(url="http://127.0.0.1:9001"))

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [file.name for file in Path(folder).iterdir()] == ["quickstart.env"]

    def test_a_failed_write_leaves_the_old_file(self, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(source: str, target: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("comptoir.cli.quickstart.os.replace", full)
        with pytest.raises(OSError, match="No space"):
            write_quickstart(Path(folder), KNOWN._replace(key="other"))

        assert read_quickstart(Path(folder)) == KNOWN
        assert [file.name for file in Path(folder).iterdir()] == ["quickstart.env"]

    def test_a_shell_may_have_quoted_it(self, tmp_path: Path) -> None:
        (tmp_path / "quickstart.env").write_text("# a comment = nothing\nCOMPTOIR_KEY='ck_x'\nOTHER=1\n")

        assert read_quickstart(tmp_path) == Quickstart("", "ck_x", "")

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert read_quickstart(tmp_path) is None


class TestFindTarget:
    def test_flags_win_over_everything(self, folder: str) -> None:
        env = {"COMPTOIR_URL": "http://env", "COMPTOIR_KEY": "ck_env"}

        assert find_target("http://flag/", "ck_flag", folder, env=env)[:2] == ("http://flag", "ck_flag")

    def test_the_environment_wins_over_the_file(self, folder: str) -> None:
        env = {"COMPTOIR_URL": "http://env", "COMPTOIR_KEY": "ck_env"}

        assert find_target(None, None, folder, env=env) == ("http://env", "ck_env", "")

    def test_the_file_is_used_and_said(self, folder: str) -> None:
        target = find_target(None, None, folder, env={})

        assert target[:2] == (KNOWN.url, KNOWN.key)
        assert target.said == f"using {folder}/quickstart.env"

    def test_an_operator_gets_the_other_key(self, folder: str) -> None:
        assert find_target(None, None, folder, operator=True, env={}).key == KNOWN.admin_key
        env = {"COMPTOIR_KEY": "ck_env", "COMPTOIR_ADMIN_KEY": "ck_admin"}
        assert find_target(None, None, folder, operator=True, env=env).key == "ck_admin"

    def test_a_key_of_the_file_never_goes_to_another_server(self, folder: str) -> None:
        assert find_target("http://elsewhere.example", None, folder, env={}).key == ""

    def test_it_does_go_to_the_same_server_named_by_hand(self, folder: str) -> None:
        assert find_target(KNOWN.url + "/", None, folder, env={}).key == KNOWN.key

    def test_nothing_at_all_is_this_machine(self, tmp_path: Path) -> None:
        assert find_target(None, None, str(tmp_path), env={}) == (DEFAULT_URL, "", "")

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost:8080/", "http://localhost:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("10.0.0.5:8080/", "http://10.0.0.5:8080"),
            # A key is sent there, so not in the open.
            ("post.example", "https://post.example"),
            ("8.8.8.8:8080", "https://8.8.8.8:8080"),
            ("post.lan:8080", "http://post.lan:8080"),
            ("HTTPS://post.example/x/", "https://post.example/x"),
            ("https://a.example, b.example", "https://a.example"),
        ],
    )
    def test_an_address_is_understood_however_it_is_typed(self, tmp_path: Path, typed: str, meant: str) -> None:
        by_flag = find_target(typed, None, str(tmp_path), env={})
        by_environment = find_target(None, None, str(tmp_path), env={"COMPTOIR_URL": typed})

        assert (by_flag.url, by_environment.url) == (meant, meant)

    def test_a_host_keeps_all_its_addresses(self, tmp_path: Path) -> None:
        target = find_target("a.example/,localhost:1,", None, str(tmp_path), several=True, env={})

        assert target.url == "https://a.example,http://localhost:1"

    def test_a_key_of_the_file_goes_to_its_server_without_a_scheme_too(self, folder: str) -> None:
        assert find_target("127.0.0.1:9000", None, folder, env={}).key == KNOWN.key

    @pytest.mark.parametrize("typed", ["ftp://h", "http://", "http://u:p@h", "h:99999", "a b", "::1:8080", "h?x=1"])
    def test_what_is_no_address_is_refused(self, tmp_path: Path, typed: str) -> None:
        with pytest.raises(Failure, match="http://") as caught:
            find_target(typed, None, str(tmp_path), env={})

        assert caught.value.exit_code == 2


class TestReadPrice:
    @pytest.mark.parametrize(
        ("text", "uusd"),
        [
            ("0", 0),
            ("1", 1_000_000),
            ("$0.50", 500_000),
            ("0.000001", 1),
            ("50cr", 500_000),
            ("0.5 cr", 5_000),
            ("1000000", 10**12),
        ],
    )
    def test_dollars_and_credits(self, text: str, uusd: int) -> None:
        assert read_price(text) == uusd

    @pytest.mark.parametrize(
        "text", ["", "-1", "x", "nan", "inf", "1e99", "0.0000001", "1000001", "1e9999999999", "5eur"]
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(click.BadParameter):
            read_price(text)
