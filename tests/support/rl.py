"""What tests of reinforcement learning share: recorded metrics and tables, and rewarded groups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reasoning_lab.stages.rl.records import DropReason, RewardedGroup, RewardedRollout
from reasoning_lab.stages.rl.rollouts import training_rows
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import RolloutBatch, rollout_batches
from reasoning_lab.system.ranks import Peers
from reasoning_lab.tracking.tracker import GLOBAL_STEP, Tracker
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


class TableTracker(Tracker):
    """Keeps what each step logged, and tables of rollouts."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.tables: list[tuple[list[Rollout], dict[str, list[float]]]] = []

    def log(self, metrics: Mapping[str, Any]) -> None:
        if GLOBAL_STEP in metrics:
            values = {key: metrics[key] for key in metrics if key != GLOBAL_STEP}
            self.steps.setdefault(metrics[GLOBAL_STEP], {}).update(values)

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


def rewarded_group(*rewards: float, masked: int = 0, domain: str = "mathematics") -> RewardedGroup:
    """Rollouts of 2, 3, 4, … tokens, whose rewards are their advantages too.

    The first `masked` of them are truncated and do not train.
    """
    problem = Problem("w4 w5", "w6", "math", "f", domain=domain)
    records = []
    for index, reward in enumerate(rewards):
        tokens, is_masked = index + 2, index < masked
        completion = Completion([6 + index] * tokens, "", [-0.5] * tokens, truncated=is_masked)
        rollout = Rollout(problem, completion, None, Verdict.WRONG, "p")
        dropped = DropReason.CUT_OFF if is_masked else None
        records.append(RewardedRollout(rollout, {"r": reward}, reward, reward, dropped))
    return RewardedGroup(problem, records)


def micro_batches(
    groups: Sequence[RewardedGroup], config: RLStage, most: int | None = None
) -> list[RolloutBatch]:
    """Those of one rank, of at most so many rows, tokenized by `word_tokenizer`."""
    rows = training_rows(groups, word_tokenizer(), config)
    return rollout_batches(rows, most, torch.device("cpu"), Peers())


def jittered(group: RewardedGroup, seed: int) -> RewardedGroup:
    """The group with other tokens, and logprobs of an engine that is somewhat off."""
    generator = torch.Generator().manual_seed(seed)

    def of(record: RewardedRollout) -> RewardedRollout:
        count = len(record.rollout.completion.token_ids)
        tokens = torch.randint(4, 20, (count,), generator=generator).tolist()
        logprobs = (-2.9 + 0.3 * torch.randn(count, generator=generator)).tolist()
        completion = replace(record.rollout.completion, token_ids=tokens, logprobs=logprobs)
        return replace(record, rollout=replace(record.rollout, completion=completion))

    return group.with_compared(of(record) for record in group.compared)
