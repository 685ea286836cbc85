"""Benchmarks that train nothing, in their real layouts."""

from typing import Any

import pyarrow as pa

from tests.support.layout import (
    Layout,
    Row,
    text_columns,
)


def _gpqa(question: str, correct: str, *incorrect: str) -> dict[str, Any]:
    wrong = {f"Incorrect Answer {n}": text for n, text in enumerate(incorrect, start=1)}
    return {
        "Pre-Revision Question": "An earlier wording",
        "Self-reported question-writing time (minutes)": 90,
        "Question": question,
        "Correct Answer": correct,
        **wrong,
        "Explanation": "It follows.",
        "Subdomain": "Quantum Mechanics",
        "Writer's Difficulty Estimate": "Hard graduate level (could do with some effort)",
        "Extra Revised Question": "",
        "Non-Expert Validator Accuracy": 0.333,
        "Record ID": "rec0000000000000",
        "High-level domain": "Physics",
        "Canary String": "",
    }


GPQA_DIAMOND = Layout(
    files={
        "gpqa_diamond.csv": [
            Row(
                _gpqa(
                    "A level lives for 10^-9 s.\nHow wide is it, roughly?",
                    "7*10^-7 eV\n",
                    "7*10^-4 eV\n",
                    "7*10^-9 eV\n",
                    "0.7 eV\n",
                ),
                right="7*10^-7 eV",
                wrong="7*10^-4 eV",
            ),
            Row(_gpqa("What else?", "one", "two", "three", "one"), dropped="malformed_options"),
            Row(_gpqa("And what?", "", "two", "three", "four"), dropped="missing_gold"),
            Row(_gpqa("Which one?", "one", "two", "", "four"), dropped="missing_shuffled"),
        ]
    },
    splits={"train": "gpqa_diamond.csv"},
    config="gpqa_diamond",
)
AIME24 = Layout(
    files={
        "aime_2024_problems.parquet": [
            Row(
                {
                    "ID": "2024-I-1",
                    "Problem": "How many divisors has $2^{7}\\cdot 3^{2}$?",
                    "Solution": "There are $8 \\cdot 3 = 24$.",
                    "Answer": 24,
                },
                gold="24",
                right="024",
                wrong="21",
            )
        ]
    },
    splits={"train": "aime_2024_problems.parquet"},
    schema=pa.schema([*text_columns("ID", "Problem", "Solution"), ("Answer", pa.int64())]),
)
AIME25 = Layout(
    files={
        "test.jsonl": [
            Row(
                {"problem": "What is $7 \\cdot 10$?", "answer": "70", "id": "0"},
                gold="70",
                right="070",
                wrong="7",
            ),
        ]
    },
    splits={"test": "test.jsonl"},
)
AMC23 = Layout(
    files={
        "data/test-00000-of-00001.parquet": [
            Row(
                {
                    "id": 0,
                    "answer": "27.0",
                    "question": "How many cubes fill a cube of side 3?",
                    "url": "https://artofproblemsolving.com/wiki",
                },
                gold="27.0",
                right="27",
                wrong="9",
            ),
        ]
    },
    splits={"test": "data/test-*"},
    config="default",
    schema=pa.schema([("id", pa.int64()), *text_columns("answer", "question", "url")]),
)
MATH500 = Layout(
    files={
        "test.jsonl": [
            Row(
                {
                    "problem": "Convert $(0,3)$ to polar coordinates.",
                    "solution": "The radius is 3: $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$.",
                    "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                    "subject": "Precalculus",
                    "level": 2,
                    "unique_id": "test/precalculus/0.json",
                },
                gold="\\left( 3, \\frac{\\pi}{2} \\right)",
                right="(3, \\pi/2)",
                wrong="(\\pi/2, 3)",
                level=2,
            ),
            Row(
                {
                    "problem": "Which day comes after Monday?",
                    "solution": "It is $\\boxed{\\text{Tuesday}}$.",
                    "answer": "\\text{Tuesday}",
                    "subject": "Prealgebra",
                    "level": 1,
                    "unique_id": "test/prealgebra/1.json",
                },
                gold="\\text{Tuesday}",
                right="Tuesday",
                wrong="\\text{Monday}",
            ),
        ]
    },
    splits={"test": "test.jsonl"},
)
MINERVA = Layout(
    files={
        "test.jsonl": [
            Row(
                {"question": "How long is a light year in metres?", "answer": "9.46e15"},
                gold="9.46e15",
                right="9.46 \\times 10^{15}",
                wrong="9.46 \\times 10^{12}",
            ),
            Row({"question": "Name both levels.", "answer": "E_{1},E_{2}"}, unreadable=True),
        ]
    },
    splits={"test": "test.jsonl"},
)
