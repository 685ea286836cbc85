"""What the verifier reads of a completion; groups that are sampled shard by shard."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.remote import is_here
from reasoning_lab.sampling.rollouts import PartialRollout, RolloutSampler
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.types import Completion, Message, Problem, RolloutGroup, UserError, Verdict
from reasoning_lab.verify import Verifier
from reasoning_lab.verify.sandbox import is_available
from tests.support.programs import code_problem, fenced
from tests.support.rank_pairs import on_two_ranks
from tests.support.schedules import TellingEngine, Weight
from tests.support.scripted import ScriptedEngine

# A shard has 1,024 rollouts, so that two ranks share these in 2 + 1 shards.
PROBLEMS = [Problem(f"p{number}", "1", "number", "f") for number in range(5)]
GROUP_SIZE = 512
CUT_OFF = Completion([5], "Is it \\boxed{1}?", truncated=True)
CLOSED = Completion([5], "It is.\n</think>\n\\boxed{1}")


def groups(
    folder: Path, sample: Callable[..., Iterator[RolloutGroup]] = RolloutSampler.resumable_groups
) -> Iterator[RolloutGroup]:
    """Of completions without an answer, which name their seeds: the verifier needs no worker."""
    answers = {problem.prompt: f"about {problem.prompt}" for problem in PROBLEMS}
    engine = ScriptedEngine("", answers, HardwareConfig())
    sampler = RolloutSampler(lambda _: engine, Verifier(1, 1.0, 512), "policy", Progress())
    return sample(sampler, PROBLEMS, GROUP_SIZE, Sampling(1.0, 1.0, 4), "seed", folder)


def test_a_shard_is_sampled_when_its_groups_are_asked_for(tmp_path: Path) -> None:
    ScriptedEngine.reset()
    lazy = groups(tmp_path)
    assert ScriptedEngine.calls == []
    first = next(lazy)
    assert len(ScriptedEngine.calls) == 1
    every = [first, *lazy]
    assert len(ScriptedEngine.calls) == 3
    assert [group.problem for group in every] == PROBLEMS
    for group in every:
        assert all(rollout.problem == group.problem for rollout in group.rollouts)
        assert len(set(texts(group))) == GROUP_SIZE
    assert [texts(group) for group in groups(tmp_path)] == [texts(group) for group in every]
    assert len(ScriptedEngine.calls) == 3


def texts(group: RolloutGroup) -> list[str]:
    return [rollout.completion.text for rollout in group.rollouts]


def of_rank(folder: Path) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
    """The groups whole, and then as the rank that drew them has them."""
    saved = folder / "rollouts"
    return list(groups(saved)), list(groups(saved, RolloutSampler.resumable_shared_groups))


def in_parts() -> list[tuple[list[int], list[int], Verdict, str]]:
    """Rollouts of 1, 2, 1, 2 and 1 parts, by weights that change after the first part."""
    policy = Weight()
    engine = TellingEngine(policy, lambda seed: (seed, f"a text of {seed}"))
    sampler = RolloutSampler(lambda _: engine, Verifier(1, 1.0, 512), "policy", Progress())
    problems = [*PROBLEMS[:4], PROBLEMS[0]]
    partials = [
        PartialRollout(problem, tokens)
        for problem, tokens in zip(problems, (2, 5, 3, 4, 1), strict=True)
    ]
    sampling, ended = Sampling(1.0, 1.0, 9), []
    for version in (0, 1):
        with torch.no_grad():
            policy.updates.fill_(version)
        partials = sampler.extend(partials, sampling, 3, version)
        ended += [one for one in partials if one.ended]
        partials = [one for one in partials if not one.ended]
    assert partials == []
    nothing = PartialRollout(PROBLEMS[0], 0, ended=True)
    assert [one.policy_version for one in sampler.verified([nothing, *ended[:1]], 1)] == [1, 0]
    rollouts = sampler.verified(ended, 1)
    assert [one.problem for one in rollouts] == [one.problem for one in ended]
    return [
        (
            list(one.completion.token_ids),
            list(one.token_versions),
            one.verdict,
            one.completion.text,
        )
        for one in rollouts
    ]


@pytest.mark.distributed
def test_ranks_with_unequal_numbers_of_shards_have_the_groups_of_one(tmp_path: Path) -> None:
    (first, of_first), (second, of_second) = on_two_ranks(of_rank, tmp_path)
    alone = list(groups(tmp_path / "alone"))
    assert first == second == alone
    for number, expected in enumerate(alone):
        has, lacks = of_first[number], of_second[number]
        if number % 2:
            has, lacks = lacks, has
        assert texts(has) == texts(expected)
        assert lacks.problem == expected.problem
        for one, other in zip(lacks.rollouts, expected.rollouts, strict=True):
            assert not is_here(one)
            assert (one.verdict, one.author) == (other.verdict, other.author)
            assert len(one.completion.token_ids) == len(other.completion.token_ids)


def test_a_rollout_in_parts_has_the_version_of_each_token() -> None:
    versions = [versions for _, versions, _, _ in in_parts()]
    # 2, 3 and 1 tokens end in the first part; 5 and 4 have 3 of it.
    assert versions == [[0, 0], [0, 0, 0], [0], [0, 0, 0, 1, 1], [0, 0, 0, 1]]
    for tokens, of_tokens, verdict, text in in_parts():
        assert tokens == of_tokens
        assert (verdict, text) == (Verdict.UNPARSEABLE, f"a text of {len(tokens)}")


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(1, timeout_s=20, memory_mb=1024) as opened:
        yield opened


@pytest.mark.parametrize(
    ("prefix", "of_cut_off"), [("", Verdict.CORRECT), ("<think>\n", Verdict.UNPARSEABLE)]
)
def test_a_thought_that_the_template_opened_holds_no_answer(
    prefix: str, of_cut_off: Verdict, verifier: Verifier
) -> None:
    problems = [Problem(prompt, "1", "number", "coins") for prompt in ("cut off", "closed")]
    engine = ScriptedEngine("m", {"cut off": CUT_OFF, "closed": CLOSED}, HardwareConfig())
    sampler = RolloutSampler(
        lambda _: engine, verifier, "policy", Progress(), thought_of=lambda earlier: prefix
    )
    sampled = sampler.groups(problems, 1, Sampling(1.0, 1.0, 4), "0")
    assert [group.rollouts[0].verdict for group in sampled] == [of_cut_off, Verdict.CORRECT]
    # What trains is what was sampled.
    assert [group.rollouts[0].completion for group in sampled] == [CUT_OFF, CLOSED]


def test_a_system_message_that_opens_another_thought_is_refused(verifier: Verifier) -> None:
    engine = ScriptedEngine("m", {"coin": CLOSED}, HardwareConfig())
    opens = (Message("system", "/think"),)
    sampler = RolloutSampler(
        lambda _: engine,
        verifier,
        "policy",
        Progress(),
        thought_of=lambda earlier: "<think>" if earlier == opens else "",
    )
    plain = Problem("coin", "1", "number", "coins", metadata={"row": "f.jsonl, line 7"})
    other = replace(plain, earlier_messages=(Message("system", "Be brief."),))
    assert len(sampler.groups([plain, other], 1, Sampling(1.0, 1.0, 4), "0")) == 2
    with pytest.raises(UserError, match=r"^f\.jsonl, line 7: .* with '<think>', and else with ''"):
        sampler.groups(
            [plain, replace(plain, earlier_messages=opens)], 1, Sampling(1.0, 1.0, 4), "0"
        )


@pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")
def test_a_rollout_says_which_fraction_of_the_tests_it_passed(verifier: Verifier) -> None:
    problem = code_problem("def one(): pass\none.x = 2", ["assert one() == 1", "assert one.x == 2"])
    engine = ScriptedEngine(
        "m", {problem.prompt: Completion([1], fenced("def one(): return 1"))}, HardwareConfig()
    )
    sampler = RolloutSampler(lambda _: engine, verifier, "policy", Progress())
    [group] = sampler.groups([problem], 1, Sampling(1.0, 1.0, 4), "0")
    assert group.rollouts[0].verdict is Verdict.WRONG
    assert group.rollouts[0].passed_frac == 0.5
