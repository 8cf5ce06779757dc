"""Files on their way to a trading post and back: what is cut goes on where it was, and every hash is checked."""

import base64
import contextlib
import hashlib
import http.client
import mimetypes
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from comptoir.cli.api import Api
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.harmless import harmless
from comptoir.cli.screen import err

BLOCK_BYTES = 256 << 10
"""What is read and sent at a time."""

AGAIN_FIRST_S, AGAIN_S = 0.2, 5.0
"""First and longest pause before a broken connection is tried again."""

PATIENCE_S = 60.0
"""How long it is tried again without a byte more."""

BUSY = (408, 409, 429, 503)
"""Statuses after which it goes on: too slow, another connection of ours was not known to be gone, busy."""

_NAME = re.compile(r"filename\*=UTF-8''([^;\s]+)", re.IGNORECASE)
_UNSAFE = re.compile(r"[/\\\n\t]")

NAME_BYTES_MAX, SUFFIX_BYTES_MAX = 200, 16
"""Longest name of a file here, and the longest ending that is kept where one is cut."""

NOT_FOUND = 404

TUS = {"Tus-Resumable": "1.0.0"}


class Patience:
    """How long nothing has come of trying."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()
        self._pause_s = AGAIN_FIRST_S

    def progressed(self) -> None:
        """Something came of it: the patience begins anew."""
        self._since_s, self._pause_s = time.monotonic(), AGAIN_FIRST_S

    def wait(self, failure: Failure) -> None:
        """Pause before the next try.

        Raises:
            Failure: trying again is of no use, or nothing has come of it for `PATIENCE_S`.
        """
        if failure.code is not Exit.UNREACHABLE and failure.status not in BUSY:
            raise failure
        if time.monotonic() - self._since_s > PATIENCE_S:
            failure.hint = "what has arrived is kept: run the same command again to go on"
            raise failure
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, AGAIN_S)


Moved = Callable[[int], None]
"""Called with how many bytes are done."""


@contextlib.contextmanager
def _bar(words: str, size: int) -> Iterator[Moved]:
    """Show how far it is, where a person is watching."""
    console = err()
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(harmless(words).replace("[", r"\["), total=size)
        yield lambda done: progress.update(task, completed=done)


def _digest(file: IO[bytes], moved: Moved) -> "hashlib._Hash":
    """Return the running SHA-256 of all of *file*."""
    running, done = hashlib.sha256(), 0
    while block := file.read(BLOCK_BYTES):
        running.update(block)
        done += len(block)
        moved(done)
    return running


# -- up ------------------------------------------------------------------------------------------------------------


def upload(api: Api, path: Path, *, name: str = "", media: str = "") -> dict[str, Any]:
    """Upload a file; return its ``id``, ``name``, ``size`` and ``sha256``.

    One that is there already, uploaded under this name within a day, is not sent again.

    Args:
        name: what it is called there; empty: its own name.
        media: its media type; empty: by its name.

    Raises:
        Failure: refused, or broken off for too long.
    """
    name = name or path.name
    media = media or mimetypes.guess_type(name)[0] or ""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        with _bar(f"reading {name}", size) as moved:
            digest = _digest(file, moved).hexdigest()
        said = {"filename": name, "filetype": media, "sha256": digest}
        metadata = ",".join(f"{field} {base64.b64encode(text.encode()).decode()}" for field, text in said.items())
        # The same file under the same name is the same upload, so a second run finds the first one's.
        once = hashlib.sha256(f"{digest} {size} {name} {media}".encode()).hexdigest()
        headers = {
            **TUS,
            "Upload-Length": str(size),
            "Upload-Metadata": metadata,
            "Idempotency-Key": f"files-put-{once}",
        }
        patience = Patience()
        while True:
            try:
                with api.exchange("POST", "/house/uploads", headers={**headers, "Content-Length": "0"}) as begun:
                    location = begun.headers["Location"]
                break
            except Failure as failure:
                patience.wait(failure)
        with _bar(name, size) as moved:
            file_id = _send(api, location, file, size=size, moved=moved)
    return {"id": file_id, "name": name, "size": size, "sha256": digest}


def _send(api: Api, location: str, file: IO[bytes], *, size: int, moved: Moved) -> str:
    """Bring all of *file* to an upload, however often the connection breaks; return the file's id."""
    patience, before = Patience(), -1
    while True:
        try:
            with api.exchange("HEAD", location, headers=TUS) as looked:
                offset, file_id = int(looked.headers["Upload-Offset"]), looked.headers.get("X-Comptoir-File")
            if offset > before:
                patience.progressed()
            before = offset
            moved(offset)
            if file_id:
                return str(file_id)
            file.seek(offset)
            headers = {
                **TUS,
                "Content-Type": "application/offset+octet-stream",
                "Upload-Offset": str(offset),
                "Content-Length": str(size - offset),
            }
            with api.exchange("PATCH", location, data=_blocks(file, offset, size, moved), headers=headers):
                pass
        except Failure as failure:
            if failure.status == NOT_FOUND:
                raise Failure("the upload was given up meanwhile", "run the command again") from failure
            patience.wait(failure)


