"""What a step of reinforcement learning draws, keeps, learns from and says."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers.logger import Logger
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reasoning_lab.config.schema import ProblemsConfig
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.losses.policy_gradient import grpo_loss, token_weights
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl import module as rl
from reasoning_lab.stages.rl.config import (
    FilterConfig,
    KLConfig,
    RLConfig,
    TemperatureConfig,
    ValidationConfig,
)
from reasoning_lab.stages.rl.health import Health
from reasoning_lab.stages.rl.rollouts import ScoredGroup
from reasoning_lab.stages.rl.update import entropy, rank_batches, rollout_batches
from reasoning_lab.tracking.tracker import NullTracker
from reasoning_lab.types import Completion, Example, Problem, Rollout, UserError, Verdict
from tests.support.stages import optimization
from tests.support.tiny import tiny_model

BATCH, STEPS = 4, 6


class StepLog(Logger):
    """Keeps what each step logged."""

    name = version = "steps"

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.steps.setdefault(step or 0, {}).update(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class TableTracker(NullTracker):
    def __init__(self) -> None:
        self.lightning_logger: Any = StepLog()
        self.tables: list[tuple[list[Rollout], dict[str, list[float]]]] = []

    def rollouts(self, key: str, rollouts: Any, beside: Any = ()) -> None:
        self.tables.append((list(rollouts), {name: list(beside[name]) for name in beside}))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<end>": 1, **{f"w{number}": number for number in range(2, 20)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = "{% for m in messages %}w2 {{ m['content'] }} w3{% endfor %}"
    return fast


@pytest.fixture
def run(context: Any, tmp_path: Path) -> Any:
    """Trains the coin tosser and gives its metrics, each step's values and the tables."""

    def trained(**changes: Any) -> tuple[dict[str, Any], list[dict[str, float]], TableTracker]:
        tracker = TableTracker()
        config = RLConfig(
            problems=ProblemsConfig([1], 40),
            group_size=2,
            max_new_tokens=12,
            optimization=optimization(learning_rate=1e-4, batch_size=BATCH),
        )
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "out").mkdir(parents=True)
        metrics = rl.run(
            replace(config, **changes),
            replace(context, out_dir=folder / "out", work_dir=folder / "work", tracker=tracker),
        )
        steps = tracker.lightning_logger.steps
        return metrics, [steps[step] for step in sorted(steps)], tracker

    return trained


def values(steps: list[dict[str, float]], key: str) -> list[float]:
    return [step[key] for step in steps if key in step]


def test_backfill_draws_until_every_prompt_has_something_to_teach(run: Any) -> None:
    # Two tosses of a coin differ for half of the prompts.
    plain, steps, _ = run()
    assert min(values(steps, "rollout/groups_trained")) < BATCH
    assert plain["rollouts"] == 2 * BATCH * STEPS
    filled, steps, _ = run(backfill_rounds=8)
    assert values(steps, "rollout/groups_trained") == [BATCH] * STEPS
    drawn = values(steps, "rollout/rollouts")
    silent = values(steps, "rollout/groups_without_signal")
    assert drawn == [2 * (BATCH + dropped) for dropped in silent]
    assert filled["rollouts"] == sum(drawn) > plain["rollouts"]


def test_hard_prompts_get_more_rollouts(run: Any) -> None:
    _, steps, _ = run(filter=FilterConfig(hard_pass_rate=0.0, hard_rollouts=5))
    hard = values(steps, "rollout/hard_prompts")
    assert max(hard) > 0
    assert values(steps, "rollout/rollouts") == [2 * BATCH + 5 * count for count in hard]


def test_each_dropped_prompt_has_its_reason(run: Any) -> None:
    _, steps, _ = run(group_size=4, filter=FilterConfig(max_pass_rate=0.4))
    names = ("without_signal", "too_easy", "uneven", "trained")
    counts = [[step[f"rollout/groups_{name}"] for name in names] for step in steps]
    assert all(sum(row) == BATCH for row in counts)
    assert sum(row[1] for row in counts) > 0
    _, steps, _ = run(group_size=4, filter=FilterConfig(max_length_variation=0.0))
    assert sum(values(steps, "rollout/groups_uneven")) > 0


