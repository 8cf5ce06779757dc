"""Markup that is escaped by default: names chosen by hosts and users go into pages as text, never as tags."""

import html
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_SLOT = re.compile(r"\{\{(\w+)\}\}")
TEMPLATES = Path(__file__).parent / "templates"


class Html(str):
    """Text that is already markup; only this module and templates create it."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """Return *template* with each ``{{name}}`` replaced: `Html` as it is, lists joined, everything else escaped.

    Raises:
        KeyError: the template has a slot without a value.
    """
    return Html(_SLOT.sub(lambda slot: markup(values[slot[1]]), template))


def markup(value: object) -> Html:
    """Return *value* as markup."""
    if isinstance(value, Html):
        return value
    if isinstance(value, str):
        return Html(html.escape(value))
    if isinstance(value, Iterable):
        return Html("".join(markup(one) for one in value))
    return Html(html.escape(str(value)))


@cache
def template(name: str) -> str:
    """Return the template *name* (a file in ``templates``); read once."""
    return (TEMPLATES / name).read_text("utf-8")
