"""HTTP without a framework on the hot path: an endpoint is a declaration, everything else reads the same table.

`Endpoint` says method, path, who may call, what goes in and out and which errors; `Dialect` groups endpoints
with their error shape; `HttpServer` is the ASGI application over all of them: exact paths by dict, the rest by
pattern (`paths`).
"""

from comptoir.kit.http.body import BodyStream
from comptoir.kit.http.bounds import ACCEPT_TURNS, AGAIN_AFTER_S, PIECE_BYTES, Bounds, ByteBudget, HttpTraffic
from comptoir.kit.http.browsers import (
    BROWSER_HEADERS,
    BrowserPolicy,
    ForeignPage,
    NotDeclaredJson,
    RepeatedHeader,
    WrongName,
    host_name,
    is_loopback_name,
)
from comptoir.kit.http.connection import BoundedHttpProtocol
from comptoir.kit.http.encodings import UnsupportedEncoding
from comptoir.kit.http.endpoint import Access, Dialect, Endpoint, Socket
from comptoir.kit.http.errors import (
    HeadTooLarge,
    HttpRefusal,
    MethodNotAllowed,
    NoSuchPath,
    OwnedByPeer,
    PayloadTooLarge,
    PreconditionFailed,
    TooSlow,
    UnsupportedBody,
    UnsupportedMediaType,
    UpgradeRequired,
    read_json,
    shown,
)
from comptoir.kit.http.multipart import FormFile
from comptoir.kit.http.openapi import document_bytes, endpoint_errors, openapi_document
from comptoir.kit.http.ranges import RangeNotSatisfiable, is_known, range_asked
from comptoir.kit.http.request import Reply, Request, Sender, Stream
from comptoir.kit.http.server import FORWARDED, HttpServer, StreamAborted, encode_json, is_news
from comptoir.kit.http.websocket import BoundedWebSocketProtocol

__all__ = [
    "ACCEPT_TURNS",
    "AGAIN_AFTER_S",
    "BROWSER_HEADERS",
    "FORWARDED",
    "PIECE_BYTES",
    "Access",
    "BodyStream",
    "BoundedHttpProtocol",
    "BoundedWebSocketProtocol",
    "Bounds",
    "BrowserPolicy",
    "ByteBudget",
    "Dialect",
    "Endpoint",
    "ForeignPage",
    "FormFile",
    "HeadTooLarge",
    "HttpRefusal",
    "HttpServer",
    "HttpTraffic",
    "MethodNotAllowed",
    "NoSuchPath",
    "NotDeclaredJson",
    "OwnedByPeer",
    "PayloadTooLarge",
    "PreconditionFailed",
    "RangeNotSatisfiable",
    "RepeatedHeader",
    "Reply",
    "Request",
    "Sender",
    "Socket",
    "Stream",
    "StreamAborted",
    "TooSlow",
    "UnsupportedBody",
    "UnsupportedEncoding",
    "UnsupportedMediaType",
    "UpgradeRequired",
    "WrongName",
    "document_bytes",
    "encode_json",
    "endpoint_errors",
    "host_name",
    "is_known",
    "is_loopback_name",
    "is_news",
    "openapi_document",
    "range_asked",
    "read_json",
    "shown",
]
