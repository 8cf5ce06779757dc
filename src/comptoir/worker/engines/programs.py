"""What engines that run strangers' programs share: their sandbox, and the way from a program's callbacks to frames.

An engine's whole `Engine.run` is ``return relayed(request, self._work)``; its work says what it has through a `Relay`.
"""

import asyncio
import codecs
import contextlib
import errno
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from comptoir.kinds.files import WorkProgress, file_frame
from comptoir.kinds.kind import finish_reason_in
from comptoir.kit.folderlock import FolderTaken
from comptoir.link import Frame
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish, JobFiles
from comptoir.worker.sandbox import Sandbox, SandboxMissing
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.types import SandboxFailed

LOG_GAP_S = 0.1
"""Between two frames of log, unless `UNTOLD_BYTES_MAX` is half reached: what is printed in many lines costs few
frames."""
PROGRESS_GAP_S = 1.0
"""Between two frames of progress."""
HEARTBEAT_S = 1.0
"""Longest silence of an engine whose work goes on; then it says progress once more. Far below `FileKind.quiet_s`, after
which a host counts as lost where another is free."""
ENDING_S = 60.0
"""Between two looks at work that has said how it ended, and is about to return."""
UNTOLD_BYTES_MAX = 256 * 1024
"""Log that nobody has taken yet, in characters; with more the program waits."""
UNTOLD_FRAMES_MAX = 64
"""Other frames that nobody has taken yet; with more the work waits."""
NOTE_CHARS_MAX = 500
NOTES_BYTES_MAX = 4 * 1024 * 1024
"""All notes of one job together; progress goes on without them. A day of notes once a second would fill the answer."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""The disk of this host is full, which is not the job's doing."""

Work = Callable[[EngineRequest, "Relay"], Awaitable[Finish]]


class Programs:
    """The sandbox of one engine."""

    def __init__(self, folder: Path, *, unsandboxed: bool = False) -> None:
        """*folder* holds the files of runs; engines and workers may share it. *unsandboxed*: the owner's word."""
        self._sandbox = Sandbox(folder, unsandboxed=unsandboxed)

    async def start(self) -> None:
        """Find walls that hold, and erase what a killed worker left.

        Raises:
            EngineError: none hold here, or the folder can't be used; the message says what to do.
        """
        try:
            await self._sandbox.open()
        except SandboxMissing as missing:
            raise EngineError("no_sandbox", f"{missing}; {missing.todo}") from missing
        except (OSError, FolderTaken) as error:
            raise EngineError("no_sandbox", f"the folder of programs can't be used: {error}") from error

    async def close(self) -> None:
        """Erase all runs; idempotent."""
        await self._sandbox.close()

    @property
    def sandboxed(self) -> bool:
        """Whether programs are held; an offer says so to buyers."""
        return self._sandbox.sandboxed

    def new_run(self) -> SandboxRun:
        """Make the folder of a run, which the caller erases.

        Raises:
            EngineError: it can't be made.
        """
        try:
            return self._sandbox.new_run()
        except OSError as error:
            raise disk_error(error) from error


def disk_error(error: OSError) -> EngineError:
    """Return what becomes of a job that this host has no room for, or whose folder it can't use."""
    if error.errno in NO_ROOM:
        return EngineError("disk_full", f"this host has no room: {error.strerror}", fault="capacity")
    return EngineError("disk", f"this host can't use its folder: {error.strerror}")


class _Log:
    """Log of one stream that was not told yet."""

    __slots__ = ("stream", "texts")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.texts: list[str] = []


