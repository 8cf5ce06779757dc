"""``comptoir host``: this machine's models on offer, and what they earn, live."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
from rich.live import Live

from comptoir.cli.board import Board, format_event
from comptoir.cli.config import kinds_from
from comptoir.cli.doctor import doctor
from comptoir.cli.failure import Exit, Failure
from comptoir.cli.prices import price_callback, read_price, read_run_prices, read_unit_prices
from comptoir.cli.screen import out
from comptoir.cli.target import Target, find_target, key_options
from comptoir.kinds import MILLION, RUN, TOKEN_IN, TOKEN_OUT, Kinds
from comptoir.kit.logs import set_up
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.infernet_config import read_config
from comptoir.worker.engines.registry import EngineSpec, parse_spec
from comptoir.worker.errors import KeyRefused
from comptoir.worker.events import Event, Stopped
from comptoir.worker.files import GIB, INPUTS_BYTES_MAX, InputRules
from comptoir.worker.run import WorkerConfig, run_worker

LOOK_AGAIN_S = 10.0
"""How often a supervised worker without any engine looks for one: what is started later is found."""

REFRESH_PER_S = 4

NO_ENGINE_HINT = (
    "for example --engine http://127.0.0.1:8000/v1 (vLLM, Ollama, llama.cpp…), --engine model.gguf, or --discover"
)


@click.group(invoke_without_command=True)
@click.option(
    "--url",
    "urls",
    metavar="URL",
    multiple=True,
    help="The coordinator [COMPTOIR_URL]. Repeatable, for several of one trading post.",
)
@key_options("Your own key, needed once, so that the host is yours [COMPTOIR_KEY]")
@click.option(
    "--engine",
    "engines",
    metavar="ENGINE",
    multiple=True,
    help="python, ffmpeg, demo, llamacpp,path=…, openai,base_url=…, container,id=…,url=…, an address, a .gguf file. Repeatable.",
)
@click.option(
    "--infernet-config",
    "infernet_configs",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Serve the containers of a Ritual node's config.json unchanged; reports what becomes of each key. Repeatable.",
)
@click.option(
    "--discover/--no-discover", default=False, help="Also offer OpenAI-compatible servers found on this machine."
)
@click.option(
    "--price-in",
    callback=price_callback,
    default="0",
    metavar="PRICE",
    help="Per million prompt tokens: dollars (0.10) or credits (10cr) [0].",
)
@click.option(
    "--price-out",
    callback=price_callback,
    default="1.00",
    metavar="PRICE",
    help="Per million answer tokens: dollars (1.00) or credits (100cr) [1.00].",
)
@click.option(
    "--price",
    "model_prices",
    metavar="MODEL=IN/OUT",
    multiple=True,
    help="Prices of one model, in the same units. Repeatable.",
)
@click.option(
    "--price-run",
    "run_prices",
    metavar="[CONTAINER=]PRICE",
    multiple=True,
    help="Per run of a container: dollars (0.002) or credits (0.2cr) [0.001]. Repeatable, by container.",
)
@click.option(
    "--unit-price",
    "unit_prices",
    metavar="[MODEL:]UNIT=PRICE",
    multiple=True,
    help="Price in any other unit, per the amount its prices are shown for: second=0.0001, or m:image=1cr for one "
    "model [what is usual for the unit, which the host's screen shows]. Repeatable.",
)
@click.option(
    "--kind",
    "kinds",
    metavar="MODULE:CLASS",
    multiple=True,
    help="A kind of work that is not built in, named as in the coordinator's setting 'kinds'. Repeatable.",
)
@click.option("--slots", type=click.IntRange(1, 4096), default=4, show_default=True, help="Jobs at once.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of engines that compute in this process [all].")
@click.option(
    "--state", "state_dir", metavar="FOLDER", help="Where host id and key are kept [~/.local/state/comptoir]."
)
@click.option(
    "--work",
    "work_dir",
    metavar="FOLDER",
    help="Where jobs have their files while they run, on a disk with room [work, in the state's folder].",
)
@click.option(
    "--inputs-gib",
    type=click.FloatRange(0, 1 << 20),
    default=INPUTS_BYTES_MAX / GIB,
    show_default=True,
    help="Most GiB of the inputs of one job.",
)
@click.option(
    "--private-inputs",
    is_flag=True,
    help="Fetch inputs from addresses in private networks too: for a trading post whose buyers you know.",
)
@click.option(
    "--invitation",
    metavar="INVITATION",
    envvar="COMPTOIR_INVITATION",
    help="Where hosts register by invitation: yours, needed once [COMPTOIR_INVITATION].",
)
@click.option("--name", help="A name of your own for this host.")
@click.option("--region", help="Where the host is, for buyers who care: eu-west, …")
@click.option(
    "--promotions/--no-promotions",
    default=True,
    help="Take jobs paid from promotional credit, which buys and can never be paid out [yes].",
)
@click.option("--measure/--no-measure", default=True, help="Measure the engines briefly before offering them.")
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to finish running jobs on stop.",
)
@click.option("--skip-port", "skip_ports", type=int, multiple=True, hidden=True)
@click.option("--supervised", is_flag=True, hidden=True, help="Events as JSON lines; stop when standard input ends.")
@click.pass_context
def host(
    context: click.Context, *, urls: tuple[str, ...], key: str | None, engines: tuple[str, ...], infernet_configs: tuple[Path, ...],
    discover: bool, price_in: int, price_out: int, model_prices: tuple[str, ...], run_prices: tuple[str, ...],
    unit_prices: tuple[str, ...], kinds: tuple[str, ...], slots: int, threads: int | None, state_dir: str | None,
    work_dir: str | None, inputs_gib: float, private_inputs: bool, invitation: str | None, name: str | None,
    region: str | None, promotions: bool, measure: bool, drain_s: float, skip_ports: tuple[int, ...], supervised: bool,
) -> None:  # fmt: skip
    """Serve this machine's models and containers, and earn per token and run.

    Works behind NAT: the worker connects to the coordinator, never the other way round. GPUs are found with nvidia-smi;
    none is fine. Host id and key are kept, so it is the same host after a restart. SIGTERM or Ctrl-C drains: running
    jobs finish first.

    If a trading post has several coordinators, name some or all of them: when one is lost, the worker and its running
    answers move to the next.

    \b
    Examples:
      COMPTOIR_KEY=ck_… comptoir host --url https://post.example --engine http://127.0.0.1:8000/v1
      COMPTOIR_INVITATION=inv_… comptoir host --url https://post.example --engine ./qwen2.5-7b-q4.gguf
      comptoir host --url https://post.example --key-file key.txt --engine ./qwen2.5-7b-q4.gguf --price-out 0.30
      comptoir host --discover --price qwen2.5:7b=0.05/0.20 --slots 16
      comptoir host --engine demo --price-out 100cr
      comptoir host --engine container,id=shout,url=http://127.0.0.1:3000 --price-run shout=0.002
      comptoir host --infernet-config config.json --price-run 0.002
      comptoir host --engine python --engine ffmpeg --unit-price second=0.0001 --unit-price second-of-video=0.0002
      comptoir host --kind studio.kinds:Image --engine studio.engine:Painter --unit-price image=0.01
      comptoir host --url https://a.post.example --url https://b.post.example --engine demo
    """
    if context.invoked_subcommand is not None:
        return
    target = _target(urls, key)
    if not engines and not infernet_configs and not discover:
        raise Failure("no engine was chosen", NO_ENGINE_HINT, code=Exit.USAGE)
    sold = kinds_from(kinds)
    run_uusd, of_containers = read_run_prices(run_prices)
    by_unit = read_unit_prices(unit_prices, sold.units)
    usual = {unit.name: unit.usual_rate for unit in sold.units.values() if unit.usual_rate}
    tokens_and_runs = {TOKEN_IN.name: price_in, TOKEN_OUT.name: price_out, RUN.name: run_uusd * MILLION}
    prices = usual | tokens_and_runs | by_unit.pop("", {})
    config = WorkerConfig(
        url=target.url, key=target.key or None, engines=[*_specs(engines), *_infernet(infernet_configs)],
        discover=discover, discover_skip_ports=list(skip_ports), slots=slots, threads=threads,
        kinds=list(kinds), prices=prices, model_prices=_prices(model_prices, of_containers, by_unit),
        state_dir=state_dir, work_dir=work_dir,
        inputs=InputRules(bytes_max=int(inputs_gib * GIB), private_addresses=private_inputs),
        invitation=invitation, name=name, region=region, promotions=promotions, measure=measure, drain_s=drain_s,
    )  # fmt: skip
    set_up(level="warning", form="text")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_supervised(config) if supervised else _alone(config, sold))


host.add_command(doctor)


def _target(urls: Sequence[str], key: str | None) -> Target:
    """Return the addresses, joined by commas, and the key.

    Raises:
        Failure: one of them can't be understood.
    """
    return find_target(",".join(urls) or None, key, None, several=True)


def _specs(texts: Sequence[str]) -> list[EngineSpec]:
    try:
        return [parse_spec(text) for text in texts]
    except EngineError as error:
        raise Failure(error.message, "see 'comptoir host --help'", code=Exit.USAGE) from error


def _infernet(paths: Sequence[Path]) -> list[EngineSpec]:
    """Say what becomes of each key of each file, on standard error, and return the engines.

    Raises:
        Failure: a file is unusable, or nothing in it can be offered.
    """
    for path in paths:
        try:
            translation = read_config(path)
        except EngineError as error:
            raise Failure(error.message, "see docs/containers.md", code=Exit.USAGE) from error
        for line in translation.lines():
            click.echo(f"{path.name}: {line}", err=True)
        if not translation.specs:
            raise Failure(
                f"{path}: none of its containers can be offered", "the refused keys above say why", code=Exit.USAGE
            )
    if paths:
        # Pulls take minutes, and each is said as it goes on.
        logging.getLogger("comptoir.worker.engines.container_runtime").setLevel(logging.INFO)
    return [EngineSpec("infernet", {"config": str(path)}) for path in paths]


def _prices(
    texts: Sequence[str], of_containers: Mapping[str, int], by_unit: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Return the prices of models that have some of their own, by unit; what *by_unit* says has the last word."""
    found = {name: {RUN.name: run_uusd * MILLION} for name, run_uusd in of_containers.items()}
    for text in texts:
        model, equals, prices = text.rpartition("=")
        into, slash, outof = prices.partition("/")
        if not equals or not slash:
            raise Failure(
                f"--price {text!r} must look like MODEL=IN/OUT", "for example qwen2.5:7b=0.05/0.20", code=Exit.USAGE
            )
        found.setdefault(model, {}).update({TOKEN_IN.name: read_price(into), TOKEN_OUT.name: read_price(outof)})
    for model, told in by_unit.items():
        found.setdefault(model, {}).update(told)
    return found


