"""``comptoir run kind``: whatever is sold here, by its name."""

import json
from pathlib import Path
from typing import Any

import click

from comptoir.cli.failure import Exit, Failure
from comptoir.cli.work.command import sells
from comptoir.cli.work.order import JobInput, WorkOrder, inputs_option


@sells("kind")
@click.argument("kind", metavar="KIND")
@click.argument("body", metavar="BODY", default="{}")
@inputs_option(help="An input: a file here, an address, or a file's id. NAME= says what the program finds it as.")
@click.option(
    "--output-max", type=click.IntRange(1), metavar="N", help="Most units to be made and paid, as the kind counts."
)
def any_kind(*, kind: str, body: str, inputs: tuple[JobInput, ...], output_max: int | None) -> WorkOrder:
    """Buy work of any kind, with its body as JSON.

    For kinds without a command of their own: 'comptoir models' lists what is sold, under "serves". BODY is a JSON
    object, or @FILE with one in it; what it has to say is the kind's own. Inputs are added to it as "inputs".

    \b
    Examples:
      comptoir run kind embedding '{"input": "a text"}' --model nomic-embed
      comptoir run kind letters @order.json --input in.txt --out results
    """
    found = read_json(body)
    if not isinstance(found, dict):
        raise Failure("the body is no JSON object", 'for example \'{"text": "Hello"}\'', code=Exit.USAGE)
    return WorkOrder(kind, found, inputs, output_max)


def read_json(text: str) -> Any:
    """Read JSON, or with an ``@`` before its name a file that has some.

    Raises:
        Failure: it is none.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(
                f"{text[1:]} can't be read: {error}", "name a file with JSON in it", code=Exit.USAGE
            ) from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failure(f"{text[:60]!r} is no JSON: {error}", "for example '{\"n\": 3}'", code=Exit.USAGE) from error
