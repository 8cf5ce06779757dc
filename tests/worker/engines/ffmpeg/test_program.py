"""Which ffmpeg it is: the owner's, the system's, else the packaged one; and what the owner is told."""

import os
from pathlib import Path

import pytest

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.ffmpeg import program
from comptoir.worker.engines.ffmpeg.program import FfmpegProgram, find_program, found, version_in
from comptoir.worker.engines.registry import ENGINES, missing_for

ENTRY = next(each for each in ENGINES if each.name == "ffmpeg")


def script(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


class TestFind:
    def test_the_systems_before_the_packaged_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        ours = script(tmp_path / "ffmpeg")

        assert find_program() == FfmpegProgram(str(ours), "")
        probe = script(tmp_path / "ffprobe")
        assert find_program() == FfmpegProgram(str(ours), str(probe))

    def test_else_the_packaged_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

        assert "imageio_ffmpeg" in find_program().ffmpeg

    def test_neither_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(program, "_packaged", lambda: "")

        assert "apt-get install ffmpeg, or pip install 'comptoir[ffmpeg]'" in missing_for(ENTRY)

    def test_the_owners_own_with_the_ffprobe_beside_it_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another version's ffprobe, found by chance, is not mixed with it."""
        monkeypatch.setenv("PATH", f"{tmp_path}/other:/usr/bin:/bin")
        script(tmp_path / "other" / "ffprobe")
        own = script(tmp_path / "own" / "ffmpeg-8")
        link = tmp_path / "ffmpeg"
        link.symlink_to(own)

        assert find_program(str(link)) == FfmpegProgram(str(own), "")
        with pytest.raises(EngineError):
            find_program(str(tmp_path / "nowhere"))


class TestInside:
    def test_what_every_program_sees_is_not_shown_again(self) -> None:
        system, own = (
            FfmpegProgram("/usr/bin/ffmpeg", "/usr/bin/ffprobe"),
            FfmpegProgram("/srv/a-ffmpeg", "/srv/ffprobe"),
        )

        assert system.bound == () and system.path(system.ffmpeg, sandboxed=True) == "/usr/bin/ffmpeg"
        assert [(each.source, each.target) for each in own.bound] == [
            ("/srv/a-ffmpeg", "/opt/ffmpeg/ffmpeg"),
            ("/srv/ffprobe", "/opt/ffmpeg/ffprobe"),
        ]
        assert own.path(own.ffmpeg, sandboxed=False) == "/srv/a-ffmpeg"


class TestVersion:
    @pytest.mark.parametrize(
        ("said", "version"),
        [
            ("ffmpeg version 5.1.9-0+deb12u1 Copyright", "5.1.9-0+deb12u1"),
            ("ffmpeg version n9.0.2-17-g2a571b6068 Copyright", "n9.0.2-17-g2a571b6068"),
            ("ffmpeg version N-112233-gabcdef Copyright", "N-112233-gabcdef"),
            ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", None),
            ("libav 12", None),
            ("", None),
        ],
    )
    def test_is_new_enough_or_refused(self, said: str, version: str | None) -> None:
        if version is not None:
            assert version_in(said) == version
        else:
            with pytest.raises(EngineError) as raised:
                version_in(said)
            assert "apt-get install ffmpeg" in raised.value.message

    def test_the_doctor_says_which_it_found(self) -> None:
        assert os.path.basename(find_program().ffmpeg) in found() and "version" in found()
        assert missing_for(ENTRY) == ""

    @pytest.mark.parametrize("text", ["echo ffmpeg version 3.2", "echo hello", "exit 1"])
    def test_and_what_is_wrong_with_it(self, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script(tmp_path / "ffmpeg", text)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

        assert "ffmpeg" in missing_for(ENTRY)
