"""The references: the list of dialects, and for each a page with Swagger UI on its OpenAPI document."""

from comptoir import __version__
from comptoir.kit.http import Dialect
from comptoir.web.assets import address
from comptoir.web.markup import fill, template


def page(dialect: Dialect) -> bytes:
    """Return the page that shows the OpenAPI document of *dialect*; send it with `replies.VIEWER_HEADERS`."""
    return fill(
        template("reference.html"),
        title=dialect.title,
        name=dialect.name,
        icon=address("icon.svg"),
        viewer_css=address("swagger-ui.css"),
        viewer=address("swagger-ui.js"),
        css=address("reference.css"),
        script=address("reference.js"),
    ).encode()


def index(dialects: tuple[Dialect, ...]) -> bytes:
    """Return the list of *dialects*."""
    rows = [
        fill(
            template("dialect.html"),
            name=one.name,
            title=one.title,
            description=one.description,
            where=", ".join((("/",) if one.at_root else ()) + ((one.prefix,) if one.prefix else ())),
            count=len(one.endpoints),
        )
        for one in dialects
    ]
    return fill(
        template("dialects.html"),
        css=address("page.css"),
        icon=address("icon.svg"),
        dialects=rows,
        version=__version__,
    ).encode()
