"""What the verifier reads of a completion."""

from collections.abc import Iterator

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.tracking.progress import Progress
from reasoning_lab.types import Completion, Problem, Verdict
from reasoning_lab.verify import Verifier
from tests.support.scripted import ScriptedEngine

CUT_OFF = Completion([5], "Is it \\boxed{1}?", truncated=True)
CLOSED = Completion([5], "It is.\n</think>\n\\boxed{1}")


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
        lambda _: engine, verifier, "policy", Progress(), thought_prefix=prefix
    )
    groups = sampler.groups(problems, 1, Sampling(1.0, 1.0, 4), "0")
    assert [group.rollouts[0].verdict for group in groups] == [of_cut_off, Verdict.CORRECT]
    # What trains is what was sampled.
    assert [group.rollouts[0].completion for group in groups] == [CUT_OFF, CLOSED]
