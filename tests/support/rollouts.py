"""Rollouts with given verdicts and lengths."""

from dataclasses import replace

from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, Verdict


def rollout(
    prompt: str,
    verdict: Verdict,
    tokens: int = 3,
    family: str = "f",
    level: int = 1,
    text: str = "",
) -> Rollout:
    problem = Problem(prompt, "1", "math", family, level)
    return Rollout(problem, Completion(list(range(tokens)), text), "1", verdict, "a")


def group(
    verdicts: str, lengths: list[int] | None = None, domain: str = "mathematics"
) -> RolloutGroup:
    """One rollout a letter: c(orrect), w(rong), u(nparseable), t(imeout)."""
    names = {word[0]: word for word in Verdict}
    lengths = lengths or [3 + number for number in range(len(verdicts))]
    rollouts = [
        rollout("p", Verdict(names[letter]), tokens)
        for letter, tokens in zip(verdicts, lengths, strict=True)
    ]
    problem = replace(rollouts[0].problem, domain=domain)
    return RolloutGroup(problem, [replace(one, problem=problem) for one in rollouts])
