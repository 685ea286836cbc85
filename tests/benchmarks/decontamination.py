"""Measure decontamination: how much of a planted benchmark it finds, how much else it removes.

    python tests/benchmarks/decontamination.py math500_test.json gsm8k_train.jsonl

plants each MATH-500 problem among the GSM8K training problems in several spellings, removes what
gives MATH-500 away, and prints one JSON line. What is unrelated: the GSM8K problems themselves
and as many generated ones of reasoning-gym. Two measures more than that: problems that stand
inside a longer text, and single words that are another.
"""

import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reasoning_lab.data.curation.decontamination import Decontaminate
from reasoning_lab.data.curation.step import CurationContext
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

GENERATED = ("chain_sum", "gcd", "leg_counting", "simple_equations", "products", "lcm")
_WORD = re.compile(r"\b[a-z]{3,}\b")


def recased(text: str, rng: random.Random) -> str:
    """Other capitals in words; commands and single letters stay, as TeX needs them."""
    change = rng.choice([str.upper, str.title])
    return re.sub(r"\\[A-Za-z]+|[A-Za-z]{2,}", lambda m: _unless_command(m[0], change), text)


def _unless_command(word: str, change: Callable[[str], str]) -> str:
    return word if word.startswith("\\") else change(word)


def respaced(text: str, rng: random.Random) -> str:
    """Runs of other spaces, and spaces around the signs of arithmetic."""
    text = re.sub(r"\s+", lambda _: rng.choice(["  ", "\n", "\t", " \n "]), text)
    return re.sub(r"(?<=[\w)}])([+=<>,])(?=[\w({\\])", r" \1 ", text)


def respelt(text: str, rng: random.Random) -> str:
    """Another author's LaTeX for the same formulas."""
    swaps = [
        (r"\\[dt]?frac(?![a-z])", rng.choice([r"\\dfrac", r"\\tfrac", r"\\frac"])),
        (r"\\le(?:q)?(?![a-z])", r"\\leq"),
        (r"\\ge(?:q)?(?![a-z])", r"\\geqslant"),
        (r"\\(?:left|right)(?![a-z])", ""),
        (r"(?<!\\)\$([^$]+)\$", r"\\(\1\\)"),
        (r"\\text\{([^{}]*)\}", r"\\mathrm{\1}"),
        (r"\\cdot(?![a-z])", r"\\times"),
        (r"\^(\d)(?!\d)", r"^{\1}"),
        (r"\\pi(?![a-z])", "π"),
        (r"\^\\circ(?![a-z])|\^\{\\circ\}", "°"),
        (r"(\d),(?=\d{3}(?!\d))", r"\1{,}"),
    ]
    for pattern, other in swaps:
        text = re.sub(pattern, other, text)
    return text


def all_three(text: str, rng: random.Random) -> str:
    return recased(respaced(respelt(text, rng), rng), rng)


def embedded(text: str, rng: random.Random) -> str:
    return f"Solve the following problem step by step. {text} Put the answer in \\boxed{{}}."


def another_word(text: str, rng: random.Random) -> str:
    """One English word replaced: beyond what n-grams promise in short problems."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = rng.choice(words)
    return f"{text[: word.start()]}foo{text[word.end() :]}"


VARIANTS: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": lambda text, rng: text,
    "recased": recased,
    "respaced": respaced,
    "respelt": respelt,
    "all_three": all_three,
    "embedded": embedded,
    "another_word": another_word,
}


def removed(prompts: list[str], benchmark: list[str]) -> tuple[list[bool], float]:
    """Which prompts go, and the seconds that it took."""
    rollouts = [
        Rollout(Problem(prompt, "1", "math", "f"), Completion([], ""), "1", Verdict.CORRECT, "a")
        for prompt in prompts
    ]
    started = time.perf_counter()
    reasons = list(
        Decontaminate().drop_reasons(rollouts, CurationContext(0, float, {"math500": benchmark}))
    )
    return [reason is not None for reason in reasons], time.perf_counter() - started


def generated(count: int) -> list[str]:
    """Problems of reasoning-gym families, which no benchmark has."""
    import reasoning_gym

    share = count // len(GENERATED) + 1
    return [
        entry["question"]
        for family in GENERATED
        for entry in reasoning_gym.create_dataset(family, seed=0, size=share)
    ][:count]


def main(benchmark_path: str, corpus_path: str) -> None:
    benchmark = [row["problem"] for row in json.loads(Path(benchmark_path).read_text())]
    lines = Path(corpus_path).read_text(encoding="utf-8").splitlines()
    corpus = [json.loads(line)["question"] for line in lines]
    rng = random.Random(0)
    figures: dict[str, object] = {"planted": len(benchmark)}
    for name, variant in VARIANTS.items():
        planted = [variant(prompt, rng) for prompt in benchmark]
        mixed = [(prompt, True) for prompt in planted] + [(prompt, False) for prompt in corpus]
        rng.shuffle(mixed)
        is_removed, wall_s = removed([prompt for prompt, _ in mixed], benchmark)
        hits = sum(
            removed_here
            for removed_here, (_, is_planted) in zip(is_removed, mixed, strict=True)
            if is_planted
        )
        others = sum(is_removed) - hits
        figures[name] = {
            "changed": sum(one != other for one, other in zip(planted, benchmark, strict=True)),
            "found": hits,
            "unrelated_removed": others,
            "wall_s": round(wall_s, 2),
        }
    generated_prompts = generated(len(corpus))
    is_removed, wall_s = removed(generated_prompts, benchmark)
    unrelated = {
        "gsm8k": len(corpus),
        "generated": len(generated_prompts),
        "generated_removed": sum(is_removed),
    }
    print(json.dumps({**figures, **unrelated, "generated_wall_s": round(wall_s, 2)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
