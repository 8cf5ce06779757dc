"""Structured logs on the standard library: one line a record, as text for people or JSON for collectors.

Set up once by the composition root. Fields come from ``extra=`` and from :func:`context`, which follows a request
or a job through awaits. Keys, passwords in addresses and authorization headers are blanked in every line, whoever
logged them.
"""

import contextlib
import contextvars
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import msgspec

LINE_BYTES_MAX = 64 * 1024
"""Longest line written; a longer message is cut, so that no collector chokes on one record."""

_context: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar("log_context", default=None)

_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\t"}
"""Control characters in visible form: a terminal would obey them, and messages quote hosts and containers."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

_SECRET = re.compile(
    r"\b(ck_|ak_live_|hk_live_|inv_)[A-Za-z0-9_-]{8,}"
    r"|((?:[Aa]uthorization|x-api-key|x-admin-key|api_key)['\"]?\s*[:=]\s*['\"]?(?:Basic |Bearer )?)[^\s'\"&,]+"
    r"|(://[^:/@\s]*:)[^@\s/]+(?=@)"
)


@contextlib.contextmanager
def context(**fields: object) -> Iterator[None]:
    """Add *fields* to every record logged inside the block, in this task and in tasks it starts."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def without_secrets(text: str) -> str:
    """Return *text* with keys, authorization values and passwords in addresses replaced by ``***``."""
    return _SECRET.sub(lambda found: (found[1] or found[2] or found[3]) + "***", text)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what was given beside the message: the context's fields, then the record's own ``extra``."""
    fields = dict(_context.get() or {})
    fields.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``at`` (UTC, milliseconds), ``level``, ``logger``, ``message``, fields, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:LINE_BYTES_MAX],
        }
        for name, value in fields_of(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)[-LINE_BYTES_MAX:]
        return without_secrets(msgspec.json.encode(line, enc_hook=str).decode())


class TextFormatter(logging.Formatter):
    """``12:00:00.123 INFO  comptoir.app: message  name=value``, traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = record.getMessage()[:LINE_BYTES_MAX].translate(_SHOWN)
        fields = "".join(f"  {name}={value!s}" for name, value in fields_of(record).items()).translate(_SHOWN)
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {record.name}: {message}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)[-LINE_BYTES_MAX:]
        return without_secrets(line)


def set_up(*, level: str, form: str, stream: TextIO | None = None) -> logging.Handler:
    """Send all logs of the process to *stream* (standard error by default) and return the handler.

    Called once by the composition root; a second call replaces the first.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: ``text`` or ``json``.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "comptoir", False)]:
        root.removeHandler(old)
    handler.comptoir = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


def _at(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
