"""A transcript as files: plain text, subtitles of two kinds, and JSON with all that is known."""

from collections.abc import Callable, Sequence

import msgspec

from comptoir.kinds.whisper.spoken import SpokenSegment, Transcript, milliseconds

_encode = msgspec.json.Encoder().encode


def clock(seconds: float, mark: str) -> str:
    """Return ``HH:MM:SS,mmm``, with *mark* before the milliseconds; whole ones are carried, never 1000."""
    whole, left_ms = divmod(milliseconds(seconds), 1_000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{left_ms:03}"


def _line(text: str) -> str:
    # An empty line ends a subtitle, and an arrow begins its times.
    return " ".join(text.split()).replace("-->", "→")


def as_text(transcript: Transcript, segments: Sequence[SpokenSegment]) -> str:
    """Return one line for each segment."""
    return "".join([f"{_line(each.text)}\n" for each in segments])


def as_srt(transcript: Transcript, segments: Sequence[SpokenSegment]) -> str:
    """Return SubRip."""
    return "\n".join(
        [
            f"{n}\n{clock(each.start, ',')} --> {clock(each.end, ',')}\n{_line(each.text)}\n"
            for n, each in _numbered(segments)
        ]
    )


def as_vtt(transcript: Transcript, segments: Sequence[SpokenSegment]) -> str:
    """Return WebVTT, in which ``&`` and ``<`` are written as in HTML."""
    cues = [f"\n{clock(each.start, '.')} --> {clock(each.end, '.')}\n{_escaped(each)}\n" for each in segments]
    return "WEBVTT\n" + "".join(cues)


def as_json(transcript: Transcript, segments: Sequence[SpokenSegment]) -> str:
    """Return the result, with its segments however long it is."""
    return _encode(msgspec.structs.replace(transcript, segments=tuple(segments))).decode()


def _numbered(segments: Sequence[SpokenSegment]) -> list[tuple[int, SpokenSegment]]:
    return list(enumerate(segments, 1))


def _escaped(segment: SpokenSegment) -> str:
    return _line(segment.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


WRITERS: dict[str, Callable[[Transcript, Sequence[SpokenSegment]], str]] = {
    "txt": as_text,
    "srt": as_srt,
    "vtt": as_vtt,
    "json": as_json,
}
"""What writes each of `kinds.whisper.order.MEDIA`."""
