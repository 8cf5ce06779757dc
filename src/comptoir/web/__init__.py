"""The web pages: one quiet page for people at ``/``, one for programs and jobs at ``/work``, and a reference of every
dialect, shown by Swagger UI.

Owns: the page's templates, style, script and vendored HTMX (``vendor/``). Rendered on the server, escaped by default
(`markup`), refreshed by polling one fragment, works without scripts but for the box that streams an answer.
Invariant: nothing is requested from another server, and nothing inline runs (`SECURITY_HEADERS`).
Knows: what dispatch's `Core` has in memory; nothing here queries the database.
"""

from comptoir.web.assets import asset
from comptoir.web.replies import base_url, playing, secured, viewer
from comptoir.web.shop import Shop

__all__ = ["Shop", "asset", "base_url", "playing", "secured", "viewer"]
