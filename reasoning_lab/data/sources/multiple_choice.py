"""Read the options of a multiple-choice row, in the layouts of published datasets.

`row_mapping.py` uses it. Four layouts are read: a list of texts, with or without leading letters
(AQuA, MMLU); a mapping of labels to texts (MedQA); one mapping with a list of texts and a list of
labels (ARC); and a list of label-text pairs (CommonsenseQA).
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from reasoning_lab.data.sources.row_values import (
    RowError,
    answer_text,
    is_blank,
    is_missing,
    short_repr,
    text_at,
    text_problem,
    value_at,
)

GOLD_NAMES = ("label", "text", "index_from_0", "index_from_1")
_LETTERED = re.compile(r"\s*\(?([A-Z])\s*[).:]\s*")
_LABEL = re.compile(r"\(?\s*([^\W_]+)\s*[).:]?")
_REMEDY = "or name another column in data.rows.options"


def read_options(value: Any, column: str) -> tuple[list[str], list[str]]:
    """Read the texts of the options without leading letters, and the dataset's labels of them.

    There are no labels where the dataset has none.

    Raises:
        RowError: There are not 2 to 26 of them, or one is empty or no text.
    """
    labels: list[str] = []
    if _is_pair(value):
        labels, texts = _labels(value["label"]), value["text"]
    elif isinstance(value, Mapping):
        # A table has a column for every letter that any row uses.
        used = {key: text for key, text in value.items() if not is_missing(text)}
        labels, texts = list(used), list(used.values())
    elif isinstance(value, list) and value and all(map(_is_pair, value)):
        labels, texts = _labels([o["label"] for o in value]), [o["text"] for o in value]
    else:
        texts = value
    if (
        not isinstance(texts, list)
        or not 2 <= len(texts) <= len(ascii_uppercase)
        or (labels and len(labels) != len(texts))
        or len(set(labels)) != len(labels)
    ):
        raise RowError(
            "malformed_options",
            f"'{column}' is {short_repr(value)}; give a list of 2 to 26 texts, {_REMEDY}",
        )
    return _texts(texts, column, value), labels


def _is_pair(option: Any) -> bool:
    return isinstance(option, Mapping) and set(option) == {"label", "text"}


def _labels(value: Any) -> list[str]:
    return [_text(label) or "" for label in value] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    """A text, or a number as text; None = it is neither."""
    text = None if isinstance(value, list) else answer_text(value)
    return None if text is None else text.strip()


def _texts(values: Sequence[Any], column: str, value: Any) -> list[str]:
    texts = [_text(option) for option in values]
    letters = [_LETTERED.match(text or "") for text in texts]
    if all(m and m[1] == letter for m, letter in zip(letters, ascii_uppercase, strict=False)):
        texts = [(text or "")[m.end() :] for text, m in zip(texts, letters, strict=True) if m]
    for number, text in enumerate(texts, start=1):
        reason, problem = "malformed_options", "is neither text nor a number"
        if text is not None:
            problem = text_problem(text) or ""
            if is_blank(text):
                reason, problem = "empty_option", "is empty"
        if problem:
            raise RowError(
                reason,
                f"option {number} of '{column}' {problem} ({short_repr(value)}); correct it, "
                f"{_REMEDY}",
            )
    return [text.strip() for text in texts if text is not None]


def wrong_choices(
    row: Mapping[str, Any], gold: str, shuffled: Sequence[str], columns: Iterable[str]
) -> list[str]:
    """The texts of the columns that `data.rows.shuffled` names, a text or a list of texts each.

    Raises:
        RowError: One is missing, empty or equal to `gold`, or there are more than 25.
    """
    paths: list[str] = []
    for column in shuffled:
        value = value_at(row, column)
        is_list = isinstance(value, list) and value
        paths += [f"{column}.{place}" for place in range(len(value))] if is_list else [column]
    texts = [text_at(row, path, "shuffled", columns) for path in paths[: len(ascii_uppercase)]]
    problem = "" if len(texts) < len(ascii_uppercase) else f"there are {len(paths)} wrong choices"
    if gold in texts:
        problem = f"the right choice is {gold!r}, and so is a wrong one"
    if problem:
        raise RowError("malformed_options", f"{problem}; give at most 25 others, correct the row")
    return texts


def shuffled_by(question: str, texts: Sequence[str], correct: str) -> tuple[list[str], str]:
    """The options in an order that the question alone decides, and the letter of `correct`."""
    shuffled = random.Random(question).sample(list(texts), len(texts))
    return shuffled, ascii_uppercase[shuffled.index(correct)]


def correct_letter(
    gold: str, texts: Sequence[str], labels: Sequence[str], gold_names: str | None, column: str
) -> str:
    """The letter of the right option.

    Args:
        gold: The row's known answer.
        texts: The options.
        labels: The dataset's names of the options; empty = it has none.
        gold_names: How `gold` names the option, one of `GOLD_NAMES`. None = by its label or letter,
            or by its text if that is no number; a number could be an index as well.
        column: The column of gold, for an error.

    Raises:
        RowError: `gold` names none of the options, or several.
    """
    count = len(texts)
    letters = ascii_uppercase[:count]
    remedy = f"correct the row, or set data.rows.gold_names to one of {', '.join(GOLD_NAMES)}"
    if gold_names in ("index_from_0", "index_from_1"):
        position = int(gold) - int(gold_names[-1]) if re.fullmatch(r"\d{1,2}", gold) else -1
        positions = [position] if 0 <= position < count else []
    else:
        same_text = [position for position, text in enumerate(texts) if text == gold]
        positions = same_text
        if gold_names != "text":
            positions = _label_positions(gold, labels or letters, same_text)
        if gold_names is None and not positions and not gold.lstrip("-").isdecimal():
            positions = same_text
    if len(positions) != 1:
        problem = f"no option of {count}" if not positions else "several options alike"
        if gold_names in (None, "label"):
            problem = f"no letter of the {count} choices"
        raise RowError("unreadable_gold", f"'{column}' is {gold!r}, {problem}; {remedy}")
    return letters[positions[0]]


def _label_positions(gold: str, labels: Sequence[str], same_text: Sequence[int]) -> list[int]:
    """Positions of the label in `gold`: `B`, `(B)` or `B.`, or `b` where it equals no text."""
    if gold in labels:
        return [list(labels).index(gold)]
    match = _LABEL.fullmatch(gold)
    names = [match[1]] if match and not same_text else []
    if names and len(names[0]) == 1:
        names.append(names[0].upper())
    return [labels.index(name) for name in names if name in labels][:1]
