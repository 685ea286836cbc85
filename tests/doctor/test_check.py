"""How checks run: in order, each in its own line, and none whose ground is missing."""

from pathlib import Path
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.doctor.check import Check, State, ok, run_checks, wrong
from reasoning_lab.doctor.checks import CHECKS
from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.types import UserError
from reasoning_lab.verify import Verifier


def test_a_check_needs_only_checks_before_it() -> None:
    for place, check in enumerate(CHECKS):
        assert {*check.needs} <= {earlier.name for earlier in CHECKS[:place]}, check.name


def test_a_check_that_fails_takes_a_line_and_those_that_need_it_do_not_run(
    tmp_path: Path,
) -> None:
    def fails(model: ModelUnderTest) -> Any:
        raise KeyError("a key\nand more")

    def refuses(model: ModelUnderTest) -> Any:
        raise UserError("model.path: it is broken; mend it")

    checks = [
        Check("fails", "", "", fails),
        Check("refuses", "", "", refuses),
        Check("needs", "", "", lambda model: ok(), ("fails", "refuses")),
        Check("needs-more", "", "", lambda model: ok(), ("needs",)),
        Check("is-free", "", "", lambda model: ok("a note")),
    ]
    verifier = Verifier(1, timeout_s=1, memory_mb=512)
    model = ModelUnderTest(ModelConfig(path=str(tmp_path)), HardwareConfig(), [], [], verifier)
    results = [one.result for one in run_checks(checks, model)]
    assert [result.state for result in results] == [
        State.FAILED,
        State.WRONG,
        State.NOT_RUN,
        State.NOT_RUN,
        State.OK,
    ]
    assert results[1] == wrong("model.path: it is broken; mend it")
    assert "\n" not in results[0].sentence
    # The one that was not run is no reason of its own.
    for result in results[2:4]:
        assert result.sentence == "it is run once fails and refuses are ok"
