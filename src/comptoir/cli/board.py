"""What a worker's owner sees: events put into words, and the live board with what was earned."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from comptoir.cli.harmless import harmless
from comptoir.cli.screen import credits, credits_and_usd, facts, span, state, table, unit_price
from comptoir.cli.screen import price as token_price
from comptoir.kinds import TOKEN_IN, TOKEN_OUT, Kinds, Unit
from comptoir.kinds.capabilities import words

RECENT_JOBS = 8
"""Jobs shown on the board."""

OFFERS_SHOWN = 8
"""Models of one engine shown on the board."""

JOBS_REMEMBERED = 1_000
"""Jobs whose kind is remembered: what one earned may be told after its lease was forgotten."""

FORGOTTEN = "other"
"""Work whose kind is not known."""


SHIPPED = Kinds()
"""Kinds that ship, for whom no other is told."""


def format_event(kind: str, event: dict[str, Any], kinds: Kinds = SHIPPED) -> str:
    """Say an event in one line; empty for those that are not worth one. *kinds* are those whose work is told of."""
    match kind:
        case "HardwareFound":
            vram = f", {event['vram_mib']:,} MiB" if event["vram_mib"] else ""
            return f"runs on {event['gpu']}{vram}"
        case "EngineReady":
            return f"engine {event['engine']} is ready: {_ready(event, kinds)}"
        case "EngineSkipped":
            return f"engine {event['engine']} is skipped: {event['why']}"
        case "Registered":
            bond = f", with a bond of {credits(event['bond_uusd'])} credits" if event.get("bond_uusd") else ""
            return f"registered as {event['host_id']}{bond}" if event["new"] else f"back as {event['host_id']}"
        case "Connected":
            resumed = f", {event['resumed']} jobs resumed" if event["resumed"] else ""
            return f"connected, taking jobs{resumed}"
        case "Reconnecting":
            return f"not connected: {event['why']}; retrying in {span(event['in_s'] * 1000)}"
        case "OfferChanged":
            return f"offers now: {', '.join(event['models']) or 'nothing'}"
        case "OffersIgnored":
            reasons = event["reasons"]
            return (
                "; ".join([f"{name} is not offered: {why}" for name, why in reasons.items()]) or "all is offered again"
            )
        case "JobDone":
            made = "" if event["state"] == "paid" else f"{_amount(event, kinds)}, "
            return f"{event['job_id']} {ended(event)}: {made}+{credits(event['earned_uusd'])} credits{_balance(event)}"
        case "JobFailed":
            return f"{event['job_id']} failed ({event['fault']}): {event['message']}"
        case "Draining":
            return f"draining: {event['open']} jobs finish first" if event["open"] else "stopping"
        case "Stopped":
            return f"stopped; {event['abandoned']} jobs were not finished" if event["abandoned"] else "stopped"
    return ""


def _balance(event: dict[str, Any]) -> str:
    """Say the balance, and how much of it is promotional; empty if it is not known: it comes with what was earned."""
    balance_uusd, promo_uusd = event["balance_uusd"], event.get("promo_uusd", 0)
    if not balance_uusd:
        return ""
    return f", balance {credits(balance_uusd)}" + (f" ({credits(promo_uusd)} promotional)" if promo_uusd else "")


def ended(event: dict[str, Any]) -> str:
    """Say how a lease ended for the host; one that was paid and not finished was cut short by its buyer."""
    return "cut short" if event["state"] == "failed" and event["earned_uusd"] else str(event["state"])


def _ready(event: dict[str, Any], kinds: Kinds) -> str:
    prices = event.get("prices", {})
    speed = ""
    if event["tokens_per_s"]:
        *_, unit = prices.get(event["models"][0]) or (TOKEN_OUT.name,)
        made = kinds.unit(unit)
        pace = f"{event['tokens_per_s'] / made.shown:.0f} {made.many}/s"
        speed = f" ({pace}, first after {span(event['first_token_s'] * 1000)})"
    how = event.get("goes_on_by")
    others = f"; can continue other hosts' answers by {how}" if how else ""
    if not how and any(not _told(prices.get(name)) for name in event["models"]):
        others = "; can't continue other hosts' answers"
    said = next((words(said) for said in event.get("capabilities", {}).values()), "")
    return f"{_offered(event, kinds)}{speed}{f'; can do {said}' if said else ''}{others}"


def _offered(event: dict[str, Any], kinds: Kinds) -> str:
    """List an engine's models, those that are not sold by the token with their prices."""
    prices = event.get("prices", {})
    return ", ".join(
        f"{name} ({_price(prices[name], kinds)})" if _told(prices.get(name)) else name for name in event["models"]
    )


