"""What tests of reinforcement learning share: recorded metrics and tables, and rewarded groups."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reasoning_lab.stages.rl.records import DropReason, RewardedGroup, RewardedRollout
from reasoning_lab.tracking.tracker import Tracker
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


class MetricsLogger(Logger):
    """Keeps what each step logged."""

    name = version = "steps"

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.steps.setdefault(step or 0, {}).update(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class TableTracker(Tracker):
    """Keeps metrics and tables of rollouts."""

    def __init__(self) -> None:
        self.lightning_logger: Any = MetricsLogger()
        self.tables: list[tuple[list[Rollout], dict[str, list[float]]]] = []

    def log_rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        extra_columns: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        columns = {name: list(values) for name, values in extra_columns.items()}
        self.tables.append((list(rollouts), columns))


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Tokens w2 to w19, with a chat template that puts w2 before a message and w3 behind it."""
    words = {"<pad>": 0, "<end>": 1, **{f"w{number}": number for number in range(2, 20)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = "{% for m in messages %}w2 {{ m['content'] }} w3{% endfor %}"
    return fast


def rewarded_group(*rewards: float, masked: int = 0) -> RewardedGroup:
    """Rollouts of 2, 3, 4, … tokens, whose rewards are their advantages too.

    The first `masked` of them are truncated and do not train.
    """
    problem = Problem("w4 w5", "w6", "math", "f")
    records = []
    for index, reward in enumerate(rewards):
        tokens, is_masked = index + 2, index < masked
        completion = Completion([6 + index] * tokens, "", [-0.5] * tokens, truncated=is_masked)
        rollout = Rollout(problem, completion, None, Verdict.WRONG, "p")
        dropped = DropReason.CUT_OFF if is_masked else None
        records.append(RewardedRollout(rollout, {"r": reward}, reward, reward, dropped))
    return RewardedGroup(problem, records)