def test_engine_and_trainer_agree_and_the_first_step_stands_on_the_reference(run: Any) -> None:
    _, steps, _ = run(
        group_size=8,
        kl=KLConfig(log_every_steps=1),
        optimization=optimization(learning_rate=3e-3, batch_size=BATCH),
    )
    assert max(values(steps, "train/mismatch_max")) < 1e-3
    far = values(steps, "train/kl_to_reference")
    assert abs(far[0]) < 1e-6
    assert far[-1] > 1e-4
    # At the weights that sampled nothing is clipped.
    assert values(steps, "train/clip_high_frac") == [0.0] * len(far)


def test_only_what_was_measured_is_logged(run: Any) -> None:
    _, steps, _ = run(group_size=8, kl=KLConfig(log_every_steps=4))
    assert ["train/kl_to_reference" in step for step in steps] == [
        number % 4 == 0 for number in range(STEPS)
    ]
    for step in steps:
        parts = step["time/generate_s"] + step["time/train_s"]
        assert parts <= step["time/step_s"] < parts + 1


def test_later_epochs_leave_the_policy_that_sampled(run: Any) -> None:
    _, steps, _ = run(
        group_size=8, epochs=4, optimization=optimization(learning_rate=1e-2, batch_size=BATCH)
    )
    assert max(values(steps, "train/clip_high_frac")) > 0
    assert max(values(steps, "train/mismatch_max")) < 1e-3


@pytest.mark.parametrize("balance", ["all", "equal"])
def test_what_is_logged_of_rollouts(run: Any, balance: str) -> None:
    _, steps, tracker = run(group_size=8, filter=FilterConfig(balance=balance))
    for step in steps:
        verdicts = sum(step[f"rollout/{verdict}_frac"] for verdict in Verdict)
        assert verdicts == pytest.approx(1.0)
        correct = step["rollout/correct_frac"]
        assert step["rollout/reward_mean"] == pytest.approx(2 * correct - 1)
        assert step["rollout/reward/correctness_mean"] == step["rollout/reward_mean"]
        assert 0 < step["rollout/entropy"] < 6
        assert 0 < step["time/generate_frac"] < 1
    rollouts, beside = tracker.tables[0]
    assert len(rollouts) == len(beside["reward"]) == len(beside["advantage"]) > 0
    for rollout, reward, advantage in zip(
        rollouts, beside["reward"], beside["advantage"], strict=True
    ):
        assert reward == (1.0 if rollout.correct else -1.0)
        assert (advantage > 0) is rollout.correct


def test_rollouts_ahead_are_those_of_the_weights_before_the_last_update(run: Any) -> None:
    drawn = [f"rollout/{name}" for name in ("reward_mean", "completion_tokens_mean", "wrong_frac")]

    def told(steps: list[dict[str, float]], number: int) -> list[float]:
        return [steps[number][key] for key in drawn]

    fast = optimization(learning_rate=1e-2, batch_size=BATCH, warmup_frac=0.0)
    still = replace(fast, learning_rate=0.0)
    _, asleep, _ = run(group_size=8, optimization=still)
    _, awake, _ = run(group_size=8, optimization=fast)
    _, ahead, _ = run(group_size=8, optimization=fast, staleness=1)
    assert values(awake, "rollout/staleness") == [0.0] * STEPS
    assert values(ahead, "rollout/staleness") == [0.0] + [1.0] * (STEPS - 1)
    # Steps 0 and 1 were drawn before any update, step 2 after the first.
    assert told(ahead, 0) == told(asleep, 0)
    assert told(ahead, 1) == told(asleep, 1) != told(awake, 1)
    assert told(ahead, 2) != told(asleep, 2)
    assert ahead[1]["train/mismatch_max"] > 1e-2 > awake[1]["train/mismatch_max"]
    # Without an update in between, ahead is the same as in turn.
    _, both, _ = run(group_size=8, optimization=still, staleness=1)
    assert [told(both, number) for number in range(STEPS)] == [
        told(asleep, number) for number in range(STEPS)
    ]


