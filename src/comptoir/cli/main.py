"""The group of all commands: known by name and line of help, imported when called."""

import importlib
import sys
from typing import Any, NamedTuple, NoReturn

import click

from comptoir.cli.failure import Exit, Failure
from comptoir.kit.errors import Refusal


class CommandEntry(NamedTuple):
    """A command as the group knows it before it is imported."""

    name: str
    target: str
    """``module:attribute``."""
    help: str
    section: str


HERE, BUY, EARN, RUN, CHECK = "Start a trading post", "Buy", "Earn", "Run a trading post (operators)", "Look and check"

COMMANDS = (
    CommandEntry("up", "comptoir.cli.up:up", "Start a coordinator and a local worker, ready to answer.", HERE),
    CommandEntry("config", "comptoir.cli.config:config", "Print the settings in force and where each came from.", HERE),
    CommandEntry("run", "comptoir.cli.run:run", "Ask a model, stream the answer, and show what it cost.", BUY),
    CommandEntry(
        "jobs", "comptoir.cli.jobs:jobs", "List your jobs, show the history of one, follow it, or cancel it.", BUY
    ),
    CommandEntry("files", "comptoir.cli.files:files", "Upload, list, download and delete files.", BUY),
    CommandEntry("balance", "comptoir.cli.money:balance", "Show what your account holds.", BUY),
    CommandEntry("statement", "comptoir.cli.money:statement", "Show every transfer of your account.", BUY),
    CommandEntry("deposit", "comptoir.cli.money:deposit", "Credit an account (operators).", BUY),
    CommandEntry(
        "webhooks",
        "comptoir.cli.webhooks:webhooks",
        "Have your events posted to addresses, and see what became of them.",
        BUY,
    ),
    CommandEntry(
        "host",
        "comptoir.cli.host:host",
        "Serve this machine's models and containers, and earn per token and run.",
        EARN,
    ),
    CommandEntry(
        "invite", "comptoir.cli.invite:invite", "Make an invitation to sign up or to register hosts (operators).", RUN
    ),
    CommandEntry(
        "invitations",
        "comptoir.cli.invite:invitations",
        "List invitations and how often each was used, or revoke one (operators).",
        RUN,
    ),
    CommandEntry("users", "comptoir.cli.acts:users", "Suspend and resume users (operators).", RUN),
    CommandEntry("acts", "comptoir.cli.acts:acts", "List what operators decided, newest first (operators).", RUN),
    CommandEntry(
        "recover",
        "comptoir.cli.recover:recover",
        "Show which commits the database lost, bring them back, or accept the loss (operators).",
        RUN,
    ),
    CommandEntry("hosts", "comptoir.cli.evidence:hosts", "List hosts with speed and reputation.", CHECK),
    CommandEntry("models", "comptoir.cli.acts:models", "List models and containers that can be bought now.", CHECK),
    CommandEntry("receipt", "comptoir.cli.receipt:receipt", "Show a receipt, or verify one offline.", CHECK),
    CommandEntry("keys", "comptoir.cli.receipt:keys", "Print the keys that receipts are verified with.", CHECK),
    CommandEntry("audit", "comptoir.cli.audit:audit", "Recompute the books; exit code 1 on any difference.", CHECK),
    CommandEntry("version", "comptoir.cli.version:version", "Print the version.", CHECK),
)
"""Every command, in the order of the help."""

EPILOG = """\
\b
Examples:
  comptoir up                                   a trading post on this machine
  comptoir run "Explain quantum computing."     ask it
  COMPTOIR_KEY=ck_… comptoir host --url https://post.example --engine http://127.0.0.1:8000/v1

\b
Which server: --url and --key-file, else COMPTOIR_URL and COMPTOIR_KEY (COMPTOIR_ADMIN_KEY for
operators), else quickstart.env in ./comptoir-data, which 'comptoir up' writes.

\b
Exit codes: 0 fine · 1 refused, or a check failed · 2 wrong command line · 3 server not
reachable · 4 key missing or not accepted · 130 interrupted with Ctrl-C."""


class LazyGroup(click.Group):
    """Imports a command only when it is called, and prints refusals as messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing any."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS):
            with formatter.section(section):
                formatter.write_dl([(entry.name, entry.help) for entry in COMMANDS if entry.section == section])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print a refusal in its own words."""
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            raise Failure(refusal.message) from refusal


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def program(ctx: click.Context, debug: bool) -> None:
    """An open trading post for AI compute: buy answers, offer a GPU, or run the post itself."""
    ctx.obj = {"debug": debug}


def main() -> NoReturn:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv[1:2]
    try:
        result = program.main(prog_name="comptoir", standalone_mode=False)
        code = result if isinstance(result, int) else Exit.OK
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`comptoir jobs | head`): nobody is there to be told anything.
        sys.stdout = None
        code = Exit.OK
    except Exception as error:  # The edge of the program: a bug is said in one line, the traceback only on demand.
        if debug:
            raise
        bug = Failure(
            f"this is a bug in comptoir: {type(error).__name__}: {error}",
            "see the traceback with 'comptoir --debug …' and report it",
        )
        bug.show()
        code = bug.exit_code
    sys.exit(code)
