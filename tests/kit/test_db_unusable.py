"""A database file that can't be used is said in words, at the start and later; nothing of it is overwritten."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from comptoir.app import open_core
from comptoir.cli.main import program
from comptoir.kit.db import open_database
from comptoir.kit.errors import Unavailable
from comptoir.settings import Settings

PAGE = 4096


def damaged(folder: Path, *, part: str) -> Path:
    """Break a trading post's database in *folder*."""
    file = folder / "comptoir.db"
    whole = file.read_bytes()
    broken = {
        "another file": b"this is no database" * 1000,
        "head": bytes(100) + whole[100:],
        "cut": whole[: len(whole) // 2 // PAGE * PAGE],
        "middle": whole[:PAGE] + b"\xa5" * (len(whole) - PAGE),
    }[part]
    file.write_bytes(broken)
    return file


@pytest.mark.parametrize("part", ["another file", "head", "cut", "middle"])
async def test_a_start_says_that_the_file_is_damaged(tmp_path: Path, part: str) -> None:
    """It said "this is a bug in comptoir"."""
    async with open_core(Settings(data=str(tmp_path), port=0)):
        pass
    file = damaged(tmp_path, part=part)
    before = file.read_bytes()

    with pytest.raises(Unavailable, match="damaged"):
        async with open_core(Settings(data=str(tmp_path), port=0)):
            raise AssertionError("it was opened")

    assert file.read_bytes() == before


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "comptoir.db").write_bytes(b"this is no database" * 1000)

    done = CliRunner().invoke(program, ["up", "--no-worker", "--port", "0", "--data", str(tmp_path)])

    assert done.exit_code == 1 and "comptoir.db can't be used: the database file is damaged" in done.output
    assert "bug" not in done.output and "Traceback" not in done.output


async def test_a_folder_in_its_place_is_said_too(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="directory"):
        open_database(str(tmp_path))
