"""What deploy/ holds is right as far as that shows without starting it: linted by the programs it is for, and by rules
of our own.

Where systemd or HAProxy is not installed, their test is skipped and says so; the rules of our own always run.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from comptoir.settings import ENVIRONMENT_NOT_OURS, Settings, load
from tests.house import tree

DEPLOY = tree.ROOT / "deploy"
UNITS = ("comptoir@.service", "comptoir-worker.service")

SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "environment", "extra_hosts", "healthcheck", "image", "networks", "ports",
    "profiles", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
"""Keys of the compose specification that we use; anything else is a slip until it is added here."""

HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period", "disable"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
DURATION = re.compile(r"(\d+)s")
IMAGE = re.compile(r"[a-z0-9./-]+:\d[\w.-]*|comptoir")
SERVER = re.compile(r"^(    server \S+) \S+", re.MULTILINE)
EXPOSURE_MAX = 2.0
"""Of systemd's 10; an ordinary service has 9."""


def compose() -> dict[str, Any]:
    """Return the file as Compose reads it, anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def wrong_with(name: str, service: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """Return what is wrong with one service of *whole*."""
    wrong = [f"no such key: {key}" for key in sorted(service.keys() - SERVICE_KEYS)]
    if not IMAGE.fullmatch(service.get("image", "")):
        wrong.append(f"image {service.get('image')!r} names no version")
    for mount in service.get("volumes", ()):
        source, _, target = mount.partition(":")
        there = source in whole["volumes"] if "/" not in source else (DEPLOY / source).exists()
        wrong += [] if there and target.startswith("/") else [f"volume {mount} leads nowhere"]
    wrong += [f"network {one} is not declared" for one in service.get("networks", ()) if one not in whole["networks"]]
    needs = service.get("depends_on", {})
    for needed in needs:
        if needed not in whole["services"]:
            wrong.append(f"depends on {needed}, which is no service")
        elif isinstance(needs, dict):
            condition = needs[needed]["condition"]
            health = whole["services"][needed].get("healthcheck", {})
            ours = whole["services"][needed]["image"] == "comptoir"  # The image has a HEALTHCHECK.
            if condition not in CONDITIONS or (condition == "service_healthy" and not health and not ours):
                wrong.append(f"waits for {needed} to be {condition}, which it never says")
    health = service.get("healthcheck", {})
    wrong += [f"healthcheck has no {key}" for key in sorted(health.keys() - HEALTH_KEYS)]
    if not health and service["image"] != "comptoir":
        wrong.append("has no healthcheck")
    if not DURATION.fullmatch(service.get("stop_grace_period", "")):
        wrong.append("has no stop_grace_period in seconds")
    if service.get("restart") != "unless-stopped":
        wrong.append("does not come back after a crash")
    return [f"{name}: {one}" for one in wrong]


class TestCompose:
    whole = compose()

    def test_every_service_is_well_formed(self) -> None:
        services = self.whole["services"]
        wrong = [line for name, one in services.items() for line in wrong_with(name, one, self.whole)]

        assert wrong == []
        assert set(services) == {
            "postgres",
            "valkey",
            "haproxy",
            "worker",
            "coordinator-1",
            "coordinator-2",
            "coordinator-3",
        }

    def test_every_declared_volume_and_network_is_used(self) -> None:
        text = (DEPLOY / "compose.yaml").read_text()

        assert [name for name in self.whole["volumes"] if f'"{name}:/' not in text] == []
        assert [name for name in self.whole["networks"] if f"[{name}]" not in text] == []

    def test_only_the_balancer_is_open_and_only_to_this_machine(self) -> None:
        ports = {name: one["ports"] for name, one in self.whole["services"].items() if "ports" in one}

        assert ports == {"haproxy": ["${LISTEN:-127.0.0.1:8080}:8080"]}

    def test_our_variables_are_settings_with_values_they_take(self) -> None:
        given = {
            name: re.sub(r"\$\{\w+(:-([^}]*)|[^}]*)\}", r"\2", value)
            for one in self.whole["services"].values()
            for name, value in one.get("environment", {}).items()
            if name.startswith("COMPTOIR_") and name not in ENVIRONMENT_NOT_OURS
        }

        settings = load(env=given).settings

        assert len(given) >= 5
        assert settings.bus and settings.database.startswith("postgresql://")

    def test_the_drain_fits_into_the_time_before_the_kill(self) -> None:
        for name in ("coordinator-1", "coordinator-2", "coordinator-3"):
            service = self.whole["services"][name]
            drain_s = sum(float(service["environment"][f"COMPTOIR_{one}"]) for one in ("DRAIN_S", "DRAIN_NOTICE_S"))
            found = DURATION.fullmatch(service["stop_grace_period"])

            assert found is not None and int(found[1]) >= drain_s + 10

    def test_the_balancers_network_is_the_one_that_is_trusted(self) -> None:
        (subnet,) = (one["subnet"] for one in self.whole["networks"]["inside"]["ipam"]["config"])
        trusted = self.whole["services"]["coordinator-1"]["environment"]["COMPTOIR_TRUSTED_PROXIES"]

        assert trusted == subnet

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"imagee": "x:1"}, "no such key"),
            ({"image": "redis:latest"}, "names no version"),
            ({"volumes": ["nowhere:/data"]}, "leads nowhere"),
            ({"volumes": ["./missing.cfg:/x"]}, "leads nowhere"),
            ({"networks": ["outside"]}, "is not declared"),
            ({"depends_on": ["mysql"]}, "no service"),
            ({"depends_on": {"worker": {"condition": "service_good"}}}, "never says"),
            ({"healthcheck": {"tests": []}}, "healthcheck has no"),
            ({"stop_grace_period": "soon"}, "stop_grace_period"),
            ({"restart": "no"}, "come back"),
        ],
    )
    def test_a_planted_slip_is_found(self, change: dict[str, Any], said: str) -> None:
        broken = {**self.whole["services"]["valkey"], **change}

        assert any(said in line for line in wrong_with("valkey", broken, self.whole))


class TestDockerfile:
    text = (DEPLOY / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()

    def of(self, instruction: str) -> list[str]:
        """Return the arguments of every such instruction, in order."""
        return [line.removeprefix(instruction + " ") for line in self.lines if line.startswith(instruction + " ")]

    def test_it_is_built_in_two_stages_on_named_versions(self) -> None:
        images = self.of("FROM")

        assert len(images) == 2 and images[0].endswith(" AS build")
        assert all(re.match(r"python:3\.\d+-slim-\w+", one) for one in images)

    def test_it_runs_as_nobody_special(self) -> None:
        (user,) = self.of("USER")

        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
        assert self.lines.index(f"USER {user}") < next(
            i for i, x in enumerate(self.lines) if x.startswith("ENTRYPOINT")
        )
        assert f"--uid {user.partition(':')[0]}" in self.text

    def test_only_what_is_locked_is_installed(self) -> None:
        pips = [part for line in self.of("RUN") for part in line.split("&&") if "pip install" in part]

        assert len(pips) == 2 and all("--no-deps" in one and "--no-cache-dir" in one for one in pips)
        assert "--require-hashes --requirement requirements/server.txt" in pips[0]
        assert "--no-build-isolation" in pips[1], "else pip fetches a build backend that nobody locked"
        lock = (tree.ROOT / "requirements/server.txt").read_text()
        for needed in ("hatchling==", "psycopg[binary]==", "hiredis=="):
            assert needed in lock

    def test_what_it_copies_exists_and_reaches_the_builder(self) -> None:
        ignored = (tree.ROOT / ".dockerignore").read_text().splitlines()
        sources = [word for line in self.of("COPY") if "--from" not in line for word in line.split()[:-1]]

        assert "src" in sources
        assert [one for one in sources if not (tree.ROOT / one).exists() or f"!{one}" not in ignored] == []

    def test_programs_get_arguments_and_signals_themselves(self) -> None:
        """A shell in between would swallow SIGTERM, and nothing would drain."""
        assert all(one.startswith("[") for one in (*self.of("ENTRYPOINT"), *self.of("CMD")))
        assert self.of("STOPSIGNAL") == ["SIGTERM"]
        assert len(self.of("HEALTHCHECK")) == 1
        assert not [line for line in self.lines if line.startswith("ADD ") or "sudo" in line or "latest" in line]

    def test_its_environment_is_settings(self) -> None:
        names = set(re.findall(r"COMPTOIR_(\w+)=", self.text))

        assert names and {one.lower() for one in names} <= set(Settings.__struct_fields__)


class TestHaproxy:
    text = (DEPLOY / "haproxy.cfg").read_text()

    def test_haproxy_takes_it(self, tmp_path: Path) -> None:
        """With addresses instead of names: nobody is to be asked for them."""
        program = shutil.which("haproxy")
        if program is None:
            pytest.skip("HAPROXY IS NOT INSTALLED: deploy/haproxy.cfg was not checked by it (apt-get install haproxy)")
        numbers = iter(range(8081, 8090))
        here = re.sub(SERVER, lambda found: f"{found[1]} 127.0.0.1:{next(numbers)}", self.text)
        (tmp_path / "haproxy.cfg").write_text(here)

        done = subprocess.run(
            [program, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, timeout=60, check=False
        )

        assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr

    def test_its_servers_are_the_coordinators_of_the_compose_file(self) -> None:
        services = {name for name in compose()["services"] if name.startswith("coordinator-")}

        assert set(re.findall(r"^\s+server (\S+) \1:8080$", self.text, re.MULTILINE)) == services

    def test_no_time_out_ends_what_is_only_quiet(self) -> None:
        times_s = {name: int(text) for name, text in re.findall(r"timeout (\w+) (\d+)s", self.text)}

        assert min(times_s["client"], times_s["server"], times_s["tunnel"]) > 2 * Settings().sse_ping_s
        assert times_s["server"] > Settings().next_job_wait_s + 10

    def test_its_check_notices_a_drain_before_jobs_are_refused(self) -> None:
        checks = re.search(r"check inter (\d+)s fastinter (\d+)ms fall (\d+)", self.text)
        notice_s = float(compose()["services"]["coordinator-1"]["environment"]["COMPTOIR_DRAIN_NOTICE_S"])

        assert checks is not None
        assert int(checks[1]) + int(checks[2]) / 1000 * (int(checks[3]) - 1) < notice_s

    def test_what_it_looks_for_keeps_its_quotes(self) -> None:
        """HAProxy takes double quotes away: unquoted, the check matched nothing and every coordinator was down."""
        assert """http-check expect string '"status":"open"'""" in self.text

    def test_nothing_is_sent_twice(self) -> None:
        """A request that a coordinator may have seen could buy a second answer."""
        assert re.findall(r"retry-on (.*)", self.text) == ["conn-failure"]


class TestSystemd:
    @pytest.mark.parametrize("unit", UNITS)
    def test_systemd_takes_it_and_finds_it_shut(self, unit: str, tmp_path: Path) -> None:
        program = shutil.which("systemd-analyze")
        if program is None:
            pytest.skip("SYSTEMD IS NOT INSTALLED: the units in deploy/ were not checked by it")
        # Our program is not at its place here; any that exists will do.
        text = (DEPLOY / unit).read_text().replace("/opt/comptoir/bin/comptoir", sys.executable)
        path = tmp_path / unit.replace("@", "@8081")
        path.write_text(text)

        verified = subprocess.run(
            [program, "verify", "--man=no", path], capture_output=True, text=True, timeout=60, check=False
        )
        judged = subprocess.run(
            [program, "security", "--offline=true", "--no-pager", path],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (verified.returncode, verified.stderr) == (0, "")
        found = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout)
        assert found is not None, judged.stdout + judged.stderr
        assert float(found[1]) <= EXPOSURE_MAX

    @pytest.mark.parametrize("unit", UNITS)
    def test_the_drain_fits_into_the_time_before_the_kill(self, unit: str) -> None:
        text = (DEPLOY / unit).read_text()
        drain = re.search(r"COMPTOIR_DRAIN_S=(\d+)|--drain (\d+)", text)
        stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)

        assert drain is not None and stop is not None
        notice = re.search(r"COMPTOIR_DRAIN_NOTICE_S=(\d+)", text)
        notice_s = int(notice[1]) if notice else 0
        assert bool(notice) is (unit == "comptoir@.service")
        assert int(stop[1]) >= int(drain[1] or drain[2]) + notice_s + 10
        assert "KillSignal=SIGTERM" in text and "Restart=always" in text

    @pytest.mark.parametrize("unit", UNITS)
    def test_no_secret_is_on_a_command_line(self, unit: str) -> None:
        text = (DEPLOY / unit).read_text()

        assert "EnvironmentFile=-/etc/comptoir/" in text
        (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
        assert "://" not in command.replace("http://127.0.0.1", "") and "--key" not in command
