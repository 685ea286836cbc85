"""Two ranks: each has the tokens that it drew, both know what one process would know."""

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from reasoning_lab.sampling.remote import is_here, whole_on_rank0
from reasoning_lab.stages.rl.balancing import micro_batches_of_rank
from reasoning_lab.stages.rl.options import FilterConfig
from reasoning_lab.stages.rl.records import StepRollouts
from reasoning_lab.stages.rl.rollouts import training_rows
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import entropy
from reasoning_lab.system.ranks import Peers, rank
from reasoning_lab.types import Problem, Rollout
from reasoning_lab.verify import Verifier
from tests.support.rank_pairs import on_two_ranks
from tests.support.rl import word_tokenizer
from tests.support.schedules import TellingEngine, Trainer
from tests.support.stages import optimization
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.distributed

POOL = [Problem(f"w{number} w2", "1", "number", "f") for number in range(4, 11)]
STEPS = 6
# The reward is of the length, so that the verifier needs no worker.
CONFIG = RLStage(
    group_size=2,
    max_new_tokens=16,
    signal="reward",
    rewards={"short": {"_target_": "reasoning_lab.rewards.linear_length"}},
    optimization=optimization(batch_size=3, length=f"{STEPS} steps"),
)
SETTINGS = {
    "at once": replace(
        CONFIG,
        dynamic_sampling_rounds=2,
        filter=FilterConfig(hard_pass_rate=0.5, hard_rollouts=1),
    ),
    "ahead": replace(CONFIG, staleness=2),
    "in parts": replace(CONFIG, staleness=4, partial_rollouts="continue"),
}


def varied(seed: int) -> tuple[int, str]:
    return random.Random(seed).choice((1, 2, 3, 5, 8, 13, 21)), f"a text of {seed}"


def trainer_of(config: RLStage, lengths: Callable[[int], tuple[int, str]] = varied) -> Trainer:
    engine = partial(TellingEngine, lengths=lengths)
    return Trainer(config, POOL, Verifier(1, 1.0, 512), engine)


def steps_of(config: RLStage, folder: Path) -> list[Any]:
    """What each step has, of which the second half goes on from a state of rank 0."""
    trainer, peers = trainer_of(config), Peers()
    whole = [about(step, config, peers) for step in trainer.steps(0, STEPS)]
    trainer.schedule.close()
    trainer = trainer_of(config)
    trainer.steps(0, STEPS // 2)
    state = trainer.state_dict()
    if rank() == 0:
        torch.save(state, folder / "state")
    peers.all_gather(None)
    trainer.schedule.close()
    trainer = trainer_of(config)
    trainer.load_state_dict(torch.load(folder / "state", weights_only=True))
    resumed = [about(step, config, peers) for step in trainer.steps(STEPS // 2, STEPS)]
    trainer.schedule.close()
    peers.all_gather(None)
    assert resumed == whole[STEPS // 2 :]
    return whole


def about(step: StepRollouts, config: RLStage, peers: Peers) -> Any:
    """What this rank knows of a step, what it has of it, what it trains on, and the entropy."""
    records = [(group.dropped, record) for group in step.groups for record in group.rollouts]
    known = [
        (
            one.rollout.problem,
            one.rollout.verdict,
            len(one.rollout.completion.token_ids),
            one.rollout.completion.truncated,
            list(one.rollout.token_versions),
            (one.reward_terms, one.reward, one.advantage, one.dropped, dropped),
        )
        for dropped, one in records
    ]
    rollouts = [record.rollout for _, record in records]
    rows = training_rows(step.trained_groups, word_tokenizer(), config)
    parts = micro_batches_of_rank(rows, 2, peers)
    trained = sorted(
        (
            list(row.example.prompt_ids),
            list(row.example.completion_ids),
            list(row.rollout.completion.logprobs),
            row.advantage,
            row.token_weight,
        )
        for part in parts
        for row in part
    )
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    nats = entropy(model, rollouts, word_tokenizer(), 1, torch.device("cpu"), peers)
    has = [tokens_of(one) for one in rollouts]
    gathered = [tokens_of(one) for one in whole_on_rank0(rollouts, peers)]
    return known, has, gathered, trained, len(parts), nats


def tokens_of(rollout: Rollout) -> tuple[list[int], str] | None:
    """None = another rank has them."""
    if is_here(rollout):
        return list(rollout.completion.token_ids), rollout.completion.text
    with pytest.raises(LookupError, match="another rank"):
        list(rollout.completion.token_ids)
    return None


def received_bytes(length: int) -> int:
    """What this rank receives of a step whose completions all have so many tokens."""
    config = replace(CONFIG, signal="none", max_new_tokens=9999)
    trainer, peers = trainer_of(config, lambda seed: (length, "a text " * length)), Peers()
    with counted() as counts:
        (step,) = trainer.steps(0, 1)
        rows = training_rows(step.trained_groups, word_tokenizer(), config)
        parts = micro_batches_of_rank(rows, 2, peers)
    trainer.schedule.close()
    assert sum(len(row.example.completion_ids) for part in parts for row in part) >= 2 * length
    return sum(counts)


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes of each exchange that come from other ranks."""
    counts: list[int] = []
    gather, exchange = dist.all_gather_object, dist.all_to_all_single

    def all_gather_object(values: list[Any], value: Any, group: Any) -> None:
        gather(values, value, group=group)
        others = [one for number, one in enumerate(values) if number != rank()]
        counts.append(len(pickle.dumps(others)))

    def all_to_all_single(
        output: Any, sent: Any, received: Any = None, splits: Any = None, *, group: Any
    ) -> None:
        exchange(output, sent, received, splits, group=group)
        counts.append(output.nbytes)

    with (
        patch.object(dist, "all_gather_object", all_gather_object),
        patch.object(dist, "all_to_all_single", all_to_all_single),
    ):
        yield counts


def of_rank(folder: Path) -> Any:
    steps = {name: steps_of(config, folder) for name, config in SETTINGS.items()}
    return steps, [received_bytes(length) for length in (300, 3000)]


def together(knows: Sequence[Any]) -> Any:
    """What two ranks have between them; exactly one of them has each rollout."""
    for first, second in zip(*knows, strict=True):
        assert (first is None) != (second is None)
    return [second if first is None else first for first, second in zip(*knows, strict=True)]


def test_two_ranks_know_what_one_does_and_exchange_no_tokens_but_those_that_move(
    tmp_path: Path,
) -> None:
    (first, few), (second, _) = on_two_ranks(of_rank, tmp_path)
    moved = 0
    for name, config in SETTINGS.items():
        alone = steps_of(config, tmp_path)
        for one, other, (known, has, _, trained, _, nats) in zip(
            first[name], second[name], alone, strict=True
        ):
            assert one[0] == other[0] == known
            assert together([one[1], other[1]]) == has
            assert one[2] == has
            assert other[2] == other[1]
            assert sorted([*one[3], *other[3]]) == trained
            assert one[4] == other[4]
            assert one[5] == other[5] == pytest.approx(nats)
            drawn = [tokens for tokens, _ in filter(None, one[1])]
            moved += sum(token_ids not in drawn for _, token_ids, *_ in one[3])
    assert moved
    # Ten times the tokens, and not a byte more.
    assert few[0] == few[1] < 2000
