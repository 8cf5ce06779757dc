"""The root of every domain error: a refusal carries facts as fields and knows nothing of HTTP.

Each room derives its own tree in its ``errors.py``; each dialect owns a total table from error class to
(status, published body), checked by ``tests/house``.
"""


class Refusal(Exception):
    """Something that Comptoir declines to do; the message is written for the person who asked."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidField(Refusal):
    """A field of a request is missing, of the wrong type, or out of bounds; names the field and the limit."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class NotAuthenticated(Refusal):
    """No credential came with the request, or it is not one of ours."""


class NotAllowed(Refusal):
    """The credential is good, but its holder may not do this."""


class TooManyRequests(Refusal):
    """A rate limit was reached; *retry_after_s* says when to come back."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(Refusal):
    """The coordinator can't serve this now (draining, database unreachable); safe to retry after *retry_after_s*."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
