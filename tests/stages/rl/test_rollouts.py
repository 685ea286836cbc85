"""Which of a step's rollouts train, with which advantages, and why the others do not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.sampling.engine import Sampling, rollout_seeds
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.options import DomainConfig, FilterConfig
from reasoning_lab.stages.rl.prompts import warn_of_absent_domains
from reasoning_lab.stages.rl.records import PromptBatch, RewardedGroup, StepRollouts
from reasoning_lab.stages.rl.rollouts import RolloutCollector, training_rows
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.types import Completion, Problem, Prompt, UserError
from reasoning_lab.verify import Verifier
from tests.support.rl import rewarded_group, word_tokenizer
from tests.support.stages import optimization

RIGHT, WRONG, SILENT = "so \\boxed{1}", "so \\boxed{2}", "so"
MOST = 10
LENGTH = {
    "correctness": {"_target_": "reasoning_lab.rewards.correctness"},
    "length": {"_target_": "reasoning_lab.rewards.linear_length"},
}
# What the verifier cannot read is not judged.
READABLE = {"correctness": {"_target_": "reasoning_lab.rewards.correctness", "unparseable": None}}


class Script:
    """An engine that has the next of a prompt's lines for each of its rollouts.

    Attributes:
        seeds: Of each rollout, by its prompt, in order.
    """

    def __init__(self, lines: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        self._lines = {prompt: list(texts) for prompt, texts in lines.items()}
        self.seeds: dict[str, list[int]] = {prompt: [] for prompt in lines}

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        completions = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            assert isinstance(prompt, str)
            self.seeds[prompt].append(seed)
            text, tokens = self._lines[prompt].pop(0)
            ids = [7] * tokens
            completions.append(Completion(ids, text, [-1.0] * tokens, truncated=tokens == MOST))
        return completions

    def close(self) -> None:
        pass


def problem(prompt: str) -> Problem:
    """`logic: a` is a prompt of logic, and `a` one of mathematics."""
    domain = prompt.rpartition(": ")[0] or "mathematics"
    return Problem(prompt, "1", "number", "f", domain=domain)


@pytest.fixture
def collected(verifier: Verifier) -> Any:
    """Collects a step of one group a prompt and gives it with the engine's script."""

    def collect(
        lines: Mapping[str, Sequence[tuple[str, int]]],
        prompts: Sequence[str] = (),
        step: int = 0,
        replacements: Sequence[str] = (),
        **changes: Any,
    ) -> tuple[StepRollouts, Script]:
        script = Script(lines)
        config = replace(
            RLStage(group_size=4, max_new_tokens=MOST, optimization=optimization()), **changes
        )
        config.check("stages.rl", HardwareConfig())
        sampler = RolloutSampler(lambda _: script, verifier, "policy", Progress())
        batch = PromptBatch(
            step, [problem(p) for p in prompts or lines], [problem(p) for p in replacements]
        )
        return RolloutCollector(config, 0, sampler, [], "stages.rl").collect(batch, 0), script

    return collect


def group(text: str, *lengths: int) -> list[tuple[str, int]]:
    return [(text, tokens) for tokens in lengths]


def assert_complete(result: StepRollouts) -> None:
    """Every group and rollout that was sampled trains or has its reason."""
    trained = [rollout for group in result.trained_groups for rollout in group.trained]
    assert len(result.groups) == len(result.trained_groups) + result.dropped_groups.total()
    assert len(result.rollouts) == len(trained) + result.dropped_rollouts.total()
    assert all(group.trained == [] for group in result.groups if group.dropped)


def advantages(trained: RewardedGroup) -> list[float]:
    """Of the rollouts that are compared, those that do not train included."""
    return [rollout.advantage for rollout in trained.compared]