class Relay:
    """Keeps what work says until the engine's reader takes it, bounded; made by `relayed`.

    Logs keep their order within a stream, and against what is said; between two streams, within `LOG_GAP_S`.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        """*now_s*: when the work began, on the clock of `take`."""
        self._items: deque[_Log | Frame] = deque()
        self._growing: dict[str, _Log] = {}
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._untold = 0
        self._notes_left = NOTES_BYTES_MAX
        self._frames = 0
        self._progress: WorkProgress | None = None
        self._finished = False
        self._log_at_s = self._progress_at_s = float("-inf")
        self._told_at_s = now_s
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    # -- for work ------------------------------------------------------------------------------------------------

    async def log(self, stream: str, piece: bytes) -> None:
        """Say a piece of the program's output; a sink of the sandbox, with `functools.partial`.

        Bytes that are no UTF-8 become U+FFFD; a character that is cut between two pieces is put together. Waits while
        too much is untold.

        Args:
            stream: ``stdout`` or ``stderr``.
        """
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        self._append(stream, decoder.decode(piece))
        while self._untold >= UNTOLD_BYTES_MAX:
            await self._until_taken()

    def progress(self, *, done: float | None = None, note: str = "", count: int | None = None) -> None:
        """Say how far the work is; only the newest is told, once a `PROGRESS_GAP_S`."""
        if self._finished:
            return
        part = None if done is None or done != done else min(1.0, max(0.0, done))
        said = note[:NOTE_CHARS_MAX].encode(errors="replace").decode()
        self._progress = WorkProgress(part, said, count)
        self._changed.set()

    async def say(self, frame: Frame) -> None:
        """Say *frame*, after what was logged before. Waits while too much is untold.

        One with a finish reason is the last: no progress is told after it.
        """
        if frame.extra and finish_reason_in((frame,)):
            self._finished, self._progress = True, None
        self._end_texts()
        self._growing.clear()
        self._items.append(frame)
        self._frames += 1
        self._changed.set()
        while self._frames >= UNTOLD_FRAMES_MAX:
            await self._until_taken()

    async def fetch(self, files: JobFiles, count: int) -> list[Path]:
        """Fetch the first *count* inputs of an order, and say what was fetched from addresses.

        Raises:
            EngineError: one of them can't be had.
        """
        paths = []
        for number in range(count):
            self.progress(note=f"fetching input {number + 1} of {count}")
            path, fetched = await files.fetch(number)
            paths.append(path)
            if fetched is not None:
                await self.say(file_frame(fetched=fetched))
        return paths

    def _append(self, stream: str, text: str) -> None:
        if not text:
            return
        piece = self._growing.get(stream)
        if piece is None:
            piece = self._growing[stream] = _Log(stream)
            self._items.append(piece)
        piece.texts.append(text)
        self._untold += len(text)
        self._changed.set()

    def _end_texts(self) -> None:
        """Say the beginnings of characters that never came whole."""
        for stream, decoder in self._decoders.items():
            self._append(stream, decoder.decode(b"", final=True))

    async def _until_taken(self) -> None:
        self._taken.clear()
        await self._taken.wait()

    # -- for the reader ------------------------------------------------------------------------------------------

    def take(self, now_s: float, *, ended: bool = False) -> Frame | None:
        """Return the next frame that is due; None: nothing is.

        Args:
            ended: the work is over, so all that is left is due.
        """
        if ended:
            self._end_texts()
        frame = self._next_item(now_s, ended=ended) or self._next_progress(now_s, ended=ended)
        if frame is not None:
            self._told_at_s = now_s
            self._taken.set()
        return frame

    def due_s(self) -> float:
        """Return when something is due next, on the clock of `take`, if nothing more is said."""
        due = self._told_at_s + (ENDING_S if self._finished else HEARTBEAT_S)
        if self._items:
            due = min(due, self._log_at_s + LOG_GAP_S)
        if self._progress is not None:
            due = min(due, self._progress_at_s + PROGRESS_GAP_S)
        return due

    async def changed(self, within_s: float) -> None:
        """Wait until something was said, at most *within_s*."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, within_s)):
                await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """End a `changed` that waits."""
        self._changed.set()

    def _next_item(self, now_s: float, *, ended: bool) -> Frame | None:
        if not self._items:
            return None
        item = self._items[0]
        if isinstance(item, Frame):
            self._items.popleft()
            self._frames -= 1
            return item
        sealed = self._growing.get(item.stream) is not item
        soon = now_s < self._log_at_s + LOG_GAP_S
        if soon and not ended and not sealed and self._untold < UNTOLD_BYTES_MAX // 2:
            return None
        self._items.popleft()
        if not sealed:
            del self._growing[item.stream]
        # Two streams that speak in turns are told in one turn, so that neither waits for the other's gap.
        if not any(isinstance(each, _Log) for each in self._items):
            self._log_at_s = now_s
        text = "".join(item.texts)
        self._untold -= len(text)
        return file_frame(text, stream=item.stream)

    def _next_progress(self, now_s: float, *, ended: bool) -> Frame | None:
        if ended or self._finished:
            return None
        if self._progress is not None and now_s >= self._progress_at_s + PROGRESS_GAP_S:
            self._progress_at_s = now_s
            progress, self._progress = self._progress, None
            self._notes_left -= len(progress.note.encode())
            if self._notes_left < 0:
                progress = WorkProgress(progress.done, "", progress.count)
            return file_frame(progress=progress)
        if now_s >= self._told_at_s + HEARTBEAT_S:
            return file_frame(progress=WorkProgress())
        return None


async def relayed(request: EngineRequest, work: Work, *, goes_on: bool = False) -> AsyncIterator[Frame | Finish]:
    """Yield what *work* says, and the finish that it returns; closing cancels *work* and waits for its end.

    Work that follows another host's frames begins from the start, and is said to, unless it *goes_on* behind them.
    While it says nothing, progress is said all the same every `HEARTBEAT_S`.

    Raises:
        EngineError: what *work* raised, after all that it had said before.
    """
    if request.prefix and not goes_on:
        yield file_frame(begun_again=True)
    loop = asyncio.get_running_loop()
    relay = Relay(loop.time())
    task = asyncio.ensure_future(work(request, relay))
    task.add_done_callback(lambda _: relay.wake())
    try:
        while True:
            ended, now_s = task.done(), loop.time()
            frame = relay.take(now_s, ended=ended)
            if frame is not None:
                yield frame
            elif ended:
                break
            else:
                await relay.changed(relay.due_s() - now_s)
        try:
            finish = task.result()
        except SandboxFailed as failed:
            raise EngineError("sandbox", str(failed)) from failed
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise disk_error(error) from error
        yield finish
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()
