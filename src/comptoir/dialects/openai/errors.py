"""OpenAI's errors: ``{"error": {"message", "type", "param", "code"}}``, with statuses that its SDKs map to classes.

``x-should-retry`` and ``retry-after`` tell the SDKs which of 408, 409, 429 and 5xx to retry; errors about money never.
"""

import math
from typing import Any

import msgspec

from comptoir.dispatch.errors import (
    CapabilityMissing,
    ContextTooLong,
    NoHostPossible,
    PromptTooLong,
    TooManyJobBytes,
    TooManyJobs,
    UnknownModel,
)
from comptoir.gateway import status_of as desk_status_of
from comptoir.idempotency import IdempotencyMismatch
from comptoir.jobs import ANSWER_LOST, RESTARTED, AnswerForgotten, AnswerLost, Fault, JobState, LiveJob
from comptoir.kinds import BUILT_IN, CONTEXT_EXCEEDED
from comptoir.kit.errors import InvalidField, NotAuthenticated, Refusal
from comptoir.kit.http import Reply, Request, UnsupportedBody
from comptoir.ledger import InsufficientCredit
from comptoir.moderation import ModelQuarantined, UserSuspended

Header = tuple[bytes, bytes]

NO_RETRY: Header = (b"x-should-retry", b"false")

STATUSES: dict[type[Exception], int] = {
    InvalidField: 400,
    NoHostPossible: 400,
    UnsupportedBody: 400,
    IdempotencyMismatch: 400,
}
"""Where OpenAI's status differs from the gateway's: its SDKs expect 400 for a bad request."""

CODES: dict[type[Exception], str] = {
    NotAuthenticated: "invalid_api_key",
    InsufficientCredit: "insufficient_quota",
    UnknownModel: "model_not_found",
    ModelQuarantined: "model_quarantined",
    CapabilityMissing: "capability_missing",
    ContextTooLong: CONTEXT_EXCEEDED,
    NoHostPossible: "no_host_possible",
    PromptTooLong: CONTEXT_EXCEEDED,
    TooManyJobBytes: "too_many_jobs",
    TooManyJobs: "too_many_jobs",
    IdempotencyMismatch: "idempotency_mismatch",
    AnswerForgotten: "answer_forgotten",
    AnswerLost: ANSWER_LOST,
    UserSuspended: "account_suspended",
}

TYPES: dict[int, str] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}

CODES_BY_STATUS: dict[int, str] = {404: "not_found", 405: "method_not_allowed", 429: "rate_limit_exceeded"}

PASSED_STATUSES = frozenset((400, 413, 422, 429, 500, 502, 503, 504))
"""An engine's statuses that are about the request or the engine. Others (401, 404 …) would seem to be about the buyer's
key or path, while the engine meant its host's."""

_encode = msgspec.json.Encoder().encode


def status_of(error: type[Exception]) -> int:
    """Return the status of an error class: OpenAI's own, else the gateway's."""
    for parent in error.__mro__:
        if parent in STATUSES:
            return STATUSES[parent]
    return desk_status_of(error)


def error_object(message: str, *, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the error object of *status*."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": kind, "param": param, "code": code or CODES_BY_STATUS.get(status)}


def render_error(error: Exception, request: Request | None) -> Reply:
    """Render any error; one that is not a refusal reveals no internals."""
    status = status_of(type(error))
    message = error.message if isinstance(error, Refusal) else "internal error"
    param = None
    if isinstance(error, InvalidField):
        param = error.field
        message = f"'{error.field}' {error.reason}"
    elif isinstance(error, ContextTooLong):
        param = (_bound_in(request) if error.input_fits else "") or error.field
    elif isinstance(error, CapabilityMissing):
        param = error.field
    elif isinstance(error, UnknownModel | NoHostPossible | ModelQuarantined):
        param = "model"
    elif isinstance(error, PromptTooLong):
        param = _input_in(request)
    found = error_object(message, status=status, param=param, code=CODES.get(type(error)))
    headers = retry_headers(status, getattr(error, "retry_after_s", 0.0))
    return Reply(status, _encode({"error": found}), headers=headers)


def _input_in(request: Request | None) -> str:
    """Return the field of a request that holds its input."""
    body = request.body if request is not None else None
    return next(
        (kind.input_field for kind in BUILT_IN if kind.input_field and hasattr(body, kind.input_field)), "messages"
    )


def _bound_in(request: Request | None) -> str:
    """Return the field in which the buyer bounded the answer; empty: in none."""
    body = request.body if request is not None else None
    return next((name for name in ("max_completion_tokens", "max_tokens") if getattr(body, name, None)), "")


def retry_headers(status: int, retry_after_s: float) -> tuple[Header, ...]:
    """Return headers that say when to retry, or that a retry is no use."""
    if status in (402, 409):
        return (NO_RETRY,)
    if retry_after_s > 0:
        whole = math.ceil(retry_after_s)
        return ((b"retry-after", b"%d" % whole), (b"retry-after-ms", b"%d" % math.ceil(retry_after_s * 1000)))
    return ()


class _EngineError(msgspec.Struct):
    message: str
    type: str | None = None
    param: str | int | None = None
    code: str | int | None = None


class _EngineBody(msgspec.Struct):
    error: _EngineError | None = None
    message: str | None = None
    type: str | None = None
    param: str | int | None = None
    code: str | int | None = None


def failure_of(job: LiveJob) -> tuple[int, dict[str, Any]]:
    """Return status and error object of a job that was not completed; the engine's own error if there is one."""
    status = _status_of_job(job)
    if job.error_status in PASSED_STATUSES and job.error_body:
        own = _engines_own(job.error_body)
        if own is not None:
            return status, own
    param = job.kind.input_field if job.error_code == CONTEXT_EXCEEDED else None
    message = job.error_message or job.state
    return status, error_object(message, status=status, param=param or None, code=job.error_code or None)


def restarted() -> dict[str, Any]:
    """Return the error object for a reader that has seen frames which are no longer part of the answer."""
    code, message = RESTARTED
    return error_object(message, status=502, code=code)


def render_failure(job: LiveJob) -> Reply:
    """Render the end of a job that failed before any output was sent."""
    status, found = failure_of(job)
    headers = retry_headers(status, job.retry_after_s)
    if job.state is JobState.CANCELLED:
        headers = (NO_RETRY,)
    return Reply(
        status, _encode({"error": found}), headers=(*headers, (b"x-comptoir-job", b"job_" + job.id.hex().encode()))
    )


def render_broken(message: str) -> Reply:
    """Render the error for a host's answer that is not valid."""
    return Reply(502, _encode({"error": error_object(message, status=502, code="bad_answer")}))


def _status_of_job(job: LiveJob) -> int:
    if job.error_status in PASSED_STATUSES:
        return job.error_status
    if job.state is JobState.EXPIRED:
        return 504
    if job.state is JobState.CANCELLED or job.fault is Fault.BUYER:
        return 400
    return 503 if job.fault in (Fault.CAPACITY, Fault.COORDINATOR) else 502


def _engines_own(body: bytes) -> dict[str, Any] | None:
    """Read an engine's error body: OpenAI's, or the flat one of older servers; None when it is neither."""
    try:
        found = msgspec.json.decode(body, type=_EngineBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found.error is not None:
        return msgspec.to_builtins(found.error)  # type: ignore[no-any-return]
    if found.message is not None:
        return {"message": found.message, "type": found.type, "param": found.param, "code": found.code}
    return None
