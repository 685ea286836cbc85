"""The group `policy_loss`: one option a method, with exactly its keys, or one's own function."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.config.folder import CONF
from reasoning_lab.config.policy_loss import (
    ClipConfig,
    CustomPolicyLossConfig,
    PolicyLossConfig,
)
from reasoning_lab.losses import policy_losses
from reasoning_lab.types import UserError
from tests.conftest import Compose

OPTIONS = sorted(path.stem for path in (CONF / "policy_loss").glob("*.yaml"))
METHODS = [option for option in OPTIONS if option != "custom"]
KEY = "stages.rl.policy_loss"
TENSORS = {"policy_logprobs", "behavior_logprobs", "advantages", "lengths"}


def test_each_option_has_the_keys_and_defaults_of_its_function(composed: Compose) -> None:
    words = []
    for option in METHODS:
        words += [f"+stage@stages.{option}=rl", f"stages.{option}.after=sft"]
        words.append(f"policy_loss@stages.{option}.policy_loss={option}")
    stages: Any = composed(
        *words, "stages.gspo.policy_loss.clip_high=1e-2", "stages.rl.policy_loss.clip_high=0.28"
    ).root.stages
    assert stages["gspo"].policy_loss.build(KEY).keywords == {"clip_low": 3e-4, "clip_high": 1e-2}
    assert stages["rl"].policy_loss.build(KEY).keywords == {"clip_low": 0.2, "clip_high": 0.28}
    for option in METHODS:
        config = stages[option].policy_loss
        assert config.target == f"reasoning_lab.losses.policy_losses.{option}"
        parameters = inspect.signature(getattr(policy_losses, option)).parameters
        defaults = {name: parameters[name].default for name in parameters.keys() - TENSORS}
        keys = {item.name for item in dataclasses.fields(config)} - {"_target_", "options"}
        assert {key: getattr(type(config)(), key) for key in keys} == defaults
        losses = config.build(KEY)(*torch.zeros(3, 2), torch.tensor([2])).losses
        assert losses.shape == (2,)


def test_a_key_of_another_method_is_refused(composed: Compose) -> None:
    with pytest.raises(UserError, match=rf"{KEY}\.clip_low"):
        composed(f"policy_loss@{KEY}=sapo", f"+{KEY}.clip_low=0.1")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (CustomPolicyLossConfig(), rf"{KEY}\._target_: it names no function; give the import path"),
        (CustomPolicyLossConfig("os.system"), rf"{KEY}\._target_: 'os\.system' may not be named"),
        (ClipConfig(options={"gamma": 1}), rf"{KEY}\.options: clip takes no options besides its k"),
    ],
)
def test_mistakes_end_in_one_sentence(config: PolicyLossConfig, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{sentence}"):
        config.check(KEY)


def test_a_function_of_ones_own_is_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses.py").write_text(
        "def squared(policy_logprobs, behavior_logprobs, advantages, lengths, scale=1.0):\n"
        "    return scale\n"
        "def misfit(policy_logprobs, rewards):\n"
        "    return rewards\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = CustomPolicyLossConfig("my_losses.squared", {"scale": 2.0})
    with pytest.raises(UserError, match=r"_target_: 'my_losses\.squared' may not be named"):
        config.check(KEY)
    monkeypatch.setenv("REASONING_LAB_TRUSTED", "my_losses")
    config.check(KEY)
    assert config.build(KEY)(None, None, None, None) == 2.0
    with pytest.raises(UserError, match=rf"^{KEY}\.options: .*'other' of 'my_losses\.squared'"):
        CustomPolicyLossConfig("my_losses.squared", {"other": 2.0}).check(KEY)
    with pytest.raises(UserError, match=rf"^{KEY}\.options: .*of 'my_losses\.misfit'"):
        CustomPolicyLossConfig("my_losses.misfit").check(KEY)
