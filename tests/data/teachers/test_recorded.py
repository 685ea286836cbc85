"""The teacher that hands out recorded solutions: formats, answers, and a corpus of them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.data.teachers.config import RecordedTeacherConfig
from reasoning_lab.data.teachers.recorded import RecordedTeacher
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.types import Completion, Problem, Split, UserError, Verdict
from reasoning_lab.verify import Verifier, extract_answer
from tests.support.contexts import data_context
from tests.support.sources import file_source

TEACHER = RecordedTeacher(RecordedTeacherConfig())


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
    assert TEACHER.completion(solution).text == (boxed if text is None else text)


def test_marks_of_other_recipes_become_ours() -> None:
    solution = (
        "<|begin_of_thought|>\n\nhm\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\n\\boxed{4}\n\n<|end_of_solution|>"
    )
    text = TEACHER.completion(solution).text
    assert text.startswith("<think>")
    assert "|" not in text
    assert extract_answer(text) == "4"
    assert text.split("</think>")[1].strip() == "\\boxed{4}"


@pytest.mark.parametrize(
    "solution",
    [
        "<think>\na draft: \\boxed{3}, but wait",
        "<think>a draft: the answer is 3",
        "a <think> in the middle \\boxed{3}",
        "<THINK>\n\\boxed{3}",
        "<|begin_of_thought|>\n\n#### 3",
        "<|begin_of_thought|>\nhm\n<|end_of_thought|>\n<|begin_of_solution|>\nIt is \\boxed{3}",
        "<reasoning>\n\\boxed{3}",
        "[THINK]\\boxed{3}",
        "<think>hm</think>\\boxed{3}<think>no: \\boxed{4}",
        "<|begin_of_solution|>\\boxed{3}",
    ],
)
def test_a_generation_without_the_end_of_its_thought_is_cut_off(solution: str) -> None:
    completion = TEACHER.completion(solution)
    assert completion.truncated
    assert completion.text.startswith("<think>")
    assert completion.text.count("<think>") == 1
    assert completion.text.count("boxed") == solution.count("boxed")


@pytest.mark.parametrize(
    ("solution", "text"),
    [
        ("<think>x</think>\\boxed{3}<|im_end|>", "<think>x</think>\\boxed{3}"),
        ("<think>x</think>y<|eot_id|>\n</s>\n", "<think>x</think>y"),
        ("<thinking>\nx\n</thinking>\ny", "<think>\nx\n</think>\ny"),
        ("<reasoning>x</reasoning><answer>y</answer>", "<think>x</think>y"),
        ("[THINK]x[/THINK]y", "<think>x</think>y"),
        ("<think>a</think>b<think>c</think>d", "<think>abc</think>d"),
        ("<think>\n<think>\na\n</think>\nb", "<think>\n\na\n</think>\nb"),
        ("Well.\n<think>a</think>b", "<think>Well.\na</think>b"),
    ],
)
def test_whatever_the_marks_there_is_one_thought(solution: str, text: str) -> None:
    assert TEACHER.completion(solution) == Completion([], text)


def test_a_dataset_s_own_marks_are_an_option() -> None:
    teacher = RecordedTeacher(RecordedTeacherConfig(marks=[["<cot>", "</cot>"]]))
    assert teacher.completion("<cot>x</cot>\\boxed{3}").text == "<think>x</think>\\boxed{3}"
    assert teacher.completion("<cot>x \\boxed{3}").truncated


@pytest.mark.parametrize(
    "marks", [["<a>"], [["<a>"]], [["<a>", ""]], [["<a>", "<a>"]], [["<think>", "</b>"]]]
)
def test_marks_that_are_no_pairs_are_refused(marks: Any) -> None:
    with pytest.raises(UserError, match=r"teacher\.marks: .*\[OPENING, CLOSING\]"):
        RecordedTeacher(RecordedTeacherConfig(marks=marks))


@pytest.mark.parametrize("samples", [1, 3])
def test_a_generation_without_marks_beside_thoughts_is_cut_off(samples: int) -> None:
    """As of a template that opens the thought: only the end of one is ever in the text."""
    teacher = RecordedTeacher(RecordedTeacherConfig())

    def problems(file: str, solutions: list[list[str]]) -> list[Problem]:
        return [
            Problem(
                f"{file} {n}?",
                "1",
                "math",
                "x",
                metadata={"solutions": texts, "row": f"{file}, row {n}"},
            )
            for n, texts in enumerate(solutions)
        ]

    thoughts = problems("r1.jsonl", [["x\n</think>\n\\boxed{1}"], ["a draft: \\boxed{1}, but"]])
    human = problems("human.jsonl", [["So \\boxed{1}"]])
    beside = problems("beside.jsonl", [["a draft: \\boxed{1}", "x</think>\\boxed{1}"]])
    everything = [*thoughts, *human]
    assert list(teacher.observe(iter(everything))) == everything
    (whole,), (cut,), (short,) = (written[:1] for written in teacher(everything, samples, 0))
    assert whole == Completion([], "<think>\nx\n</think>\n\\boxed{1}")
    assert cut == Completion([], "<think>\na draft: \\boxed{1}, but", truncated=True)
    assert short == Completion([], "<think>\nSo \\boxed{1}\n</think>\n\\boxed{1}")
    # Of one problem's solutions no survey is needed, however few are taken.
    assert teacher(beside, samples, 0)[0][0].truncated


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
    text = TEACHER.completion(f"Some working.\n{ending}").text
    assert extract_answer(text) == answer
    assert ending in text


@pytest.mark.parametrize(
    "piece", ["answer", "answer ", "(", "<<", "<<1", "####", "\n####", "option is ", "\n", " "]
)
def test_hostile_solutions_take_linear_time(piece: str) -> None:
    hostile = piece * (400_000 // len(piece))
    started = process_time()
    for text in (hostile, f"answer{hostile}x", f"####{hostile}x", f"<<{hostile}\n{hostile}x"):
        TEACHER.completion(text)
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
    answers = [
        [extract_answer(completion.text) for completion in completions] for completions in written
    ]
    assert answers == [["0", "1"], ["0"], []]


def test_a_problem_without_the_column_is_named() -> None:
    problem = Problem("?", "1", "math", "x", metadata={"row": "rows.jsonl, line 3"})
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3 has no .*data\.rows\.solutions"):
        TEACHER([problem], 1, 0)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "no regular expression"), ("x", "has no group")]
)
def test_a_pattern_that_finds_no_answer_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"teacher\.answer_pattern: .*{message}"):
        RecordedTeacher(RecordedTeacherConfig(pattern))


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
    source = file_source(str(path), 0.0, 0.3, {"solutions": "s"})
    context = data_context(tmp_path, "distill", source, verifier)
    config = DistillStage(
        teacher=RecordedTeacherConfig(),
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


def test_a_dataset_with_half_of_its_generations_cut_off(tmp_path: Path, verifier: Verifier) -> None:
    """One generation in two is whole; the others are of each kind of cut, their drafts right."""
    cuts = [
        "<think>\nso \\boxed{{{}}}, but wait",
        "so \\boxed{{{}}}, but wait",
        "<think>the answer is {}",
    ]
    rows = [
        {
            "prompt": f"{n} + 1?",
            "gold": f"{n + 1}",
            "s": f"<think>\nadd\n</think>\n\\boxed{{{n + 1}}}"
            if n % 2
            else cuts[n // 2 % 3].format(n + 1),
        }
        for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    source = file_source(str(path), 0.0, 0.2, {"solutions": "s"})
    context = data_context(tmp_path, "distill", source, verifier)
    config = DistillStage(
        teacher=RecordedTeacherConfig(),
        problems=ProblemsConfig(levels=[1], count=40),
        validation=8,
        rollouts=1,
        # So small that some shards see no generation with marks.
        shard_problems=1,
    )
    metrics = run(config, context)
    accepted = read_rollouts(tmp_path / "out" / "accepted.parquet")
    rejected = read_rollouts(tmp_path / "out" / "rejected.parquet")
    validation = read_rollouts(tmp_path / "out" / "validation.parquet")
    # Odd prompts have even golds.
    assert all(int(rollout.problem.gold) % 2 == 0 for rollout in [*accepted, *validation])
    assert all(int(rollout.problem.gold) % 2 == 1 for rollout in rejected)
    assert metrics["cut_off"] == len(rejected) == 40 - len(accepted)
    assert metrics["verdict/wrong"] == 0


def test_a_family_that_works_its_own_problems_has_them_recorded() -> None:
    source = ReasoningGymConfig({"gsm_symbolic": {1: {}}}, 0.1, 0.1)
    problems = list(source.problems(Split.TRAIN, [1], 40, 0))
    texts = [done.text for [done] in TEACHER(problems, 1, 0)]
    ends = [problem.metadata["answer_cot"].rpartition("#### ")[2] for problem in problems]
    assert [extract_answer(text) for text in texts] == ends
    assert all("####" not in text and text.startswith("<think>\n") for text in texts)


def test_a_family_without_worked_solutions_is_refused_by_its_name() -> None:
    [problem] = ReasoningGymConfig({"gcd": {1: {}}}, 0.1, 0.1).problems(Split.TRAIN, [1], 1, 0)
    with pytest.raises(UserError, match=f"problem {problem.id} .*has no recorded solutions"):
        TEACHER([problem], 1, 0)


@pytest.mark.parametrize(
    ("checker", "solution", "box"),
    [
        ("choice", "The answer is **C: a clock**.", "C"),
        ("choice", "Answer: A? No.\n\n**Answer:** B", "B"),
        # A box of its own counts alone, and prose without a letter gets none.
        ("choice", "The answer is B, so \\boxed{D}", "D"),
        ("choice", "It has two hands.", None),
        ("math", "The answer is B", None),
    ],
)
def test_a_letter_in_prose_behind_a_thought_is_boxed_where_there_are_choices(
    checker: str, solution: str, box: str | None
) -> None:
    text = f"<think>\nIs the answer A?\n</think>\n{solution}"
    problem = Problem("?", "B", checker, "f", metadata={"solutions": [text]})
    ((completion,),) = TEACHER([problem], 1, 0)
    assert extract_answer(completion.text) == box
    assert completion.text.startswith(text)


def test_a_response_is_no_thought_and_gets_no_box() -> None:
    solutions = {"solutions": ["A: 1.\n#### 1"]}
    problem = Problem("Write.", "[]", "instructions", "f", metadata=solutions)
    assert TEACHER([problem], 1, 0) == [[Completion([], "A: 1.\n#### 1")]]
    assert TEACHER.preview(problem, 0) == ["A: 1.\n#### 1"]
    thinking = replace(problem, metadata={"solutions": ["<reasoning>Hm.</reasoning>\nA title"]})
    assert TEACHER.preview(thinking, 0) == ["<think>Hm.</think>\nA title"]
