"""One engine with three tiny models, and a handful of sounds, made once."""

import asyncio
import json
import math
import os
import struct
import subprocess
import tempfile
import wave
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from comptoir.kinds import Terms
from comptoir.kinds.whisper import Whisper
from comptoir.kinds.whisper.spoken import SpokenExtra, Transcript, spoken_extra
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineRequest
from comptoir.worker.engines.ffmpeg.program import find_program
from comptoir.worker.engines.whisper import WhisperEngine
from tests.worker.engines.outcomes import Outcome, carry_out, runs_left
from tests.worker.engines.whisper.tiny_weights import kept_tiny
from tests.worker.local_files import LocalFiles

MODELS = {
    "tiny": {},
    "tiny.en": {"multilingual": False},
    "turbo": {"layers": (2, 1)},
}
KEPT = Path(tempfile.gettempdir()) / f"comptoir-tiny-whisper-{os.getuid()}"
"""Where weights are kept from run to run, by the hash of what writes them."""


T = TypeVar("T")


def tiny(name: str) -> Path:
    """Return the folder of one of `MODELS`."""
    return kept_tiny(KEPT, **MODELS[name])  # type: ignore[arg-type]


class Sounds:
    """Sounds by name, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> bytes:
        path = self.folder / name
        if not path.exists():
            getattr(self, name.replace(".", "_"))(path)
        return path.read_bytes()

    def tone(self, path: Path, seconds: float, *, loud: float = 0.3) -> None:
        """Write a tone that comes and goes."""
        count = round(seconds * 16_000)
        samples = [int(32_000 * loud * math.sin(n / 11) * abs(math.sin(n / 4_000))) for n in range(count)]
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(struct.pack(f"<{count}h", *samples))

    def short_wav(self, path: Path) -> None:
        """Ends in the middle of what the model says in it."""
        self.tone(path, 5.0)

    def long_wav(self, path: Path) -> None:
        self.tone(path, 70.0)

    def whole_wav(self, path: Path) -> None:
        """Exactly one window."""
        self.tone(path, 30.0)

    def silence_wav(self, path: Path) -> None:
        self.tone(path, 3.0, loud=0.0)

    def nothing_wav(self, path: Path) -> None:
        """A head without a sample."""
        self.tone(path, 0.0)

    def lying_wav(self, path: Path) -> None:
        """Says that it has 4 GiB."""
        content = bytearray(self("short.wav"))
        at = content.index(b"data") + 4
        content[4:8] = content[at : at + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(content)

    def film_mkv(self, path: Path) -> None:
        """A film, with two channels of sound at another rate."""
        words = ("-f", "lavfi", "-i", "testsrc=size=32x32:rate=5:duration=5", "-i", str(self.folder / "short.wav"))
        self("short.wav")
        program = find_program().ffmpeg
        encoded = ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "libopus", "-ac", "2", "-ar", "48000")
        subprocess.run([program, "-v", "error", "-y", *words, *encoded, str(path)], check=True, timeout=60)

    def silent_mp4(self, path: Path) -> None:
        program = find_program().ffmpeg
        words = ("-f", "lavfi", "-i", "testsrc=size=32x32:rate=5:duration=1", "-c:v", "libx264")
        subprocess.run([program, "-v", "error", "-y", *words, str(path)], check=True, timeout=60)

    def playlist_mp3(self, path: Path) -> None:
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")


class SpeechOutcome(Outcome):
    """What became of one sound."""

    @property
    def made(self) -> Transcript:
        """The result in the last frame."""
        return self.result_as(Transcript)

    @property
    def extras(self) -> list[SpokenExtra]:
        """What its frames say beside their text."""
        return [spoken_extra(frame.extra) for frame in self.frames]

    @property
    def counted(self) -> int:
        """The units of this host."""
        return sum(frame.tokens for frame in self.frames)

    @property
    def wrong(self) -> str:
        """What the kind has against it, as the coordinator asks it."""
        assert self.finish is not None, self.error
        frames = [*self.request.prefix, *self.frames]
        for frame in frames:
            if frame.extra:
                Whisper().check_extra(frame.extra)
        terms = Terms(output_max=self.request.max_tokens)
        job: Any = SimpleNamespace(body=self.request.body, frames=frames, segment_claim=self.counted, terms=terms)
        return Whisper().wrong_output(job, finish_reason=self.finish.finish_reason, usage=self.finish.usage)


class Stage:
    """The engine, with what it is given and what it delivers."""

    def __init__(self, folder: Path, sounds: Sounds, **options: Any) -> None:
        self.folder, self.sounds = folder, sounds
        self.loop = asyncio.new_event_loop()
        """Its processes outlive a test, so their loop does as well."""
        given = {"model": {name: str(tiny(name)) for name in MODELS}, "device": "cpu", "slots": 3} | options
        self.engine = WhisperEngine(folder=folder / "runs", threads=2, **given)
        self._orders = 0

    def request(
        self, sound: str | bytes, *, model: str = "tiny", prefix: tuple[Frame, ...] = (), **fields: Any
    ) -> EngineRequest:
        """Return an order for *sound*, a name or its bytes. Its tones are no speech, so the filter is off."""
        self._orders += 1
        place = self.folder / f"order-{self._orders}"
        place.mkdir()
        content, name = (self.sounds(sound), sound) if isinstance(sound, str) else (sound, "talk.ogg")
        body = json.dumps({"inputs": [{"file": "file_1", "name": name, "size": len(content)}], "vad": False} | fields)
        files = LocalFiles(place, [content])
        most = Whisper().output_max(body.encode()) if not Whisper().check(body.encode()) else 0
        return EngineRequest("whisper", model, body.encode(), prefix, max_tokens=most, files=files)

    def hear(self, sound: str | bytes, **fields: Any) -> SpeechOutcome:
        """Have *sound* heard as *fields* order."""
        return self.wait(self.carry_out(self.request(sound, **fields)))

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        """Wait for something on its loop."""
        return self.loop.run_until_complete(doing)

    async def carry_out(self, request: EngineRequest) -> SpeechOutcome:
        """Follow one order to its end."""
        return await carry_out(self.engine, SpeechOutcome(request))

    @property
    def runs(self) -> list[str]:
        """What is left of runs on the disk."""
        return runs_left(self.folder / "runs")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Sounds:
    return Sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, sounds: Sounds) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("stage"), sounds)
    made.wait(made.engine.start())
    yield made
    made.wait(made.engine.close())
    made.loop.close()