def test_a_group_that_is_wrong_throughout_does_not_learn_to_be_short(collected: Any) -> None:
    lines = {
        "wrong": group(WRONG, 2, 3, 4, 5),
        "right": group(RIGHT, 2, 3, 4, 5),
        # Not correct either, though the rewards tell them apart.
        "unreadable": [*group(WRONG, 2, 2), *group(SILENT, 2, 2)],
        "both": [*group(WRONG, 2, 3, 4), *group(RIGHT, 5)],
    }
    verdicts = {**LENGTH["correctness"], "unparseable": -2.0}
    rewards = {**LENGTH, "correctness": verdicts}
    result, _ = collected(lines, rewards=rewards)
    assert [trained.problem.prompt for trained in result.trained_groups] == ["both"]
    assert result.dropped_groups == {"no_signal": 3}
    assert result.dropped_rollouts == Counter({"no_signal": 12})
    assert_complete(result)
    result, _ = collected(lines, rewards=rewards, signal="reward")
    assert len(result.trained_groups) == 4
    # Correctness alone is no signal where no reward differs.
    flat = {"_target_": "reasoning_lab.rewards.correctness", "correct": 1.0, "wrong": 0.0}
    same = {"same": {**flat, "weight": 0.0}, "format": LENGTH["length"] | {"max_new_tokens": 10}}
    result, _ = collected({"both": [*group(WRONG, 3, 3), *group(RIGHT, 3, 3)]}, rewards=same)
    assert result.dropped_groups == {"no_signal": 1}


def test_a_global_baseline_learns_from_groups_of_one_verdict(collected: Any) -> None:
    lines = {"wrong": group(WRONG, 2, 2, 2, 2), "right": group(RIGHT, 3, 3, 3, 3)}
    result, _ = collected(lines, advantage="reinforce_pp")
    # Rewards -1 and 1, mean 0, deviation 1.
    wrong, right = map(advantages, result.trained_groups)
    assert wrong == pytest.approx([-1.0] * 4, abs=1e-3)
    assert right == pytest.approx([1.0] * 4, abs=1e-3)
    assert not result.dropped_groups
    for other in ("grpo", "dr_grpo", "rloo", "reinforce_pp_baseline"):
        result, _ = collected(lines, advantage=other)
        assert (result.trained_groups, result.dropped_groups) == ([], {"no_signal": 2})


def test_an_update_of_one_verdict_has_no_signal_for_a_global_baseline(collected: Any) -> None:
    lines = {"a": group(WRONG, 2, 3, 4, 5), "b": group(WRONG, 6, 7, 8, 9)}
    result, _ = collected(lines, advantage="reinforce_pp", rewards=LENGTH)
    assert result.trained_groups == []
    assert result.dropped_groups == {"no_signal": 2}
    assert_complete(result)
    result, _ = collected(lines, advantage="reinforce_pp", rewards=LENGTH, signal="reward")
    assert len(result.trained_groups) == 2


def test_groups_without_signal_are_in_the_deviation_over_the_update(collected: Any) -> None:
    lines = {
        "both": [*group(WRONG, 2, 2), *group(RIGHT, 2, 2)],
        "right": group(RIGHT, 2, 2, 2, 2),
    }
    result, _ = collected(lines, advantage="reinforce_pp_baseline")
    # Less the group's mean: -1, -1, 1, 1 and four times 0, so the variance is 4 / 8.
    (trained,) = result.trained_groups
    assert advantages(trained) == pytest.approx([-(2**0.5)] * 2 + [2**0.5] * 2, abs=1e-3)


def test_each_domain_is_standardized_by_itself(collected: Any) -> None:
    lines = {
        "easy": [*group(WRONG, 2), *group(RIGHT, 2, 2, 2)],
        "logic: hard": [*group(WRONG, 2, 2, 2), *group(RIGHT, 2)],
        "chess: never": group(WRONG, 2, 2, 2, 2),
    }
    result, _ = collected(lines, advantage="reinforce_pp", standardize_over="domain")
    # Means 1/2 and -1/2 of rewards -1 and 1, and the deviation is the root of 3/4.
    far, near = 3**0.5, 3**-0.5
    easy, hard = result.trained_groups
    assert advantages(easy) == pytest.approx([-far, near, near, near], abs=1e-3)
    assert advantages(hard) == pytest.approx([-near, -near, -near, far], abs=1e-3)
    # A domain without a signal is dropped by itself.
    assert [group.problem.domain for group in result.groups] == ["mathematics", "logic", "chess"]
    assert result.dropped_groups == {"no_signal": 1}
    assert_complete(result)
    together, _ = collected(lines, advantage="reinforce_pp")
    # Of twelve rewards four are 1: mean -1/3, deviation the root of 8/9.
    assert advantages(together.groups[2]) == pytest.approx([-(0.5**0.5)] * 4, abs=1e-3)


