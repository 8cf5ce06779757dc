"""The native shape is the link in JSON: word for word as published, and with a place for everything the link
carries."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir import link
from comptoir.transports import native
from comptoir.transports.native import DoneLine, FailLine, FramesLine, decode_line, spell

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "native.json").read_text())
LINK_ALONE = {"grows_to"}
"""A host without a link hears nothing while it works, so its bound can't be raised (`Reach.hears_midway`)."""

LEASE, JOB, CHAIN = b"\x11" * 16, b"\x22" * 16, bytes(range(32))


class TestGolden:
    def test_a_job_is_spelled_as_published(self) -> None:
        body, prefix = b'{"model":"qwen3-8b"}', [link.Frame("Quantum", 1, b'{"index":1}')]
        job = link.Job(LEASE, JOB, "chat", "qwen3-8b", body, 1_750_000_060_000, 1, prefix, CHAIN, 64, 59_000)

        assert json.loads(msgspec.json.encode(spell(job))) == GOLDEN["job"]

    def test_what_a_host_says_is_read_as_published(self) -> None:
        frames, done, fail = (decode_line(json.dumps(GOLDEN[name]).encode()) for name in ("frames", "done", "fail"))

        assert isinstance(frames, FramesLine) and isinstance(done, DoneLine) and isinstance(fail, FailLine)
        assert (frames.seq, frames.frames()) == (
            1,
            [link.Frame(" computing"), link.Frame("", 0, b'{"finish_reason":"stop"}')],
        )
        assert (done.end_seq, done.finish_reason, done.chain, done.signature) == (3, "stop", CHAIN, bytes(64))
        assert done.counted() == link.Usage(5, 2, b'{"prompt_tokens":5}')
        assert (fail.code, fail.fault, fail.status, fail.body, fail.retry_after_s) == (
            "engine_error",
            "host",
            500,
            b'{"error":{}}',
            1.5,
        )
        assert {each.lease for each in (frames, done, fail)} == {"att_" + "11" * 16}

    @pytest.mark.parametrize("name", ["frames", "done", "fail"])
    def test_what_it_says_at_our_endpoints_needs_no_type(self, name: str) -> None:
        plain = {key: value for key, value in GOLDEN[name].items() if key != "type"}
        kind = {"frames": native.NativeFrames, "done": native.NativeDone, "fail": native.NativeFail}[name]

        assert msgspec.convert(plain, kind, builtin_types=()).lease == plain["lease"]


class TestTwins:
    @pytest.mark.parametrize(
        ("twin", "of"),
        [
            (native.NativeJob, link.Job),
            (native.NativeFrames, link.Frames),
            (native.NativeFrame, link.Frame),
            (native.NativeDone, link.Done),
            (native.NativeUsage, link.Usage),
            (native.NativeFail, link.Fail),
        ],
    )
    def test_each_has_the_fields_of_its_message(self, twin: type[msgspec.Struct], of: type[msgspec.Struct]) -> None:
        """A field that the link gets has to reach hosts without a link too."""
        assert set(twin.__struct_fields__) == set(of.__struct_fields__) - LINK_ALONE
