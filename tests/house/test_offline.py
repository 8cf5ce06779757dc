"""The guards of the test suite itself: no way off this machine, and no test skipped for want of a program."""

import asyncio
import socket

import pytest

from tests import offline, programs

FAR = "192.0.2.1"  # Reserved for documentation: routed nowhere.


class TestOffline:
    def test_a_connection_to_another_machine_is_refused(self) -> None:
        with pytest.raises(offline.OffLoopback):
            socket.create_connection((FAR, 80), timeout=0.1)

        assert [f"connect to ('{FAR}', 80)"] == offline.ATTEMPTS
        offline.ATTEMPTS.clear()

    async def test_asyncio_goes_through_the_same_door(self) -> None:
        with pytest.raises(offline.OffLoopback):
            await asyncio.open_connection(FAR, 80)

        assert offline.ATTEMPTS != []
        offline.ATTEMPTS.clear()

    def test_a_name_is_not_looked_up(self) -> None:
        with pytest.raises(offline.OffLoopback):
            socket.getaddrinfo("example.com", 443)

        assert offline.ATTEMPTS == ["look up example.com"]
        offline.ATTEMPTS.clear()

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_loopback_is_open(self, host: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection((host, server.getsockname()[1]), timeout=1).close()

    @pytest.mark.parametrize(
        ("host", "local"),
        [("127.9.9.9", True), ("::1", True), ("fe80::1%eth0", False), (b"10.0.0.1", False), ("10.0.0.1", False)],
    )
    def test_local_means_this_machine(self, host: str | bytes, local: bool) -> None:
        assert offline.is_local(host) is local


class TestPrograms:
    def test_a_missing_browser_fails_and_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv("CHROMIUM", raising=False)

        with pytest.raises(pytest.fail.Exception, match=r"tools/chromium\.sh"):
            programs.find_chromium()
