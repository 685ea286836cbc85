"""Each step of curation by itself: what it removes, why, and what it leaves."""

from collections.abc import Sequence

import pytest

from reasoning_lab.data.curation.deduplication import (
    DuplicateCompletions,
    DuplicateProblems,
    NearDuplicates,
)
from reasoning_lab.data.curation.filters import (
    Format,
    HarderSubset,
    Language,
    Length,
    PassRate,
    Repetition,
)
from reasoning_lab.data.curation.step import CurationContext, DropReasons, Step
from reasoning_lab.rewards.ngrams import repeated_frac
from reasoning_lab.types import Completion, Problem, Rollout, Verdict


def rollout(prompt: str, text: str = "", gold: str = "1", level: int = 1) -> Rollout:
    problem = Problem(prompt, gold, "math", "f", level)
    return Rollout(problem, Completion([], text), gold, Verdict.CORRECT, "a")


def reasons(
    step: Step, rollouts: Sequence[Rollout], pass_rates: dict[str, float] | None = None
) -> DropReasons:
    return step.drop_reasons(rollouts, CurationContext(0, pass_rates or {}, {}))


def of_texts(step: Step, *texts: str) -> DropReasons:
    return reasons(step, [rollout("p", text) for text in texts])


def test_other_spellings_of_a_prompt_go_but_its_other_rollouts_stay() -> None:
    rows = [rollout("a b", "1"), rollout("A  b", "2"), rollout("a b", "3"), rollout("c", "1")]
    found = reasons(DuplicateProblems(), rows)
    assert found == [None, f"reads like {rows[0].problem.id}: 'a b'", None, None]


def test_a_prompt_with_another_gold_is_a_duplicate_too() -> None:
    assert reasons(DuplicateProblems(), [rollout("a"), rollout("a", gold="2")])[1] is not None


def test_identical_completions_of_one_problem_go() -> None:
    rows = [rollout("a", "x"), rollout("b", "x"), rollout("a", "y"), rollout("a", "x")]
    found = reasons(DuplicateCompletions(), rows)
    assert found == [None, None, None, "the same completion as before"]


# Twelve words, eight shingles of five; another last word changes one, so 7 of 9 are shared.
SHEEP = "one two three four five six seven eight nine ten eleven twelve"


@pytest.mark.parametrize(("threshold", "removed"), [(0.77, True), (0.79, False)])
def test_near_duplicates_are_decided_by_the_exact_similarity(
    threshold: float, removed: bool
) -> None:
    rows = [rollout(SHEEP), rollout("unlike"), rollout(SHEEP.replace("twelve", "TEN"), "t")]
    found = reasons(NearDuplicates(threshold=threshold), [*rows, rows[2], rows[0]])
    told = f"similarity 0.78 with {rows[0].problem.id}: '{SHEEP}'" if removed else None
    assert found == [None, None, told, told, None]


def test_respelt_problems_are_near_duplicates_and_short_ones_are_not_all_alike() -> None:
    rows = [
        rollout(r"$\dfrac{1}{2}$"),
        rollout(r"\frac12"),
        rollout("?"),
        rollout("!"),
        rollout("x"),
    ]
    assert [found is None for found in reasons(NearDuplicates(), rows)] == [
        True,
        False,
        True,
        True,
        True,
    ]


def test_hashing_misses_no_pair_well_above_the_threshold() -> None:
    texts = [" ".join(f"w{n}x{word}" for word in range(60)) for n in range(100)]
    near = [text.rsplit(" ", 1)[0] for text in texts]  # 55 of 56 shingles.
    found = reasons(NearDuplicates(), [rollout(text) for text in [*texts, *near]])
    assert [why is None for why in found] == [True] * 100 + [False] * 100


def test_pass_rate_keeps_its_bounds() -> None:
    rows = [rollout(name) for name in ("never", "half", "always", "half")]
    rates = {rows[0].problem.id: 0.2, rows[1].problem.id: 0.5, rows[2].problem.id: 1.0}
    found = reasons(PassRate(least=0.5, most=0.9), rows, rates)
    assert found == ["pass rate 0.2", None, "pass rate 1", None]


def test_length_counts_words_or_characters() -> None:
    texts = ("one", "one two", "one two three four")
    assert of_texts(Length(least=2, most=3), *texts) == ["1 words", None, "4 words"]
    characters = Length(unit="characters", least=3, most=7)
    assert of_texts(characters, *texts) == [None, None, "18 characters"]
    assert of_texts(Length(least=1), "", "x " * 1000) == ["0 words", None]
    assert of_texts(Length(least=5), "所以答案是三", "所以 x=3") == [None, "3 words"]


@pytest.mark.parametrize(
    ("text", "told"),
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
def test_format_names_what_is_wrong(text: str, told: str | None) -> None:
    assert of_texts(Format(), text) == [told]


def test_format_asks_for_what_it_is_told() -> None:
    implicit = Format(opening="")
    assert of_texts(implicit, "a</think> \\boxed{1}", "a \\boxed{1}") == [
        None,
        "'</think>' occurs 0 times",
    ]
    plain = Format(opening="", closing="", answer="####")
    assert of_texts(plain, "so #### 3", "so 3") == [None, "no '####' after the thought"]


def test_repeated_fraction_by_hand() -> None:
    # Bigrams: ab bc ca ab bc; 3 distinct of 5.
    assert repeated_frac("a b c a b c", 2) == pytest.approx(0.4)
    assert repeated_frac("a b c", 2) == 0
    assert repeated_frac("a", 2) == 0


def test_repetition_finds_loops_and_leaves_steps_of_a_proof() -> None:
    steps = "\n".join(f"Step {n}: add {n} and {n + 1} to get {2 * n + 1}." for n in range(40))
    loop = "We try again. " * 30  # 90 words: 83 n-grams, 3 of them distinct.
    line = "\n".join(f"{n} {n}\nBut wait" for n in range(20))
    display = "\n".join(f"\\[\nx_{n}\n\\]" for n in range(40))
    found = of_texts(Repetition(), steps, loop, line, display)
    assert found == [
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
    found = of_texts(Language(), english, german, chinese, formulas, "")
    assert found == [None, "language de", "language zh", None, None]
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
