"""What ``comptoir up`` prints: where it listens, who is there, three things to paste, and what happens later."""

import json
import shlex
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from comptoir import __version__
from comptoir.cli.board import SHIPPED, format_event
from comptoir.cli.failure import Exit
from comptoir.cli.harmless import harmless
from comptoir.cli.quickstart import FILE_NAME
from comptoir.cli.screen import credits, facts, price, run_price_words, state, table
from comptoir.cli.target import DEFAULT_DATA
from comptoir.kinds import Kinds, answers_chat
from comptoir.settings import Settings

QUESTION = "What is Comptoir?"
HOSTS_TOLD_MAX = 50
"""Hosts whose coming and going is told one by one; a larger fleet has 'comptoir hosts'."""

NO_ENGINE = """\
No model answers here yet. Add an engine in one of these ways:
  pip install xllamacpp                             the small model that ships with Comptoir, and any GGUF file
  start Ollama, vLLM, llama.cpp or LM Studio        found on its usual port by itself, within seconds
  comptoir host --engine http://127.0.0.1:8000/v1   any OpenAI-compatible server, in another terminal"""

CONTAINERS_TOLD_MAX = 50
"""Containers that are told one by one; 'comptoir models' has them all."""

MARKS = {
    "EngineReady": ("●", "green"),
    "EngineSkipped": ("○", "yellow"),
    "JobFailed": ("✗", "red"),
    "Reconnecting": ("…", "yellow"),
    "OfferChanged": ("●", "green"),
    "OffersIgnored": ("○", "yellow"),
}
"""Events of the local worker that are told, and how; the others are the coordinator's to tell, or for the log."""


class OnOffer(NamedTuple):
    """A model that can be bought now."""

    name: str
    kinds: Sequence[str]
    hosts: int
    price_in_uusd_per_mtok: int
    price_out_uusd_per_mtok: int


class ByTheRun(NamedTuple):
    """A container that can be bought now."""

    name: str
    external: bool
    """Whether a job may begin with it."""
    hosts: int
    price_uusd_per_run: int


class SeenHost(NamedTuple):
    """A host as it is now."""

    id: str
    status: str
    gpu: str
    models: Sequence[str]


