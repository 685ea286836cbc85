"""A longer training goes on from the last state of a shorter one, and says what differs."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.config.optimization import ConstantConfig, LinearConfig, ScheduleConfig
from reasoning_lab.graph.record import fingerprint
from reasoning_lab.stages.rl.options import TemperatureConfig
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.continuing import continued_run
from reasoning_lab.training.stage import TrainingStage
from reasoning_lab.types import UserError
from tests.support.composition import composed_recipe
from tests.support.stages import STAGES, trained, weights

SHORT, LONG = 3, 6


def stage(name: str, steps: int, schedule: ScheduleConfig, **changes: Any) -> TrainingStage:
    config = STAGES[name]
    options: dict[str, Any] = {
        "schedule": schedule,
        "length": f"{steps} steps",
        "checkpoint_every_steps": 99,
    }
    if isinstance(config, RLStage):
        # Annealing goes by the steps that each run has. Of groups of two, many have no signal, so
        # that others take their place.
        config = replace(config, temperature=TemperatureConfig(end=1.0), group_size=2)
    return replace(config, optimization=replace(config.optimization, **options, **changes))


def longer(
    name: str, schedule: ScheduleConfig, context: StageContext, folder: Path
) -> dict[str, torch.Tensor]:
    """Weights after `LONG` steps, of which the first `SHORT` are another run's."""
    # Kept states lie beside the work folder, which the runner names by the fingerprint.
    first = replace(context, fingerprint="short")
    trained(name, first, folder / "short", stage(name, SHORT, schedule, keep_state=True))
    (folder / "long").mkdir()
    (folder / "short" / "states").rename(folder / "long" / "states")
    second = replace(context, fingerprint="long", continued_run="short")
    goes_on = stage(name, LONG, schedule, continues=f"{SHORT} steps")
    trained(name, second, folder / "long", goes_on)
    return weights(folder / "long" / "out")


@pytest.mark.parametrize(
    "name", ["sft", "midtrain", "dpo", "rl_options", pytest.param("rl", marks=pytest.mark.long)]
)
def test_schedules_that_agree_give_the_run_in_one_go(
    name: str, context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        continued = longer(name, ConstantConfig(), context, tmp_path)
    trained(name, context, tmp_path / "once", stage(name, LONG, ConstantConfig()))
    in_one_go = weights(tmp_path / "once" / "out")
    assert all(torch.equal(continued[key], in_one_go[key]) for key in in_one_go)
    history, expected = (read_history(tmp_path / run / "out") for run in ("long", "once"))
    assert history == expected
    assert (
        f"it goes on after {SHORT} steps, with the learning rates of a run in one go" in caplog.text
    )


def test_another_course_of_the_rate_is_told(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        continued = longer("sft", LinearConfig(), context, tmp_path)
    # Falling to 0 in 3 steps or in 6: 1, 2/3, 1/3 or 1, 5/6, 4/6; then 3/6.
    told = "of which 2 had another learning rate than a run in one go gives them; the next has 0.5"
    assert told in caplog.text
    trained("sft", context, tmp_path / "once", stage("sft", LONG, LinearConfig()))
    in_one_go = weights(tmp_path / "once" / "out")
    assert not all(torch.equal(continued[key], in_one_go[key]) for key in in_one_go)


def test_the_rate_after_the_state_is_the_longer_runs(context: StageContext, tmp_path: Path) -> None:
    """At the rate of the shorter run's end, which is 0, the next step would learn nothing."""
    first = replace(context, fingerprint="short")
    trained("sft", first, tmp_path / "short", stage("sft", 3, LinearConfig(), keep_state=True))
    (tmp_path / "long").mkdir()
    (tmp_path / "short" / "states").rename(tmp_path / "long" / "states")
    second = replace(context, fingerprint="long", continued_run="short")
    goes_on = stage("sft", 4, LinearConfig(), continues="3 steps")
    trained("sft", second, tmp_path / "long", goes_on)
    short, long = (weights(tmp_path / name / "out") for name in ("short", "long"))
    assert not all(torch.equal(short[key], long[key]) for key in short)


def test_without_a_kept_state_it_is_refused(context: StageContext, tmp_path: Path) -> None:
    second = replace(context, fingerprint="long", continued_run="short")
    goes_on = stage("sft", LONG, ConstantConfig(), continues=f"{SHORT} steps")
    with pytest.raises(UserError, match=r"continues=3 steps: there is no state .*keep_state=true"):
        trained("sft", second, tmp_path / "long", goes_on)


def test_it_is_another_run_than_one_in_one_go() -> None:
    names = ("stages.sft.optimization.length=5 steps", "stages.sft.optimization.length=9 steps")
    continues = "stages.sft.optimization.continues=5 steps"
    short, once, continued = (
        next(
            node for node in composed_recipe("experiment=smoke", *words).nodes if node.name == "sft"
        )
        for words in (names[:1], names[1:], (names[1], continues))
    )
    assert len({short.fingerprint, once.fingerprint, continued.fingerprint}) == 3
    assert continued_run(continued.identity) == short.fingerprint == fingerprint(short.identity)
    assert continued_run(once.identity) is None
    with pytest.raises(UserError, match="give it a longer length"):
        composed_recipe("experiment=smoke", names[0], continues)


def test_a_run_that_went_on_is_gone_on_from() -> None:
    """By all lengths, as one that did not go on has the same length and is another run."""
    key = "stages.sft.optimization"
    second, third = (
        next(
            node for node in composed_recipe("experiment=smoke", *words).nodes if node.name == "sft"
        )
        for words in (
            (f"{key}.length=9 steps", f"{key}.continues=5 steps"),
            (f"{key}.length=11 steps", f"{key}.continues=5 steps then 9 steps"),
        )
    )
    assert continued_run(third.identity) == second.fingerprint
    with pytest.raises(UserError, match="a run of 5 steps goes on from one of 9 steps"):
        composed_recipe("experiment=smoke", f"{key}.continues=9 steps then 5 steps")


@pytest.mark.parametrize("name", ["midtrain_best", "dpo_best"])
def test_best_weights_of_the_shorter_run_count_in_the_longer(
    name: str, context: StageContext, tmp_path: Path
) -> None:
    """So the policy is that of a run in one go, also where its best step is the shorter run's."""
    continued = longer(name, ConstantConfig(), context, tmp_path)
    trained(name, context, tmp_path / "once", stage(name, LONG, ConstantConfig()))
    in_one_go = weights(tmp_path / "once" / "out")
    assert all(torch.equal(continued[key], in_one_go[key]) for key in in_one_go)