def test_validation_watches_and_changes_nothing(run: Any) -> None:
    fast = optimization(learning_rate=1e-2, batch_size=BATCH)
    held = ValidationConfig(count=5, every_steps=4, samples=4, temperature=1.0)
    plain, unwatched, _ = run(optimization=fast)
    found, watched, _ = run(optimization=fast, validation=held)
    assert not values(unwatched, "val/pass@1")
    assert ["val/pass@1" in step for step in watched] == [n % 4 == 0 for n in range(STEPS)]
    assert all(0 < each < 1 for each in values(watched, "val/pass@1"))
    assert values(watched, "train/loss") == values(unwatched, "train/loss")
    assert found["rollouts"] == plain["rollouts"]
    # Drawn one step ahead, it meets the weights from before the last update.
    often = replace(held, every_steps=1)
    _, ahead, _ = run(optimization=fast, validation=often, staleness=1)
    _, now, _ = run(optimization=fast, validation=often)
    assert ahead[0]["val/pass@1"] == now[0]["val/pass@1"]


def test_a_global_baseline_screens_nothing_and_loses_no_group(run: Any) -> None:
    metrics, steps, _ = run(screen_group_size=2, advantage="reinforce_pp")
    assert metrics["pool"] == metrics["problems"]
    assert values(steps, "rollout/groups_trained") == [BATCH] * STEPS
    screened, _, _ = run(screen_group_size=2)
    assert screened["pool"] < screened["problems"]


def test_a_pool_smaller_than_the_batch_has_a_group_for_each_place(run: Any) -> None:
    _, steps, tracker = run(
        problems=ProblemsConfig([1], 2), group_size=8, advantage="reinforce_pp", table_every_steps=1
    )
    assert values(steps, "rollout/groups_trained") == [BATCH] * STEPS
    differing = 0
    for rollouts, _ in tracker.tables:
        places = [rollouts[start : start + 4] for start in range(0, 16, 4)]
        texts: dict[str, list[list[str]]] = {}
        for place in places:
            texts.setdefault(place[0].problem.id, []).append([r.completion.text for r in place])
        assert len(texts) == 2
        differing += sum(first != second for first, second in texts.values())
    # Four tosses are alike once in sixteen times, and of the same draws always.
    assert differing > STEPS


def test_what_a_reward_cannot_judge_does_not_train(run: Any) -> None:
    """What is right is not judged, so no group differs in correctness: nothing trains at all."""
    rewards = {
        "c": {
            "_target_": "reasoning_lab.rewards.correctness",
            "wrong": 0.5,
            "unparseable": 0.5,
            "correct": None,
        }
    }
    drawn = BATCH * STEPS
    with pytest.raises(UserError, match=rf"nothing is left; 0 of {drawn} groups .*signal=reward"):
        run(rewards=rewards)


def group(*rewards: float, truncated: int = 0) -> ScoredGroup:
    """Rollouts of 2, 3, 4, … tokens; the first `truncated` of them were cut off.

    Their rewards are their advantages too.
    """
    problem = Problem("w4 w5", "w6", "math", "f")
    rollouts = [
        Rollout(
            problem,
            Completion([6 + at] * (at + 2), "", [-0.5] * (at + 2), truncated=at < truncated),
            None,
            Verdict.WRONG,
            "p",
        )
        for at in range(len(rewards))
    ]
    return ScoredGroup(rollouts, rewards, rewards)