def _told(by_unit: dict[str, int] | None) -> bool:
    return by_unit is not None and TOKEN_OUT.name not in by_unit


def _price(by_unit: dict[str, int], kinds: Kinds) -> str:
    charged = [unit_price(rate, kinds.unit(name)) for name, rate in by_unit.items() if rate]
    return " and ".join(charged) or "free"


def _unit(event: dict[str, Any], kinds: Kinds) -> Unit:
    """Return the unit that a job's work is counted in; the kind of one that was forgotten before is not known."""
    return kinds.stored(event["kind"]).output if event.get("kind") else TOKEN_OUT


def _amount(event: dict[str, Any], kinds: Kinds) -> str:
    return "–" if event["state"] == "paid" else _unit(event, kinds).format(event["tokens"])


def _spelled(by_unit: dict[str, int] | None, kinds: Kinds) -> str:
    """Spell an offer's prices in a table: those of tokens as they are everywhere, others in their units."""
    if by_unit is None:
        return ""
    if _told(by_unit):
        return _price(by_unit, kinds)
    return f"{token_price(by_unit.get(TOKEN_IN.name, 0))} in, {token_price(by_unit[TOKEN_OUT.name])} out"


@dataclass
class KindEarned:
    """What a kind of work has brought since the start."""

    unit: Unit
    jobs: int = 0
    count: int = 0
    """Units of what was delivered."""
    uusd: int = 0

    @property
    def words(self) -> str:
        """Say it in a line."""
        return f"{self.jobs:,} jobs, {self.unit.format(self.count)}, +{credits(self.uusd)} credits"


