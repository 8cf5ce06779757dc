"""Registration: the HTTP call that makes a machine a host and returns its key."""

import asyncio

import aiohttp
import msgspec

from comptoir.kit.signing import SigningKey
from comptoir.link import ModelOffer
from comptoir.worker.errors import RegistrationRefused
from comptoir.worker.retry_after import read_retry_after

REGISTER_TIMEOUT_S = 15.0
"""Most seconds for the call."""

ANSWER_BYTES_MAX = 256 * 1024
"""Most bytes of the answer that are read."""

FIRST_FIELDS = 7
"""Fields of an offer that every coordinator knows; those after them were added later."""


class RegistrationLater(Exception):
    """The coordinator is unreachable or busy; a retry (not before *wait_s*, if given) may work."""

    def __init__(self, why: str, *, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Registration(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of ``POST /link/register``."""

    gpu: str
    vram_mib: int
    models: list[dict[str, object]]
    slots: int
    public_key: str
    """Ed25519 verify key, 64 hexadecimal digits."""
    backend: str
    software: str
    gpus: int = 0
    cpu_millis: int = 0
    """Thousandths of a processor core; older coordinators ignore this field and those after it."""
    memory_mib: int = 0
    disk_mib: int = 0
    region: str | None = None
    name: str | None = None
    invitation: str | None = None

    def __repr__(self) -> str:
        return f"Registration({self.gpu!r}, {len(self.models)} models)"


class RegistrationAnswer(msgspec.Struct, frozen=True):
    """What the coordinator answers (among other things)."""

    host_id: str
    api_key: str
    bond_uusd: int = 0
    """What the owner put up for this host, where the trading post asks for it."""


class _RefusalBody(msgspec.Struct):
    error: object = None
    detail: object = None
    message: object = None


def public_key_of(seed: str) -> str:
    """Return the verify key (hex) that belongs to a signing *seed* (hex)."""
    return SigningKey(bytes.fromhex(seed)).public_key.hex()


def offer_json(offer: ModelOffer) -> dict[str, object]:
    """Encode an offer as a JSON object (on the link it is an array)."""
    spelled = msgspec.structs.asdict(offer)
    # Fields with their default are omitted, so that a coordinator without them accepts the offer.
    for field in ModelOffer.__struct_fields__[FIRST_FIELDS:]:
        if not spelled[field]:
            del spelled[field]
    card = {name: msgspec.structs.asdict(said) for name, said in spelled.items() if isinstance(said, msgspec.Struct)}
    return {**spelled, **card}


async def register(url: str, registration: Registration, *, owner_key: str | None = None) -> RegistrationAnswer:
    """Register with the coordinator at *url*, for the owner of *owner_key* if given.

    Raises:
        RegistrationLater: no connection, 429 or 5xx.
        RegistrationRefused: any other answer but 200 or 201, or one without id and key.
    """
    headers = {"Content-Type": "application/json"}
    if owner_key:
        headers["Authorization"] = f"Bearer {owner_key}"
    address = url.rstrip("/") + "/link/register"
    try:
        async with (
            asyncio.timeout(REGISTER_TIMEOUT_S),
            aiohttp.ClientSession() as session,
            session.post(address, data=msgspec.json.encode(registration), headers=headers) as response,
        ):
            status = response.status
            body = await response.content.read(ANSWER_BYTES_MAX)
            while len(body) < ANSWER_BYTES_MAX and (more := await response.content.readany()):
                body += more
    except TimeoutError as error:
        raise RegistrationLater(f"{address} did not answer within {REGISTER_TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise RegistrationLater(f"{address} can't be reached: {error}") from error
    if status == 429 or status >= 500:
        raise RegistrationLater(f"{address} answered HTTP {status}", wait_s=read_retry_after(response.headers))
    if status not in (200, 201):
        raise RegistrationRefused(_refusal(address, status, body), status=status)
    try:
        return msgspec.json.decode(body, type=RegistrationAnswer)
    except msgspec.DecodeError as error:
        raise RegistrationRefused(f"{address} answered without a host id and key: {error}", status=status) from error


def _refusal(address: str, status: int, body: bytes) -> str:
    try:
        said = msgspec.json.decode(body, type=_RefusalBody)
        reason = msgspec.json.encode(said.error or said.detail or said.message).decode()
    except msgspec.DecodeError:
        reason = body[:500].decode(errors="replace")
    if status == 401:
        return f"{address} does not accept the key given with --key (HTTP {status}): {reason}"
    if status in (402, 403):
        return f"{address} does not let this host register (HTTP {status}): {reason}"
    if status == 404:
        return f"there is no coordinator at {address} (HTTP 404): check --url"
    return f"{address} refused the registration (HTTP {status}): {reason}"
