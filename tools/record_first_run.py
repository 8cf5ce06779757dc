"""Record the first run as a picture: a real `comptoir up`, a question, a receipt, an audit.

``python -m tools.record_first_run`` writes docs/images/first-run.svg. It needs the extra ``demo`` and a free port 8080.
"""

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "first-run.svg"
COLUMNS = 128
READY_WITHIN_S = 60.0
KEY = re.compile(r"\b(ck_)[A-Za-z0-9_-]{43}")
CURSOR = re.compile(r"\x1b\[\?25[hl]")
WIPED = re.compile(r"[^\n]*\n?\r?(?:\x1b\[1A)?\x1b\[2K")
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)

COMMANDS = ('comptoir run "What is a receipt?"', "comptoir hosts", "comptoir balance", "comptoir audit")


def environment(folder: Path) -> dict[str, str]:
    """Return what a person's terminal would set, and no settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COMPTOIR_")}
    root = str(Path(__file__).parent.parent / "src")
    return {**kept, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PYTHONPATH": root, "HOME": str(folder)}


def shown(raw: bytes) -> str:
    """Return what stays on the screen, keys shortened: a picture is for everybody."""
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
    # What was wiped or overwritten in place (a progress line) is not what remains.
    text = WIPED.sub("", CURSOR.sub("", text))
    text = "\n".join(line.rpartition("\r")[2] for line in text.split("\n"))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Zabd-ln-z]", "", text)
    return KEY.sub(r"\1…", text)


def start(command: str, folder: Path, *, logs: bool) -> tuple[subprocess.Popen[bytes], int]:
    """Start *command* on a terminal of its own; return it and the terminal's end. Without *logs* its standard error is
    dropped."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", *shlex.split(command)]
    errors = theirs if logs else subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=folder, env=environment(folder), stdin=theirs, stdout=theirs, stderr=errors)
    os.close(theirs)
    return process, ours


def read_until(terminal: int, *, mark: bytes | None, within_s: float) -> bytes:
    """Read until *mark* comes, the program ends, or time is up."""
    read = b""
    ends_s = time.monotonic() + within_s
    while (mark is None or mark not in read) and time.monotonic() < ends_s:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other end has closed.
            break
        if not piece:
            break
        read += piece
    return read


def main() -> None:
    """Run, record, write."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (lives as long)

    def show(command: str, raw: bytes) -> None:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text.from_ansi(shown(raw).strip("\n")), soft_wrap=False)
        console.print()

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        coordinator, terminal = start("comptoir up", folder, logs=False)
        try:
            show("make up", read_until(terminal, mark=b"Ctrl-C drains", within_s=READY_WITHIN_S))
            for command in COMMANDS:
                process, end = start(command, folder, logs=True)
                show(command, read_until(end, mark=None, within_s=READY_WITHIN_S))
                process.wait(READY_WITHIN_S)
                os.close(end)
        finally:
            coordinator.terminate()
            read_until(terminal, mark=None, within_s=10.0)
            coordinator.wait(READY_WITHIN_S)
            os.close(terminal)
    # No font is fetched from anywhere: the reader's own monospace will do.
    picture = FONT_FACE.sub("", console.export_svg(title="comptoir")).replace("Fira Code", "monospace")
    PICTURE.write_text(re.sub(r"<!--.*?-->", "<!-- tools/record_first_run.py -->", picture, count=1) + "\n")
    print(f"wrote {PICTURE.name}")


if __name__ == "__main__":
    main()
