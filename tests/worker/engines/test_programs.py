"""What a program prints, and how far it is, become frames: in order, whole characters, few, and never silence."""

import asyncio
import errno
from functools import partial
from pathlib import Path

import pytest

from comptoir.kinds.files import WorkProgress, extra_of, file_frame
from comptoir.link import Frame, Usage
from comptoir.worker.engines import programs
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.programs import ENDING_S, Programs, Relay, relayed
from comptoir.worker.sandbox.service import TRIAL
from comptoir.worker.sandbox.types import SandboxFailed
from tests.at_once import at_once
from tests.worker.local_files import LocalFiles

REQUEST = EngineRequest("toy", "toy", b"{}")
DONE = Finish("stop", Usage(0, 1))


def taken(relay: Relay, now_s: float, *, ended: bool = False) -> list[tuple[str, str]]:
    """Return stream and text of all that is due."""
    frames = []
    while (frame := relay.take(now_s, ended=ended)) is not None:
        frames.append((extra_of(frame).stream, frame.text))
    return frames


class TestLog:
    async def test_the_first_line_is_told_at_once_and_the_next_ones_together(self) -> None:
        relay = Relay()
        await relay.log("stdout", b"a\n")
        first = taken(relay, 1.0)
        for line in (b"b\n", b"c\n"):
            await relay.log("stdout", line)

        assert first == [("stdout", "a\n")]
        assert taken(relay, 1.0 + programs.LOG_GAP_S / 2) == []
        assert relay.due_s() == pytest.approx(1.0 + programs.LOG_GAP_S)
        assert taken(relay, relay.due_s()) == [("stdout", "b\nc\n")]

    async def test_streams_that_speak_in_turns_make_a_frame_each(self) -> None:
        """A program that writes a character to each in turn would make a frame of each."""
        relay = Relay()
        for _ in range(100):
            await relay.log("stdout", b"o")
            await relay.log("stderr", b"e")

        assert taken(relay, 1.0) == [("stdout", "o" * 100), ("stderr", "e" * 100)]

    @pytest.mark.parametrize(
        ("pieces", "text"),
        [
            ([b"\xe2\x82", b"\xac"], "€"),
            ([b"a\xff", b"b"], "a\ufffdb"),
            ([b"a\xe2\x82"], "a\ufffd"),
            ([b"\xed\xa0\x80"], "\ufffd\ufffd\ufffd"),
            ([b"\0"], "\0"),
        ],
    )
    async def test_any_bytes_become_text(self, pieces: list[bytes], text: str) -> None:
        relay = Relay()
        for piece in pieces:
            await relay.log("stdout", piece)

        said = taken(relay, 1.0, ended=True)

        assert "".join(piece for _, piece in said) == text

    async def test_what_is_said_comes_after_what_was_logged(self) -> None:
        relay = Relay()
        await relay.log("stdout", b"a")
        assert taken(relay, 1.0) == [("stdout", "a")]
        await relay.log("stdout", b"b")
        await relay.say(file_frame(count=7, result=b"1"))
        await relay.log("stdout", b"c")

        assert taken(relay, 1.0) == [("stdout", "b"), ("", "")]
        assert taken(relay, 2.0) == [("stdout", "c")]

    async def test_a_flood_waits_for_its_reader(self) -> None:
        """Else a program that prints for ever fills the worker's memory."""
        relay = Relay()
        flood = asyncio.ensure_future(relay.log("stdout", b"x" * programs.UNTOLD_BYTES_MAX))
        await asyncio.sleep(0)
        assert not flood.done()

        relay.take(0.0)
        async with at_once():
            await flood

    async def test_a_flood_does_not_wait_for_the_gap(self) -> None:
        relay = Relay()
        await relay.log("stdout", b"a")
        assert taken(relay, 1.0)
        await relay.log("stdout", b"x" * (programs.UNTOLD_BYTES_MAX // 2))

        assert len(taken(relay, 1.0)) == 1


class TestProgress:
    def test_only_the_newest_is_told_once_a_second(self) -> None:
        relay = Relay()
        relay.progress(done=0.1)
        first = relay.take(1.0)
        relay.progress(done=0.2)
        relay.progress(done=0.3, count=5)

        assert first is not None and extra_of(first).progress == WorkProgress(0.1)
        assert relay.take(1.5) is None
        assert relay.due_s() == 2.0
        second = relay.take(2.0)
        assert second is not None and extra_of(second).progress == WorkProgress(0.3, "", 5)

    @pytest.mark.parametrize(
        ("done", "told"), [(-8_738.0, 0.0), (3.0, 1.0), (float("nan"), None), (float("inf"), 1.0), (None, None)]
    )
    def test_what_can_not_be_is_not_said(self, done: float | None, told: float | None) -> None:
        relay = Relay()
        relay.progress(done=done, note="x" * 1000 + "\ud800")
        frame = relay.take(1.0)

        assert frame is not None and extra_of(frame).progress == WorkProgress(told, "x" * programs.NOTE_CHARS_MAX)

    def test_notes_of_a_long_job_end_before_they_fill_its_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host whose answer is too large would be blamed for what its buyer's program said."""
        monkeypatch.setattr(programs, "NOTES_BYTES_MAX", 8)
        relay, notes = Relay(), []
        for second in range(4):
            relay.progress(done=0.1, note="üö")
            frame = relay.take(float(second))
            assert frame is not None
            notes.append(extra_of(frame).progress)

        assert notes == [WorkProgress(0.1, "üö")] * 2 + [WorkProgress(0.1)] * 2

    def test_silent_work_says_that_it_goes_on(self) -> None:
        relay = Relay(100.0)

        assert relay.take(100.0 + programs.HEARTBEAT_S - 0.1) is None
        frame = relay.take(relay.due_s())
        assert frame is not None and extra_of(frame).progress == WorkProgress()
        assert relay.take(relay.due_s() - 0.1) is None

    async def test_nothing_is_told_after_the_frame_that_says_how_it_ended(self) -> None:
        """The coordinator takes the last frame for the end: progress behind it would be the host's fault."""
        relay = Relay(0.0)
        relay.progress(note="delivering")
        last = file_frame(count=5, finish_reason="stop")
        await relay.say(last)
        relay.progress(note="late")

        assert relay.take(100.0) == last
        assert relay.take(200.0) is None and relay.due_s() >= 100.0 + ENDING_S


class TestRelayed:
    async def said(self, work: programs.Work, request: EngineRequest = REQUEST) -> list[Frame | Finish]:
        return [each async for each in relayed(request, work)]

    async def test_all_that_was_said_comes_before_the_finish(self) -> None:
        async def work(request: EngineRequest, relay: Relay) -> Finish:
            for line in (b"a\n", b"b\n", b"\xe2"):
                await relay.log("stderr", line)
                await asyncio.sleep(0)
            return DONE

        items = await self.said(work)

        assert items[-1] is DONE
        assert "".join(item.text for item in items if isinstance(item, Frame)) == "a\nb\n\ufffd"

    async def test_after_another_hosts_frames_it_begins_again(self) -> None:
        async def work(request: EngineRequest, relay: Relay) -> Finish:
            return DONE

        items = await self.said(work, EngineRequest("toy", "toy", b"{}", prefix=(Frame("half"),)))

        assert [extra_of(item).begun_again for item in items if isinstance(item, Frame)] == [True]

    @pytest.mark.parametrize(
        ("error", "code", "fault"),
        [
            (EngineError("bad_request", "no", fault="buyer"), "bad_request", "buyer"),
            (SandboxFailed("no walls"), "sandbox", "host"),
            (OSError(errno.ENOSPC, "No space left on device"), "disk_full", "capacity"),
        ],
    )
    async def test_what_failed_is_said_after_its_log(self, error: Exception, code: str, fault: str) -> None:
        async def work(request: EngineRequest, relay: Relay) -> Finish:
            await relay.log("stderr", b"why")
            raise error

        stream = relayed(REQUEST, work)
        said = await anext(stream)
        with pytest.raises(EngineError) as raised:
            await anext(stream)

        assert (raised.value.code, raised.value.fault) == (code, fault)
        assert isinstance(said, Frame) and said.text == "why"

    async def test_closing_ends_the_work_first(self) -> None:
        """The program's processes have to be gone when the slot is free again."""
        ended = asyncio.Event()

        async def work(request: EngineRequest, relay: Relay) -> Finish:
            try:
                await relay.log("stdout", b"a")
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.set()
            return DONE

        stream = relayed(REQUEST, work)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

        assert ended.is_set()

    async def test_inputs_are_fetched_and_addresses_told(self, tmp_path: Path) -> None:
        files = LocalFiles(tmp_path, [b"one", b"two"], fetched=frozenset([1]))

        async def work(request: EngineRequest, relay: Relay) -> Finish:
            assert [path.read_bytes() for path in await relay.fetch(files, 2)] == [b"one", b"two"]
            return DONE

        frames = [item for item in await self.said(work) if isinstance(item, Frame)]

        assert [fetched.number for frame in frames if (fetched := extra_of(frame).fetched)] == [1]


class TestPrograms:
    async def test_a_program_runs_and_its_output_is_relayed(self, tmp_path: Path) -> None:
        inside = Programs(tmp_path / "runs")
        await inside.start()

        async def work(request: EngineRequest, relay: Relay) -> Finish:
            run = inside.new_run()
            try:
                process = await run.start(["/bin/echo", "hello"], limits=TRIAL, on_stdout=partial(relay.log, "stdout"))
                report = await process.wait()
            finally:
                await run.erase()
            return Finish("stop", Usage(0, int(report.wall_s * 1000)))

        items = [each async for each in relayed(REQUEST, work)]
        await inside.close()

        assert [(item.text, extra_of(item).stream) for item in items if isinstance(item, Frame)] == [
            ("hello\n", "stdout")
        ]

    async def test_a_folder_that_can_not_be_used_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(EngineError) as raised:
            await Programs(tmp_path / "file").start()

        assert raised.value.code == "no_sandbox"
