"""The repetition reward, in scripts with and without spaces."""

import pytest

from reasoning_lab.rewards import repetition
from reasoning_lab.rewards.ngrams import text_units


def test_repetition_by_hand() -> None:
    # Bigrams of "a b a b a": ab, ba, ab, ba: half of them were there before.
    assert repetition("a b a b a", ngram=2) == -0.5
    assert repetition("a b c d", ngram=2) == 0.0
    assert repetition("a b", ngram=8) == 0.0


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("再算一遍。再算一遍。再算一遍。", "再 算 一 遍 。 再 算 一 遍 。 再 算 一 遍 。"),
        ("もういちどもういちど", "も う い ち ど も う い ち ど"),
        ("ลองใหม่ลองใหม่", "ล อ ง ใ ห ม ่ ล อ ง ใ ห ม ่"),
        ("所以 x+1=2 所以 x+1=2", "所 以 x+1=2 所 以 x+1=2"),
    ],
)
def test_a_script_without_spaces_repeats_its_characters(text: str, spaced: str) -> None:
    assert text_units(text) == spaced.split()
    assert repetition(text, ngram=2) == repetition(spaced, ngram=2) < -0.2


def test_words_of_a_script_with_spaces_are_whole() -> None:
    text = "Thus \\frac{1}{2}, così  déjà-vu\t다시 계산 добро."
    assert text_units(text) == text.split()
    assert repetition("abc" * 6, ngram=2) == 0.0
