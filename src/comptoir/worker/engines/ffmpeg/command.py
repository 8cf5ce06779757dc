"""The command line of one film. Every word on it is ours, or a number; no name and no text of a buyer's."""

from collections.abc import Mapping

import msgspec

from comptoir.kinds.ffmpeg.formats import GIF
from comptoir.kinds.ffmpeg.order import FilmOrder
from comptoir.worker.engines.ffmpeg.media import DEMUXERS, INPUT_PROTOCOLS, PROBE_WORDS
from comptoir.worker.engines.ffmpeg.plan import Plan, fitting_preset

ENCODERS: Mapping[str, tuple[str, ...]] = {
    "h264": ("libx264",),
    "h265": ("libx265",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    GIF: ("gif",),
    "aac": ("aac",),
    "mp3": ("libmp3lame",),
    "opus": ("libopus",),
    "flac": ("flac",),
    "pcm": ("pcm_s16le",),
}
"""ffmpeg's names of what makes a codec, the best first."""

_VPX = (8, 7, 6, 5, 4, 3, 2, 1, 0)
_VPX_REALTIME = ("ultrafast", "superfast", "veryfast", "faster")
_SVT = (12, 11, 10, 9, 8, 6, 5, 4, 3)
_AOM = (8, 8, 7, 6, 5, 4, 3, 2, 1)

_ALONE = ("-protocol_whitelist", INPUT_PROTOCOLS, "-format_whitelist", ",".join(DEMUXERS))
"""Nothing is opened but the input, and that only as a format that names nothing else."""

BUFFER_TIMES = 2
"""A decoder's buffer, in seconds of the highest bitrate, where nobody says otherwise."""


class CommandHost(msgspec.Struct, frozen=True):
    """What of this machine goes into a command line."""

    ffmpeg: str
    """Where the program finds itself."""
    source: str
    """Where it finds its input."""
    target: str
    """Where it writes."""
    threads: int
    bytes_max: int
    """Largest file that is made."""


def input_words(source: str) -> list[str]:
    """Return the words by which a program opens the one input, and nothing that this names."""
    return [*_ALONE, "-i", source]


def probe_words(ffprobe: str, source: str) -> list[str]:
    """Return the command that has ffprobe say what is in a file."""
    return [ffprobe, *_ALONE, *PROBE_WORDS, source]


def report_words(ffmpeg: str, source: str) -> list[str]:
    """Return the command that has ffmpeg report what is in a file."""
    return [ffmpeg, "-nostdin", "-hide_banner", *input_words(source)]


def command(order: FilmOrder, plan: Plan, host: CommandHost, *, encoders: Mapping[str, str]) -> list[str]:
    """Return the command that makes the film; *encoders* are those to use, by codec."""
    asked, threads = order.arguments, str(host.threads)
    # Of each palette of a GIF ffmpeg complains as a warning.
    level = "error" if order.codec == GIF else "warning"
    words = [host.ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-loglevel", level, "-y"]
    words += ["-threads", threads, "-filter_threads", threads]
    if asked.start_s:
        words += ["-ss", _decimal(asked.start_s)]
    words += input_words(host.source)
    if plan.picture is not None:
        words += ["-map", f"0:{plan.picture.index}", *_pictures(order, plan, threads, encoders[order.codec])]
    if plan.sound is not None:
        words += ["-map", f"0:{plan.sound.index}", *_sound(order, plan, encoders[order.audio_codec])]
    words += ["-sn", "-dn", "-t", _decimal(plan.length_s), "-fs", str(host.bytes_max)]
    if asked.untitled:
        words += ["-map_metadata", "-1"]
    if order.file_format.muxer in ("mp4", "mov", "ipod"):
        words += ["-movflags", "+faststart"]
    words += ["-max_muxing_queue_size", "4096", "-stats_period", "0.5", "-progress", "pipe:1"]
    return [*words, "-f", order.file_format.muxer, host.target]


def _decimal(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _pictures(order: FilmOrder, plan: Plan, threads: str, encoder: str) -> list[str]:
    words = ["-c:v", encoder, "-threads", threads, "-frames:v", str(plan.frames_max)]
    words += ["-vf", ",".join(_filters(order, plan))]
    if plan.fps:
        words += ["-r", _decimal(plan.fps)]
    asked = order.arguments
    if order.codec != GIF:
        words += ["-pix_fmt", asked.pix_fmt or "yuv420p"]
    if asked.keyframes is not None:
        words += ["-g", str(asked.keyframes)]
    if order.codec == "h265" and order.file_format.muxer in ("mp4", "mov"):
        words += ["-tag:v", "hvc1"]  # What Apple's players look for.
    return words + {
        "libx264": _mpeg,
        "libx265": _mpeg,
        "libvpx-vp9": _vpx,
        "libsvtav1": _svt,
        "libaom-av1": _aom,
        "gif": lambda *_: [],
    }[encoder](order, threads)


def _filters(order: FilmOrder, plan: Plan) -> list[str]:
    """Return what is done to each frame: made square, fitted into the size that was ordered, and padded to it."""
    assert plan.picture is not None
    size = f"{plan.width}:{plan.height}"
    filters = []
    if order.size is not None:
        if not plan.picture.square:
            filters += ["scale=iw*sar:ih", "setsar=1"]
        filters += [f"scale={size}:force_original_aspect_ratio=decrease"]
    filters += [f"pad={size}:-1:-1"]
    if order.size is not None:
        filters += ["setsar=1"]
    if order.codec == GIF:
        # A palette of its own for each frame: one for all would have to hold the whole film in memory.
        filters += ["split[a][b]", "[a]palettegen=stats_mode=single[c]", "[b][c]paletteuse=new=1"]
        return [f"{','.join(filters[:-2])};{';'.join(filters[-2:])}"]
    return filters


def _rates(order: FilmOrder) -> list[str]:
    """Return quality and bitrate for encoders that bound a quality by a highest rate."""
    words, asked = [], order.arguments
    if order.crf is not None:
        words += ["-crf", str(order.crf)]
    elif order.bitrate_bps is not None:
        words += ["-b:v", str(order.bitrate_bps)]
    bound = asked.rate_max_bps or (order.bitrate_bps if order.crf is not None else None)
    if bound is not None:
        words += ["-maxrate", str(bound), "-bufsize", str(asked.buffer_bits or BUFFER_TIMES * bound)]
    return words


def _mpeg(order: FilmOrder, threads: str) -> list[str]:
    asked = order.arguments
    words = ["-preset", order.preset, *_rates(order)]
    given: list[tuple[str, str | int | None]] = [
        ("-tune", asked.tune),
        ("-profile:v", asked.profile),
        ("-level", asked.level),
    ]
    given += [("-bf", asked.b_frames), ("-refs", asked.refs)]
    for name, value in given:
        if value is not None:
            words += [name, str(value)]
    if order.codec == "h265":
        words += ["-x265-params", f"pools={threads}:frame-threads={min(int(threads), 4)}:log-level=error"]
    return words


def _vpx(order: FilmOrder, threads: str) -> list[str]:
    pace = "realtime" if order.preset in _VPX_REALTIME else "good"
    words = ["-deadline", pace, "-cpu-used", str(fitting_preset(order.preset, _VPX)), "-row-mt", "1"]
    return words + _constant(order)


def _aom(order: FilmOrder, threads: str) -> list[str]:
    return ["-cpu-used", str(fitting_preset(order.preset, _AOM)), "-row-mt", "1", *_constant(order)]


def _constant(order: FilmOrder) -> list[str]:
    """Return quality and bitrate for encoders that take the bitrate as the bound of a quality, and 0 as none."""
    crf = ["-crf", str(order.crf)] if order.crf is not None else []
    return [*crf, "-b:v", str(order.bitrate_bps or 0)]


def _svt(order: FilmOrder, threads: str) -> list[str]:
    return ["-preset", str(fitting_preset(order.preset, _SVT)), *_rates(order), "-svtav1-params", f"lp={threads}"]


def _sound(order: FilmOrder, plan: Plan, encoder: str) -> list[str]:
    words = ["-c:a", encoder]
    if order.audio_rate_bps is not None:
        words += ["-b:a", str(order.audio_rate_bps)]
    if plan.channels:
        words += ["-ac", str(plan.channels)]
    if order.arguments.sample_rate is not None:
        words += ["-ar", str(order.arguments.sample_rate)]
    if order.audio_codec == "flac" and order.file_format.muxer == "mp4":
        words += ["-strict", "-2"]  # Versions before 6 take it for an experiment.
    return words
