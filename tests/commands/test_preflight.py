"""What a recipe asks of its data is held against the data before anything trains."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reasoning_lab.commands.preflight import Preflight
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.tokens.document_length import shortest_document
from reasoning_lab.graph.record import Metadata
from reasoning_lab.graph.store import Store
from reasoning_lab.verify import Verifier
from tests.conftest import lab_here
from tests.support.composition import PHI4_BY_TRANSFORMERS, composed_recipe

Complaints = Callable[..., list[str]]

SMOKE = ("experiment=smoke", "tracker.mode=disabled")


OTHER_FAMILIES = (
    "complex_arithmetic",
    "count_primes",
    "fraction_simplification",
    "gcd",
    "leg_counting",
    "simple_equations",
)


@pytest.fixture
def complaints(verifier: Verifier, tmp_path: Path) -> Complaints:
    def of(*overrides: str) -> list[str]:
        recipe = composed_recipe(*SMOKE, f"paths.runs={tmp_path}/runs", *overrides)
        return Preflight(verifier).complaints(recipe)

    return of


def rows(path: Path, levels: Sequence[int], family: str | None = None) -> str:
    lines = [
        {"prompt": f"What is {number} plus 7?", "gold": str(number + 7), "level": level}
        | ({"family": family} if family else {})
        for level in levels
        for number in range(1000 * level, 1000 * level + 300)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_shipped_recipe_has_no_complaint(complaints: Complaints) -> None:
    assert complaints() == []


def test_levels_and_lengths_come_at_once(complaints: Complaints) -> None:
    lines = complaints(
        "stages.midtrain.row_tokens=8", "stages.sft.levels=[4]", "stages.rl.problems.levels=[7]"
    )
    assert [line.split(":")[0] for line in lines] == [
        "stages.midtrain.row_tokens=8",
        "stages.sft.levels",
        "stages.rl.problems",
    ]
    assert "the shortest has about" in lines[0]
    assert "stages.distill.problems brings levels [1]" in lines[1]


def test_counts_of_every_stage_come_at_once(complaints: Complaints, tmp_path: Path) -> None:
    path = rows(tmp_path / "few.jsonl", [1, 2, 3], "chain_sum")
    lines = complaints(
        "data=jsonl",
        f"data.path={path}",
        "teacher@stages.distill.teacher=recorded",
        "stages.distill.validation=5000",
        "stages.rl.problems.count=5000",
    )
    short = [line.split(":")[0] for line in lines if "5000 asked for" in line]
    assert short == ["stages.distill.validation", "stages.rl.problems"]


def test_level_that_no_row_has_is_found_before_the_stage_that_selects_it(
    complaints: Complaints, tmp_path: Path
) -> None:
    path = rows(tmp_path / "one.jsonl", [1], "chain_sum")
    (line,) = complaints(
        "~stages.pretrain",
        "model.path=somewhere/else",
        "data=jsonl",
        f"data.path={path}",
        "teacher@stages.distill.teacher=recorded",
        "stages.sft.levels=[2,3]",
        "benchmarks.heldout.levels=[1]",
    )[-1:]
    assert line.startswith("stages.sft.levels: no problem is at levels [2, 3]")
    assert "stages.distill.problems brings levels [1]" in line


def test_teacher_that_does_not_know_a_family_is_told_with_its_row(
    complaints: Complaints, tmp_path: Path
) -> None:
    path = rows(tmp_path / "mine.jsonl", [1, 2, 3])
    every = "problems.levels=[1,2,3]"
    lines = complaints(
        "data=jsonl", f"data.path={path}", f"stages.pretrain.{every}", f"stages.distill.{every}"
    )
    assert [line.split(":")[0] for line in lines] == [
        "stages.pretrain.problems",
        "stages.distill.problems",
        "stages.distill.validation",
    ]
    assert all("'file'" in line and "mine.jsonl, line " in line for line in lines)


def test_recorded_teacher_wants_solutions(complaints: Complaints, tmp_path: Path) -> None:
    path = rows(tmp_path / "mine.jsonl", [1, 2, 3])
    lines = complaints("data=jsonl", f"data.path={path}", "teacher@stages.distill.teacher=recorded")
    assert "data.rows.solutions" in lines[1]


def test_what_is_stored_is_not_asked_for(verifier: Verifier, tmp_path: Path) -> None:
    recipe = composed_recipe(*SMOKE, f"paths.runs={tmp_path}/runs", "stages.rl.problems.levels=[7]")
    assert len(Preflight(verifier).complaints(recipe)) == 1
    (node,) = (node for node in recipe.nodes if node.name == "rl")
    Store(tmp_path / "runs" / "store").obtain(
        node.stage.name,
        node.fingerprint,
        lambda out_dir, work_dir: Metadata(
            kind="policy", identity=node.identity, inputs={}, seed=0, metrics={}, versions={}
        ),
    )
    assert Preflight(verifier).complaints(recipe) == []


def test_other_options_of_a_generator_are_another_draw(complaints: Complaints) -> None:
    def of(most_terms: int) -> list[str]:
        family = f"{{min_terms: 2, max_terms: {most_terms}, min_digits: 1, max_digits: 1}}"
        return complaints(
            *(f"~data.families.{name}" for name in OTHER_FAMILIES),
            "data.families={chain_sum: {2: " + family + "}}",
            "data.test_frac=0.5",
            "stages.pretrain.problems.levels=[2]",
            "stages.distill.problems.levels=[2]",
            "stages.sft.levels=[2]",
            "stages.rl.problems.levels=[2]",
        )

    assert of(4) == []
    # Two digits and one sign are fewer than 200 sums, of which half are held out.
    assert {line.split(":")[0] for line in of(2)} >= {"stages.pretrain.problems"}


def test_weights_of_sources_want_a_mixture(complaints: Complaints) -> None:
    (line,) = complaints("stages.rl.problems.source_weights={logic: 1}")
    assert line.startswith("stages.rl.problems: source_weights: the data is no mixture")


def test_plan_fetches_nothing(verifier: Verifier) -> None:
    recipe = composed_recipe(*PHI4_BY_TRANSFORMERS)
    preflight = Preflight(verifier, local_only=True)
    assert preflight.complaints(recipe) == []
    assert {"stages.distill.problems", "benchmarks.aime24"} <= set(preflight.unchecked)


@pytest.mark.parametrize("command", [[], ["plan"], ["-m", "seed=0,1"]])
def test_run_plan_and_sweep_say_the_same(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    wrong = ["stages.sft.levels=[4]", "stages.rl.problems.levels=[7]"]
    assert lab_here(*command, *SMOKE, *wrong, cwd=tmp_path) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["stages.sft.levels", "stages.rl.problems"]
    assert not (tmp_path / "runs" / "store").exists()


def test_document_length_of_a_model_from_scratch() -> None:
    """Of these texts every one is a token a byte at 256 symbols, which leave no merge."""
    model = ModelConfig(vocab_size=256)
    assert shortest_document(["abcd", "abcdefg"], model) == 4
    assert shortest_document([], model) is None


def test_document_length_of_a_checkpoint_that_is_not_here() -> None:
    assert shortest_document(["abcd"], ModelConfig(path="nobody/nothing")) is None


def test_a_family_that_a_benchmark_must_be_the_first_to_show(complaints: Complaints) -> None:
    lines = complaints(
        "benchmark=[heldout_unseen]", "+data.families.lcm={1: {min_value: 2, max_value: 20}}"
    )
    # The teacher knows no such family either, which is said too.
    seen = [
        line for line in lines if line.startswith("benchmarks.heldout_unseen.unseen=families: ")
    ]
    assert [line.partition("stages.")[2].split()[0] for line in seen] == [
        "pretrain.problems",
        "distill.problems",
        "rl.problems",
    ]
    assert all("draws family lcm" in line for line in seen)
    assert complaints("benchmark=[heldout_hard]") == []
