"""``comptoir run``: ask a model, stream the answer, say what it cost; or, after a kind's word, run its program."""

import importlib
import json
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.markup import escape
from rich.status import Status
from rich.text import Text

from comptoir.cli.answer import ResumingAnswer, StreamReply
from comptoir.cli.api import Api
from comptoir.cli.ending import ended_by_signals, settled
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.screen import credits, err, note, print_json, short, span
from comptoir.cli.target import find_target, json_option, server_options
from comptoir.cli.work import WORDS, command_for
from comptoir.kinds import ContainerChain, answers_chat

PROMPT_BYTES_MAX = 16 * 1024 * 1024
"""Largest prompt read from standard input; the server's own limit is the same unless it was changed."""

RECONNECT_S = 30.0
"""Twice what the others take to notice that a coordinator is dead, and what one takes to start again."""

BROKEN_SAID_S = 2.0
"""A break that is mended sooner is not worth a line between the words of an answer."""


class Lively:
    """Text that says something else at each refresh of the screen."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now

    def __rich__(self) -> Text:
        return Text.from_markup(self._now())


class ProgressLine:
    """One line on standard error while the answer comes; nothing where nobody watches.

    Where answer and progress share a terminal, the line is there until the first token and then gives way. What the
    model thinks before stands above it, dimmed, and never in standard output.
    """

    def __init__(self, model: str, *, shown: bool, alone: bool) -> None:
        self._model = model
        self._alone = alone
        """Standard output goes elsewhere, so the line may stay while tokens come."""
        self._status = Status("", console=err(), spinner="dots") if shown else None
        self._shown = shown
        self._said_broken = False
        self.began_s = time.monotonic()
        self.first_token_s: float | None = None
        self.pieces = 0
        self._doing = "waiting for the first token"
        self._line_open = False
        """The last thought ended within its line."""

    def start(self) -> None:
        """Show the line."""
        if self._status is not None:
            self._status.update(Lively(self._waiting))
            self._status.start()

    def _waiting(self) -> str:
        for_s = time.monotonic() - self.began_s
        return f"[bold]{escape(self._model)}[/] [dim]{self._doing}… {for_s:.0f} s · Ctrl-C cancels[/]"

    def thought(self, text: str) -> None:
        """Show more of what the model thinks."""
        self._said_broken = False
        if not self._shown or self.first_token_s is not None:
            return
        self._doing = "thinking"
        if self._alone:
            return
        self.stop()  # A line that moves and a text that grows can't share a terminal.
        click.echo(click.style(text, dim=True), err=True, nl=False)
        self._line_open = not text.endswith("\n")

    def piece(self) -> None:
        """Note one more piece of the answer."""
        self.pieces += 1
        self._said_broken = False
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self.began_s
            if not self._alone:
                self.stop()
            if self._line_open:
                click.echo("\n", err=True)
                self._line_open = False
        if self._alone and self._status is not None:
            spent = max(time.monotonic() - self.began_s - (self.first_token_s or 0), 0.001)
            self._status.update(
                f"[bold]{escape(self._model)}[/] [dim]{self.pieces} pieces · {self.pieces / spent:.0f}/s[/]"
            )

    def broke(self, *, for_s: float) -> None:
        """Say that the connection is broken and that the answer will go on."""
        words = f"the connection broke {for_s:.0f} s ago, resuming as soon as a server answers… Ctrl-C cancels"
        if self._status is not None:
            self._status.update(f"[bold]{escape(self._model)}[/] [dim]{words}[/]")
        elif self._shown and for_s > BROKEN_SAID_S and not self._said_broken:
            click.echo(f"\n{click.style(words, dim=True)}", err=True)
            self._said_broken = True

    def stop(self) -> None:
        """Take the line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class RunCommand(click.Command):
    """Asks a model, unless the first word is one of `WORDS`: then that kind's command is meant, with all that follows.

    A question that is only such a word is asked through a pipe; a model of that name is chosen with ``--model``.
    """

    commands = {entry.word: entry.help for entry in WORDS}
    """Words and what they are for."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of the kind's command where one is meant."""
        entry = next((entry for entry in WORDS if args[:1] == [entry.word]), None)
        if entry is None:
            return super().make_context(info_name, args, parent, **extra)
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command.make_context(f"{info_name} {entry.word}", args[1:], parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a question; say so where a kind's word stands too late."""
        words = [word for word in args if word in self.commands]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not words or not error.message.startswith("Got unexpected extra argument"):
                raise
            raise Failure(
                "a question is one argument, in quotes",
                f"to run a program, its kind comes first: comptoir run {words[0]} …",
                code=Exit.USAGE,
            ) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the kinds."""
        super().format_options(ctx, formatter)
        with formatter.section("Programs with files: comptoir run KIND --help"):
            formatter.write_dl(list(self.commands.items()))


@click.command(cls=RunCommand)
@click.argument("prompt", required=False)
@click.option("--model", "-m", metavar="NAME", help="Model to ask [the first one listed by 'comptoir models'].")
@click.option("--system", metavar="TEXT", help="System instruction before the prompt.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="T", help="0 is deterministic, 2 is wild.")
@click.option(
    "--reconnect",
    type=click.FloatRange(0, 3600),
    default=RECONNECT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to retry when the connection breaks; 0: never, and the job ends with the connection.",
)
@json_option
@server_options
def run(
    *,
    prompt: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    reconnect: float,
    as_json: bool,
    url: str | None,
    key: str | None,
    data: str | None,
) -> None:
    """Ask a model, stream the answer, and show what it cost.

    Or, where the first word is a kind of program (listed below), run it: upload its inputs, watch it, download its
    results. Runs of containers are bought through the Infernet API, see 'comptoir models --help'.

    Without PROMPT (or with '-') the prompt is read from standard input. Ctrl-C cancels at the host at once; you pay for
    what arrived, and the rest of the hold is released. If the connection or its coordinator breaks, the answer resumes
    where it stopped, at whichever coordinator answers next.

    \b
    Examples:
      comptoir run "Explain quantum computing."
      comptoir run --model comptoir-demo --max-tokens 60 "What is a receipt?"
      git diff | comptoir run --system "Write a commit message for this diff."
      comptoir run --json "Say hello." | jq .cost_uusd
    """
    target = find_target(url, key, data)
    words = _prompt(prompt)
    note(target.said)
    api = Api(target)
    chosen = model or _first_model(api)
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {
        "model": chosen,
        "messages": [*messages, {"role": "user", "content": words}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if temperature is not None:
        body["temperature"] = temperature
    progress = ProgressLine(chosen, shown=sys.stderr.isatty(), alone=as_json or not sys.stdout.isatty())
    answer = ResumingAnswer(api, body, watcher=progress, shown=not as_json, again_for_s=reconnect)
    reply = answer.reply
    interrupted = False
    progress.start()
    try:
        with ended_by_signals():
            answer.read()
    except Failure as failure:
        raise _not_asked(api, chosen, failure) from failure
    except KeyboardInterrupt:
        interrupted = True
        answer.cancel()
    finally:
        progress.stop()
        if reply.text and not as_json:
            click.echo("\n" if sys.stdout.isatty() else "")
    total_s = time.monotonic() - progress.began_s
    bill = _bill(api, reply, progress, total_s=total_s)
    if as_json:
        print_json(bill)
    else:
        _say(bill, interrupted=interrupted)
    if interrupted:
        raise click.exceptions.Exit(Exit.INTERRUPTED)


def _prompt(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise Failure("there is no prompt", 'try: comptoir run "Explain quantum computing."', code=Exit.USAGE)
    if given is None or given == "-":
        raw = sys.stdin.buffer.read(PROMPT_BYTES_MAX + 1)
        if len(raw) > PROMPT_BYTES_MAX:
            raise Failure(f"the prompt is larger than {PROMPT_BYTES_MAX:,} bytes", "send less", code=Exit.USAGE)
        given = raw.decode("utf-8", errors="replace").strip()
    if not given.strip():
        raise Failure("the prompt is empty", 'try: comptoir run "Explain quantum computing."', code=Exit.USAGE)
    return given


def _not_asked(api: Api, name: str, failure: Failure) -> Failure:
    """Return *failure*, or what is wrong where *name* is no model: nobody can ask it a question."""
    if not 400 <= failure.status < 500 or failure.code == Exit.KEY:
        return failure
    try:
        containers = api.get("/house/containers").json()["containers"]
        others = api.get("/house/models").json().get("others", [])
    except (Failure, KeyError, ValueError):
        return failure  # No trading post, or gone: what went wrong first is what counts.
    body = shlex.quote(json.dumps({"containers": [name], "data": {}}))
    curl = f"buy a run: curl {api.target.url}/api/jobs -H 'Authorization: Bearer ck_…' -d {body}"
    sold = [(ContainerChain.noun, "by the run", curl) for one in containers if one["name"] == name]
    sold += [
        (one["noun"], one["prices"][-1]["words"], f"buy it: {command_for(one)}")
        for one in others
        if one["name"] == name
    ]
    if not sold:
        return failure
    noun, by, hint = sold[0]
    return Failure(f"{name} is a {noun}: it is sold {by} and can't be asked a question", hint, status=failure.status)


def _first_model(api: Api) -> str:
    found = api.get("/house/models").json()["models"]
    chat = [str(one["name"]) for one in found if answers_chat(one["kinds"])]
    if not chat:
        hint = "offer one with 'comptoir host --help', or see 'comptoir hosts'"
        raise Failure(f"no model is available at {api.target.url}", hint)
    return chat[0]


def _bill(api: Api, reply: StreamReply, progress: ProgressLine, *, total_s: float) -> dict[str, Any]:
    """Say what came and what it cost, as the books have it."""
    job = settled(api, reply.job) if reply.job else {}
    usage = reply.usage
    return {
        "text": reply.text,
        "reasoning": reply.thoughts.text or None,
        "model": reply.model,
        "finish_reason": job.get("finish_reason") or reply.finish_reason or None,
        "prompt_tokens": job.get("prompt_tokens", usage.get("prompt_tokens")),
        "completion_tokens": job.get("completion_tokens", usage.get("completion_tokens")),
        "cost_uusd": job.get("cost_uusd"),
        "host": job.get("host"),
        "job": reply.job or None,
        "receipt": job.get("receipt"),
        "state": job.get("state"),
        "first_token_s": round(progress.first_token_s, 4) if progress.first_token_s is not None else None,
        "total_s": round(total_s, 4),
    }


def _say(bill: dict[str, Any], *, interrupted: bool) -> None:
    """Print the last lines, to standard error: the answer alone is on standard output."""
    console = err()
    parts = []
    if bill["completion_tokens"] is not None:
        parts.append(f"{bill['prompt_tokens'] or 0} + {bill['completion_tokens']} tokens")
    if bill["cost_uusd"] is not None:
        parts.append(f"[bold]{credits(bill['cost_uusd'])} credits[/]")
    if bill["first_token_s"] is not None:
        parts.append(f"first token {span(bill['first_token_s'] * 1000)}")
    parts.append(f"total {span(bill['total_s'] * 1000)}")
    if bill["host"]:
        parts.append(short(bill["host"]))
    mark = "[yellow]■ cancelled[/]" if interrupted else "[green]✓[/]"
    console.print(f"{mark} {' · '.join(parts)}", soft_wrap=True)
    if bill["receipt"]:
        console.print(f"  [dim]receipt {bill['receipt']}[/]", soft_wrap=True)