def _blocks(file: IO[bytes], done: int, size: int, moved: Moved) -> Iterator[bytes]:
    while done < size:
        block = file.read(min(BLOCK_BYTES, size - done))
        if not block:
            raise Failure("the file became shorter while it was sent", "run the command again when it is complete")
        yield block
        done += len(block)
        moved(done)


# -- down ----------------------------------------------------------------------------------------------------------


class Partial:
    """A download that is not complete: the file, which hash it shall have and the one of what is there."""

    def __init__(self, file: IO[bytes], digest: str, running: "hashlib._Hash") -> None:
        self.file = file
        self.digest = digest
        self.running = running


def _receive(api: Api, path: str, partial: Partial, *, size: int, moved: Moved) -> None:
    """Bring the rest of a file, however often the connection breaks."""
    patience, done = Patience(), partial.file.tell()
    while done < size:
        asked = {"Range": f"bytes={done}-", "If-Range": f'"{partial.digest}"'}
        try:
            with api.exchange("GET", path, headers=asked) as answer:
                if answer.status != 206:
                    raise Failure("the file has changed while it was read", "run the command again")
                while block := answer.read(min(BLOCK_BYTES, size - done)):
                    partial.file.write(block)
                    partial.running.update(block)
                    done += len(block)
                    moved(done)
                    patience.progressed()
            if done < size:
                raise Failure(f"{api.target.url} broke off", code=Exit.UNREACHABLE)
        except Failure as failure:
            patience.wait(failure)


def _described(head: http.client.HTTPResponse) -> tuple[int, str, str]:
    """Return size, SHA-256 and name of a file, none of which a server could use to write elsewhere."""
    said = _NAME.search(head.headers.get("Content-Disposition", ""))
    name = unquote(said[1]) if said else ""
    digest = head.headers.get("ETag", "").strip('"')
    if not all(char in "0123456789abcdef" for char in digest) or len(digest) != 64:
        raise Failure("the server does not say the file's SHA-256", "is it a trading post?")
    return int(head.headers["Content-Length"]), digest, local_name(name)


def local_name(name: str) -> str:
    """Return what a file is called here that somebody else called *name*: one part of a path, short enough, shown."""
    plain = _UNSAFE.sub("_", harmless(name))
    plain = f"_{plain}" if plain.startswith(".") else plain
    stem, dot, suffix = plain.rpartition(".")
    if len(plain.encode()) > NAME_BYTES_MAX:
        suffix = dot + suffix if stem and len(suffix.encode()) <= SUFFIX_BYTES_MAX else ""
        plain = plain.encode()[: NAME_BYTES_MAX - len(suffix.encode())].decode(errors="ignore") + suffix
    return plain or "file"


def download(api: Api, file_id: str, place: Callable[[str], Path], *, sha256: str = "") -> Path:
    """Download a file to where *place* says, given its name; return that.

    It is there only once all of it is, and its SHA-256 is right. Until then it is a hidden file beside it, from which
    another call goes on.

    Args:
        sha256: what it has to be; empty: whatever the server says.

    Raises:
        Failure: there is no such file, something else came, or it broke off for too long; and whatever *place* raises.
    """
    patience, path = Patience(), f"/house/files/{quote(file_id, safe='')}"
    while True:
        try:
            with api.exchange("HEAD", path) as head:
                size, digest, name = _described(head)
            break
        except Failure as failure:
            if failure.status == NOT_FOUND:  # An answer to HEAD has no words.
                raise Failure(f"no such file: {file_id}", "list yours with 'comptoir files ls'") from failure
            patience.wait(failure)
    if sha256 and digest != sha256:
        raise Failure(f"{file_id} is not what the job made: its SHA-256 is another one", "ask the operator")
    to = place(name)
    part = to.with_name(f".{local_name(to.name)}.{digest[:16]}.part")
    with part.open("ab+") as file, _bar(to.name, size) as moved:
        file.seek(0)
        running = _digest(file, moved)
        _receive(api, path, Partial(file, digest, running), size=size, moved=moved)
        if running.hexdigest() != digest:
            part.unlink()
            raise Failure(f"what came is not {file_id}: its SHA-256 is another one", "run the command again")
        file.flush()
        os.fsync(file.fileno())
    part.replace(to)
    return to