def test_the_deviation_of_a_domain_counts_its_groups_without_signal(collected: Any) -> None:
    lines = {
        "logic: both": [*group(WRONG, 2, 2), *group(RIGHT, 2, 2)],
        "both": [*group(WRONG, 2, 2), *group(RIGHT, 2, 2)],
        "logic: right": group(RIGHT, 2, 2, 2, 2),
    }
    options = {"advantage": "reinforce_pp_baseline", "standardize_over": "domain"}
    result, _ = collected(lines, **options)
    logic, other = map(advantages, result.trained_groups)
    # The variance is 4 / 8 in logic, and 1 in mathematics.
    assert logic == pytest.approx([-(2**0.5)] * 2 + [2**0.5] * 2, abs=1e-3)
    assert other == pytest.approx([-1.0] * 2 + [1.0] * 2, abs=1e-3)


def test_a_domain_has_rewards_and_a_group_size_of_its_own(collected: Any) -> None:
    lines = {
        "a": [*group(WRONG, 2, 2), *group(RIGHT, 2, 2)],
        "logic: b": [*group(WRONG, 2, 6), *group(RIGHT, 10)],
        "logic: c": group(RIGHT, 2, 2, 8),
    }
    domains = {"logic": DomainConfig(group_size=3, rewards={"short": LENGTH["length"]})}
    result, script = collected(lines, signal="reward", advantage="dr_grpo", domains=domains)
    assert {prompt: len(seeds) for prompt, seeds in script.seeds.items()} == {
        "a": 4,
        "logic: b": 3,
        "logic: c": 3,
    }
    plain, long, short = (
        [record.reward_terms for record in rewarded.rollouts] for rewarded in result.groups
    )
    assert plain == [{"correctness": -1.0}] * 2 + [{"correctness": 1.0}] * 2
    # A tenth of ten tokens costs a tenth, and each group is compared with its own mean.
    assert [row["short"] for row in long] == pytest.approx([-0.2, -0.6, -1.0])
    assert [row["short"] for row in short] == pytest.approx([-0.2, -0.2, -0.8])
    assert advantages(result.groups[1]) == pytest.approx([0.4, 0.0, -0.4], abs=1e-6)
    assert not any(rewarded.oversampled for rewarded in result.groups)
    assert_complete(result)
    # Each prompt weighs alike, however many rollouts it has.
    config = RLStage(
        group_size=4,
        max_new_tokens=MOST,
        aggregation="constant",
        domains=domains,
        optimization=optimization(batch_size=3),
    )
    rows = training_rows(result.trained_groups, word_tokenizer(), config)
    assert [row.token_weight for row in rows] == pytest.approx(
        [1 / (3 * 4 * MOST)] * 4 + [1 / (3 * 3 * MOST)] * 6
    )
    assert config.largest_group_size == 4
    assert config.row_tokens_at_most() == 4 * MOST


@pytest.mark.parametrize(
    ("domain", "changes", "text"),
    [
        (DomainConfig(), {}, r"stages\.rl\.domains\.logic: nothing is otherwise"),
        (
            DomainConfig(rewards={"short": {"_target_": "reasoning_lab.rewards.shrt"}}),
            {},
            r"stages\.rl\.domains\.logic\.rewards\.short\._target_: there is no",
        ),
        (
            DomainConfig(rewards=LENGTH),
            {"advantage": "reinforce_pp_baseline"},
            r"stages\.rl\.domains: reinforce_pp_baseline .*standardize_over=domain",
        ),
    ],
)
def test_a_domain_that_cannot_be_is_refused(
    domain: DomainConfig, changes: dict[str, Any], text: str
) -> None:
    config = RLStage(
        group_size=2, max_new_tokens=9, optimization=optimization(), domains={"logic": domain}
    )
    with pytest.raises(UserError, match=text):
        replace(config, **changes).check("stages.rl", HardwareConfig())


