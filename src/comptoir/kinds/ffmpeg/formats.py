"""What ffmpeg can be asked to make here: files of which format, with pictures and sound of which codecs."""

import msgspec

VIDEO_CODECS = ("h264", "h265", "vp9", "av1")
AUDIO_CODECS = ("aac", "mp3", "opus", "flac", "pcm")
GIF = "gif"
"""Codec of the format of that name; nobody asks for it by name."""

SANDBOX = "sandbox"
"""Capability of hosts that hold what is run on a film; nobody asks for it, and lists show who lacks it."""

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

WITHOUT_BITRATE = ("flac", "pcm")
"""Codecs of sound that lose nothing, so that they have no bitrate to choose."""


class FileFormat(msgspec.Struct, frozen=True):
    """One format of output."""

    media: str
    video: tuple[str, ...]
    """Codecs of pictures that fit into it, the first by default; none: it is for sound alone."""
    audio: tuple[str, ...]
    """The same of sound; none: it is silent."""
    muxer: str
    """What ffmpeg calls it."""


FORMATS: dict[str, FileFormat] = {
    "mp4": FileFormat("video/mp4", VIDEO_CODECS, ("aac", "mp3", "opus", "flac"), "mp4"),
    "mov": FileFormat("video/quicktime", ("h264", "h265"), ("aac", "pcm"), "mov"),
    "mkv": FileFormat("video/x-matroska", VIDEO_CODECS, AUDIO_CODECS, "matroska"),
    "webm": FileFormat("video/webm", ("vp9", "av1"), ("opus",), "webm"),
    "ts": FileFormat("video/mp2t", ("h264", "h265"), ("aac", "mp3"), "mpegts"),
    "gif": FileFormat("image/gif", (GIF,), (), "gif"),
    "mp3": FileFormat("audio/mpeg", (), ("mp3",), "mp3"),
    "m4a": FileFormat("audio/mp4", (), ("aac",), "ipod"),
    "opus": FileFormat("audio/ogg", (), ("opus",), "opus"),
    "ogg": FileFormat("audio/ogg", (), ("opus", "flac"), "ogg"),
    "wav": FileFormat("audio/wav", (), ("pcm",), "wav"),
    "flac": FileFormat("audio/flac", (), ("flac",), "flac"),
}
