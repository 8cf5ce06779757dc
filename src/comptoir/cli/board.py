"""What a worker's owner sees: events put into words, and the live board with what was earned."""

import time
from collections import deque
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from comptoir.cli.screen import credits, credits_and_usd, facts, harmless, span, state, table
from comptoir.link import CONTAINER

RECENT_JOBS = 8
"""Jobs shown on the board."""


def words(kind: str, event: dict[str, Any]) -> str:
    """Say an event in one line; empty for those that are not worth one."""
    match kind:
        case "HardwareFound":
            vram = f", {event['vram_mib']:,} MiB" if event["vram_mib"] else ""
            return f"runs on {event['gpu']}{vram}"
        case "EngineReady":
            speed = ""
            if event["tokens_per_s"]:
                speed = f" ({event['tokens_per_s']:.0f} tokens/s, first after {span(event['first_token_s'] * 1000)})"
            if event.get("run_prices_uusd"):
                return f"engine {event['engine']} is ready: {_offered(event)}"
            how = event.get("goes_on_by")
            others = f"goes on with others' answers by {how}" if how else "can't go on with others' answers"
            return f"engine {event['engine']} is ready: {', '.join(event['models'])}{speed}; {others}"
        case "EngineSkipped":
            return f"engine {event['engine']} is left out: {event['why']}"
        case "Registered":
            return f"registered as {event['host_id']}" if event["new"] else f"back as {event['host_id']}"
        case "Connected":
            resumed = f", {event['resumed']} jobs taken up again" if event["resumed"] else ""
            return f"connected, taking jobs{resumed}"
        case "Reconnecting":
            return f"not connected: {event['why']}; trying again in {span(event['in_s'] * 1000)}"
        case "OfferChanged":
            return f"offers now: {', '.join(event['models']) or 'nothing'}"
        case "JobDone":
            made = "" if event["state"] == "paid" else f"{_amount(event)}, "
            return (
                f"{event['job_id']} {ended(event)}: {made}"
                f"+{credits(event['earned_uusd'])} credits, balance {credits(event['balance_uusd'])}"
            )
        case "JobFailed":
            return f"{event['job_id']} failed ({event['fault']}): {event['message']}"
        case "Draining":
            return f"draining: {event['open']} jobs are finished first" if event["open"] else "stopping"
        case "Stopped":
            return f"stopped; {event['abandoned']} jobs were not finished" if event["abandoned"] else "stopped"
    return ""


def ended(event: dict[str, Any]) -> str:
    """Say how a lease ended for the host; one that was paid and not finished was cut short by its buyer."""
    return "cut short" if event["state"] == "failed" and event["earned_uusd"] else str(event["state"])


def _offered(event: dict[str, Any]) -> str:
    """List an engine's models, a container with what a run of it costs."""
    prices = event.get("run_prices_uusd") or {}
    return ", ".join(f"{name} ({_per_run(prices[name])})" if name in prices else name for name in event["models"])


def _per_run(uusd: int) -> str:
    return f"{credits(uusd)} credits a run" if uusd else "free"


def _by_the_run(event: dict[str, Any]) -> bool:
    return event.get("kind") == CONTAINER


def _amount(event: dict[str, Any]) -> str:
    count = event["tokens"]
    if event["state"] == "paid":
        return "–"
    return f"{count} {'run' if count == 1 else 'runs'}" if _by_the_run(event) else f"{count} tokens"


class Board:
    """Folds events into what is shown; keeps nothing but counts and the latest."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.host_id = ""
        self.runs_on = ""
        self.status = "starting"
        self.engines: dict[str, str] = {}
        self.jobs_done = 0
        self.jobs_failed = 0
        self.running: set[str] = set()
        self.tokens = 0
        self.runs = 0
        self.earned_uusd = 0
        self.balance_uusd: int | None = None
        self.recent: deque[tuple[str, str, str, int]] = deque(maxlen=RECENT_JOBS)
        self.last_words = ""
        self._since_s = time.monotonic()

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Take one event in."""
        match kind:
            case "HardwareFound":
                self.runs_on = event["gpu"] + (f" · {event['vram_mib']:,} MiB" if event["vram_mib"] else "")
            case "EngineReady":
                self.engines[event["engine"]] = _offered(event)
            case "EngineSkipped":
                self.engines[event["engine"]] = f"left out: {event['why']}"
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
                self.last_words = words(kind, event)
            case "JobDone":
                self._done(event)

    def _done(self, event: dict[str, Any]) -> None:
        self.running.discard(event["job_id"])
        self.jobs_done += event["state"] == "done"
        if _by_the_run(event):
            self.runs += event["tokens"]
        else:
            self.tokens += event["tokens"]
        self.earned_uusd += event["earned_uusd"]
        # A lease that earned nothing comes with no balance.
        self.balance_uusd = event["balance_uusd"] or self.balance_uusd
        self.recent.appendleft((event["job_id"], ended(event), _amount(event), event["earned_uusd"]))

    def render(self) -> RenderableType:
        """Return the board as of now."""
        minutes = max((time.monotonic() - self._since_s) / 60, 1 / 60)
        head = facts(
            [
                ("coordinator", self.url), ("host", self.host_id or None), ("runs on", self.runs_on or None),
                *((f"engine {name}", what) for name, what in self.engines.items()), ("status", state(self.status)),
                ("jobs", f"{self.jobs_done} done, {len(self.running)} running, {self.jobs_failed} failed"),
                ("tokens", f"{self.tokens:,} ({self.tokens / minutes:,.0f} a minute)" if self.tokens or not self.runs else None),
                ("runs", f"{self.runs:,} ({self.runs / minutes:,.0f} a minute)" if self.runs else None),
                ("earned now", Text(credits_and_usd(self.earned_uusd), style="bold green")),
                ("balance", credits_and_usd(self.balance_uusd) if self.balance_uusd is not None else None),
            ]
        )  # fmt: skip
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
