"""What ffmpeg says while it works, and what is made of how it ended."""

import pytest

from comptoir.kinds.files import WorkProgress, extra_of
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.ffmpeg.running import (
    LOG_BYTES_MAX,
    SIGNALLED,
    FilmProgress,
    ProgressLines,
    Words,
    check_ended,
)
from comptoir.worker.engines.programs import Relay
from comptoir.worker.sandbox.types import EndReason, RunReport

BLOCK = b"frame=%d\nfps=25.0\ntotal_size=%d\nout_time_us=%s\nspeed=2.5x\nprogress=continue\n"


def block(frames: int, seconds: float | None, size: int = 1000) -> bytes:
    return BLOCK % (frames, size, b"N/A" if seconds is None else str(int(seconds * 1e6)).encode())


def report(reason: EndReason = EndReason.EXITED, code: int | None = 0) -> RunReport:
    return RunReport(reason=reason, exit_code=code, wall_s=1, cpu_s=1, memory_bytes_peak=1, output_bytes=1)


class TestProgressLines:
    def test_are_read_however_they_are_cut(self) -> None:
        lines, text = ProgressLines(), block(50, 2.0) + block(75, 3.0, 2000)
        ended = [lines.feed(text[at : at + 7]) for at in range(0, len(text), 7)]

        assert ended.count(True) == 2 and (lines.frames, lines.seconds, lines.size) == (75, 3.0, 2000)

    def test_what_is_not_known_yet_is_nothing(self) -> None:
        lines = ProgressLines()
        lines.feed(block(0, None) + b"out_time_us=-5\nframe=x\nprogress=end\n")

        assert (lines.frames, lines.seconds, lines.ended) == (0, 0.0, True)

    def test_a_line_without_end_is_not_kept_whole(self) -> None:
        lines = ProgressLines()
        for _ in range(1_000):
            lines.feed(b"x" * 1024)

        assert len(lines._line) <= 1024


class TestFilmProgress:
    async def shown(self, *pieces: bytes, expected_s: float | None = 10.0, fps: float = 25.0) -> list[WorkProgress]:
        relay, said = Relay(), []
        told = FilmProgress(relay, expected_s=expected_s, fps=fps, units=lambda frames, _: frames)
        for at, piece in enumerate(pieces):
            await told.progress(piece)
            frame = relay.take(10.0 * (at + 1))
            assert frame is not None
            said.append(extra_of(frame).progress)
        return [each for each in said if each is not None]

    async def test_pictures_tell_how_far_it_is(self) -> None:
        """ffmpeg's own time was first that of the sound, and went back when the first pictures came."""
        shown = await self.shown(block(0, 6.0), block(50, 2.0), block(250, 10.0))

        assert [each.done for each in shown] == [0.0, 0.2, 1.0]
        assert [each.count for each in shown] == [0, 50, 250]

    @pytest.mark.parametrize(("fps", "done"), [(0.0, 0.4), (25.0, 0.1)])
    async def test_sound_by_its_time(self, fps: float, done: float) -> None:
        (shown,) = await self.shown(block(25, 4.0), fps=fps)

        assert shown.done == done

    async def test_of_an_unknown_length_no_part_is_said(self) -> None:
        shown = await self.shown(block(25, 1.0), expected_s=None)

        assert shown[0].done is None and shown[0].note == "1.0 s, 1,000 bytes, 2.5x"

    async def test_complaints_are_shown_in_whole_lines_up_to_a_bound(self) -> None:
        relay = Relay()
        told = FilmProgress(relay, expected_s=None, fps=0.0, units=lambda *_: 0)
        await told.complain(b"[h264 @ 0x55d0] [warn @ 0x1] broken\n[h264 @ 0x")
        await told.complain(b"55d0] again\nhalf")
        frame = relay.take(10.0)
        assert frame is not None and frame.text == "broken\nagain\n"

        for _ in range(3 * LOG_BYTES_MAX // 1000):
            await told.complain(b"x" * 999 + b"\n")
            while frame := relay.take(1e9, ended=True):
                assert len(frame.text) <= LOG_BYTES_MAX + 1024
        assert told._shown <= LOG_BYTES_MAX + 1024


class TestEnded:
    @pytest.mark.parametrize(
        ("ended", "code", "fault"),
        [
            (report(), "", ""),
            (report(code=1), "ffmpeg", "buyer"),
            (report(code=139), "ffmpeg", "buyer"),
            (report(code=SIGNALLED), "killed", "capacity"),
            (report(EndReason.MEMORY, None), "memory", "buyer"),
            (report(EndReason.WALL, None), "wall", "buyer"),
            (report(EndReason.CPU, None), "cpu", "buyer"),
            (report(EndReason.FILE_BYTES, None), "file_bytes", "buyer"),
            (report(EndReason.OUTPUT, None), "output", "buyer"),
            (report(EndReason.DISK_BYTES, None), "disk_full", "capacity"),
            (report(EndReason.PROCESSES, None), "ffmpeg", "host"),
        ],
        ids=str,
    )
    async def test_says_whose_doing_it_was(self, ended: RunReport, code: str, fault: str) -> None:
        """What an input leads to is asked of a second host; what happens to this one is no fault of the buyer's."""
        words = Words(0)
        await words.take(b"[h264 @ 0x5] first\n[h264 @ 0x5] Invalid NAL unit size\nConversion failed!\n")
        if not code:
            check_ended(ended, words, doing="making the film")
            return
        with pytest.raises(EngineError) as raised:
            check_ended(ended, words, doing="making the film")

        assert (raised.value.code, raised.value.fault) == (code, fault)
        if ended.exit_code == 1:
            assert raised.value.message == "making the film: Invalid NAL unit size"
