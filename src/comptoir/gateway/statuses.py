"""HTTP status of each domain error, where a dialect's reference says nothing else."""

from collections.abc import Mapping

from comptoir.blobs import (
    ChecksumMismatch,
    FileLinkRefused,
    FilesFull,
    FileTooLarge,
    MadeTooMuch,
    OffsetMismatch,
    QuotaReached,
    TooManyParts,
    UnknownFile,
)
from comptoir.chain import (
    BadContainerSet,
    BadRecoveryId,
    ChainExtraMissing,
    NotRecoverable,
    OldSubscription,
    ScalarOutOfRange,
    SignatureExpired,
)
from comptoir.cluster import NotAlone
from comptoir.containers import ContainerRefused
from comptoir.dispatch import errors as dispatch_errors
from comptoir.events import EventsForgotten
from comptoir.hosts import NoFreeSlot, UnknownHost
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import (
    EmailTaken,
    InvitationRefused,
    UnknownAccessKey,
    UnknownInvitation,
    UnknownUser,
    UsernameTaken,
)
from comptoir.jobs import AnswerForgotten, AnswerLost, JobExists, JobFinished, JobMoved, NotYourLease, UnknownJob
from comptoir.kit.db import CommitsLost
from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated, Refusal, TooManyRequests, Unavailable
from comptoir.kit.http import (
    ForeignPage,
    HeadTooLarge,
    MethodNotAllowed,
    NoSuchPath,
    NotDeclaredJson,
    OwnedByPeer,
    PayloadTooLarge,
    PreconditionFailed,
    RangeNotSatisfiable,
    RepeatedHeader,
    TooSlow,
    UnsupportedBody,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UpgradeRequired,
    WrongName,
)
from comptoir.kit.objects import FilesExtraMissing, StoreFull
from comptoir.ledger import BondNotCovered, HoldMismatch, InsufficientCredit, NoBond, UnknownAccount
from comptoir.moderation import AlreadyRetired, Barred, LastOperator, NothingToLift
from comptoir.outbox import OutboxFull, UnknownIntent
from comptoir.receipts import BadRegistry, KeyTaken, UnknownExhibit, UnknownKey, UnknownReceipt
from comptoir.routing import UnknownPreference
from comptoir.webhooks import TooManyWebhooks, UnknownWebhook, WebhookNotActive

STATUSES: Mapping[type[Exception], int] = {
    UnsupportedBody: 400,
    RepeatedHeader: 400,
    NotAuthenticated: 401,
    InsufficientCredit: 402,
    BondNotCovered: 402,
    NotAllowed: 403,
    InvitationRefused: 403,
    Barred: 403,
    ForeignPage: 403,
    FileLinkRefused: 403,
    NoSuchPath: 404,
    UnknownJob: 404,
    UnknownUser: 404,
    UnknownHost: 404,
    UnknownAccount: 404,
    UnknownAccessKey: 404,
    UnknownInvitation: 404,
    UnknownReceipt: 404,
    UnknownExhibit: 404,
    UnknownIntent: 404,
    UnknownWebhook: 404,
    UnknownKey: 404,
    UnknownFile: 404,
    dispatch_errors.UnknownModel: 404,
    MethodNotAllowed: 405,
    TooSlow: 408,
    UsernameTaken: 409,
    EmailTaken: 409,
    KeyTaken: 409,
    JobExists: 409,
    JobFinished: 409,
    JobMoved: 503,
    NotAlone: 503,
    OwnedByPeer: 503,
    NotYourLease: 409,
    HoldMismatch: 409,
    NoBond: 409,
    NoFreeSlot: 409,
    AlreadyRetired: 409,
    LastOperator: 409,
    OffsetMismatch: 409,
    NothingToLift: 409,
    TooManyWebhooks: 409,
    WebhookNotActive: 409,
    dispatch_errors.FramesOutOfOrder: 409,
    dispatch_errors.RestartFirst: 409,
    AnswerForgotten: 410,
    AnswerLost: 410,
    EventsForgotten: 410,
    PreconditionFailed: 412,
    PayloadTooLarge: 413,
    FileTooLarge: 413,
    TooManyParts: 413,
    dispatch_errors.PromptTooLong: 413,
    dispatch_errors.AnswerTooLarge: 413,
    NotDeclaredJson: 415,
    UnsupportedEncoding: 415,
    UnsupportedMediaType: 415,
    RangeNotSatisfiable: 416,
    WrongName: 421,
    InvalidField: 422,
    ChecksumMismatch: 422,
    IdempotencyMismatch: 422,
    BadContainerSet: 422,
    BadRecoveryId: 422,
    BadRegistry: 422,
    NotRecoverable: 422,
    OldSubscription: 422,
    ScalarOutOfRange: 422,
    SignatureExpired: 422,
    UnknownPreference: 422,
    dispatch_errors.BadFrame: 422,
    dispatch_errors.BadSegment: 422,
    dispatch_errors.CapabilityMissing: 422,
    dispatch_errors.ContextTooLong: 422,
    dispatch_errors.NoHostPossible: 422,
    ContainerRefused: 422,
    UpgradeRequired: 426,
    TooManyRequests: 429,
    OutboxFull: 429,
    dispatch_errors.TooManyJobs: 429,
    dispatch_errors.TooManyJobBytes: 429,
    HeadTooLarge: 431,
    ChainExtraMissing: 503,
    FilesExtraMissing: 503,
    dispatch_errors.HostsAway: 503,
    dispatch_errors.QueueFull: 503,
    dispatch_errors.QueueBytesFull: 503,
    CommitsLost: 503,
    Unavailable: 503,
    dispatch_errors.NoRoomForArtifact: 507,
    MadeTooMuch: 507,
    QuotaReached: 507,
    FilesFull: 507,
    StoreFull: 507,
}
"""One row per error; `tests/house` fails when a domain error has none."""


def status_of(error: type[Exception]) -> int:
    """Return the status of an error class: its own row, else its nearest ancestor's; 500 if it is not a refusal."""
    for parent in error.__mro__:
        status = STATUSES.get(parent)
        if status is not None:
            return status
    return 400 if issubclass(error, Refusal) else 500
