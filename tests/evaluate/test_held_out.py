"""What a benchmark may not share with what a policy was trained on."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.config.benchmark import BenchmarkConfig
from reasoning_lab.config.folder import CONF
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.evaluate.benchmark import benchmark_problems
from reasoning_lab.types import Problem, UserError

GCD = {"gcd": {1: {"min_value": 2, "max_value": 60}}}
PROMPT = "Find the Greatest Common Divisor (GCD) of these numbers: {}. {}"


def benchmark_after(unseen: str, trained: Problem, folder: Path) -> list[Problem]:
    """A benchmark's problems, of a policy whose lineage trained on one problem."""
    TrainedPrompts.of([trained]).write(folder)
    benchmark = BenchmarkConfig(levels=[1], count=40, unseen=unseen)
    source = ReasoningGymConfig(GCD, 0.5, 0.0)
    return benchmark_problems(source, benchmark, "sums", [folder])


def test_a_twin_in_the_lineage_is_refused(tmp_path: Path) -> None:
    other = Problem("2 + 2?", "4", "math", "file")
    [first, *_] = benchmark_after("families", other, tmp_path)
    numbers = first.metadata["numbers"]
    twin = PROMPT.format(", ".join(map(str, reversed(numbers))), "Give only the GCD.")
    with pytest.raises(UserError, match=r"benchmarks\.sums: 1 of its 40 prompts, or twins of them"):
        benchmark_after("prompts", Problem(twin, first.gold, "number", "file"), tmp_path)


@pytest.mark.parametrize(
    ("unseen", "level", "refusal"),
    [
        ("prompts", 1, ""),
        ("levels", 2, ""),
        ("levels", 1, r"benchmarks\.sums\.unseen=levels: .* trained on level 1 of gcd"),
        ("families", 2, r"benchmarks\.sums\.unseen=families: .* trained on family gcd"),
    ],
)
def test_families_and_levels_that_a_benchmark_must_be_the_first_to_show(
    unseen: str, level: int, refusal: str, tmp_path: Path
) -> None:
    trained = Problem("another question", "1", "math", "gcd", level)
    if not refusal:
        assert len(benchmark_after(unseen, trained, tmp_path)) == 40
        return
    with pytest.raises(UserError, match=refusal):
        benchmark_after(unseen, trained, tmp_path)


def options(file: str) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / file))
    assert isinstance(content, dict)
    return content


def test_what_is_shipped_beside_heldout_is_not_in_the_data_that_stages_train_on() -> None:
    tiny = options("data/tiny.yaml")
    hard, unseen = options("benchmark/heldout_hard.yaml"), options("benchmark/heldout_unseen.yaml")
    assert (hard["unseen"], unseen["unseen"]) == ("levels", "families")
    assert hard["data"]["families"].keys() == tiny["families"].keys()
    trained = {level for by_level in tiny["families"].values() for level in by_level}
    asked_levels = {level for levels in hard["data"]["families"].values() for level in levels}
    assert min(asked_levels) > max(trained)
    assert not unseen["data"]["families"].keys() & tiny["families"].keys()
    # The same fractions, so that a form that training could draw as well is not held out by chance.
    for one in (hard, unseen):
        assert {key: one["data"][key] for key in ("test_frac", "validation_frac")} == {
            key: tiny[key] for key in ("test_frac", "validation_frac")
        }
