"""An engine in a process of its own, which gets weights and is started again where it dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from reasoning_lab.sampling.engine import NOTHING_YET, Sampling
from reasoning_lab.sampling.engine_process import EngineProcess
from reasoning_lab.types import UserError
from tests.support.process_engine import WeighingEngine

# Each process imports torch, unless it is not given weights.
pytestmark = pytest.mark.long

SAMPLING = Sampling(1.0, 1.0, 8)


def opened(folder: Path, diary: str = "diary") -> EngineProcess:
    build = partial(WeighingEngine, folder / diary, folder / "fatal")
    return EngineProcess(build, dict(os.environ), folder / "log", "the engine")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    process = opened(tmp_path)
    yield process
    process.close()
    assert_ended(process.pid)


def assert_ended(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def starts(folder: Path) -> int:
    return len((folder / "diary").read_text().splitlines())


def text_of(engine: EngineProcess) -> str:
    (completion,) = engine.generate(["one"], SAMPLING, [7])
    assert completion.token_ids == [7]
    return completion.text


def test_a_dead_engine_is_started_again_with_the_weights_and_the_request(
    engine: EngineProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = {"a": torch.ones(3), "b": torch.full((2, 2), 0.5)}
    assert text_of(engine) == "one []"
    engine.load(lambda: weights, 1)
    assert text_of(engine) == "one [('a', 3.0), ('b', 2.0)]"
    # While it waits.
    os.kill(engine.pid, signal.SIGKILL)
    assert text_of(engine) == "one [('a', 3.0), ('b', 2.0)]"
    assert starts(tmp_path) == 2
    assert "the engine died (signal 9)" in caplog.text
    # While it generates; what fails in it ends it too.
    (tmp_path / "fatal").write_text("kf")
    assert text_of(engine) == "one [('a', 3.0), ('b', 2.0)]"
    assert starts(tmp_path) == 4
    assert "the engine died (exit code 1)" in caplog.text
    assert "a kernel failed" in (tmp_path / "log").read_text()
    # While it is given weights.
    os.kill(engine.pid, signal.SIGKILL)
    weights["a"].mul_(2)
    engine.load(lambda: weights, 2)
    assert text_of(engine) == "one [('a', 6.0), ('b', 2.0)]"


def test_weights_of_a_version_are_loaded_once(engine: EngineProcess) -> None:
    calls: list[int] = []

    def weights() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"a": torch.full((1,), float(len(calls)))}

    for version in (0, 0, 1, 1):
        engine.load(weights, version)
    assert len(calls) == 2
    assert text_of(engine) == "one [('a', 2.0)]"


def test_what_kills_every_engine_ends_with_a_sentence(
    engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "fatal").write_text("kkkkk")
    with pytest.raises(UserError, match=r"^hardware.sampling: the engine died 3 times in a row; "):
        text_of(engine)
    assert (tmp_path / "fatal").read_text() == "kk"


def test_a_mistake_of_the_user_is_said_and_the_engine_goes_on(
    engine: EngineProcess, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^no such prompt$"):
        engine.generate(["refuse"], SAMPLING, [0])
    (extended,) = engine.extend(["one"], [NOTHING_YET], SAMPLING, [3], 2)
    assert extended.token_ids == [3, 3]
    assert starts(tmp_path) == 1


@pytest.mark.parametrize(
    ("diary", "message"),
    [
        ("refused", "^engine.model: there is none$"),
        (
            "killed",
            r"^hardware.sampling: the engine ended before it .* \(signal 9\); .*/log",
        ),
    ],
)
def test_an_engine_that_cannot_start_says_why(diary: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path, diary)
    assert_ended(int((tmp_path / diary).read_text()))


def test_an_engine_ends_with_a_trainer_that_is_killed_while_it_generates(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from tests.sampling.test_engine_process import opened, SAMPLING; "
        "engine = opened(pathlib.Path(sys.argv[1])); print(engine.pid, flush=True); "
        "engine.generate(['hang'], SAMPLING, [0])"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    time.sleep(0.2)
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
            return  # It has ended, and waits for whoever reaps orphans here.
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
