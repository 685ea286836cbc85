"""Where sentences end."""

import pytest

from reasoning_lab.verify.instructions.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two? Three! Four", 4),
        ("Mr. and Mrs. Smith met Dr. J. R. Jones. They left.", 2),
        ("He lived in the U.S. for years. Then he moved.", 2),
        ("It costs 3.50 euros, e.g. on Jan. 5. That is cheap.", 2),
        ('"Stop!" he said. "Why?" (She left.) The end.', 5),
        ("Well... maybe. Wait... No.", 3),
        ("1. buy milk. 2. sell it.", 2),
        ("No end", 1),
        ("**Bold.** Plain.\n\n***\n\nLast one.", 3),
        ("Really?! Yes!!", 2),
        ("...", 0),
        ("", 0),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert len(split_sentences(text)) == count


def test_a_sentence_keeps_what_closes_with_it() -> None:
    assert split_sentences(' (One.)  "Two." Three') == ["(One.)", '"Two."', "Three"]
