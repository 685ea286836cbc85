"""Datasets of long chains of thought, in their real layouts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from tests.support.layout import (
    ACCEPTED,
    CUT_OFF,
    MESSAGES,
    WRONG,
    Layout,
    Row,
    text_columns,
)


def _openr1(
    problem: str, answer: str | None, generations: Sequence[str], kind: str = "math-word-problem"
) -> dict[str, Any]:
    number = len(generations)
    return {
        "problem": problem,
        "solution": f"A short solution ends in {answer}.",
        "answer": answer,
        "problem_type": "Number Theory",
        "question_type": kind,
        "source": "olympiads",
        "uuid": "00000000-0000-0000-0000-000000000000",
        "is_reasoning_complete": ["</think>" in text for text in generations],
        "generations": list(generations),
        "correctness_math_verify": [f"\\boxed{{{answer}}}" in text for text in generations],
        "correctness_llama": None,
        "finish_reasons": ["stop" if "</think>" in text else "length" for text in generations],
        "correctness_count": number,
        "messages": [
            {"role": "user", "content": problem},
            {"role": "assistant", "content": generations[0] if number else ""},
        ],
    }


_NINE = "<think>\n81 is 9 times 9.\n</think>\n\nThe root is $9$.\n\n\\boxed{9}"
OPENR1_MATH = Layout(
    files={
        "data/train-00000-of-00001.parquet": [
            Row(
                _openr1(
                    "What is the square root of 81?",
                    "9",
                    [
                        _NINE,
                        _NINE.replace("boxed{9}", "boxed{8}"),
                        # The draft's box stands in a thought that was cut off.
                        "<think>\nIs it \\boxed{9}? Wait, let me",
                    ],
                ),
                gold="9",
                right="\\sqrt{81}",
                wrong="-9",
                solutions=(ACCEPTED, WRONG, CUT_OFF),
            ),
            Row(
                _openr1(
                    "Find all $x$ with $x^2=x$.",
                    "x=0, x=1",
                    ["<think>\nDivide.\n</think>\n\nSo \\boxed{0} and \\boxed{1}."],
                ),
                gold="x=0, x=1",
                right="x \\in \\{0, 1\\}",
                wrong="1",
                solutions=(ACCEPTED,),
            ),
            Row(_openr1("Prove it.", "proof", [_NINE], "proof"), dropped="filtered"),
            Row(_openr1("Choose one: (A) 1 (B) 2.", "B", [_NINE], "MCQ"), dropped="filtered"),
            Row(_openr1("Prove that too.", "proof", [_NINE]), dropped="no_gold"),
            Row(_openr1("Where is it?", "notfound", [_NINE]), dropped="no_gold"),
            Row(_openr1("What was it?", None, [_NINE]), dropped="no_gold"),
            Row(
                _openr1("Name both parts.", "E_{1},E_{2}", ["<think>\na\n</think>\n\\boxed{E_1}"]),
                unreadable=True,
            ),
        ]
    },
    splits={"train": "data/train-*"},
    config="default",
    schema=pa.schema(
        [
            *text_columns(
                "problem", "solution", "answer", "problem_type", "question_type", "source"
            ),
            ("uuid", pa.string()),
            ("is_reasoning_complete", pa.list_(pa.bool_())),
            ("generations", pa.list_(pa.string())),
            ("correctness_math_verify", pa.list_(pa.bool_())),
            ("correctness_llama", pa.list_(pa.bool_())),
            ("finish_reasons", pa.list_(pa.string())),
            ("correctness_count", pa.int64()),
            ("messages", MESSAGES),
        ]
    ),
)


def _openthoughts(
    problem: str, truth: str | None, solution: str, domain: str = "math", thought: str = "Hm, so."
) -> dict[str, Any]:
    sources = {"math": "numina_math", "code": "taco", "puzzle": "riddle_sense"}
    tests = {"inputs": ["1\n"], "outputs": ["2\n"]}
    return {
        "problem": problem,
        "deepseek_reasoning": thought,
        "deepseek_solution": solution,
        "ground_truth_solution": truth,
        "domain": domain,
        "source": sources.get(domain, "camel"),
        "test_cases": json.dumps(tests) if domain == "code" else None,
        "starter_code": "def f(n):" if domain == "code" else None,
    }


_OPENTHOUGHTS_MATH = [
    Row(
        _openthoughts(
            "What is $2^{10}$?",
            "Doubling ten times gives $\\boxed{1024}$.",
            "**Powers**\n\nThe value is \\boxed{1024}.",
        ),
        gold="1024",
        right="2^{10}",
        wrong="1000",
        solutions=(ACCEPTED,),
    ),
    Row(
        _openthoughts("What is $3^3$?", "It is $\\boxed{27}$.", "It is \\boxed{9}."),
        gold="27",
        right="27.",
        wrong="9",
        solutions=(WRONG,),
    ),
    Row(_openthoughts("Show that $a=a$.", "Obvious.", "It holds."), dropped="no_gold"),
    Row(
        _openthoughts("What is $1+1$?", "$\\boxed{2}$", "\\boxed{2}", thought=""),
        dropped="missing_thought",
    ),
]
_OPENTHOUGHTS_CODE = Row(
    _openthoughts("Print n + 1.", None, "```python\nprint(int(input()) + 1)\n```", "code"),
    dropped="filtered",
)
_OPENTHOUGHTS_SCIENCE = Row(
    _openthoughts("Why is the sky blue?", None, "Because of scattering.", "physics"),
    dropped="filtered",
)
_RIDDLE = "What has a face and two hands but no arms?\nA: a king\nB: a clock\nC: a coin"
_OPENTHOUGHTS_SCHEMA = pa.schema(
    text_columns(
        "problem",
        "deepseek_reasoning",
        "deepseek_solution",
        "ground_truth_solution",
        "domain",
        "source",
        "test_cases",
        "starter_code",
    )
)
OPENTHOUGHTS = Layout(
    files={
        "metadata/train-00000-of-00001.parquet": [
            *_OPENTHOUGHTS_MATH,
            _OPENTHOUGHTS_CODE,
            _OPENTHOUGHTS_SCIENCE,
            Row(_openthoughts(_RIDDLE, "B", "**B: a clock**", "puzzle"), dropped="filtered"),
        ]
    },
    splits={"train": "metadata/train-*"},
    config="metadata",
    schema=_OPENTHOUGHTS_SCHEMA,
)


OPENTHOUGHTS_DOMAINS = Layout(
    files={
        "metadata/train-00000-of-00001.parquet": [
            *_OPENTHOUGHTS_MATH,
            _OPENTHOUGHTS_CODE,
            replace(_OPENTHOUGHTS_SCIENCE, dropped="no_gold"),
            Row(
                _openthoughts(
                    _RIDDLE, "B", "A clock has both.\n\nThe answer is **B: a clock**.", "puzzle"
                ),
                gold="B",
                right="B: a clock",
                wrong="C",
                solutions=(ACCEPTED,),
                checker="choice",
            ),
            Row(
                _openthoughts(f"Truly, {_RIDDLE}", "B", "**Answer:** A", "puzzle"),
                gold="B",
                right="(B)",
                wrong="A or B",
                solutions=(WRONG,),
                checker="choice",
            ),
            Row(_openthoughts("What am I?", None, "**B**", "puzzle"), dropped="no_gold"),
        ]
    },
    splits=OPENTHOUGHTS.splits,
    config="metadata",
    schema=_OPENTHOUGHTS_SCHEMA,
)


def _chat(question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def _stratos(thought: str, solution: str) -> str:
    return (
        f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
    )


BESPOKE_STRATOS = Layout(
    files={
        "data/train-00000-of-00001.parquet": [
            Row(
                _chat(
                    "Return your final response within \\boxed{}. What is $12 \\cdot 12$?",
                    _stratos("12 times 12.", "The product is \\boxed{144}."),
                ),
                gold="144",
                right="12^2",
                wrong="124",
                solutions=(ACCEPTED,),
            ),
            Row(
                _chat(
                    "Generate an executable Python function. Print n.",
                    _stratos("Read n.", "```python\nprint(input())\n```"),
                ),
                dropped="no_gold",
            ),
        ],
        "data/test-00000-of-00001.parquet": [
            Row(
                _chat(
                    "Return your final response within \\boxed{}. What is $5^2$?",
                    _stratos("Five times five.", "\\boxed{25}"),
                ),
                gold="25",
                right="25",
                wrong="10",
            )
        ],
    },
    splits={"train": "data/train-*", "test": "data/test-*"},
    config="default",
    schema=pa.schema([("messages", MESSAGES)]),
)
