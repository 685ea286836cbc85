"""Checks of the verifier, on the problems that the model is to be trained or evaluated on."""

from collections.abc import Sequence
from itertools import pairwise

from reasoning_lab.doctor.check import Check, Result, not_applicable, ok, wrong
from reasoning_lab.doctor.model_under_test import ModelUnderTest
from reasoning_lab.doctor.tokenizer_checks import LOADS
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN
from reasoning_lab.models.tokenizer import template_thought, tokenize
from reasoning_lab.sampling.engine import completions_of
from reasoning_lab.types import Completion, Problem, Verdict
from reasoning_lab.verify.extraction import BOXED, answer_form, boxed

_NO_PROBLEMS = not_applicable("no problem's data is on this machine")
_NO_BOXES = not_applicable("no problem has a readable answer that belongs into a box")
# Fewer are dropped and counted, or refused, when a stage draws its problems.
_MOST_UNREADABLE_FRAC = 0.5


def _gold_unreadable(model: ModelUnderTest) -> Result:
    if not model.problems:
        return _NO_PROBLEMS
    unreadable = model.verifier.unreadable_golds(model.problems)
    if not unreadable:
        return ok()
    first, counts = unreadable[0], f"{len(unreadable)} of {len(model.problems)} golds"
    if len(unreadable) <= _MOST_UNREADABLE_FRAC * len(model.problems):
        return ok(f"{counts} cannot be read, and their problems are left out")
    return wrong(
        f"{first.origin}: '{first.checker}' cannot read the gold {first.gold[:60]!r} ({counts}); "
        "correct them, or choose another checker"
    )


def _boxed_problems(model: ModelUnderTest) -> list[Problem]:
    """Those with a readable gold that a model would put into a box."""
    unreadable = {problem.id for problem in model.verifier.unreadable_golds(model.problems)}
    readable = [problem for problem in model.problems if problem.id not in unreadable]
    return [problem for problem in readable if answer_form(problem.checker) is BOXED]


def _right_refused(model: ModelUnderTest) -> Result:
    problems = _boxed_problems(model)
    if not problems:
        return _NO_BOXES if model.problems else _NO_PROBLEMS
    verdicts = _verdicts(model, problems, [problem.gold for problem in problems])
    for problem, verdict in zip(problems, verdicts, strict=True):
        if verdict is not Verdict.CORRECT:
            return wrong(
                f"{problem.origin}: '{problem.checker}' calls its own gold "
                f"{problem.gold[:60]!r} in a box {verdict}; correct the gold or the checker"
            )
    return ok()


def _wrong_credited(model: ModelUnderTest) -> Result:
    pairs = [
        (problem, other.gold)
        for problem, other in pairwise(_boxed_problems(model))
        if problem.checker == other.checker and problem.gold != other.gold
    ]
    if not pairs:
        return not_applicable("there are no two problems of one checker with other golds")
    problems = [problem for problem, _ in pairs]
    verdicts = _verdicts(model, problems, [answer for _, answer in pairs])
    for checker in dict.fromkeys(problem.checker for problem in problems):
        judged = [v for p, v in zip(problems, verdicts, strict=True) if p.checker == checker]
        if all(verdict is Verdict.CORRECT for verdict in judged):
            return wrong(
                f"data: '{checker}' calls other problems' golds correct, {len(judged)} of "
                f"{len(judged)} times; correct the checker"
            )
    return ok()


def _draft_credited(model: ModelUnderTest) -> Result:
    problems = _boxed_problems(model)
    if not problems:
        return _NO_BOXES if model.problems else _NO_PROBLEMS
    drafts = [f"{THINK_OPEN}\nIs it {boxed(problem.gold)}?" for problem in problems]
    verdicts = model.verifier.verify(problems, _decoded(model, problems, drafts))
    for problem, (_, verdict) in zip(problems, verdicts, strict=True):
        if verdict is Verdict.CORRECT:
            return wrong(
                f"model.path: a thought without an end counts as an answer ({problem.origin}), as "
                f"{THINK_OPEN} is not in the decoded text; add the tag as a token that is not "
                "special"
            )
    return ok()


def _verdicts(
    model: ModelUnderTest, problems: Sequence[Problem], answers: Sequence[str]
) -> list[Verdict]:
    """Of boxed answers behind a thought, one for each problem."""
    solutions = [
        f"{THINK_OPEN}\nI think.\n{THINK_CLOSE}\nIt is {boxed(answer)}" for answer in answers
    ]
    texts = _decoded(model, problems, solutions)
    return [verdict for _, verdict in model.verifier.verify(problems, texts)]


def _decoded(model: ModelUnderTest, problems: Sequence[Problem], texts: Sequence[str]) -> list[str]:
    """The texts as the model would write them and the verifier reads them."""
    tokenizer = model.tokenizer
    prompts = [problem.model_prompt for problem in problems]
    examples = tokenize(tokenizer, prompts, [Completion([], text) for text in texts])
    outputs = [(list(example.completion_ids), (), False) for example in examples]
    opened = template_thought(tokenizer)
    return [opened + completion.text for completion in completions_of(tokenizer, outputs)]


_NEEDS = (*LOADS, "end-token-not-trained")
VERIFIER_CHECKS = (
    Check(
        "gold-unreadable",
        "The verifier cannot read a known answer, and everything or nothing gets its reward.",
        "https://github.com/huggingface/open-r1/issues/293",
        _gold_unreadable,
    ),
    Check(
        "right-answer-refused",
        "The known answer in the model's own format gets no reward.",
        "https://github.com/huggingface/open-r1/pull/566",
        _right_refused,
        (*_NEEDS, "gold-unreadable"),
    ),
    Check(
        "wrong-answer-credited",
        "Any answer gets the reward.",
        "https://github.com/huggingface/open-r1/issues/86",
        _wrong_credited,
        (*_NEEDS, "gold-unreadable"),
    ),
    Check(
        "draft-credited",
        "An answer inside a thought that was cut off gets the reward.",
        "https://github.com/PrimeIntellect-ai/verifiers/pull/213",
        _draft_credited,
        (*_NEEDS, "gold-unreadable"),
    ),
)