async def _alone(config: WorkerConfig, kinds: Kinds) -> None:
    """Run for a person: a live board on a terminal, plain lines elsewhere."""
    console = out()
    board = Board(config.url, kinds)
    stop = asyncio.Event()
    if not console.is_terminal:
        await _run(config, lambda event: _print_line(board, event), stop)
        return
    with Live(get_renderable=board.render, console=console, refresh_per_second=REFRESH_PER_S, transient=False) as live:

        def show(event: Event) -> None:
            board.take(type(event).__name__, msgspec.structs.asdict(event))
            live.refresh()

        await _run(config, show, stop)


def _print_line(board: Board, event: Event) -> None:
    kind, facts = type(event).__name__, msgspec.structs.asdict(event)
    board.take(kind, facts)
    line = format_event(kind, facts, board.kinds)
    said = [*([line] if line else []), *(board.summary() if isinstance(event, Stopped) else [])]
    if said:
        click.echo("\n".join(said))
        sys.stdout.flush()


async def _run(config: WorkerConfig, on_event: Callable[[Event], None], stop: asyncio.Event) -> None:
    """Run the worker; the first signal drains, the second ends at once.

    Raises:
        Failure: no engine works, or the coordinator refuses this host.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run_worker(config, on_event=on_event, stop=stop))

    def signalled() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    try:
        await task
    except asyncio.CancelledError as error:
        raise click.exceptions.Exit(Exit.INTERRUPTED) from error
    except EngineError as error:
        raise Failure(error.message, NO_ENGINE_HINT) from error
    except KeyRefused as error:
        raise Failure(error.message, "delete the state file to register this machine again", code=Exit.KEY) from error
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _supervised(config: WorkerConfig) -> None:
    """Run for `comptoir up`: JSON lines until standard input ends; without an engine, look again periodically."""
    stop = asyncio.Event()
    _stop_at_end_of_input(asyncio.get_running_loop(), stop)
    said = ""
    while not stop.is_set():
        try:
            await _run(config, lambda event: _emit(type(event).__name__, msgspec.structs.asdict(event)), stop)
            return
        except Failure as failure:
            if not isinstance(failure.__cause__, EngineError) or not config.discover:
                _emit("GaveUp", {"why": failure.message, "hint": failure.hint})
                raise click.exceptions.Exit(failure.exit_code) from failure
            if failure.message != said:
                said = failure.message
                _emit("NoEngine", {"why": said})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_AGAIN_S)


def _emit(kind: str, facts: dict[str, Any]) -> None:
    try:
        os.write(1, msgspec.json.encode({"event": kind, **facts}) + b"\n")
    except BrokenPipeError:
        # Who supervised us is gone; the end of standard input stops us in an orderly way.
        return


def _stop_at_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the supervisor closes our standard input, or dies however it dies."""

    def read() -> None:
        while os.read(0, 4096):
            continue
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="supervisor", daemon=True).start()
