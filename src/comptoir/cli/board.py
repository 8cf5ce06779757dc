"""What a worker's owner sees: events put into words, and the live board with what was earned."""

import time
from collections import Counter, deque
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from comptoir.cli.screen import credits, credits_and_usd, facts, harmless, span, state, table, unit_price
from comptoir.kinds import TOKEN_OUT, Kinds, Unit
from comptoir.kinds.capabilities import words

RECENT_JOBS = 8
"""Jobs shown on the board."""


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


class Board:
    """Folds events into what is shown; keeps nothing but counts and the latest."""

    def __init__(self, url: str, kinds: Kinds = SHIPPED) -> None:
        self.url = url
        self.kinds = kinds
        self.host_id = ""
        self.runs_on = ""
        self.status = "starting"
        self.engines: dict[str, str] = {}
        self.jobs_done = 0
        self.jobs_failed = 0
        self.running: set[str] = set()
        self.made: Counter[str] = Counter()
        """Units of what was delivered, by their name."""
        self.earned_uusd = 0
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
                self.engines[event["engine"]] = _offered(event, self.kinds)
            case "EngineSkipped":
                self.engines[event["engine"]] = f"skipped: {event['why']}"
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
        if event["tokens"]:
            self.made[_unit(event, self.kinds).name] += event["tokens"]
        self.earned_uusd += event["earned_uusd"]
        # A lease that earned nothing comes with no balance.
        if event["balance_uusd"]:
            self.balance_uusd, self.promo_uusd = event["balance_uusd"], event.get("promo_uusd", 0)
        self.recent.appendleft((event["job_id"], ended(event), _amount(event, self.kinds), event["earned_uusd"]))

    def render(self) -> RenderableType:
        """Return the board as of now."""
        minutes = max((time.monotonic() - self._since_s) / 60, 1 / 60)
        counted = self.made or {TOKEN_OUT.name: 0}
        head = facts(
            [
                ("coordinator", self.url),
                ("host", self.host_id or None),
                ("runs on", self.runs_on or None),
                *((f"engine {name}", what) for name, what in self.engines.items()),
                ("status", state(self.status)),
                ("jobs", f"{self.jobs_done} done, {len(self.running)} running, {self.jobs_failed} failed"),
                *(
                    (unit.many, f"{unit.amount(count)} ({count / unit.shown / minutes:,.0f} a minute)")
                    for name, count in counted.items()
                    for unit in (self.kinds.unit(name),)
                ),
                ("earned now", Text(credits_and_usd(self.earned_uusd), style="bold green")),
                ("balance", credits_and_usd(self.balance_uusd) if self.balance_uusd is not None else None),
                ("promotional", f"{credits(self.promo_uusd)} of it: buys, never leaves" if self.promo_uusd else None),
            ]
        )
        parts: list[RenderableType] = [head]
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
