"""Compressed bodies: unpacked within the bounds of bodies, one step at a time, or refused with what is taken."""

import gzip
import zlib

import pytest

from comptoir.kit.http import UnsupportedBody
from comptoir.kit.http.encodings import FED_BYTES, UNPACKED_BYTES, unpacked_step_by_step
from comptoir.kit.http.turns import Turns
from tests.kit.bounded_server import KIB, serving

MIB = 1 << 20


def bare(body: bytes) -> bytes:
    """Compress without zlib's head, as some clients do."""
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(body) + made.flush()


FORMATS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "identity, gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate ": bare,
    "identity": bytes,
    "": bytes,
}

NOT_TAKEN = ("zstd", "br", "compress", "gzip, gzip", "gzip, br", "nonsense", "gzip;q=1", "x" * 5_000)


def post(body: bytes, encoding: str, *more: str) -> bytes:
    lines = "".join(f"content-encoding: {one}\r\n" for one in (encoding, *more))
    head = f"POST /take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}connection: close\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


class TestSteps:
    @pytest.mark.parametrize("size", [0, 1, UNPACKED_BYTES, UNPACKED_BYTES + 1, 3 * UNPACKED_BYTES])
    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_all_of_it_comes_in_pieces_of_a_bounded_size(self, encoding: str, size: int) -> None:
        body = bytes(range(251)) * (size // 251 + 1)
        body = body[:size]
        for packed in [FORMATS[encoding](body)] + ([bare(body)] if encoding == "deflate" else []):
            pieces = list(unpacked_step_by_step(encoding, packed))
            assert b"".join(pieces) == body
            assert max(map(len, pieces)) <= UNPACKED_BYTES

    def test_what_does_not_shrink_comes_in_steps_too(self) -> None:
        body = zlib.compress(bytes(range(256)) * 4096, level=0)
        assert b"".join(unpacked_step_by_step("deflate", body)) == bytes(range(256)) * 4096

    @pytest.mark.parametrize(
        ("encoding", "body", "words"),
        [
            ("gzip", b"{}", "is not gzip"),
            ("deflate", bytes([255, 255]), "is not deflate"),
            ("gzip", gzip.compress(bytes(100))[:-1], "ends before"),
            ("gzip", gzip.compress(bytes(100))[:12], "ends before"),
            ("gzip", gzip.compress(bytes(100))[:-8] + bytes(8), "is not gzip"),
            ("deflate", zlib.compress(bytes(100))[:-1], "ends before"),
            ("gzip", gzip.compress(b"{}") + b"x", "goes on after"),
            ("gzip", gzip.compress(b"{}") + bytes(2 * FED_BYTES), "goes on after"),
            ("gzip", gzip.compress(b"{}") + gzip.compress(b"{}"), "goes on after"),
        ],
        # gzip writes the second into it: as parts of names, tests would be called otherwise in each process.
        ids=[
            "no gzip", "no deflate", "gzip ends in its end", "gzip ends", "gzip's sum is wrong", "deflate ends",
            "a letter more", "much more", "another one",
        ],
    )  # fmt: skip
    def test_what_is_not_whole_is_refused(self, encoding: str, body: bytes, words: str) -> None:
        with pytest.raises(UnsupportedBody, match=words):
            list(unpacked_step_by_step(encoding, body))


class TestBodies:
    async def test_they_are_taken_as_what_they_become(self) -> None:
        body = b'{"a": "' + b"b" * 300_000 + b'"}'
        async with serving() as server:
            for encoding, pack in FORMATS.items():
                assert (await server.ask(post(pack(body), encoding))).startswith(b"HTTP/1.1 200 "), encoding
            assert server.got == [len(body)] * len(FORMATS)

    @pytest.mark.parametrize("encoding", NOT_TAKEN)
    async def test_others_are_refused_with_what_is_taken(self, encoding: str) -> None:
        async with serving() as server:
            answer = await server.ask(post(b"{}", encoding))
            twice = await server.ask(post(b"{}", "gzip", "gzip"))

            for one in (answer, twice):
                assert b"\r\naccept-encoding: gzip, deflate\r\n" in one and len(one) < 1_000
                assert b"send it as it is, or with one of: gzip, deflate" in one
            assert server.got == []

    async def test_a_bomb_is_refused_at_the_size_that_a_body_may_have(self) -> None:
        """200 KB that would become 200 MB: no more of it is made than a body may be."""
        bomb = gzip.compress(bytes(200 * MIB), compresslevel=1)
        async with serving(body_bytes_max=MIB) as server:
            answer = await server.ask(post(bomb, "gzip"))

            assert b"the body is larger than 1048576 bytes" in answer
            assert server.got == [] and server.traffic.bodies.held == 0

    async def test_what_it_becomes_counts_with_the_bodies_of_all(self) -> None:
        async with serving(bodies_bytes_max=MIB, bodies_bytes_per_address_max=MIB, body_bytes_max=8 * MIB) as server:
            refused = await server.ask(post(gzip.compress(bytes(2 * MIB)), "gzip"))
            taken = await server.ask(post(gzip.compress(bytes(100 * KIB)), "gzip"))

            assert refused.startswith(b"HTTP/1.1 503 ") and taken.startswith(b"HTTP/1.1 200 ")
            assert server.traffic.refused == {"bodies_bytes_max": 1} and server.traffic.bodies.held == 0

    async def test_others_are_heard_between_the_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spent = []
        own = Turns.spend

        def counted(self: Turns, key: str, size: int) -> object:
            spent.append(size)
            return own(self, key, size)

        async with serving(body_bytes_max=8 * MIB) as server:
            monkeypatch.setattr(Turns, "spend", counted)
            await server.ask(post(gzip.compress(bytes(4 * MIB)), "gzip"))

        assert len([size for size in spent if UNPACKED_BYTES <= size < MIB]) >= 4 * MIB // UNPACKED_BYTES