def test_a_domain_that_no_prompt_is_of_is_told(caplog: pytest.LogCaptureFixture) -> None:
    problems = [problem("a"), problem("logic: b")]
    warn_of_absent_domains(["logic", "mathematics"], problems, "stages.rl")
    assert not caplog.messages
    warn_of_absent_domains(["logic", "logik"], problems, "stages.rl")
    (sentence,) = caplog.messages
    assert sentence.startswith("stages.rl.domains.logik: no prompt")
    assert "logic, mathematics;" in sentence


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_an_estimator_of_groups_standardizes_nothing(name: str) -> None:
    config = RLStage(group_size=2, max_new_tokens=9, optimization=optimization(), advantage=name)
    with pytest.raises(UserError, match=r"stages\.rl\.standardize_over=domain: advantage=.*leave"):
        replace(config, standardize_over="domain").check("stages.rl", HardwareConfig())


@pytest.mark.parametrize(
    "filtering",
    [
        {"max_pass_rate": 0.5},
        {"max_length_variation": 0.2},
        {"balance": "equal"},
    ],
)
def test_a_filter_of_groups_is_refused_beside_a_global_baseline(
    filtering: dict[str, Any],
) -> None:
    config = RLStage(
        group_size=2,
        max_new_tokens=9,
        optimization=optimization(),
        filter=FilterConfig(**filtering),
        advantage="reinforce_pp",
    )
    (name,) = filtering
    with pytest.raises(UserError, match=rf"stages\.rl\.filter\.{name}=.*reinforce_pp"):
        config.check("stages.rl", HardwareConfig())
    replace(config, advantage="rloo").check("stages.rl", HardwareConfig())


def test_balancing_draws_among_what_can_be_judged(collected: Any) -> None:
    lines = {
        f"p{number}": [*group(RIGHT, 2, 2), *group(SILENT, 2, 2, 2, 2), *group(WRONG, 2, 2, 2)]
        for number in range(8)
    }
    result, _ = collected(
        lines, group_size=9, rewards=READABLE, filter=FilterConfig(balance="equal")
    )
    for trained in result.trained_groups:
        # Two correct ones, and two of the three wrong ones that can be judged.
        assert Counter(rollout.reward for rollout in trained.compared) == {1.0: 2, -1.0: 2}
    assert len(result.trained_groups) == 8
    assert result.dropped_rollouts == Counter({"unjudged": 32, "balanced_away": 8})
    assert_complete(result)


def test_what_cannot_be_judged_is_no_wrong_answer(collected: Any) -> None:
    lines = {
        # Two of two judged ones are right: no signal, and easy.
        "a": [*group(RIGHT, 2, 2), *group(SILENT, 2, 2)],
        # Two of three are right, which is too many; of all four it were not.
        "b": [*group(RIGHT, 2, 2), *group(SILENT, 2), *group(WRONG, 2)],
        "c": [*group(RIGHT, 2), *group(SILENT, 2), *group(WRONG, 2, 2)],
        "d": group(SILENT, 2, 2, 2, 2),
    }
    result, _ = collected(lines, rewards=READABLE, filter=FilterConfig(max_pass_rate=0.5))
    assert result.dropped_groups == {"no_signal": 1, "easy": 1, "unjudged": 1}
    assert result.dropped_rollouts == Counter({"no_signal": 2, "easy": 3, "unjudged": 8})
    assert_complete(result)
    ledger = Ledger()
    result.record(ledger)
    result.record(ledger)
    groups, rollouts = ledger.flows["groups"], ledger.flows["rollouts"]
    assert (groups.taken, groups.passed) == (8, 2)
    assert groups.dropped == {"no_signal": 2, "easy": 2, "unjudged": 2}
    assert (rollouts.taken, rollouts.passed) == (32, 6)
    assert rollouts.dropped == {"no_signal": 4, "easy": 6, "unjudged": 16}
    assert ledger.flows["groups"].unplanned == 4
    assert ledger.flows["rollouts"].unplanned == 16


def test_a_masked_rollout_is_in_the_baseline(collected: Any) -> None:
    lines = {
        "cut": [*group(WRONG, MOST), *group(RIGHT, 2, 3, 4)],
        "all cut": [*group(WRONG, MOST, MOST), *group(RIGHT, MOST, MOST)],
    }
    result, _ = collected(lines, advantage="dr_grpo", overlong="mask")
    (trained,) = result.trained_groups
    assert advantages(trained) == [-1.5, 0.5, 0.5, 0.5]
    assert result.dropped_groups == {"cut_off": 1}
    assert result.dropped_rollouts == Counter({"cut_off": 5})
    assert_complete(result)
    result, _ = collected(lines, advantage="dr_grpo")
    assert len(result.trained_groups) == 2