def test_a_masked_rollout_is_in_no_gradient(tokenizer: Any) -> None:
    config = RLConfig(max_new_tokens=9, overlong="mask")
    device = torch.device("cpu")
    (batch,) = rollout_batches(
        [group(1.0, 0.0, -1.0, truncated=1)], tokenizer, config, None, device
    )
    # The first, of 2 tokens, is gone, 3 + 4 tokens are left.
    assert batch.advantages.tolist() == [0.0] * 3 + [-1.0] * 4
    assert batch.weights.tolist() == pytest.approx([1 / 7] * 7)
    assert batch.trained_tokens == 7
    assert batch.rollout_logprobs.sum().item() == pytest.approx(-3.5)
    kept = replace(config, overlong="keep")
    (batch,) = rollout_batches([group(1.0, 0.0, -1.0, truncated=1)], tokenizer, kept, None, device)
    assert batch.advantages.tolist() == [1.0] * 2 + [0.0] * 3 + [-1.0] * 4
    nothing = [group(1.0, 0.0, truncated=2)]
    assert rollout_batches(nothing, tokenizer, config, None, device) == []


def test_denominators_count_what_was_dropped_where_their_papers_do(tokenizer: Any) -> None:
    config = RLConfig(
        group_size=3, max_new_tokens=9, optimization=optimization(batch_size=4), overlong="mask"
    )
    groups = [group(1.0, 0.0, -1.0, truncated=1), group(0.5, -0.5)]

    def weights(aggregation: str, trained: list[ScoredGroup]) -> list[float]:
        """Of each trained rollout's tokens, shortest rollout first."""
        changed = replace(config, aggregation=aggregation)
        batches = rollout_batches(trained, tokenizer, changed, None, torch.device("cpu"))
        firsts = [
            weights[0].item()
            for batch in batches
            for weights in batch.weights.split(batch.tokens.trained_lengths.tolist())
        ]
        assert all(
            (weights == weights[0]).all()
            for batch in batches
            for weights in batch.weights.split(batch.tokens.trained_lengths.tolist())
        )
        return firsts

    # Four prompts, of which two or three were dropped. Groups of three, one masked, and of two.
    by_length = [1 / (4 * 2 * 2), 1 / (4 * 3 * 3), 1 / (4 * 2 * 3), 1 / (4 * 3 * 4)]
    assert sorted(weights("sequence", groups)) == pytest.approx(sorted(by_length))
    assert weights("sequence", groups[1:]) == pytest.approx([1 / (4 * 2 * 2), 1 / (4 * 2 * 3)])
    assert weights("token", groups) == pytest.approx([1 / (3 + 4 + 2 + 3)] * 4)
    assert weights("token", groups[1:]) == pytest.approx([1 / (2 + 3)] * 2)
    assert weights("constant", groups) == pytest.approx([1 / (4 * 3 * 9)] * 4)
    assert weights("constant", groups[1:]) == pytest.approx([1 / (4 * 3 * 9)] * 2)


