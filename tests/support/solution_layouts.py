"""Datasets of problems with answers or short solutions, in their real layouts."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tests.support.layout import (
    ACCEPTED,
    UNPARSEABLE,
    WRONG,
    Layout,
    Row,
    text_columns,
)


def _gsm8k(question: str, answer: str) -> dict[str, Any]:
    return {"question": question, "answer": answer}


_GSM8K_TEST = [
    Row(
        _gsm8k(
            "A baker packs 6 trays of 12 rolls. How many rolls are that?",
            "He packs 6*12=<<6*12=72>>72 rolls.\n#### 72",
        ),
        gold="72",
        right="72 \\text{ rolls}",
        wrong="74",
    ),
]
GSM8K = Layout(
    files={
        "main/train-00000-of-00001.parquet": [
            Row(
                _gsm8k(
                    "Nora saves $50 a month. How many dollars has she after 25 months?",
                    "She saves 50*25=$<<50*25=1250>>1,250.\n#### 1,250",
                ),
                gold="1,250",
                right="\\$1250",
                wrong="1.25",
                solutions=(ACCEPTED,),
            ),
            Row(
                _gsm8k(
                    "A tank loses 3 litres an hour. By how much does it change in 4 hours?",
                    "It changes by -3*4=<<-3*4=-12>>-12 litres.\n#### -12",
                ),
                gold="-12",
                right="-12.0",
                wrong="12",
                solutions=(ACCEPTED,),
            ),
            Row(_gsm8k("What is left of 9 after 4?", "There are 5 left."), dropped="missing_gold"),
            Row(_gsm8k("  ", "Nothing.\n#### 1"), dropped="missing_prompt"),
            Row(_gsm8k("Two and two?", "2+2=<<2+2=4>>4\n#### 4"), dropped="conflicting_gold"),
            Row(_gsm8k("two  and two?", "2*2=<<2*2=4>>4+1\n#### 5"), dropped="conflicting_gold"),
            # The same question as in the test split.
            Row(_GSM8K_TEST[0].columns, dropped="duplicate_prompt"),
        ],
        "main/test-00000-of-00001.parquet": _GSM8K_TEST,
    },
    splits={"train": "main/train-*", "test": "main/test-*"},
    config="main",
    schema=pa.schema(text_columns("question", "answer")),
)


def _math(problem: str, solution: str, level: str, kind: str = "Algebra") -> dict[str, Any]:
    return {"problem": problem, "level": level, "solution": solution, "type": kind}


MATH = Layout(
    files={
        "data/train-00000-of-00001.parquet": [
            Row(
                _math(
                    "Simplify $\\frac{9}{12}$.",
                    "Dividing by 3 gives $\\boxed{\\frac{3}{4}}$.",
                    "Level 1",
                    "Prealgebra",
                ),
                gold="\\frac{3}{4}",
                right="0.75",
                wrong="\\frac{4}{3}",
                solutions=(ACCEPTED,),
            ),
            Row(
                _math(
                    "For which $x$ is $x^2 < 9$?",
                    "The roots are $\\pm 3$, so $x \\in \\boxed{(-3,3)}$.",
                    "Level 4",
                    "Intermediate Algebra",
                ),
                gold="(-3,3)",
                right="(-3, 3)",
                wrong="[-3,3]",
                solutions=(ACCEPTED,),
                level=4,
            ),
            Row(_math("How far is it?", "It is $\\boxed{2}$.", "Level ?"), dropped="filtered"),
            Row(_math("Show that $1<2$.", "It is so.", "Level 2"), dropped="no_gold"),
        ],
        "data/test-00000-of-00001.parquet": [
            Row(
                _math(
                    "How many ways are there to order 4 books?",
                    "There are $4! = \\boxed{24}$.",
                    "Level 5",
                    "Counting & Probability",
                ),
                gold="24",
                right="4!",
                wrong="16",
                level=5,
            ),
        ],
    },
    splits={"train": "data/train-*", "test": "data/test-*"},
    config="default",
    schema=pa.schema(text_columns("problem", "level", "solution", "type")),
)


def _aqua(question: str, options: Sequence[str], rationale: str, correct: str) -> dict[str, Any]:
    lettered = [f"{letter}){text}" for letter, text in zip("ABCDE", options, strict=True)]
    return {
        "question": question,
        "options": lettered,
        "rationale": rationale,
        "correct": correct,
    }


_SPEEDS = ("20 km/h", "25 km/h", "30 km/h", "35 km/h", "40 km/h")
_AQUA_TEST = [
    Row(
        _aqua(
            "Which share of 60 is 15?",
            ("10%", "15%", "20%", "25%", "None of these"),
            "15/60 = 1/4\nThe answer is D.",
            "D",
        ),
        gold="D",
        right="D) 25%",
        wrong="C",
    )
]
AQUA_RAT = Layout(
    files={
        "raw/train-00000-of-00001.parquet": [
            Row(
                _aqua("How fast is 75 km in 3 h?", _SPEEDS, "75/3 = 25\nAnswer: B", "B"),
                gold="B",
                right="25 \\text{ km/h}",
                wrong="A",
                solutions=(ACCEPTED,),
            ),
            Row(
                _aqua("How fast is 90 km in 3 h?", _SPEEDS, "90/3 = 30\nThe answer is B.", "C"),
                gold="C",
                right="\\text{C}",
                wrong="\\text{B}",
                solutions=(WRONG,),
            ),
            Row(
                _aqua("How fast is 80 km in 2 h?", _SPEEDS, "Divide one by the other.", "E"),
                gold="E",
                right="(E)",
                wrong="(A) or (E)",
                solutions=(UNPARSEABLE,),
            ),
            Row(_aqua("1?", ("1", "", "3", "4", "5"), "ANSWER:A", "A"), dropped="empty_option"),
            Row(_aqua("2?", ("1", "2", "3", "4", "5"), "ANSWER:B", "F"), dropped="unreadable_gold"),
        ],
        "raw/test-00000-of-00001.parquet": _AQUA_TEST,
        "raw/validation-00000-of-00001.parquet": [
            Row(
                _aqua("What is 2 + 5?", ("5", "6", "7", "8", "9"), "2 + 5 = 7\nANSWER:C", "C"),
                gold="C",
                right="7",
                wrong="8",
            )
        ],
    },
    splits={"train": "raw/train-*", "validation": "raw/validation-*", "test": "raw/test-*"},
    config="raw",
    schema=pa.schema(
        [
            ("question", pa.string()),
            ("options", pa.list_(pa.string())),
            *text_columns("rationale", "correct"),
        ]
    ),
)


def _metamath(query: str, response: str, kind: str = "GSM_Rephrased") -> dict[str, Any]:
    return {"type": kind, "query": query, "original_question": query, "response": response}


METAMATHQA = Layout(
    files={
        "MetaMathQA-395K.json": [
            Row(
                _metamath(
                    "What do 7 pens at $3 cost?",
                    "They cost 7 * 3 = 21.\n#### 21\nThe answer is: 21",
                ),
                gold="21",
                right="21.00",
                wrong="10",
                solutions=(ACCEPTED,),
            ),
            Row(
                _metamath(
                    "What is the sum of $\\frac{1}{3}$ and $\\frac{1}{6}$?",
                    "It is $\\frac{2}{6}+\\frac{1}{6}=\\boxed{\\frac{1}{2}}$. The answer is: "
                    "$\\frac{1}{2}$",
                    "MATH_AnsAug",
                ),
                gold="$\\frac{1}{2}$",
                right="1/2",
                wrong="\\frac{2}{9}",
                solutions=(ACCEPTED,),
            ),
            Row(_metamath("What is $x$?", "It was never said.", "MATH_FOBAR"), dropped="no_gold"),
            Row(_metamath("What is missing?", ""), dropped="no_gold"),
        ]
    },
    splits={"train": "MetaMathQA-395K.json"},
)


def _numina(problem: str, solution: str, answer: str | None, **changes: Any) -> dict[str, Any]:
    return {
        "problem": problem,
        "solution": solution,
        "answer": answer,
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
        "source": "cn_k12",
        "synthetic": False,
    } | changes


NUMINAMATH = Layout(
    files={
        "data/train-00000-of-00001.parquet": [
            Row(
                _numina("If $3x = 21$, what is $x$?", "Divide by 3: $x = 7$, so \\boxed{7}.", "7"),
                gold="7",
                right="x = 7",
                wrong="18",
                solutions=(ACCEPTED,),
            ),
            # Many solutions say their answer in words alone.
            Row(
                _numina("What is a half of $\\sqrt{8}$?", "It is $\\sqrt 2$.", "\\sqrt{2}"),
                gold="\\sqrt{2}",
                right="\\frac{2}{\\sqrt{2}}",
                wrong="2",
                solutions=(UNPARSEABLE,),
            ),
            Row(
                _numina("Prove it.", "So it is.", "proof", question_type="proof"),
                dropped="filtered",
            ),
            Row(_numina("Is it?", "No.", "4", problem_is_valid="Incomplete"), dropped="filtered"),
            Row(_numina("And this?", "Yes.", "4", solution_is_valid="No"), dropped="filtered"),
            Row(_numina("Show it.", "See above.", "proof"), dropped="no_gold"),
            Row(_numina("What?", "Nothing.", "notfound"), dropped="no_gold"),
            Row(_numina("How many?", "Some.", None), dropped="no_gold"),
        ]
    },
    splits={"train": "data/train-*"},
    config="default",
    schema=pa.schema(
        [
            *text_columns("problem", "solution", "answer", "problem_type", "question_type"),
            *text_columns("problem_is_valid", "solution_is_valid", "source"),
            ("synthetic", pa.bool_()),
        ]
    ),
)


def _deepscaler(problem: str, answer: str, solution: str) -> dict[str, Any]:
    return {"problem": problem, "answer": answer, "solution": solution}


DEEPSCALER = Layout(
    files={
        "deepscaler.json": [
            Row(
                _deepscaler(
                    "What is the sum of the first ten odd numbers?",
                    "100",
                    "It is $10^2 = \\boxed{100}$.",
                ),
                gold="100",
                right="10^2",
                wrong="55",
                solutions=(ACCEPTED,),
            ),
            # Most have no solution.
            Row(
                _deepscaler("What is $\\sin 30^\\circ$?", "\\frac{1}{2}", ""),
                gold="\\frac{1}{2}",
                right="0.5",
                wrong="\\frac{\\sqrt{3}}{2}",
            ),
            Row(_deepscaler("What is nothing?", "", ""), dropped="no_gold"),
        ]
    },
    splits={"train": "deepscaler.json"},
)
