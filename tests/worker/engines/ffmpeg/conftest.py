"""One engine and a handful of tiny films, made once by ffmpeg itself."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.ffmpeg.formats import FORMATS, GIF
from comptoir.kinds.ffmpeg.made import MadeFilm
from comptoir.kinds.files import extra_of
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineRequest
from comptoir.worker.engines.ffmpeg import FfmpegEngine
from comptoir.worker.engines.ffmpeg.program import find_program
from tests.worker.engines.outcomes import Outcome, carry_out, runs_left
from tests.worker.local_files import LocalFiles

FFMPEG = find_program().ffmpeg


def ffmpeg(*words: str) -> None:
    """Run the program as it is, without a sandbox."""
    subprocess.run([FFMPEG, "-v", "error", "-nostdin", "-y", *words], check=True, timeout=60)


class Films:
    """Films by name, each made when it is first asked for."""

    X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1")
    VIDEO = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1")
    SOUND = ("-f", "lavfi", "-i", "sine=sample_rate=16000:duration=1")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> bytes:
        path = self.folder / name
        if not path.exists():
            getattr(self, name.replace(".", "_"))(str(path))
        return path.read_bytes()

    def film_mp4(self, path: str) -> None:
        ffmpeg(*self.VIDEO, *self.SOUND, *self.X264, "-pix_fmt", "yuv420p", "-c:a", "aac", path)

    def silent_mp4(self, path: str) -> None:
        ffmpeg(*self.VIDEO, *self.X264, path)

    def odd_mkv(self, path: str) -> None:
        ffmpeg("-f", "lavfi", "-i", "testsrc=size=61x47:rate=5:duration=0.6", "-c:v", "ffv1", path)

    def turned_mp4(self, path: str) -> None:
        self("film.mp4")
        ffmpeg("-display_rotation", "90", "-i", str(self.folder / "film.mp4"), "-c", "copy", path)

    def long_mp4(self, path: str) -> None:
        ffmpeg("-f", "lavfi", "-i", "testsrc=size=320x240:rate=30:duration=20", *self.X264, path)

    def browser_webm(self, path: str) -> None:
        """Written to a pipe, as browsers record: it does not know how long it is."""
        words = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus", "-f", "webm")
        done = subprocess.run(
            [FFMPEG, "-v", "error", *self.VIDEO, *self.SOUND, *words, "pipe:1"], check=True, capture_output=True
        )
        Path(path).write_bytes(done.stdout)

    def endless_mkv(self, path: str) -> None:
        """Three seconds that are said to be none: live, as of a camera."""
        ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=3", *self.X264, "-live", "1", path)

    def loop_gif(self, path: str) -> None:
        ffmpeg(*self.VIDEO, "-loop", "0", path)

    def sound_wav(self, path: str) -> None:
        ffmpeg(*self.SOUND, path)

    def cover_mp3(self, path: str) -> None:
        ffmpeg("-f", "lavfi", "-i", "color=red:size=200x200", "-frames:v", "1", f"{path}.png")
        words = ("-map", "1", "-map", "0", "-c:v", "copy", "-c:a", "libmp3lame", "-disposition:v", "attached_pic")
        ffmpeg(*self.SOUND, "-i", f"{path}.png", *words, path)

    def subtitled_mkv(self, path: str) -> None:
        """With subtitles and an attachment, and its sound before its film."""
        self("film.mp4")
        Path(f"{path}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
        Path(f"{path}.ttf").write_bytes(b"no font")
        given = ("-i", str(self.folder / "film.mp4"), "-i", f"{path}.srt")
        attached = ("-attach", f"{path}.ttf", "-metadata:s:t", "mimetype=font/ttf")
        ffmpeg(*given, "-map", "1", "-map", "0:a", "-map", "0:v", "-c", "copy", *attached, path)

    def broken_mp4(self, path: str) -> None:
        """Cut off in its middle, with its index in front."""
        ffmpeg(*self.VIDEO, *self.X264, "-movflags", "+faststart", path)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) * 2 // 3])

    def playlist_mp4(self, path: str) -> None:
        lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:9,", "http://127.0.0.1:9/a.ts", "#EXT-X-ENDLIST", "")
        Path(path).write_text("\n".join(lines))

    def concat_mp4(self, path: str) -> None:
        self("film.mp4")
        Path(path).write_text(f"ffconcat version 1.0\nfile '{self.folder / 'film.mp4'}'\n")

    def page_mp4(self, path: str) -> None:
        Path(path).write_text("<!doctype html><title>404</title>")

    def nothing_mp4(self, path: str) -> None:
        Path(path).write_bytes(b"")

    def silence_wav(self, path: str) -> None:
        """A head without a sample."""
        ffmpeg("-f", "lavfi", "-i", "anullsrc", "-t", "0", path)


class FilmOutcome(Outcome):
    """What became of one film."""

    @property
    def made(self) -> MadeFilm:
        """The description in the last frame."""
        return self.result_as(MadeFilm)

    @property
    def log(self) -> str:
        """What ffmpeg had to say."""
        return "".join(frame.text for frame in self.frames)

    @property
    def notes(self) -> list[str]:
        """What it was doing, by its own words."""
        return [progress.note for frame in self.frames if (progress := extra_of(frame).progress) is not None]


class Studio:
    """The engine, with what it is given and what it delivers."""

    def __init__(self, folder: Path, films: Films, **options: Any) -> None:
        self.folder, self.films = folder, films
        self.engine = FfmpegEngine(folder=folder / "runs", threads=2, **options)
        self._orders = 0

    def request(self, film: str | bytes, *, prefix: tuple[Frame, ...] = (), **fields: Any) -> EngineRequest:
        """Return an order for *film*, a name or its bytes."""
        self._orders += 1
        place = self.folder / f"order-{self._orders}"
        place.mkdir()
        content, name = (self.films(film), film) if isinstance(film, str) else (film, "film.mp4")
        asked = {"inputs": [{"file": "file_1", "name": name}]} | fields
        if FORMATS[fields.get("output_format", "mp4")].video not in ((), (GIF,)):
            asked.setdefault("preset", "ultrafast")
        body = json.dumps(asked).encode()
        files = LocalFiles(place, [content])
        most = Ffmpeg().output_max(body)
        return EngineRequest("ffmpeg", "ffmpeg", body, prefix, max_tokens=most, files=files)

    async def make(self, film: str | bytes, **fields: Any) -> FilmOutcome:
        """Have *film* made into what *fields* order."""
        return await self.carry_out(self.request(film, **fields))

    async def carry_out(self, request: EngineRequest) -> FilmOutcome:
        """Follow one order to its end."""
        return await carry_out(self.engine, FilmOutcome(request))

    @property
    def runs(self) -> list[str]:
        """What is left of runs on the disk."""
        return runs_left(self.folder / "runs")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    return Films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, films: Films) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("studio"), films)
    asyncio.run(made.engine.start())
    yield made
    asyncio.run(made.engine.close())
