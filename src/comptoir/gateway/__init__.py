"""The gateway: what every dialect does the same way before and after its own translation.

Authentication and rate limits (`gate`), repeats of a request (`claim`, `once`, `submit_once`), finding a caller's job
and following it (`find_job`, `follow`, `open_stream`, `stream_job`), stopping it (`stop`, `until_over`), registering a
host and accepting what it delivers (`register_once`, `leased_to`, `accept_frames`), telling whether a program of this
machine calls (`is_local`, `counted_address`), rendering long lists (`in_slices`, `Rendered`), bringing bodies into
files and files to readers (`fill`, `file_answer`), the HTTP status of each domain error (`status_of`), and the error
body of our own dialects (`render_plain_error`). It knows HTTP and dispatch, and no dialect.
"""

from comptoir.gateway.deliveries import accept_frames, job_named, leased_to
from comptoir.gateway.downloads import file_answer
from comptoir.gateway.follow import find_job, follow, leave, refollow, restarted_elsewhere, until_answered
from comptoir.gateway.gate import ANY_NAME, Gate, browser_policy
from comptoir.gateway.idempotent import claim, once, submit_once
from comptoir.gateway.listing import Rendered, in_slices
from comptoir.gateway.local import counted_address, is_local
from comptoir.gateway.offers import Hex, InvitationText, Machine, RegisteredOffer, offers_shown
from comptoir.gateway.plain_errors import PlainBody, render_plain_error
from comptoir.gateway.readers import Room, open_stream, room_for, room_for_answer, take_room
from comptoir.gateway.registering import owner_of, register, register_once
from comptoir.gateway.statuses import STATUSES, status_of
from comptoir.gateway.stopping import stop, until_over
from comptoir.gateway.streaming import stream_job
from comptoir.gateway.traffic import Connections
from comptoir.gateway.uploads import fill

__all__ = [
    "ANY_NAME",
    "STATUSES",
    "Connections",
    "Gate",
    "Hex",
    "InvitationText",
    "Machine",
    "PlainBody",
    "RegisteredOffer",
    "Rendered",
    "Room",
    "accept_frames",
    "browser_policy",
    "claim",
    "counted_address",
    "file_answer",
    "fill",
    "find_job",
    "follow",
    "in_slices",
    "is_local",
    "job_named",
    "leased_to",
    "leave",
    "offers_shown",
    "once",
    "open_stream",
    "owner_of",
    "refollow",
    "register",
    "register_once",
    "render_plain_error",
    "restarted_elsewhere",
    "room_for",
    "room_for_answer",
    "status_of",
    "stop",
    "stream_job",
    "submit_once",
    "take_room",
    "until_answered",
    "until_over",
]
