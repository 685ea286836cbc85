"""pass@1 of completions that a smaller token limit would have cut."""

from collections.abc import Iterator

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.evaluate.token_budgets import budget_means
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, UserError, Verdict
from reasoning_lab.verify import Verifier

WORDS = {"<end>": 0, "so": 1, "\\boxed{1}": 2, "\\boxed{2}": 3, "<think>": 4, "</think>": 5}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(WORDS, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def rollout(prompt: str, text: str, verdict: Verdict) -> Rollout:
    ids = [WORDS[word] for word in text.split()]
    return Rollout(Problem(prompt, "1", "math", "f"), Completion(ids, text), None, verdict, "a")


def groups() -> list[RolloutGroup]:
    rollouts = [
        # Right from its second token on, and wrong in the end.
        rollout("a", "so \\boxed{1} so so so so so \\boxed{2}", Verdict.WRONG),
        # Right at its last token alone.
        rollout("b", "so so so so so so so \\boxed{1}", Verdict.CORRECT),
        # Short: the verdict stays, whatever its text says.
        rollout("c", "so", Verdict.CORRECT),
        rollout("d", "so \\boxed{2}", Verdict.WRONG),
    ]
    return [RolloutGroup(one.problem, [one]) for one in rollouts]


def test_an_answer_counts_if_it_is_given_within_the_budget(verifier: Verifier) -> None:
    means = budget_means([0.25, 0.5, 1.0], 8, groups(), tokenizer(), verifier)
    assert {name: value and value[0] for name, value in means.items()} == {
        "metric/pass@1 at 0.25": 0.5,
        "metric/pass@1 at 0.5": 0.5,
        "metric/pass@1 at 1": 0.5,
    }
    # Half of four problems: a standard error of 0.289, times Student's t of three degrees.
    assert means["metric/pass@1 at 0.25"] == pytest.approx([0.5, -0.419, 1.419], abs=1e-3)
    [only] = budget_means([0.5], 8, groups()[1:3], tokenizer(), verifier).values()
    assert only is not None
    assert only[0] == 0.5


def test_a_thought_that_the_cut_leaves_open_has_no_answer(verifier: Verifier) -> None:
    thought = rollout("a", "<think> \\boxed{1} so </think> \\boxed{1} so", Verdict.CORRECT)
    other = rollout("b", "\\boxed{1} so so so so so so so", Verdict.CORRECT)
    both = [RolloutGroup(one.problem, [one]) for one in (thought, other)]
    [mean] = budget_means([0.25], 8, both, tokenizer(), verifier).values()
    assert mean is not None
    assert mean[0] == 0.5


def test_without_tokens_there_is_no_value(verifier: Verifier) -> None:
    silent = [
        RolloutGroup(g.problem, [Rollout(g.problem, Completion([], "x"), None, Verdict.WRONG, "a")])
        for g in groups()
    ]
    assert budget_means([0.5], 8, silent, tokenizer(), verifier) == {"metric/pass@1 at 0.5": None}


@pytest.mark.parametrize("budget", [0.0, -0.5, 1.5])
def test_a_budget_is_a_part(budget: float) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.sums\.token_budgets: .* no part"):
        BenchmarkConfig(levels=[1], count=1, token_budgets=[budget]).check("benchmarks.sums")
