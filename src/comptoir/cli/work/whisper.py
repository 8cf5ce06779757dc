"""``comptoir run whisper``."""

from typing import Any

import click

from comptoir.cli.work.command import sells
from comptoir.cli.work.order import WorkOrder, read_input


@sells("whisper")
@click.argument("source", metavar="INPUT")
@click.option("--language", "-l", metavar="NAME", help="Such as en, English or pt-BR [the model hears which].")
@click.option("--translate", is_flag=True, help="Into English.")
@click.option(
    "--output", "-f", "outputs", metavar="FORMAT", multiple=True, help="Also a file: txt, srt, vtt or json; repeatable."
)
@click.option("--word-timestamps", is_flag=True, help="Times of words as well.")
@click.option("--initial-prompt", metavar="TEXT", help="What might have been said before: names, spellings.")
@click.option("--temperature", type=click.FloatRange(0, 1), metavar="T", help="0 takes the likeliest words [0].")
@click.option("--beam-size", type=click.IntRange(1, 10), metavar="N", help="How many texts are followed at once [5].")
@click.option("--no-vad", is_flag=True, help="Let the model hear stretches in which nobody speaks as well.")
@click.option("--verbose", is_flag=True, help="Segments with their tokens and how likely they are.")
@click.option("--seconds-max", type=click.IntRange(1), metavar="N", help="Longest sound, which the hold covers [3600].")
def whisper(*, source: str, translate: bool, outputs: tuple[str, ...], no_vad: bool, **fields: Any) -> WorkOrder:
    """Write down what is said in a sound or film, or translate it into English.

    INPUT is a file here, an address, or a file's id. Text comes as it is heard; you pay by the second of sound.

    \b
    Examples:
      comptoir run whisper talk.ogg
      comptoir run whisper talk.ogg --language de --translate --model whisper-large-v3
      comptoir run whisper film.mkv -f srt -f vtt --out subtitles
      comptoir run whisper https://example.org/a.mp3 --word-timestamps --json | jq .result.segments
    """
    body = {name: value for name, value in fields.items() if value not in (None, False)}
    if translate:
        body["task"] = "translate"
    if outputs:
        body["outputs"] = list(outputs)
    if no_vad:
        body["vad"] = False
    return WorkOrder("whisper", body, (read_input(source),))
