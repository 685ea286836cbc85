"""The group `policy_loss`: what a token of a rollout costs. No torch here.

Each option is a function of `reasoning_lab.losses.policy_losses` and has exactly its keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reasoning_lab.config.components import Targeted, register_component
from reasoning_lab.config.fields import choice, fraction, number
from reasoning_lab.config.targets import check_arguments, check_path, factory, is_trusted
from reasoning_lab.types import UserError

_LOSSES = "reasoning_lab.losses.policy_losses"
# What every policy loss is called with; options come besides.
_TENSORS = ("policy_logprobs", "behavior_logprobs", "advantages", "lengths")


@dataclass
class PolicyLossConfig(Targeted):
    """A policy loss; each option of the group adds its keys."""

    def check(self, key: str) -> None:
        """Refuse a function that a config may not name, and one that does not fit its options.

        The lab's own functions are not imported, as they import torch; their keys are all that
        they take.
        """
        if not self.target:
            raise UserError(
                f"{key}._target_: it names no function; give the import path of one, as in "
                f"{key}._target_=my_losses.my_loss"
            )
        check_path(self.target, f"{key}._target_")
        if is_trusted(self.target):
            self._check_arguments(key)
        elif self.options:
            name = self.target.rpartition(".")[2]
            raise UserError(
                f"{key}.options: {name} takes no options besides its keys; set these, or name a "
                f"function of your own with policy_loss@{key}=custom"
            )

    def build(self, key: str) -> Callable[..., Any]:
        """The function with its options, a `reasoning_lab.losses.policy_losses.PolicyLoss`.

        Raises:
            UserError: It has no such options.
        """
        self._check_arguments(key)
        return factory(self.arguments(), key)

    def _check_arguments(self, key: str) -> None:
        arguments = self.arguments()
        path = arguments.pop("_target_")
        check_arguments(path, {**dict.fromkeys(_TENSORS), **arguments}, key)


@dataclass
class ClipConfig(PolicyLossConfig):
    """The clipped surrogate of PPO, GRPO and DAPO.

    Attributes:
        clip_low: A token's probability ratio is not pushed below 1 - clip_low.
        clip_high: It is not pushed above 1 + clip_high.
    """

    _target_: str = f"{_LOSSES}.clip"
    clip_low: float = fraction(0.2)
    clip_high: float = number(0.2, least=0.0)


@dataclass
class GSPOConfig(PolicyLossConfig):
    """The clipped surrogate of a whole rollout's ratio; its paper has `aggregation=sequence`.

    Attributes:
        clip_low: The geometric mean of a rollout's ratios is not pushed below 1 - clip_low.
        clip_high: It is not pushed above 1 + clip_high.
    """

    _target_: str = f"{_LOSSES}.gspo"
    clip_low: float = fraction(3e-4)
    clip_high: float = number(4e-4, least=0.0)


@dataclass
class CISPOConfig(PolicyLossConfig):
    """REINFORCE under clipped importance weights, so that every token keeps a gradient.

    Attributes:
        clip_low: No ratio counts as less than 1 - clip_low; 1 = no bound.
        clip_high: No ratio counts as more than 1 + clip_high.
    """

    _target_: str = f"{_LOSSES}.cispo"
    clip_low: float = fraction(1.0)
    clip_high: float = number(4.0, least=0.0)


@dataclass
class DPPOConfig(PolicyLossConfig):
    """REINFORCE under importance weights, without tokens whose probability moved too far.

    Attributes:
        divergence: How far is measured between the token and all others together: tv = total
            variation, kl = Kullback-Leibler, for which the paper has bounds of 0.05.
        clip_low: A token of a negative advantage is left out if its probability fell by more.
        clip_high: A token of a positive advantage is left out if its probability rose by more.
        max_ratio: Where an importance weight is cut.
    """

    _target_: str = f"{_LOSSES}.dppo"
    divergence: str = choice("tv", "kl")
    clip_low: float = number(0.15, least=0.0)
    clip_high: float = number(0.15, least=0.0)
    max_ratio: float = number(20.0, least=1.0)


@dataclass
class SAPOConfig(PolicyLossConfig):
    """A soft gate around the ratio 1 in place of clipping.

    Attributes:
        temperature_positive: How soon the gradient of tokens with a positive advantage fades;
            larger = sooner.
        temperature_negative: The same of all other tokens.
    """

    _target_: str = f"{_LOSSES}.sapo"
    temperature_positive: float = number(1.0, least=0.01)
    temperature_negative: float = number(1.05, least=0.01)


@dataclass
class ReinforceConfig(PolicyLossConfig):
    """Minus advantage times log-probability, whoever sampled the token."""

    _target_: str = f"{_LOSSES}.reinforce"


@dataclass
class CustomPolicyLossConfig(PolicyLossConfig):
    """A function of the user's own, in a package that REASONING_LAB_TRUSTED names.

    Attributes:
        _target_: Its import path.
        options: Its arguments, besides the four tensors that every policy loss is called with.
    """

    # Not missing: then the option would keep the function whose place it takes.
    _target_: str = ""


for _name, _schema in (
    ("custom", CustomPolicyLossConfig),
    ("clip", ClipConfig),
    ("gspo", GSPOConfig),
    ("cispo", CISPOConfig),
    ("dppo", DPPOConfig),
    ("sapo", SAPOConfig),
    ("reinforce", ReinforceConfig),
):
    register_component("policy_loss", _name, _schema)