class Greeting:
    """Prints to one console; knows what it has said."""

    def __init__(self, console: Console, kinds: Kinds = SHIPPED) -> None:
        self._console = console
        self._kinds = kinds
        self._told: set[str] = set()
        self._hosts: dict[str, str] = {}
        self._containers: set[str] = set()
        self._pasted = False
        self._stopping = False
        self._lost = False

    def line(self, mark: str, text: str, *, style: str = "cyan") -> None:
        """Print one line of news."""
        self._console.print(Text.assemble((mark, style), " ", harmless(text)), soft_wrap=True)

    def listening(
        self,
        *,
        url: str,
        data: str,
        fresh: bool,
        took_s: float,
        balance_uusd: int,
        without_key: str | None,
        who_hosts: str | None,
    ) -> None:
        """Say where the post is, who needs no key (`keyless`), and what hosts need to come (`needed_to_host`)."""
        console = self._console
        console.print(
            Text.assemble(("comptoir", "bold"), (f" {__version__}", "dim"), "  a trading post for AI compute")
        )
        console.print()
        kept = "new: an operator and a demo buyer" if fresh else "as you left it"
        console.print(
            facts(
                [
                    ("listening", Text(url, style="bold cyan")),
                    ("data", f"{data}  ({kept})"),
                    ("keys", f"{data}/quickstart.env  (only you can read it)"),
                    ("demo buyer", f"{credits(balance_uusd)} credits"),
                    ("keyless", without_key),
                    ("hosts", who_hosts),
                    ("ready in", f"{took_s * 1000:.0f} ms"),
                ]
            ),
            soft_wrap=True,
        )
        console.print()

    def paste(self, *, url: str, key: str, models: Sequence[OnOffer], data: str) -> None:
        """Print models, hosts, and the three things to paste; once, and not before there is a model."""
        if self._pasted or not models:
            return
        self._pasted = True
        chat = next((one.name for one in models if answers_chat(one.kinds)), models[0].name)
        console = self._console
        console.print()
        made = table("model", "hosts", "prompt", "answer", right=("hosts",))
        for one in models:
            made.add_row(
                Text(harmless(one.name), style="bold"),
                str(one.hosts),
                price(one.price_in_uusd_per_mtok),
                price(one.price_out_uusd_per_mtok),
            )
        console.print(made)
        for title, lines in snippets(url=url, key=self._shown(key), model=chat, data=data):
            console.print()
            console.print(Text(title, style="dim"))
            # Unwrapped, without frame or style: what is copied has to run.
            console.print(Text(lines), soft_wrap=True)
        console.print()
        console.print(Text("Ctrl-C drains and stops. Next: comptoir hosts · comptoir balance · comptoir --help", "dim"))
        console.print()

    def _shown(self, key: str) -> str:
        """Return *key* for a terminal; elsewhere, in a log that others may read, only where it is to be found."""
        return key if self._console.is_terminal else ""

    def worker_event(self, kind: str, event: dict[str, Any], *, name: str = "the local worker") -> None:
        """Tell what a local worker says, as far as it is news."""
        if kind == "NoEngine":
            if kind not in self._told:
                self._told.add(kind)
                self._console.print(Text(NO_ENGINE, style="yellow"), soft_wrap=True)
        elif kind == "GaveUp":
            self.line("✗", f"{name} gave up: {event['why']}", style="red")
            if event.get("hint"):
                self.line(" ", event["hint"], style="dim")
        elif kind == "WorkerEnded" and event["code"] == Exit.USAGE:
            self.line("✗", f"{name} can't be started like this; its error is above", style="red")
        elif kind == "WorkerCrashed":
            code = event["code"]
            how = f"was killed by signal {-code}" if code < 0 else f"crashed (exit code {code})"
            self.line("✗", f"{name} {how}; restarting in {event['in_s']:g} s", style="red")
        elif kind in MARKS and not (self._stopping and kind == "Reconnecting"):
            text = format_event(kind, event, self._kinds)
            # A worker that looks for an engine again and again says the same each time.
            if kind != "EngineSkipped" or text not in self._told:
                self._told.add(text)
                mark, style = MARKS[kind]
                self.line(mark, text, style=style)

    def hosts_changed(self, hosts: Sequence[SeenHost]) -> None:
        """Tell which hosts came, went or drain since the last call."""
        for host in hosts[:HOSTS_TOLD_MAX]:
            before = self._hosts.get(host.id, "offline")
            if host.status != before:
                text = Text.assemble(
                    ("● " if host.status == "active" else "○ "),
                    state(host.status),
                    harmless(f"  {host.gpu}  {', '.join(host.models)}"),
                    (f"  {host.id}", "dim"),
                )
                self._console.print(text, soft_wrap=True)
        self._hosts = {host.id: host.status for host in hosts}

    def containers_changed(self, containers: Sequence[ByTheRun], *, url: str, key: str) -> None:
        """Print containers newly on offer; with the first that can start a job, how a run is bought."""
        came = [one for one in containers[:CONTAINERS_TOLD_MAX] if one.name not in self._containers]
        for one in came:
            entry = "" if one.external else ", private"
            text = f"container {one.name}  {run_price_words(one.price_uusd_per_run)}{entry}"
            self.line("●", text, style="green")
        self._containers = {one.name for one in containers}
        chosen = next((one.name for one in came if one.external), None)
        if chosen is not None and "run" not in self._told:
            self._told.add("run")
            self._console.print(Text(f"a run of {harmless(chosen)}, with curl", style="dim"))
            snippet = run_snippet(url=url, key=self._shown(key), container=chosen)
            self._console.print(Text(snippet), soft_wrap=True)
            self._console.print()

    def commits_lost(self, lost: bool, data: str) -> None:
        """Tell when commits went missing from the database, and when that is over."""
        if lost is self._lost:
            return
        self._lost = lost
        if not lost:
            self.line("●", "no commits are missing from the database", style="green")
            return
        option = f" --data {shlex.quote(data)}" if data else ""
        words = f"commits that were confirmed are missing from the database, no work is taken: comptoir recover{option}"
        self.line("✗", words, style="bold red")

    def draining_began(self) -> None:
        """Keep what goes with stopping to itself from now on."""
        self._stopping = True

    def draining(self, open_answers: int) -> None:
        """Say that it stops."""
        self.draining_began()
        what = f"{open_answers} open answers finish first" if open_answers else "no answers are open"
        self.line("■", f"draining: {what} (Ctrl-C again stops at once)", style="yellow")

    def stopped(self, began_s: float) -> None:
        """Say that it is over."""
        up_s = time.monotonic() - began_s
        self.line("■", f"stopped after {up_s:,.0f} s; nothing is lost, 'comptoir up' resumes from here", style="dim")


