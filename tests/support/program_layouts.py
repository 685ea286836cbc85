"""Datasets of problems whose answers are programs, in their real layouts."""

from typing import Any

import pyarrow as pa

from tests.support.layout import ACCEPTED, Layout, Row, text_columns

_TEXTS = pa.list_(pa.string())


def _mbpp(text: str, code: str, tests: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "task_id": 1,
        "text": text,
        "code": code,
        "test_list": tests,
        "test_setup_code": "",
        "challenge_test_list": [],
    } | changes


_LONGEST = "def longest(words):\r\n\treturn max(map(len, words), default=0)"
_MBPP_TEST = [
    Row(
        _mbpp(
            "Write a function to find the largest difference in a list of pairs.",
            "class Pair(object):\r\n    def __init__(self, a, b):\r\n        self.a = a\r\n"
            "        self.b = b\r\ndef widest(pairs):\r\n"
            "    return max(p.b - p.a for p in pairs)",
            ["assert widest([Pair(1, 4), Pair(2, 3)]) == 3", "assert widest([Pair(0, 1)]) == 1"],
            test_setup_code="import math",
        ),
        gold="class Pair(object):\r\n    def __init__(self, a, b):\r\n        self.a = a\r\n"
        "        self.b = b\r\ndef widest(pairs):\r\n    return max(p.b - p.a for p in pairs)",
        right="from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\n"
        "def widest(pairs):\n    return max(b - a for a, b in pairs)",
        wrong="def widest(pairs):\n    return 3",
    ),
]
MBPP = Layout(
    files={
        "full/train-00000-of-00001.parquet": [
            Row(
                _mbpp(
                    "Write a function to find the length of the longest word.",
                    _LONGEST,
                    ["assert longest(['a', 'abc']) == 3", "assert longest(['ab']) == 2"],
                    challenge_test_list=["assert longest([]) == 0"],
                ),
                gold=_LONGEST,
                right="def longest(words):\n    return len(max(words, key=len, default=''))",
                # The tests that the prompt shows are not all.
                wrong="def longest(words):\n    return max(len(word) for word in words)",
                solutions=(ACCEPTED,),
            ),
            Row(
                _mbpp(
                    "Write a function to add.",
                    "def add(a, b): return a - b",
                    ["assert add(1, 2) == 3"],
                ),
                unreadable=True,
            ),
            Row(_mbpp("Write nothing.", "pass", []), dropped="missing_tests"),
            Row(_mbpp("Write less.", "", ["assert f() == 1"]), dropped="missing_gold"),
        ],
        "full/test-00000-of-00001.parquet": _MBPP_TEST,
        "full/validation-00000-of-00001.parquet": [
            Row(
                _mbpp(
                    "Write a function to count the vowels.",
                    "def vowels(s):\n    return sum(c in 'aeiou' for c in s)",
                    ["assert vowels('abce') == 2"],
                ),
                gold="def vowels(s):\n    return sum(c in 'aeiou' for c in s)",
                right="vowels = lambda s: len([c for c in s if c in set('aeiou')])",
                wrong="def vowels(s):\n    print(2)",
            )
        ],
        "full/prompt-00000-of-00001.parquet": [],
    },
    splits={name: f"full/{name}-*" for name in ("train", "test", "validation", "prompt")},
    config="full",
    schema=pa.schema(
        [
            ("task_id", pa.int32()),
            *text_columns("text", "code"),
            ("test_list", _TEXTS),
            ("test_setup_code", pa.string()),
            ("challenge_test_list", _TEXTS),
        ]
    ),
)

_SCALED = '''from typing import List


def scaled(numbers: List[int], factor: int) -> List[int]:
    """ Multiply each number.
    >>> scaled([1, 2], 3)
    [3, 6]
    """'''
HUMANEVAL = Layout(
    files={
        "openai_humaneval/test-00000-of-00001.parquet": [
            Row(
                {
                    "task_id": "HumanEval/0",
                    "prompt": f"{_SCALED}\n",
                    "canonical_solution": "    return [factor * number for number in numbers]\n",
                    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n"
                    "    assert candidate([1, 2], 3) == [3, 6]\n"
                    "    assert candidate([], 3) == []\n",
                    "entry_point": "scaled",
                },
                gold=f"{_SCALED}\n    return [factor * number for number in numbers]\n",
                right="def scaled(numbers: List[int], by):\n    return [by * n for n in numbers]",
                wrong="    return numbers * factor",
            )
        ]
    },
    splits={"test": "openai_humaneval/test-*"},
    config="openai_humaneval",
    schema=pa.schema(
        text_columns("task_id", "prompt", "canonical_solution", "test", "entry_point")
    ),
)
