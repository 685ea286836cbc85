"""Datasets and benchmarks of knowledge and of instructions, in their real layouts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tests.support.layout import ACCEPTED, WRONG, Layout, Row, text_columns


def _mmlu_pro(question: str, options: Sequence[str], answer: str) -> dict[str, Any]:
    return {
        "question_id": 70,
        "question": question,
        "options": list(options),
        "answer": answer,
        "answer_index": ord(answer) - ord("A"),
        "cot_content": "",
        "category": "physics",
        "src": "stemez-Physics",
    }


_TEN = [f"{number} m/s" for number in range(10)]
MMLU_PRO = Layout(
    files={
        "data/test-00000-of-00001.parquet": [
            Row(
                _mmlu_pro("A stone falls for a second. How fast is it?", _TEN, "J"),
                gold="J",
                right="9 m/s",
                wrong="8 m/s",
            ),
            Row(
                _mmlu_pro("Which force binds?", ["the strong one", "friction", "drag"], "A"),
                gold="A",
                right="(A) the strong one",
                wrong="drag",
            ),
            Row(_mmlu_pro("Which one?", ["red", " "], "A"), dropped="empty_option"),
            Row(_mmlu_pro("Which letter?", ["red", "blue"], "C"), dropped="unreadable_gold"),
        ],
        "data/validation-00000-of-00001.parquet": [],
    },
    splits={"test": "data/test-*"},
    config="default",
    schema=pa.schema(
        [
            ("question_id", pa.int64()),
            ("question", pa.string()),
            ("options", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("answer_index", pa.int64()),
            *text_columns("cot_content", "category", "src"),
        ]
    ),
)


def _arc(question: str, texts: Sequence[str], key: str, labels: str = "ABCD") -> dict[str, Any]:
    choices = {"text": list(texts), "label": list(labels[: len(texts)])}
    return {"id": "Mercury_1", "question": question, "choices": choices, "answerKey": key}


_ARC_ROWS = [
    Row(
        _arc("What melts ice?", ["heat", "frost", "shade", "wind"], "A"),
        gold="A",
        right="heat",
        wrong="B",
    ),
    # Some states' tests number their choices.
    Row(
        _arc("What do plants give off?", ["smoke", "oxygen", "salt"], "2", "1234"),
        gold="B",
        right="\\text{B}",
        wrong="salt",
    ),
    Row(_arc("And what else?", ["smoke", "oxygen"], "C"), dropped="unreadable_gold"),
]
_ARC_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        (
            "choices",
            pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))]),
        ),
        ("answerKey", pa.string()),
    ]
)


def _arc_layout(config: str) -> Layout:
    held_out = {
        split: Row(
            _arc(f"Which of these is {split}?", ["one", "two"], "B"),
            gold="B",
            right="two",
            wrong="one",
        )
        for split in ("train", "validation")
    }
    files = {f"{config}/{split}-00000-of-00001.parquet": [row] for split, row in held_out.items()}
    return Layout(
        files={**files, f"{config}/test-00000-of-00001.parquet": _ARC_ROWS},
        splits={split: f"{config}/{split}-*" for split in ("train", "validation", "test")},
        config=config,
        schema=_ARC_SCHEMA,
    )


ARC_CHALLENGE, ARC_EASY = _arc_layout("ARC-Challenge"), _arc_layout("ARC-Easy")

# Of all arguments that any row of IFEval has.
_NULLS: Mapping[str, None] = dict.fromkeys(("num_words", "relation", "keywords", "letter"))


def _ifeval(prompt: str, *instructions: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "key": 1000,
        "prompt": prompt,
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [{**_NULLS, **arguments} for _, arguments in instructions],
    }


_NO_COMMA: tuple[str, dict[str, Any]] = ("punctuation:no_comma", {})
_TWO_WORDS = ("length_constraints:number_words", {"num_words": 2.0, "relation": "at least"})
IFEVAL = Layout(
    files={
        "ifeval_input_data.jsonl": [
            Row(
                _ifeval("Write two words without commas.", _NO_COMMA, _TWO_WORDS),
                gold='[{"id": "punctuation:no_comma"}, {"id": "length_constraints:number_words", '
                '"num_words": 2, "relation": "at least"}]',
                right="two words",
                wrong="two, words",
            ),
            Row(_ifeval("Use emoji.", ("count:emoji", {})), dropped="unreadable_instructions"),
            Row(
                _ifeval("Use words.", ("keywords:existence", {})), dropped="unreadable_instructions"
            ),
        ]
    },
    splits={"train": "ifeval_input_data.jsonl"},
)


def _ifeval_like(prompt: str, response: str, name: str, arguments: Any) -> dict[str, Any]:
    return {
        "key": 1,
        "prompt": prompt,
        "response": response,
        "instruction_id_list": [name],
        "kwargs": json.dumps([arguments]),
        "prompt_level_strict_acc": True,
    }


_KEYWORD = ("keywords:existence", {"keywords": ["sea"]})
_KEYWORD_GOLD = '[{"id": "keywords:existence", "keywords": ["sea"]}]'
IFEVAL_LIKE = Layout(
    files={
        "filtered/train-00000-of-00001.parquet": [
            Row(
                _ifeval_like("Write about the sea.", "The sea is wide.\n#### 5", *_KEYWORD),
                gold=_KEYWORD_GOLD,
                right="A sea.",
                wrong="A lake.",
                solutions=(ACCEPTED,),
            ),
            Row(
                _ifeval_like("Write of the sea.", "The lake is small.", *_KEYWORD),
                gold=_KEYWORD_GOLD,
                right="SEA",
                wrong="lake",
                solutions=(WRONG,),
            ),
            Row(
                _ifeval_like("Rhyme.", "Sea, tea.", "poem:rhyme", {}),
                dropped="unreadable_instructions",
            ),
        ]
    },
    splits={"train": "filtered/train-*"},
    config="filtered",
    schema=pa.schema(
        [
            ("key", pa.int64()),
            *text_columns("prompt", "response"),
            ("instruction_id_list", pa.list_(pa.string())),
            ("kwargs", pa.string()),
            ("prompt_level_strict_acc", pa.bool_()),
        ]
    ),
)