def test_gradient_padded_alone_and_joined_is_one() -> None:
    model = tiny_model("qwen3", 20, 0, 1, seed=4).double()
    examples = [
        Example([3, 4], [5, 6, 7, 1]),
        Example([8], [9, 1]),
        Example([3, 9, 9], [4] * 7),
    ]
    lengths = torch.tensor([len(example.completion_ids) for example in examples])
    advantages = torch.tensor([0.7, -1.2, 0.4], dtype=torch.double)
    weights = torch.tensor(
        token_weights("sequence", lengths.tolist(), [3, 3, 3], 1, 3, 9), dtype=torch.double
    )

    def gradient(batches: list[TokenBatch]) -> torch.Tensor:
        logprobs = torch.cat([token_logprobs(model, batch, 0.8) for batch in batches]).double()
        of_tokens = [values.repeat_interleave(lengths) for values in (advantages, weights)]
        loss = grpo_loss(logprobs, logprobs.detach() + 0.1, *of_tokens, 0.2, 0.2).loss
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    padded = gradient([completion_batch(examples)])
    alone = gradient([completion_batch([example]) for example in examples])
    bind_kernels(model)
    joined = gradient([completion_batch(examples)])
    assert padded.abs().max() > 1e-3
    torch.testing.assert_close(alone, padded, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(joined, padded, atol=1e-9, rtol=1e-7)


def test_an_idle_ranks_batch_has_a_gradient_of_zeros(tokenizer: Any) -> None:
    config = RLConfig(max_new_tokens=9)
    (batch,) = rollout_batches([group(1.0, 0.0)], tokenizer, config, None, torch.device("cpu"))
    assert rank_batches([batch]) == [batch]
    idle = batch.untrained()
    assert idle.trained_tokens == 0
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    for binds in (False, True):
        if binds:
            bind_kernels(model)
        model.zero_grad()
        logprobs = token_logprobs(model, idle.tokens)
        result = grpo_loss(logprobs, idle.rollout_logprobs, idle.advantages, idle.weights, 0.2, 0.2)
        result.loss.backward()  # type: ignore[no-untyped-call]
        slopes = [parameter.grad for parameter in model.parameters()]
        assert all(slope is not None and not slope.any() for slope in slopes)


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_entropy_is_at_temperature_1_over_rollouts_of_all_groups(
    tokenizer: Any, rows: int | None
) -> None:
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    # Sixteen rollouts, of 2 and 3 tokens in turn; every second is read.
    rollouts = [rollout for _ in range(8) for rollout in group(0.0, 0.0).rollouts]
    short = rollouts[0]
    prompt = prompt_tokens(tokenizer, [short.problem.prompt])[0]
    tokens = torch.tensor([[*prompt, *short.completion.token_ids]])
    logits = model(tokens, use_cache=False).logits[0, -3:-1]
    expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    device = torch.device("cpu")
    assert entropy(model, rollouts, tokenizer, rows, device) == pytest.approx(expected, rel=1e-4)
    # Where there are few, all are read: the longer one counts for its three tokens.
    alone = entropy(model, rollouts[1:2], tokenizer, rows, device)
    both = entropy(model, rollouts[:2], tokenizer, rows, device)
    assert both == pytest.approx((2 * expected + 3 * alone) / 5, rel=1e-4)


def test_annealing_is_no_collapse(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A policy that does not learn keeps its entropy, whatever temperature draws its rollouts."""
    still = optimization(learning_rate=0.0, batch_size=BATCH, steps=24)
    changes = {"group_size": 4, "optimization": still}
    cold = TemperatureConfig(start=1.0, end=0.05, anneal_frac=0.5)
    _, steps, _ = run(temperature=cold, **changes)
    entropies = values(steps, "rollout/entropy")
    assert sum(entropies[-10:]) > 0.5 * sum(entropies[:10])
    assert "entropy collapses" not in caplog.text


def step(**changes: float) -> dict[str, float]:
    usual = {
        "entropy": 1.0,
        "completion_tokens_mean": 50.0,
        "truncated_frac": 0.0,
        "groups_trained": 4.0,
    }
    return usual | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entropy": 0.2}, "entropy collapses: 0.200 nats a token, 1.000 in the first"),
        # Of ten steps eight (106 tokens), or nine (54%), are enough.
        ({"completion_tokens_mean": 120.0}, "run away: 106 tokens, 50 in the first"),
        ({"truncated_frac": 0.6}, "54% cut off"),
        ({"groups_trained": 0.0}, "no group of the last 10 steps"),
    ],
)
def test_health_speaks_once_and_in_time(changes: dict[str, float], said: str) -> None:
    health = Health()
    assert [health.warnings(step()) for _ in range(20)] == [[]] * 20
    told = [health.warnings(step(**changes)) for _ in range(15)]
    assert told[0] == []
    (warning,) = [text for texts in told for text in texts]
    assert said in warning
    assert len([texts for texts in told if texts]) == 1
