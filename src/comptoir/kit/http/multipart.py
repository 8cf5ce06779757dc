"""The file of a form (``multipart/form-data``), read as it comes."""

from collections import deque

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from comptoir.kit.errors import InvalidField
from comptoir.kit.http.body import BodyStream
from comptoir.kit.http.request import Request

HEADERS_BYTES_MAX = 8 << 10
"""Most bytes of the head of one part of a form."""

FIELDS_BYTES_MAX = 64 << 10
"""Most bytes before the file: other fields of the form, which are not looked at."""


class FormFile:
    """The first file of a form. What comes before it is left out; a second file is refused."""

    def __init__(self, request: Request, body: BodyStream) -> None:
        """Look at the head.

        Raises:
            InvalidField: it is no form with a boundary.
        """
        _, options = parse_options_header(request.header(b"content-type"))
        self._body = body
        self._found: deque[bytes] = deque()
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._files = 0
        self._inside = self._ended = self._over = False
        self.name = ""
        """What the form calls the file; empty: nothing. Known when `begin` returns."""
        self.media = ""
        """What the form says it is."""
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._part,
                    "on_header_field": self._add_field,
                    "on_header_value": self._add_value,
                    "on_header_end": self._header,
                    "on_headers_finished": self._head,
                    "on_part_data": self._data,
                    "on_part_end": self._part_over,
                    "on_end": self._end,
                },
            )
        except (KeyError, FormParserError) as error:
            raise InvalidField("content-type", "a form needs a boundary of at most 256 characters") from error

    async def begin(self) -> None:
        """Read up to the file.

        Raises:
            InvalidField: there is none, or it is no form.
            What `BodyStream.read` raises.
        """
        while not self._files:
            if self._body.size > FIELDS_BYTES_MAX:
                raise InvalidField("file", f"must come within the first {FIELDS_BYTES_MAX} bytes of the form")
            await self._feed(None)
            if self._over:
                break
        if not self._files:
            raise InvalidField("file", "the form has no file")

    async def read(self, *, within_s: float | None = None) -> bytes:
        """Return more of the file, empty at its end; raises as `BodyStream.read`, and `InvalidField`."""
        while not self._found:
            if self._over:
                return b""
            await self._feed(within_s)
        return self._found.popleft()

    async def _feed(self, within_s: float | None) -> None:
        piece = await self._body.read(within_s=within_s)
        if piece:
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise InvalidField("body", f"is no form: {error}") from error
        else:
            self._over = True
            if not self._ended:
                raise InvalidField("body", "the form ends before its last boundary")

    # -- what the parser says --------------------------------------------------------------------------------------

    def _part(self) -> None:
        self._headers, self._head_bytes = {}, 0

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEADERS_BYTES_MAX:
            raise InvalidField("body", f"the head of a part has more than {HEADERS_BYTES_MAX} bytes")

    def _header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _head(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        self._inside = b"filename" in options
        if self._inside:
            self._files += 1
            if self._files > 1:
                raise InvalidField("file", "one file at a time; the form has several")
            # What browsers send is UTF-8, which the parser takes for Latin-1.
            self.name = options[b"filename"].decode("utf-8", errors="replace")
            self.media = self._headers.get(b"content-type", b"").partition(b";")[0].strip().decode("latin-1")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._found.append(data[start:end])

    def _part_over(self) -> None:
        self._inside = False

    def _end(self) -> None:
        self._ended = True
