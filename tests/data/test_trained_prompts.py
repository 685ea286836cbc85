"""What an artifact remembers of the prompts that were trained on."""

from pathlib import Path

from reasoning_lab.data.trained_prompts import PROMPT_IDS, TrainedPrompts, seen_kinds
from reasoning_lab.types import Problem

SUM = "State the final answer to the following arithmetic problem: {} ="


def problem(prompt: str, family: str = "f", level: int = 1) -> Problem:
    return Problem(prompt, "1", "math", family, level)


def test_prompts_survive_the_disk_each_once(tmp_path: Path) -> None:
    problems = [problem("b", "two\twords\n", 3), problem("a"), problem("A "), problem("a", "g", 2)]
    written = TrainedPrompts.of(problems)
    written.write(tmp_path)
    read = TrainedPrompts.read(tmp_path)
    assert len(read) == 2
    assert {f"{number:016x}" for number in read.ids} == {problem("a").id, problem("b").id}
    assert set(read.families_and_levels) == {("two words", 3), ("f", 1)}
    assert len(TrainedPrompts.read(tmp_path / "elsewhere")) == 0


def test_a_file_of_an_earlier_version_has_ids_alone(tmp_path: Path) -> None:
    (tmp_path / PROMPT_IDS).write_text(f"{problem('a').id}\n")
    read = TrainedPrompts.read(tmp_path)
    assert TrainedPrompts.of([problem("a"), problem("b")]).in_common(read).sum() == 1
    assert read.families_and_levels == (("", 0),)


def test_prompts_and_twins_are_in_common() -> None:
    trained = TrainedPrompts.of([problem(SUM.format("3 + 4")), problem("a")])
    held_out = [
        problem(SUM.format("4 + 3")),
        problem("a"),
        problem("b"),
        problem(SUM.format("1 + 1")),
    ]
    assert [TrainedPrompts.of([one]).in_common(trained).item() for one in held_out] == [
        True,
        True,
        False,
        False,
    ]


def test_what_a_benchmark_forbids_is_named() -> None:
    held_out, trained = [("gcd", 4), ("lcm", 1)], [("gcd", 3), ("lcm", 1)]
    assert seen_kinds(held_out, trained, "prompts") == ""
    assert seen_kinds(held_out, trained, "levels") == "level 1 of lcm"
    assert seen_kinds(held_out, trained, "families") == "family gcd, family lcm"
    assert seen_kinds(held_out, [("gcd", 3)], "levels") == ""
