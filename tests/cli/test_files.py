"""``comptoir files`` against a running post: up, down, and on after a cut in either direction."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from comptoir.cli.transfer import local_name
from tests.cli.conftest import Invoke, Up

MIB = 1 << 20


class Cutter:
    """A way to a post on which the first connections with a large load break after so many bytes of it."""

    def __init__(self, port: int, *, cuts: int, after_bytes: int) -> None:
        self._to = ("127.0.0.1", port)
        self.left = cuts
        """Cuts that are still to come."""
        self._after = after_bytes
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            for one, other in ((client, server), (server, client)):
                pump = threading.Thread(target=self._pump, args=(one, other))
                self._threads.append(pump)
                pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with source:
            try:
                while data := source.recv(64 << 10):
                    sink.sendall(data)
                    passed += len(data)
                    if passed > self._after and self._cut():
                        break
                sink.shutdown(socket.SHUT_WR)
                if passed > self._after:
                    sink.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # The other direction has ended.

    def _cut(self) -> bool:
        with self._lock:
            self.left -= 1
            return self.left >= 0

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def cutter(post: Up) -> Iterator[Cutter]:
    """Three cuts, after a megabyte each."""
    made = Cutter(int(post.quickstart.url.rpartition(":")[2]), cuts=3, after_bytes=MIB)
    yield made
    made.close()


def read(result: Result) -> Any:
    """Return what was printed as JSON."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestPut:
    def test_what_is_put_is_listed_comes_back_and_is_deleted(self, ask: Invoke, tmp_path: Path) -> None:
        data = os.urandom(5 * MIB)
        (tmp_path / "é x.wav").write_bytes(data)

        (made,) = read(ask("files", "put", "é x.wav", "--json"))
        again = ask("files", "put", "é x.wav").stdout.strip()
        listed = read(ask("files", "ls", "--json"))
        (tmp_path / "results").mkdir()
        got = ask("files", "get", made["id"], "-o", "results")
        refused = ask("files", "get", made["id"])
        table = ask("files", "ls").stdout
        gone = ask("files", "rm", made["id"])

        assert again == made["id"]
        assert [file["id"] for file in listed["files"]] == [made["id"]]
        assert listed["files"][0]["media"] == "audio/x-wav"
        assert Path(got.stdout.strip()) == Path("results/é x.wav")
        assert (tmp_path / "results" / "é x.wav").read_bytes() == data
        assert (refused.exit_code, "is there already" in refused.output) == (2, True)
        assert f"{5 * MIB:,}" in table and made["id"] in table
        assert gone.stdout.strip() == made["id"]
        assert read(ask("files", "ls", "--json"))["files"] == []

    def test_it_goes_on_after_cuts_in_both_directions(
        self, invoke: Invoke, post: Up, cutter: Cutter, tmp_path: Path
    ) -> None:
        data = os.urandom(6 * MIB)
        (tmp_path / "in.bin").write_bytes(data)
        env = {"COMPTOIR_URL": cutter.url, "COMPTOIR_KEY": post.quickstart.key}

        (made,) = read(invoke("files", "put", "in.bin", "--json", **env))
        cut_going_up, cutter.left = cutter.left, 3
        got = invoke("files", "get", made["id"], "-o", "out.bin", **env)

        assert cut_going_up <= 0 and cutter.left <= 0
        assert got.exit_code == 0, got.output
        assert (tmp_path / "out.bin").read_bytes() == data
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.bin", "out.bin"]

    def test_a_download_that_was_ended_goes_on_from_what_is_there(self, ask: Invoke, tmp_path: Path) -> None:
        """Half of it is there, and it is wrong: the hash says so, and the next run begins anew."""
        data = os.urandom(MIB)
        (tmp_path / "in.bin").write_bytes(data)
        (made,) = read(ask("files", "put", "in.bin", "--json"))
        part = tmp_path / f".out.bin.{made['sha256'][:16]}.part"

        part.write_bytes(data[: MIB // 2])
        good = ask("files", "get", made["id"], "-o", "out.bin")
        part.write_bytes(b"x" * (MIB // 2))
        wrong = ask("files", "get", made["id"], "-o", "out.bin", "--force")

        assert (good.exit_code, (tmp_path / "out.bin").read_bytes() == data) == (0, True)
        assert (wrong.exit_code, "SHA-256" in wrong.output) == (1, True)
        assert not part.exists()
        assert ask("files", "get", made["id"], "-o", "out.bin", "--force").exit_code == 0

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (("put", "nowhere"), 2, "does not exist"),
            (("put", "--name", "a/b", "."), 2, "is a directory"),
            (("get", "file_" + "0" * 32), 1, "no such file"),
            (("rm", "../../keys"), 1, "nothing is served"),
        ],
    )
    def test_what_can_not_be_is_said(self, ask: Invoke, words: tuple[str, ...], code: int, says: str) -> None:
        result = ask("files", *words)

        assert (result.exit_code, says in result.output) == (code, True), result.output


class TestLocalName:
    """A file is called here what somebody else called it, as far as that is a name that can do no harm."""

    @pytest.mark.parametrize(
        ("name", "here"),
        [
            ("é x.wav", "é x.wav"),
            ("", "file"),
            ("..", "_.."),
            (".bashrc", "_.bashrc"),
            ("../../x", "_.._.._x"),
            ("..\\x", "_.._x"),
            ("a\x1b[2J\nb", "a[2J_b"),
            ("é" * 200 + ".png", "é" * 98 + ".png"),
            ("x" * 300, "x" * 200),
            ("x." + "y" * 300, "x." + "y" * 198),
        ],
    )
    def test_it_is_one_part_of_a_path(self, name: str, here: str) -> None:
        assert local_name(name) == here
