"""The teacher that hands out recorded solutions: formats, answers, and a corpus of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from omegaconf import OmegaConf

from reasoning_lab.compose import CONF
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.reasoning_gym import ReasoningGymSource
from reasoning_lab.data.recorded import RecordedTeacher
from reasoning_lab.data.sources import FileSource
from reasoning_lab.hardware import HardwareConfig
from reasoning_lab.schema import ProblemsConfig
from reasoning_lab.stages.distill.config import DistillConfig
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.types import Problem, Split, UserError, Verdict
from reasoning_lab.verify import Verifier, extract_answer

from .contexts import data_context

OPTIONS: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "teacher/recorded.yaml"))  # type: ignore[assignment]
TEACHER = RecordedTeacher(OPTIONS["answer_pattern"])


@pytest.mark.parametrize(
    ("solution", "text"),
    [
        (
            "48/2 = <<48/2=24>>24 clips.\n48+24 = $<<48+24=72>>72.\n#### 72",
            "<think>\n48/2 = 24 clips.\n48+24 = $72.\n</think>\n\\boxed{72}",
        ),
        ("So $x=\\boxed{\\frac{1}{2}}$.", None),
        ("<think>\nhm\n</think>\n\\boxed{3}", "<think>\nhm\n</think>\n\\boxed{3}"),
        ("hm\n</think>\n\\boxed{3}", "<think>\nhm\n</think>\n\\boxed{3}"),
        # A thought that never came to an answer gets none, whatever it says.
        ("<think>answer is B</think>\nI give up", "<think>answer is B</think>\nI give up"),
        ("It cannot be told.", "<think>\nIt cannot be told.\n</think>"),
    ],
)
def test_a_solution_becomes_a_thought_and_a_box(solution: str, text: str | None) -> None:
    boxed = f"<think>\n{solution}\n</think>\n\\boxed{{\\frac{{1}}{{2}}}}"
    assert TEACHER.formatted(solution) == (boxed if text is None else text)


def test_marks_of_other_recipes_become_ours() -> None:
    solution = (
        "<|begin_of_thought|>\n\nhm\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\n\\boxed{4}\n\n<|end_of_solution|>"
    )
    text = TEACHER.formatted(solution)
    assert text.startswith("<think>")
    assert "|" not in text
    assert extract_answer(text) == "4"
    assert text.split("</think>")[1].strip() == "\\boxed{4}"


@pytest.mark.parametrize(
    ("ending", "answer"),
    [
        ("Answer is B", "B"),
        ("x = 250 m. Answer D", "D"),
        ("ANSWER:C", "C"),
        ("Correct answer - A", "A"),
        ("CORRECT OPTION:OPTION E", "E"),
        ("Answer: Option B.", "B"),
        ("the correct answer is D.", "D"),
        ("Option A is wrong, option B too.\nThe answer is (C)", "C"),
        ("= 12\nE", "E"),
        ("= 12 C.", "C"),
        ("Hence answer will be A. 5", "A"),
        ("Thus, C is the correct answer", "C"),
        ("So 3(A) = 15 years", None),
        ("The answer is: $\\frac{3}{4}$", "$\\frac{3}{4}$"),
        ("#### 110\nThe answer is: 110", "110"),
        ("the answer Bob gave", None),
        ("A train", None),
    ],
)
def test_the_last_answer_in_prose_counts(ending: str, answer: str | None) -> None:
    text = TEACHER.formatted(f"Some working.\n{ending}")
    assert extract_answer(text) == answer
    assert ending in text


@pytest.mark.parametrize(
    "piece", ["answer", "answer ", "(", "<<", "<<1", "####", "\n####", "option is ", "\n", " "]
)
def test_hostile_solutions_take_linear_time(piece: str) -> None:
    hostile = piece * (400_000 // len(piece))
    started = process_time()
    for text in (hostile, f"answer{hostile}x", f"####{hostile}x", f"<<{hostile}\n{hostile}x"):
        TEACHER.formatted(text)
    assert process_time() - started < 4


def test_as_many_solutions_as_there_are_up_to_the_samples() -> None:
    problems = [
        Problem(
            f"{n}?", "1", "math", "x", metadata={"solutions": [f"\\boxed{{{k}}}" for k in have]}
        )
        for n, have in enumerate([range(3), range(1), range(0)])
    ]
    with TEACHER.open(HardwareConfig()) as writing:
        written = writing(problems, 2, 0)
    answers = [[extract_answer(each.text) for each in completions] for completions in written]
    assert answers == [["0", "1"], ["0"], []]


def test_a_problem_without_the_column_is_named() -> None:
    problem = Problem("?", "1", "math", "x", metadata={"row": "rows.jsonl, line 3"})
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3 has no .*data\.rows\.solutions"):
        TEACHER([problem], 1, 0)


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "no regular expression"), ("x", "has no group")]
)
def test_a_pattern_that_finds_no_answer_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"teacher\.answer_pattern: .*{said}"):
        RecordedTeacher(pattern)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


def test_recorded_solutions_become_a_verified_corpus(tmp_path: Path, verifier: Verifier) -> None:
    """A problem has a right, a wrong and an unanswered solution; every third only the first."""
    rows = [
        {
            "prompt": f"{n} + 1?",
            "gold": f"{n + 1}",
            "s": [f"{n} and 1\n#### {n + 1}", "guess\n#### 0", "no idea"][: 1 if n % 3 == 0 else 3],
        }
        for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    source = FileSource(str(path), 0.0, 0.3, {"solutions": "s"})
    context = data_context(tmp_path, "distill", source, verifier)
    config = DistillConfig(
        teacher=OPTIONS,
        problems=ProblemsConfig(levels=[1], count=30),
        validation=4,
        rollouts=3,
        shard_problems=7,
    )
    metrics = run(config, context)
    accepted = read_rollouts(tmp_path / "out" / "accepted.parquet")
    rejected = read_rollouts(tmp_path / "out" / "rejected.parquet")
    assert len(accepted) == 30
    short = sum(int(rollout.problem.gold) % 3 == 1 for rollout in accepted)
    assert metrics["rollouts"] == 3 * 30 - 2 * short
    assert metrics["accepted_frac"] == 30 / (90 - 2 * short)
    assert metrics["verdict/wrong"] == metrics["verdict/unparseable"] == 30 - short
    assert {rollout.verdict for rollout in accepted} == {Verdict.CORRECT}
    for rollout in accepted + rejected:
        assert rollout.author == "recorded"
        # The corpus does not repeat every solution with each of them.
        assert set(rollout.problem.metadata) == {"row"}


def test_a_family_that_works_its_own_problems_has_them_recorded() -> None:
    source = ReasoningGymSource({"gsm_symbolic": {1: {}}}, 0.1, 0.1)
    problems = list(source.problems(Split.TRAIN, [1], 40, 0))
    texts = [done.text for [done] in TEACHER(problems, 1, 0)]
    ends = [problem.metadata["answer_cot"].rpartition("#### ")[2] for problem in problems]
    assert [extract_answer(text) for text in texts] == ends
    assert all("####" not in text and text.startswith("<think>\n") for text in texts)


def test_a_family_without_worked_solutions_is_refused_by_its_name() -> None:
    [problem] = ReasoningGymSource({"gcd": {1: {}}}, 0.1, 0.1).problems(Split.TRAIN, [1], 1, 0)
    with pytest.raises(UserError, match=f"problem {problem.id} has no recorded solutions"):
        TEACHER([problem], 1, 0)
