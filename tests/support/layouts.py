r"""Published datasets and benchmarks as their cards describe them, with invented rows.

Columns, nested types, file names and conventions of answers are the real ones. Every dataset has
rows that are right, rows whose recorded solution is not, and rows that cannot be used. A row says
by itself what must become of it. `write_dataset` writes the files that the hub would serve.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# What becomes of a recorded solution: the ledger's word for a rejected one, or this.
ACCEPTED = "accepted"
WRONG, UNPARSEABLE, CUT_OFF = "wrong", "unparseable", "cut_off"


@dataclass(frozen=True)
class Row:
    r"""A row and what must become of it.

    Attributes:
        columns: Its values.
        gold: The known answer as it is read.
        right: The same answer in other words, as a model may box it.
        wrong: Another answer.
        solutions: What becomes of each recorded solution.
        level: Its difficulty.
        checker: The rule that compares its answers; empty = that of all rows.
        dropped: Why the table leaves it out; empty = it is a problem.
        unreadable: Whether its checker cannot read the gold.
    """

    columns: Mapping[str, Any]
    gold: str = ""
    right: str = ""
    wrong: str = ""
    solutions: tuple[str, ...] = ()
    level: int = 1
    checker: str = ""
    dropped: str = ""
    unreadable: bool = False


@dataclass(frozen=True)
class Layout:
    """A dataset of the hub.

    Attributes:
        files: Path in the repository to the rows of the file.
        splits: The dataset's split to its file.
        config: The name of its configuration; empty = the card names none.
        schema: Types of the columns; None = the file format has none.
    """

    files: Mapping[str, Sequence[Row]]
    splits: Mapping[str, str]
    config: str = ""
    schema: pa.Schema | None = None


def write_dataset(layout: Layout, folder: Path) -> None:
    """Write the files of the repository, with a card that names them where the real one does."""
    for name, rows in layout.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        contents = [dict(row.columns) for row in rows]
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(contents, layout.schema), file)
        elif file.suffix == ".csv":
            with file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(contents[0]))
                writer.writeheader()
                writer.writerows(contents)
        elif file.suffix == ".json":
            file.write_text(json.dumps(contents), encoding="utf-8")
        else:
            file.write_text("".join(f"{json.dumps(c)}\n" for c in contents), encoding="utf-8")
    if layout.config:
        data_files = "".join(
            f"  - split: {split}\n    path: {path}\n" for split, path in layout.splits.items()
        )
        card = f"configs:\n- config_name: {layout.config}\n  data_files:\n{data_files}"
        (folder / "README.md").write_text(f"---\n{card}---\n# A dataset\n", encoding="utf-8")


def _texts(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


_MESSAGES = pa.list_(pa.struct(_texts("role", "content")))


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
    schema=pa.schema(_texts("question", "answer")),
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
    schema=pa.schema(_texts("problem", "level", "solution", "type")),
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
            *_texts("rationale", "correct"),
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
            *_texts("problem", "solution", "answer", "problem_type", "question_type", "source"),
            ("uuid", pa.string()),
            ("is_reasoning_complete", pa.list_(pa.bool_())),
            ("generations", pa.list_(pa.string())),
            ("correctness_math_verify", pa.list_(pa.bool_())),
            ("correctness_llama", pa.list_(pa.bool_())),
            ("finish_reasons", pa.list_(pa.string())),
            ("correctness_count", pa.int64()),
            ("messages", _MESSAGES),
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
    _texts(
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
            _OPENTHOUGHTS_SCIENCE,
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
    schema=pa.schema([("messages", _MESSAGES)]),
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
            *_texts("problem", "solution", "answer", "problem_type", "question_type"),
            *_texts("problem_is_valid", "solution_is_valid", "source"),
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
    schema=pa.schema([*_texts("ID", "Problem", "Solution"), ("Answer", pa.int64())]),
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
    schema=pa.schema([("id", pa.int64()), *_texts("answer", "question", "url")]),
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

# By the options that read them.
DATASETS: Mapping[str, Layout] = {
    "aqua_rat": AQUA_RAT,
    "bespoke_stratos": BESPOKE_STRATOS,
    "deepscaler": DEEPSCALER,
    "gsm8k": GSM8K,
    "math": MATH,
    "metamathqa": METAMATHQA,
    "numinamath": NUMINAMATH,
    "openr1_math": OPENR1_MATH,
    "openthoughts": OPENTHOUGHTS,
    "openthoughts_domains": OPENTHOUGHTS_DOMAINS,
}
BENCHMARKS: Mapping[str, Layout] = {
    "aime24": AIME24,
    "aime25": AIME25,
    "amc23": AMC23,
    "aqua_rat": AQUA_RAT,
    "gpqa_diamond": GPQA_DIAMOND,
    "gsm8k": GSM8K,
    "math500": MATH500,
    "minerva": MINERVA,
}
