"""What may be ordered, what it asks of a host, and what it can cost."""

import json
from typing import Any

import pytest

from comptoir.kinds import Ask, Kinds, bounding_bytes
from comptoir.kinds.files import ProgramFailure, file_frame
from comptoir.kinds.python import REASONS, Python, read_order
from comptoir.kinds.python.order import CLASSES, EVERYBODYS, Limits
from comptoir.kinds.python.requirements import name_of, wrong_line
from comptoir.link import Frame, Usage

KIND = Python()
FILE = {"name": "job.py", "file": "file_1"}


def body(**fields: Any) -> bytes:
    return json.dumps({"code": "print(1)"} | fields).encode()


class TestCheck:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"input": None, "entrypoint": ":run", "args": ["--x", "ü"], "stdin": "a\u0000b"},
            {"code": "", "program": "job.py", "inputs": [FILE], "entrypoint": "pkg/a.py:go"},
            {"code": "", "program": "file_1", "inputs": [{"file": "file_1"}]},
            {"code": "", "program": "job.py", "inputs": [{"url": "https://x.example/a/job.py?v=1"}]},
            {"limits": {"wall_s": 86_400, "cores": 64, "cpu_s": 1, "memory_mib": 65_536, "disk_mib": 131_072}},
            {"outputs": [], "network": True, "builds": True, "unsandboxed_ok": True},
            {"requirements": ["numpy>=2,<3", "Pillow [webp] == 11.*", "torch ; sys_platform == 'linux'"]},
        ],
    )
    def test_orders(self, fields: dict[str, Any]) -> None:
        assert KIND.check(body(**fields)) == ""

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"code": ""}, "either code, or program"),
            ({"program": "job.py", "inputs": [FILE]}, "either code, or program"),
            ({"code": "", "program": "other.py", "inputs": [FILE]}, "'other.py', which is none of its inputs"),
            ({"entrypoint": "a.py"}, "only :function"),
            ({"entrypoint": ":not a name"}, "whose function is no name"),
            ({"entrypoint": ":"}, "whose function is no name"),
            ({"code": "", "program": "job.py", "inputs": [FILE], "entrypoint": "../x.py"}, "no path below"),
            ({"code": "", "program": "job.py", "inputs": [FILE], "entrypoint": "/x.py"}, "no path below"),
            ({"code": "", "program": "job.py", "inputs": [FILE], "entrypoint": "a//x.py"}, "no path below"),
            ({"code": "", "program": "job.py", "inputs": [FILE], "entrypoint": "a\nb.py"}, "no path below"),
            ({"args": ["a\u0000b"]}, "NUL"),
            ({"args": ["x"] * 257}, "length <= 256"),
            ({"limits": {"wall_s": 0}}, ">= 1"),
            ({"limits": {"wall_s": 86_401}}, "<= 86400"),
            ({"limits": {"wall_s": 1.5}}, "Expected `int`"),
            ({"limits": {"gpus": 1}}, "unknown field"),
            ({"wall_s": 7}, "unknown field"),
            ({"requirements": ["--index-url https://evil.example"]}, "requirements[0], which is no name"),
            ({"inputs": [{"name": "../a", "file": "file_1"}]}, "regex"),
            ({"inputs": [FILE] * 65}, "length <= 64"),
        ],
    )
    def test_what_is_none_is_refused_with_its_field(self, fields: dict[str, Any], words: str) -> None:
        assert words in KIND.check(body(**fields)), KIND.check(body(**fields))

    @pytest.mark.parametrize("broken", [b"", b"7", b"[]", b'{"code": "\xff"}', b'{"input":' + b"[" * 9999])
    def test_what_is_no_json_breaks_nothing(self, broken: bytes) -> None:
        assert "is no order" in KIND.check(broken)
        assert KIND.asks(broken) == frozenset() and KIND.output_max(broken) == 60_000


class TestRequirements:
    @pytest.mark.parametrize(
        "line",
        [
            "numpy", "a", "zope.interface", "x[a, b-c]>=1!2.0rc1+local.1,!=3.*", "x (>=1)", "x~=1.0;python_version<'4'",
            'x ; (os_name == "posix" or python_version >= "3.8") and extra != "t"', "x;'linux' in sys_platform",
        ],
    )  # fmt: skip
    def test_names_versions_extras_and_markers(self, line: str) -> None:
        assert wrong_line(line) == ""

    @pytest.mark.parametrize(
        "line",
        [
            "", " ", "-e .", "-r other.txt", "--index-url=https://e.example", "x --hash=sha256:00", "x @ https://e.example/x.whl",
            "x@file:///etc/passwd", "git+https://e.example/x", "https://e.example/x.whl", "./x", "/x", "../x", "x\n-e .",
            "x\r--index-url y", "x # comment", "x\\", "${HOME}", "x===1", "x>=", "x[", "x;", "x; import os", "x>=1 y", "ｘ",
            "x" * 201, "x; python_version < '4' -e .", "x;python_version<`id`", "-", ".", "_x", "x_",
        ],
    )  # fmt: skip
    def test_nothing_else(self, line: str) -> None:
        """No option, index, address, path or editable: where packages come from is the host owner's word."""
        assert wrong_line(line) != ""

    def test_names_are_compared_as_indexes_do(self) -> None:
        assert [name_of(each) for each in ("Torch.Vision>=1", "torch_vision", "a--b", "-x")] == [
            "torch-vision", "torch-vision", "a-b", "",
        ]  # fmt: skip

    def test_a_line_is_read_in_no_time(self) -> None:
        """A pattern with nested repetition can take for ever over a line that almost fits."""
        for line in ("a" * 199 + "!", "a" + "-" * 198, "x[" + "a," * 98, "x>=1" + ",<1" * 60 + "&", "x;" + "(" * 190):
            assert wrong_line(line)


