"""``comptoir run ffmpeg``."""

from typing import Any

import click

from comptoir.cli.work.command import sells
from comptoir.cli.work.order import WorkOrder, read_input


@sells("ffmpeg")
@click.argument("source", metavar="INPUT")
@click.argument("custom_args", metavar="[-- ARGUMENT...]", nargs=-1)
@click.option("--output-format", "-f", metavar="FORMAT", help="mp4, webm, mkv, mov, gif, mp3, wav and others [mp4].")
@click.option("--codec", metavar="NAME", help="h264, h265, vp9 or av1 [the first that the format has].")
@click.option("--resolution", metavar="WxH", help="Size of the pictures, such as 1280x720 [as they are].")
@click.option("--fps", type=click.FloatRange(1), metavar="N", help="Pictures a second [as they are].")
@click.option(
    "--preset", metavar="NAME", help="ultrafast to veryslow: slower makes smaller files and costs more [medium]."
)
@click.option("--crf", type=click.IntRange(0, 51), metavar="N", help="Quality, 0 is the best [23].")
@click.option("--bitrate", metavar="RATE", help="Bits a second of the pictures, such as 2M, instead of a quality.")
@click.option("--audio-codec", metavar="NAME", help="aac, mp3, opus and others [the first that the format has].")
@click.option("--audio-bitrate", metavar="RATE", help="Bits a second of the sound [128k].")
@click.option(
    "--seconds-max",
    type=click.IntRange(1),
    metavar="N",
    help="Most seconds to be made, which the hold covers [what -t says, else 600].",
)
def ffmpeg(*, source: str, custom_args: tuple[str, ...], **fields: Any) -> WorkOrder:
    """Convert a film or a sound: another format, codec, size or rate.

    INPUT is a file here, an address, or a file's id. You pay by the second of what comes out, scaled by its size and
    preset. What else ffmpeg is to be told comes after '--', as far as hosts allow it.

    \b
    Examples:
      comptoir run ffmpeg in.mp4 --output-format webm --resolution 640x360
      comptoir run ffmpeg lecture.mkv --output-format mp3 --audio-bitrate 96k --out sound
      comptoir run ffmpeg https://example.org/clip.mov --codec av1 --preset slow --json | jq .artifacts
      comptoir run ffmpeg in.mp4 --output-format gif --fps 12 --resolution 480x270 -- -ss 3 -t 5
    """
    body = {name: value for name, value in fields.items() if value is not None}
    if custom_args:
        body["custom_args"] = list(custom_args)
    return WorkOrder("ffmpeg", body, (read_input(source),), tells=False)