def keyless(settings: Settings) -> str | None:
    """Say who may use the Infernet API without a key, and for how much; None: nobody."""
    who = {"loopback": "programs on this machine", "any": "anybody"}.get(settings.infernet_anonymous)
    if who is None:
        return None
    most = credits(settings.infernet_anonymous_uusd_per_day)
    return f"{who} may use the Infernet API, for {most} credits a day in all  (infernet_anonymous)"


def needed_to_host(settings: Settings) -> str | None:
    """Say what registering a host asks for; None: nothing."""
    needs = {
        "key": "need a user's key to register",
        "invitation": "need an invitation to register: comptoir invite --for host",
        "bond": f"need a user's key and a bond of {credits(settings.host_bond_uusd)} credits to register",
    }.get(settings.host_registration)
    return f"{needs}  (host_registration)" if needs is not None else None


def run_snippet(*, url: str, key: str, container: str) -> str:
    """Return how a run of *container* is bought, as it can be pasted."""
    # A host chose the name; in single quotes a shell obeys none of it.
    body = shlex.quote(json.dumps({"containers": [container], "data": {"text": "hello"}}))
    return (
        f"curl {url}/api/jobs \\\n  -H {_authorization(key)} \\\n  -H 'Content-Type: application/json' \\\n  -d {body}"
    )


def _authorization(key: str) -> str:
    """Return the header with *key* for a shell; without one as quickstart.env is loaded."""
    return f"'Authorization: Bearer {key}'" if key else '"Authorization: Bearer $COMPTOIR_KEY"'


def _python(key: str) -> str:
    return f'"{key}"' if key else 'os.environ["COMPTOIR_KEY"]'


def snippets(*, url: str, key: str, model: str, data: str) -> list[tuple[str, str]]:
    """Return three ways to buy an answer, each as it can be pasted.

    Args:
        key: empty where it may not be shown; what is pasted then reads it from the environment, and a line before says
            how.
        data: empty where it is the default folder.
    """
    # A host chose the name: it is quoted for the shell, and for Python as JSON.
    messages = [{"role": "user", "content": QUESTION}]
    body = json.dumps({"model": model, "stream": True, "messages": messages}, separators=(",", ":"))
    loads = f"set -a; . {shlex.quote(f'{data or DEFAULT_DATA}/{FILE_NAME}')}; set +a"
    return [
        *([] if key else [("first, the key", loads)]),
        ("in a shell", f'comptoir run {data and f"--data {shlex.quote(data)} "}"{QUESTION}"'),
        (
            "with curl",
            f"curl -N {url}/v1/chat/completions \\\n"
            f"  -H {_authorization(key)} \\\n"
            "  -H 'Content-Type: application/json' \\\n"
            f"  -d {shlex.quote(body)}",
        ),
        (
            "with the OpenAI SDK",
            ("" if key else "import os\n") + "from openai import OpenAI\n"
            f'client = OpenAI(base_url="{url}/v1", api_key={_python(key)})\n'
            f"print(client.chat.completions.create(model={json.dumps(model)}, messages={json.dumps(messages)})"
            ".choices[0].message.content)",
        ),
    ]
