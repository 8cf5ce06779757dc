"""The kinds that are sold: one tuple, and those that the setting ``kinds`` adds by name."""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from comptoir.kinds.capabilities import STATES
from comptoir.kinds.containers import ContainerChain
from comptoir.kinds.errors import KindsError, UnknownKind
from comptoir.kinds.ffmpeg import Ffmpeg
from comptoir.kinds.kind import Kind, Progress, Resume
from comptoir.kinds.python import Python
from comptoir.kinds.tokens import Chat, Completion, Embedding
from comptoir.kinds.units import MILLION, Unit
from comptoir.kinds.whisper import Whisper
from comptoir.kit.money import RUN_PRICE_UUSD_MAX
from comptoir.link import ModelOffer

BUILT_IN: tuple[type[Kind], ...] = (Chat, Completion, Embedding, ContainerChain, Python, Ffmpeg, Whisper)
"""Kinds that ship with Comptoir; a new one is a module or folder and a line here."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_UNIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


RATE_MAX = RUN_PRICE_UUSD_MAX * MILLION
"""Highest price of a unit, micro-dollars per million: multiplied by the largest input and output counts of a message,
the cost fits 64 bits."""

_OF_STAGES = ("parts", "part", "stage", "stage_start")


def _fault(kind: type[Kind]) -> str:
    """Return why a kind can't be sold, because its work can't be counted; empty: it can."""
    if kind.input is not None and kind.input.name == kind.output.name:
        return f"needs another unit for what goes in than {kind.output.name!r}: offers name one price by unit"
    if kind.files and kind.may_hedge:
        return "has files, and may have a second host: what that one uploads would be nobody's, and its buyer's to keep"
    if not kind.staged:
        return ""
    if kind.input is not None:
        return "has stages, and is paid for what goes in: a stage has one price alone, for what comes out"
    same = [each for each in _OF_STAGES if getattr(kind, each) is getattr(Kind, each)]
    return f"has stages, and does not say its {same[0]}: the answer of a kind of one part is no stage's" if same else ""


class UnsoldKind(Kind):
    """The kind of a stored job that is no longer sold here: the job can be shown, but not continued."""

    output = Unit("unit", "unit", "units", 1)
    sold = False

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]  # Every other kind has its name in its class.

    def resume(self, job: Progress) -> Resume:
        """Never: it is unknown whether that would be safe."""
        return Resume.NEVER


class Kinds:
    """The kinds of one trading post (or worker), by name. Immutable."""

    def __init__(self, kinds: Sequence[type[Kind]] = BUILT_IN) -> None:
        """Instantiate *kinds*.

        Raises:
            KindsError: a name or a unit's name is malformed, a kind is listed twice, or two units of one name differ.
        """
        self._kinds: dict[str, Kind] = {}
        self._units: dict[str, Unit] = {}
        for kind in kinds:
            if missing := [each for each in ("name", "output") if not hasattr(kind, each)]:
                raise KindsError(f"the kind {kind.__name__} has no {missing[0]}")
            if not _NAME.fullmatch(kind.name) or kind.name in self._kinds:
                raise KindsError(f"the kind {kind.name!r} is there twice, or its name is none")
            if fault := _fault(kind):
                raise KindsError(f"the kind {kind.name!r} {fault}")
            made = self._kinds[kind.name] = kind()
            for unit in made.units:
                if (
                    not _UNIT_NAME.fullmatch(unit.name)
                    or min(unit.per, unit.shown) < 1
                    or not 0 <= unit.rate_max <= RATE_MAX
                ):
                    raise KindsError(f"the unit {unit.name!r} of the kind {kind.name!r} is none")
                if self._units.setdefault(unit.name, unit) != unit:
                    raise KindsError(f"the unit {unit.name!r} of the kind {kind.name!r} is another kind's, and differs")

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def __contains__(self, name: str) -> bool:
        return name in self._kinds

    def get(self, name: str) -> Kind:
        """Return the kind of a new order.

        Raises:
            UnknownKind: it is not sold here.
        """
        kind = self._kinds.get(name)
        if kind is None:
            raise UnknownKind(name, tuple(self._kinds))
        return kind

    def stored(self, name: str) -> Kind:
        """Return the kind of a stored job, `UnsoldKind` if it is no longer sold."""
        return self._kinds.get(name) or UnsoldKind(name)

    @property
    def units(self) -> Mapping[str, Unit]:
        """All units that something is sold in, by name."""
        return self._units

    def unit(self, name: str) -> Unit:
        """Return a unit by name; for a name that no kind here uses, a generic unit that is counted one by one."""
        return self._units.get(name) or Unit(name, name, name, 1)

    def of_offer(self, offer: ModelOffer) -> Kind | None:
        """Return the first kind of *offer* that is sold here; its units are the offer's. None: there is none."""
        return self._first(offer.kinds)

    def _first(self, names: Iterable[str]) -> Kind | None:
        return next((self._kinds[name] for name in names if name in self._kinds), None)

    def sold(self, offer: ModelOffer) -> list[Kind]:
        """Return the kinds of *offer* that are sold here, in its order."""
        return [self._kinds[name] for name in offer.kinds if name in self._kinds]

    def noun(self, names: Iterable[str]) -> str:
        """Return what an offer of the kinds *names* is called: the noun of the first one that is sold here."""
        kind = self._first(names)
        return kind.noun if kind is not None else Kind.noun

    def rates(self, offer: ModelOffer) -> tuple[int, int]:
        """Return an offer's prices (in, out), micro-dollars per million units; unchanged if no kind is sold here."""
        kind = self.of_offer(offer)
        return kind.rates(offer) if kind is not None else (offer.price_in_uusd_per_mtok, offer.price_out_uusd_per_mtok)

    def prices(self, offer: ModelOffer) -> dict[str, int]:
        """Return an offer's prices by unit, micro-dollars per million; empty: none of its kinds is sold here."""
        kind = self.of_offer(offer)
        if kind is None:
            return {}
        rate_in, rate_out = kind.rates(offer)
        return (
            {kind.output.name: rate_out}
            if kind.input is None
            else {kind.input.name: rate_in, kind.output.name: rate_out}
        )

    def capabilities(self, offer: ModelOffer) -> dict[str, str]:
        """Return what *offer* says of the capabilities that its kinds have (`comptoir.kinds.capabilities`), in order.

        What a host says of others, or in other words, is dropped: it may be a newer one, or anybody's text.
        """
        if not offer.capabilities:
            return {}
        names = dict.fromkeys([name for kind in self.sold(offer) for name in kind.capabilities])
        return {name: offer.capabilities[name] for name in names if offer.capabilities.get(name) in STATES}

    def offer_fault(self, offer: ModelOffer) -> str:
        """Return what is wrong with an offer's kinds and prices; empty: nothing. Kinds not sold here are ignored."""
        sold = self.sold(offer)
        if not sold:
            return "must not have a container's card without the kind container" if offer.container is not None else ""
        units = sold[0].units
        if any(kind.units != units for kind in sold):
            return f"must offer kinds that are sold in the same units, not {', '.join(offer.kinds)}"
        unknown = set(offer.prices) - {unit.name for unit in units}
        if unknown:
            return f"must be priced by {' and '.join(unit.name for unit in units)}, not by {sorted(unknown)[0][:32]!r}"
        return next((fault for kind in sold if (fault := kind.offer_fault(offer))), "")


def load_kinds(names: Sequence[str]) -> Kinds:
    """Return the built-in kinds and those in *names*, each given as ``package.module:Class``.

    Raises:
        KindsError: one can't be loaded, is not a kind, or contradicts another.
    """
    return Kinds((*BUILT_IN, *map(_load, names)))


def _load(target: str) -> type[Kind]:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise KindsError(
            f"the kind {target!r} can't be loaded: {error} (it looks like package.module:Class)"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise KindsError(f"{target!r} is no kind: it has to be a subclass of comptoir.kinds.Kind")
    return found