class Board:
    """Folds events into what is shown; keeps nothing but counts and the latest."""

    def __init__(self, url: str, kinds: Kinds = SHIPPED) -> None:
        self.url = url
        self.kinds = kinds
        self.host_id = ""
        self.runs_on = ""
        self.status = "starting"
        self.engines: dict[str, Sequence[tuple[str, str]] | str] = {}
        """What each offers, with its price; or why it is skipped."""
        self.jobs_done = 0
        self.jobs_failed = 0
        self.running: set[str] = set()
        self.earned: dict[str, KindEarned] = {}
        """By kind."""
        self._kind_of: dict[str, str] = {}
        """Of the newest jobs."""
        self.balance_uusd: int | None = None
        self.promo_uusd = 0
        self.recent: deque[tuple[str, str, str, int]] = deque(maxlen=RECENT_JOBS)
        self.last_words = ""
        self._since_s = time.monotonic()

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Take one event in."""
        match kind:
            case "HardwareFound":
                self.runs_on = event["gpu"] + (f" · {event['vram_mib']:,} MiB" if event["vram_mib"] else "")
            case "EngineReady":
                prices = event.get("prices", {})
                self.engines[event["engine"]] = [
                    (name, _spelled(prices.get(name), self.kinds)) for name in event["models"]
                ]
            case "EngineSkipped":
                self.engines[event["engine"]] = event["why"]
            case "Registered":
                self.host_id = event["host_id"]
            case "Connected":
                self.status = "active"
            case "Reconnecting":
                self.status = f"reconnecting: {event['why']}"
            case "Draining":
                self.status = "draining"
            case "Stopped":
                self.status = "stopped"
            case "JobStarted":
                self.running.add(event["job_id"])
            case "JobFailed":
                self.running.discard(event["job_id"])
                self.jobs_failed += 1
                self.last_words = format_event(kind, event, self.kinds)
            case "JobDone":
                self._done(event)

    def _done(self, event: dict[str, Any]) -> None:
        self.running.discard(event["job_id"])
        self.jobs_done += event["state"] == "done"
        kind = event.get("kind") or self._kind_of.get(event["job_id"], FORGOTTEN)
        self._kind_of[event["job_id"]] = kind
        if len(self._kind_of) > JOBS_REMEMBERED:
            del self._kind_of[next(iter(self._kind_of))]
        of_kind = self.earned.setdefault(kind, KindEarned(_unit(event, self.kinds)))
        of_kind.jobs += event["state"] == "done"
        of_kind.count += event["tokens"]
        of_kind.uusd += event["earned_uusd"]
        # A lease that earned nothing comes with no balance.
        if event["balance_uusd"]:
            self.balance_uusd, self.promo_uusd = event["balance_uusd"], event.get("promo_uusd", 0)
        self.recent.appendleft((event["job_id"], ended(event), _amount(event, self.kinds), event["earned_uusd"]))

    @property
    def earned_uusd(self) -> int:
        """Micro-dollars earned since the start."""
        return sum(of_kind.uusd for of_kind in self.earned.values())

    def summary(self) -> list[str]:
        """Say what each kind of work has brought, a line each, the best first."""
        best = sorted(self.earned.items(), key=lambda each: -each[1].uusd)
        return [f"earned with {kind}: {of_kind.words}" for kind, of_kind in best]

    def render(self) -> RenderableType:
        """Return the board as of now."""
        head = facts(
            [
                ("coordinator", self.url),
                ("host", self.host_id or None),
                ("runs on", self.runs_on or None),
                ("status", state(self.status)),
                ("jobs", f"{self.jobs_done} done, {len(self.running)} running, {self.jobs_failed} failed"),
                ("earned now", Text(credits_and_usd(self.earned_uusd), style="bold green")),
                ("balance", credits_and_usd(self.balance_uusd) if self.balance_uusd is not None else None),
                ("promotional", f"{credits(self.promo_uusd)} of it: buys, never leaves" if self.promo_uusd else None),
            ]
        )
        parts: list[RenderableType] = [head]
        if self.engines:
            parts += [Text(), self._engines()]
        if self.earned:
            parts += [Text(), self._earned()]
        if self.recent:
            recent = table("job", "state", "made", "credits", right=("made", "credits"))
            for job, how, made, earned in self.recent:
                recent.add_row(job, state(how), made, f"+{credits(earned)}")
            parts += [Text(), recent]
        if self.last_words:
            parts += [Text(), Text(harmless(self.last_words), style="red")]
        if self.status != "stopped":
            parts.append(Text("Ctrl-C finishes running jobs and stops", style="dim"))
        return Group(*parts)

    def _engines(self) -> RenderableType:
        shown = table("engine", "sells", "for")
        for name, offers in self.engines.items():
            if isinstance(offers, str):
                shown.add_row(name, Text("skipped", style="yellow"), offers)
                continue
            for at, (model, asked) in enumerate(offers[:OFFERS_SHOWN]):
                shown.add_row("" if at else name, model, asked)
            if len(offers) > OFFERS_SHOWN:
                shown.add_row("", f"and {len(offers) - OFFERS_SHOWN} more", "")
        return shown

    def _earned(self) -> RenderableType:
        minutes = max((time.monotonic() - self._since_s) / 60, 1 / 60)
        shown = table("work", "jobs", "made", "a minute", "credits", right=("jobs", "made", "a minute", "credits"))
        for kind, of_kind in self.earned.items():
            unit, count = of_kind.unit, of_kind.count
            shown.add_row(
                kind,
                f"{of_kind.jobs:,}",
                unit.format(count),
                f"{count / unit.shown / minutes:,.0f}",
                f"+{credits(of_kind.uusd)}",
            )
        return shown
