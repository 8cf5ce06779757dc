"""What is listed as a result: plain files with one name, and nothing through which a host's own file could be read."""

import os
from pathlib import Path

import pytest

from comptoir.worker.sandbox.results import NoResult, ResultFile, list_results


class TestListResults:
    def test_only_plain_files_with_one_name_are_listed(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for name in ("good", "in/deep", "twice"):
            (tmp_path / name).write_text(name)
        os.link(tmp_path / "twice", tmp_path / "again")
        os.symlink("/etc/passwd", tmp_path / "link")
        os.symlink("/", tmp_path / "out")
        os.mkfifo(tmp_path / "pipe")

        assert list_results(tmp_path) == [ResultFile("good", 4), ResultFile("in/deep", 7)]

    def test_more_than_agreed_are_none(self, tmp_path: Path) -> None:
        for number in range(3):
            (tmp_path / str(number)).touch()

        assert len(list_results(tmp_path, files_max=3)) == 3
        with pytest.raises(NoResult, match="more than 2"):
            list_results(tmp_path, files_max=2)