def test_a_prompt_that_comes_again_is_drawn_anew(collected: Any) -> None:
    texts = [*group(WRONG, 2, 2, 2, 2), *group(RIGHT, 2, 2), *group(WRONG, 2, 2)]
    # The first group is hard and gets two more rollouts, the second is not.
    more = group(RIGHT, 3, 3)
    result, script = collected(
        {"a": texts + more},
        ["a", "a"],
        filter=FilterConfig(hard_pass_rate=0.0, hard_rollouts=2),
    )
    assert len(set(script.seeds["a"])) == 10
    assert [len(sampled.rollouts) for sampled in result.groups] == [6, 4]
    assert [sum(r.rollout.correct for r in sampled.rollouts) for sampled in result.groups] == [2, 2]
    assert [sampled.oversampled for sampled in result.groups] == [True, False]
    assert [len(trained.rollouts) for trained in result.trained_groups] == [6, 4]


def test_seeds_of_two_steps_and_of_repeated_prompts_are_distinct(collected: Any) -> None:
    seeds = []
    for step in range(3):
        _, script = collected({"a": group(RIGHT, *[2] * 12)}, ["a"] * 3, step=step)
        seeds += script.seeds["a"]
    assert len(set(seeds)) == 36
    # Nor does a round of dynamic sampling repeat the seeds of the round before.
    _, script = collected(
        {"a": group(RIGHT, *[2] * 8)}, replacements=["a"], dynamic_sampling_rounds=1
    )
    assert len(set(script.seeds["a"])) == 8
    # A prompt's first seeds do not depend on how often it comes, nor on what is beside it.
    a, b = problem("a"), problem("b")
    assert rollout_seeds([a, b, a], 2, "s")[:1] == rollout_seeds([a], 2, "s")
    assert rollout_seeds([a, b, a], 2, "s")[1:2] == rollout_seeds([b], 2, "s")


def test_a_reward_that_judges_nothing_ends_the_first_step(collected: Any) -> None:
    silent = {"a": group(SILENT, 2, 2, 2, 2)}
    with pytest.raises(UserError, match=r"stages\.rl\.rewards\.correctness: .*all 4 rollouts"):
        collected(silent, rewards=READABLE)
    result, _ = collected(silent, rewards=READABLE, step=1)
    assert result.dropped_groups == {"unjudged": 1}


def test_denominators_count_what_was_dropped_where_their_papers_do() -> None:
    config = RLStage(group_size=3, max_new_tokens=9, optimization=optimization(batch_size=4))
    tokenizer = word_tokenizer()
    groups = [rewarded_group(1.0, 0.0, -1.0, masked=1), rewarded_group(0.5, -0.5)]

    def weights(aggregation: str, groups: list[RewardedGroup]) -> list[float]:
        """Of each trained rollout's tokens, shortest rollout first."""
        changed = replace(config, aggregation=aggregation)
        rows = training_rows(groups, tokenizer, changed)
        return [row.token_weight for row in sorted(rows, key=lambda row: row.example.length)]

    # Four prompts, of which two or three were dropped. Groups of three, one masked, and of two.
    by_length = [1 / (4 * 2 * 2), 1 / (4 * 3 * 3), 1 / (4 * 2 * 3), 1 / (4 * 3 * 4)]
    assert sorted(weights("sequence", groups)) == pytest.approx(sorted(by_length))
    assert weights("sequence", groups[1:]) == pytest.approx([1 / (4 * 2 * 2), 1 / (4 * 2 * 3)])
    assert weights("token", groups) == pytest.approx([1 / (3 + 4 + 2 + 3)] * 4)
    assert weights("token", groups[1:]) == pytest.approx([1 / (2 + 3)] * 2)
    assert weights("constant", groups) == pytest.approx([1 / (4 * 3 * 9)] * 4)
    assert weights("constant", groups[1:]) == pytest.approx([1 / (4 * 3 * 9)] * 2)
