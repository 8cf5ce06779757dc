"""nvidia-smi is read as real ones print it, and its absence or failure costs nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from comptoir.kinds import Kinds
from comptoir.link import Frame, ModelOffer
from comptoir.worker import health
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.health import Gpu, Hardware, Measure, describe, detect_gpus, measure, utilization
from tests.worker.scripted_engine import ScriptedEngine, answer


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the path of an nvidia-smi that is first (and last) on PATH; a test writes it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "nvidia-smi"


def write(path: Path, script: str) -> None:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


class TestDetectGpus:
    def test_every_card_is_read(self, smi: Path) -> None:
        write(smi, "echo 'NVIDIA H200, 143771, 97'\necho 'NVIDIA H200, 143771, 3'\n")

        assert detect_gpus() == [Gpu("NVIDIA H200", 143771, 0.97), Gpu("NVIDIA H200", 143771, 0.03)]

    def test_the_question_is_one_nvidia_smi_understands(self, smi: Path) -> None:
        write(
            smi,
            '[ "$*" = "--query-gpu=name,memory.total,utilization.gpu --format=csv,noheader,nounits" ] || exit 2\n'
            "echo 'NVIDIA L4, 23034, 0'\n",
        )

        assert detect_gpus() == [Gpu("NVIDIA L4", 23034, 0.0)]

    def test_numbers_the_driver_does_not_know_are_zero(self, smi: Path) -> None:
        write(smi, "echo 'NVIDIA GB10, [N/A], [Not Supported]'\n")

        assert detect_gpus() == [Gpu("NVIDIA GB10", 0, 0.0)]

    def test_none_is_fine(self, smi: Path) -> None:
        assert detect_gpus() == []

    def test_a_broken_driver_is_logged(self, smi: Path, caplog: pytest.LogCaptureFixture) -> None:
        write(smi, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n")

        assert detect_gpus() == []
        assert "could not communicate" in caplog.text

    def test_a_hanging_driver_is_left_alone(
        self, smi: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(smi, "read forever < /dev/tty || while :; do :; done\n")
        monkeypatch.setattr(health, "NVIDIA_SMI_TIMEOUT_S", 0.05)

        assert detect_gpus() == []
        assert "timed out" in caplog.text

    def test_lines_that_are_none_of_ours_are_skipped(self, smi: Path) -> None:
        write(smi, "echo 'No devices were found'\n")

        assert detect_gpus() == []


class TestDescribe:
    def test_equal_cards_are_counted(self) -> None:
        gpus = [Gpu("A", 10, 0.5), Gpu("B", 20, 0.0), Gpu("A", 10, 1.0)]

        assert describe(gpus) == Hardware("2x A + B", 40, 3)
        assert utilization(gpus) == 0.5

    def test_without_cards_it_is_the_processor(self) -> None:
        hardware = describe([])

        assert hardware.gpu
        assert (hardware.vram_mib, hardware.gpus, utilization([])) == (0, 0, 0.0)


class TestMeasure:
    async def test_first_token_and_speed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = 100.0

        class Paced(ScriptedEngine):
            async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
                nonlocal now_s
                async for item in super().run(request):
                    now_s += 0.25
                    yield item

        monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now_s))

        speed = await measure(Paced(*answer("a", "b", "c")), ModelOffer(name="m", kinds=["completion"]), Kinds())

        # Two tokens after the first one, and the end after them: three quarters of a second.
        assert speed == Measure(first_token_s=0.25, tokens_per_s=2 / 0.75)

    async def test_embedding_models_are_not_measured(self) -> None:
        engine = ScriptedEngine(*answer("a"))

        assert await measure(engine, ModelOffer(name="e", kinds=["embedding"]), Kinds()) is None
        assert engine.requests == []

    async def test_an_engine_that_refuses_the_samples_own_fields_is_asked_without(self) -> None:
        class Particular(ScriptedEngine):
            async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
                self.requests.append(request)
                for field in (b"temperature", b"max_tokens"):
                    if field in request.body:
                        said = "Unsupported value: 'temperature' and 'max_tokens'"
                        raise EngineError("bad_request", said, fault="buyer", status=400)
                while True:  # Nothing bounds it now.
                    yield Frame("a")

        engine = Particular()

        speed = await measure(engine, ModelOffer(name="m", kinds=["chat"]), Kinds())

        assert speed is not None and speed.tokens_per_s > 0
        assert [sorted(msgspec.json.decode(asked.body)) for asked in engine.requests][1] == ["messages", "model"]

    @pytest.mark.parametrize(("said", "fault"), [("no such model", "buyer"), ("temperature sensor on fire", "host")])
    async def test_any_other_refusal_stands(self, said: str, fault: str) -> None:
        engine = ScriptedEngine(EngineError("bad_request", said, fault=fault, status=400))

        with pytest.raises(EngineError, match=said):
            await measure(engine, ModelOffer(name="m", kinds=["chat"]), Kinds())
        assert len(engine.requests) == 1

    async def test_one_token_has_no_speed(self) -> None:
        speed = await measure(ScriptedEngine(*answer("a")), ModelOffer(name="m", kinds=["completion"]), Kinds())

        assert speed is not None and speed.tokens_per_s == 0.0

    async def test_an_engine_that_can_not_answer_says_so(self) -> None:
        with pytest.raises(EngineError, match="no memory"):
            await measure(
                ScriptedEngine(Frame("a"), EngineError("oom", "no memory")),
                ModelOffer(name="m", kinds=["chat"]),
                Kinds(),
            )
