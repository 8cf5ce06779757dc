"""What kinds with files read of an order's body and of frames."""

import msgspec
import pytest

from comptoir.kinds.extras import BadExtra
from comptoir.kinds.files import (
    Artifact,
    FileKind,
    InputFile,
    ProgramFailure,
    WorkProgress,
    artifacts_in,
    current,
    extra_of,
    file_frame,
)
from comptoir.link import Frame

KIND = FileKind()
SHA = "ab" * 32
MADE = Artifact("a.txt", "file_1", 3, SHA)


def test_a_body_keeps_every_other_field_when_facts_of_its_files_are_filled_in():
    body = b'{"code": "print(1e0)", "inputs": [{"file": "file_1"}, {"url": "https://x.example/a.csv"}]}'
    filled = KIND.with_facts(body, {0: InputFile("a.csv", "file_1", sha256=SHA, size=3)})
    assert b'"print(1e0)"' in filled
    assert KIND.inputs(filled) == (
        InputFile("a.csv", "file_1", sha256=SHA, size=3),
        InputFile(url="https://x.example/a.csv"),
    )
    assert KIND.with_facts(body, {}) is body


@pytest.mark.parametrize(
    "inputs",
    [
        '[{"name": "../a", "file": "file_1"}]',
        '[{"name": "..", "file": "file_1"}]',
        '[{"name": "", "file": "file_1"}]',
        '[{"name": "a\\u0000b", "file": "file_1"}]',
        '[{"file": "file_1", "sha256": "AB"}]',
        '[{"file": "file_1", "mode": 7}]',
        "[" + ",".join(['{"file": "file_1"}'] * 65) + "]",
        '"file_1"',
    ],
)
def test_inputs_that_are_none_are_refused(inputs):
    with pytest.raises(msgspec.ValidationError):
        KIND.inputs(b'{"inputs": %b}' % inputs.encode())


def test_what_an_earlier_host_said_is_no_part_of_the_result_of_one_that_began_again():
    frames = [
        file_frame("old", artifact=MADE),
        file_frame(begun_again=True),
        file_frame(artifact=msgspec.structs.replace(MADE, name="b.txt")),
    ]
    assert current(frames) == frames[1:]
    assert [each.name for each in artifacts_in(frames)] == ["b.txt"]
    assert artifacts_in(frames[:1]) == [MADE]


def test_a_frame_says_what_it_was_made_with():
    frame = file_frame("hi\n", stream="stdout", progress=WorkProgress(0.5, "half"))
    assert (frame.text, frame.tokens) == ("hi\n", 0)
    assert extra_of(frame).progress == WorkProgress(0.5, "half")
    KIND.check_extra(frame.extra)


@pytest.mark.parametrize(
    ("frame", "delivers"),
    [
        (file_frame("a log of any length\n", 600_000, stream="stdout"), False),
        (file_frame(progress=WorkProgress(0.5, 'half, "result" and "artifact"')), False),
        (file_frame(begun_again=True), False),
        (Frame("", 600_000, b'{"more":{"result":1}}'), False),
        (Frame("", 600_000, b'{"result":'), False),
        (file_frame(artifact=MADE), True),
        (file_frame(result=msgspec.Raw(b"null")), True),
        (file_frame(failed=ProgramFailure("exit", "", 3)), True),
        (file_frame(finish_reason="stop"), True),
    ],
)
def test_only_what_is_delivered_whole_is_output(frame, delivers):
    """Else a host could claim its units beside a log and be lost, and the buyer would pay it and the next one."""
    solid, blank = KIND.output_in(frame.text, (frame.extra,) if frame.extra else ())
    assert (solid > 0, blank) == (delivers, 0)
    assert KIND.billable(frame.tokens, solid + blank) == 0 or delivers


def test_a_program_that_failed_by_its_own_doing_says_so_in_the_last_frame():
    failure = ProgramFailure("exit", "it ended with 3", 3)
    frame = file_frame(count=7, finish_reason="exit", failed=failure)
    assert extra_of(frame).failed == failure
    KIND.check_extra(frame.extra)


@pytest.mark.parametrize("result", [[1], {"a": None}, "text", 0.5, None])
def test_a_result_is_any_json(result):
    frame = file_frame(result=result)
    KIND.check_extra(frame.extra)
    said = extra_of(frame).result
    assert isinstance(said, msgspec.Raw) and msgspec.json.decode(said) == result


@pytest.mark.parametrize(
    "extra",
    [
        b"[]",
        b'{"progress":{"done":1.5}}',
        b'{"artifact":{"name":"/etc/passwd"}}',
        b'{"stream":"fd7"}',
        b'{"failed":{"reason":""}}',
        b'{"artif\\u0061ct":{"name":"a","file":"f","size":1,"sha256":"%b"}}' % SHA.encode(),
        b'{"begun_again": true}',
        b'{"fetch\\u0065d":{"number":0,"size":1,"sha256":"%b"}}' % SHA.encode(),
    ],
)
def test_extras_of_another_form_are_refused(extra):
    with pytest.raises(BadExtra):
        KIND.check_extra(extra)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (InputFile("a.csv", url="https://x.example/b.csv"), "a.csv"),
        (InputFile(url="https://x.example/d/caf%C3%A9.wav?x=1#y"), "café.wav"),
        (InputFile(url="https://x.example/"), "input-3"),
        (InputFile(url="https://x.example/.."), "input-3"),
        (InputFile(url="https://x.example/a%2Fb"), "input-3"),
        (InputFile(url="https://x.example/%FF"), "input-3"),
    ],
)
def test_an_address_is_called_by_its_last_part_if_that_is_a_name(one, name):
    assert one.called(3) == name