class TestAsks:
    @pytest.mark.parametrize(
        ("fields", "asked"),
        [
            ({}, {"sandbox"}),
            ({"unsandboxed_ok": True}, set()),
            ({"network": True, "builds": True}, {"sandbox", "network", "builds"}),
            ({"requirements": ["numpy", "Torchvision>1"]}, {"sandbox", "torch"}),
            ({"limits": {"wall_s": 600, "memory_mib": 1024, "cores": 1, "disk_mib": 2048}}, {"sandbox"}),
            ({"limits": {"wall_s": 601, "cores": 3}}, {"sandbox", "wall_1h", "cores_2", "cores_4"}),
            ({"limits": {"memory_mib": 9000}}, {"sandbox", "memory_4g", "memory_16g"}),
            ({"limits": {"disk_mib": 20_000}}, {"sandbox", "disk_16g", "disk_128g"}),
        ],
    )
    def test_what_a_host_must_be_able_to_do(self, fields: dict[str, Any], asked: set[str]) -> None:
        assert KIND.asks(body(**fields)) == asked
        assert asked <= set(KIND.capabilities)

    def test_classes_cover_every_order_without_a_gap(self) -> None:
        """An order is asked of hosts whose maximum is at least that much: no host refuses what it is given."""
        fields = {each.field for each in CLASSES}
        for field in fields:
            steps = [each for each in CLASSES if each.field == field]
            assert steps[0].above == EVERYBODYS[field]
            assert [each.above for each in steps[1:]] == [each.most for each in steps[:-1]]
            bound = next(each for each in Limits.__struct_fields__ if each == field)
            top = {field: steps[-1].most}
            assert KIND.check(body(limits=top)) == "" and KIND.check(body(limits={bound: steps[-1].most + 1}))
        assert len(KIND.capabilities) <= 16, "an offer speaks of no more"


class TestMoney:
    @pytest.mark.parametrize(
        ("limits", "wall_ms", "cpu_ms", "cores"),
        [
            ({}, 60_000, 60_000, 1),
            ({"wall_s": 10, "cores": 4}, 10_000, 40_000, 4),
            ({"wall_s": 10, "cores": 4, "cpu_s": 5}, 10_000, 5_000, 4),
            ({"wall_s": 10, "cpu_s": 500}, 10_000, 10_000, 1),
        ],
    )
    def test_the_hold_covers_both_times(self, limits: dict[str, int], wall_ms: int, cpu_ms: int, cores: int) -> None:
        order = body(limits=limits)
        (part,) = KIND.parts(Ask("python", order, KIND.output_max(order)))

        assert (part.output_max, part.input_max, KIND.cores(order)) == (wall_ms, cpu_ms, cores)

    def test_it_is_sold_in_units_of_its_own(self) -> None:
        assert [unit.name for unit in Kinds().get("python").units] == ["cpu_ms", "wall_ms"]


class Job:
    """A job as far as the kind looks at it."""

    segment_start = 1

    def __init__(self, *frames: Frame) -> None:
        self.frames = [Frame("of a lost host", 0), *frames]

    @property
    def segment_claim(self) -> int:
        return sum(frame.tokens for frame in self.frames[1:])


LOG = file_frame("hi\n", stream="stdout")
END = file_frame(count=70, finish_reason="stop")


class TestEnd:
    @pytest.mark.parametrize("reason", REASONS)
    def test_a_program_ends_in_the_kinds_words(self, reason: str) -> None:
        failed = None if reason == "stop" else ProgramFailure(reason)
        job = Job(LOG, file_frame(count=70, finish_reason=reason, failed=failed))

        assert KIND.wrong_output(job, finish_reason=reason, usage=Usage(60, 70)) == ""  # type: ignore[arg-type]
        assert KIND.finished_already(job) == reason  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("frames", "reason", "usage", "words"),
        [
            ([LOG, END], "length", Usage(), "ends with one of"),
            ([LOG, END], "exit", Usage(), "says how it ended"),
            ([LOG], "stop", Usage(), "says how it ended"),
            ([], "stop", Usage(), "says how it ended"),
            ([LOG, END], "stop", Usage(0, 70, b"{}"), "by its time"),
            ([file_frame("hi\n", 5), END], "stop", Usage(), "in the last frame alone"),
        ],
    )
    def test_what_is_no_end_is_the_hosts_fault(
        self, frames: list[Frame], reason: str, usage: Usage, words: str
    ) -> None:
        assert words in KIND.wrong_output(Job(*frames), finish_reason=reason, usage=usage)  # type: ignore[arg-type]

    def test_time_is_no_matter_of_bytes(self) -> None:
        """The last frame says little, and counts an hour: the coordinator's clock bounds that, not its length."""
        size = KIND.output_in(END.text, [END.extra])

        assert KIND.billable(3_600_000, bounding_bytes(size), 3_600_000) == 3_600_000
        assert KIND.billable(3_600_000, bounding_bytes(size), 1_000) < 1_100


def test_the_body_keeps_its_fields_when_facts_of_files_are_filled_in() -> None:
    filled = KIND.with_facts(
        body(input={"a": 1.50}, inputs=[{"file": "file_1"}]), {0: read_order(body(inputs=[FILE])).inputs[0]}
    )

    assert read_order(filled).inputs[0].name == "job.py" and b'{"a": 1.5}' in filled
