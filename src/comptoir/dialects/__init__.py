"""Dialects: thin translations of published HTTP APIs to the one core and back, and the registry that lists them.

Adding a dialect is one folder and one line here (docs/adding/a-dialect.md).
"""

from comptoir.dialects.infernet import DIALECT as INFERNET
from comptoir.dialects.infrintia import DIALECT as INFRINTIA
from comptoir.dialects.link import DIALECT as LINK
from comptoir.dialects.native import DIALECT as NATIVE
from comptoir.dialects.openai import DIALECT as OPENAI
from comptoir.dialects.root import root_dialect
from comptoir.kit.http import Dialect

PUBLISHED: tuple[Dialect, ...] = (INFRINTIA, INFERNET, OPENAI, NATIVE, LINK)
"""In order of precedence at the root: the first to declare a path owns it there; each is whole under its prefix."""

DIALECTS: tuple[Dialect, ...] = (root_dialect(PUBLISHED), *PUBLISHED)
"""All of them; the root's own goes first, because it answers the paths that several share for all."""

__all__ = ["DIALECTS"]
