"""Each filter of curation: what it removes, why, and what it leaves."""

from dataclasses import replace

import pytest

from reasoning_lab.data.curation.filters import (
    Format,
    HarderSubset,
    Language,
    Length,
    PassRate,
    Repetition,
)
from reasoning_lab.data.curation.step import Step
from reasoning_lab.types import Problem
from tests.support.curation import reasons, rollout


def of_texts(step: Step, *texts: str) -> list[str | None]:
    return reasons(step, [rollout("p", text) for text in texts])


def test_pass_rate_keeps_its_bounds() -> None:
    rows = [rollout(name) for name in ("never", "half", "always", "half")]
    rates = {rows[0].problem.id: 0.2, rows[1].problem.id: 0.5, rows[2].problem.id: 1.0}
    drop_reasons = reasons(PassRate(least=0.5, most=0.9), rows, rates)
    assert drop_reasons == ["pass rate 0.2", None, "pass rate 1", None]


def test_length_counts_words_or_characters() -> None:
    texts = ("one", "one two", "one two three four")
    assert of_texts(Length(least=2, most=3), *texts) == ["1 words", None, "4 words"]
    characters = Length(unit="characters", least=3, most=7)
    assert of_texts(characters, *texts) == [None, None, "18 characters"]
    assert of_texts(Length(least=1), "", "x " * 1000) == ["0 words", None]
    assert of_texts(Length(least=5), "所以答案是三", "所以 x=3") == [None, "3 words"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\na\n</think>\n\\boxed{1}", None),
        (" <think>a</think> so \\boxed{1}", None),
        ("<think>a", "'</think>' occurs 0 times"),
        ("a</think> \\boxed{1}", "'<think>' occurs 0 times"),
        ("<think>a</think><think>b</think> \\boxed{1}", "'<think>' occurs 2 times"),
        ("<think> </think> \\boxed{1}", "the thought is empty"),
        ("Well <think>a</think> \\boxed{1}", "'<think>' does not come first"),
        ("a</think><think> \\boxed{1}", "'<think>' does not come first"),
        ("<think>\\boxed{1}</think> 1", "no '\\boxed{' after the thought"),
    ],
)
def test_format_names_what_is_wrong(text: str, expected: str | None) -> None:
    assert of_texts(Format(), text) == [expected]


def test_format_asks_for_what_it_is_told() -> None:
    implicit = Format(opening="")
    assert of_texts(implicit, "a</think> \\boxed{1}", "a \\boxed{1}") == [
        None,
        "'</think>' occurs 0 times",
    ]
    plain = Format(opening="", closing="", answer="####")
    assert of_texts(plain, "so #### 3", "so 3") == [None, "no '####' after the thought"]


def test_a_response_needs_no_box_and_no_thought_but_one_that_ends() -> None:
    problem = Problem("Write.", "[]", "instructions", "f")
    texts = ["A text.", "<think>a</think> A text.", "<think>a", "<think> </think> A text."]
    rows = [replace(rollout("p", text), problem=problem) for text in texts]
    ended = "'</think>' occurs 0 times"
    assert reasons(Format(), rows) == [None, None, ended, "the thought is empty"]
    assert reasons(Format(opening=""), rows[:2]) == [None, None]


def test_repetition_finds_loops_and_leaves_steps_of_a_proof() -> None:
    steps = "\n".join(f"Step {n}: add {n} and {n + 1} to get {2 * n + 1}." for n in range(40))
    loop = "We try again. " * 30  # 90 words: 83 n-grams, 3 of them distinct.
    line = "\n".join(f"{n} {n}\nBut wait" for n in range(20))
    display = "\n".join(f"\\[\nx_{n}\n\\]" for n in range(40))
    drop_reasons = of_texts(Repetition(), steps, loop, line, display)
    assert drop_reasons == [
        None,
        "96% of its 8-grams are repeated",
        "the line 'But wait' occurs 20 times",
        None,
    ]


def test_repetition_sees_loops_of_scripts_without_spaces() -> None:
    steps = "".join(f"第{n}步把{n}加上{n + 1}得到{2 * n + 1}。" for n in range(40))
    loop = "我们再试一次。" * 12  # 84 characters: 77 n-grams, 7 of them distinct.
    assert of_texts(Repetition(), steps, loop) == [None, "91% of its 8-grams are repeated"]


def test_language_keeps_english_and_formulas() -> None:
    english = "We know that the sum of the angles of a triangle is equal to two right angles. " * 2
    german = "Wir wissen, dass die Summe der Winkel im Dreieck immer zwei rechte Winkel ist. " * 2
    chinese = "我们知道三角形的内角和等于一百八十度因此第三个角的大小可以直接计算出来" * 4
    formulas = r"$\frac{1}{2} + x^2 = \sqrt{y}$ " * 40
    drop_reasons = of_texts(Language(), english, german, chinese, formulas, "")
    assert drop_reasons == [None, "language de", "language zh", None, None]
    assert of_texts(Language(languages=["de", "zh"]), english, german, chinese) == [
        "language en",
        None,
        None,
    ]


def test_harder_keeps_the_subset_of_sft() -> None:
    rows = [rollout("a", "long", level=2), rollout("a", "l", level=2), rollout("b", level=1)]
    assert reasons(HarderSubset(levels=[2], count=5), rows) == [
        None,
        "not in the subset",
        "not in the subset",
    ]
