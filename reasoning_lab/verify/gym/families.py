"""The families of reasoning-gym, and how an answer to each is scored.

Every scorer of reasoning-gym 0.1.25 was reviewed. There are four kinds of family:

- `SCORERS`: reasoning-gym's scorer hands text to `eval` or `parse_expr`, or gives full scores to
  wrong answers. The lab's own scorer takes its place.
- `ANSWER_PATTERNS`: the scorer only compares, and the lab ships the family. An answer must match
  the family's pattern first.
- `REVIEWED_FAMILIES`: the scorer only compares, by string methods, `int`, `float`, `Fraction` or
  JSON.
- `REFUSED_FAMILIES`: the family has no gold, or hands the answer on to another family.

A family of a later version has no reviewed scorer, which may run an answer, so it is refused.
"""

import copy
import re
import warnings
from functools import cache
from typing import Any

from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.gym.expressions import NotInGrammarError
from reasoning_lab.verify.gym.scorers import SCORERS
from reasoning_lab.verify.verdicts import refuse_gold, verdict_of

# A library of reasoning-gym's has source that Python finds fault with when it first compiles it.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*\bcellpylib\b")

PREFIX = "reasoning_gym/"

# The form of an answer to each shipped family. An answer that does not match is unparseable, and
# reasoning-gym's scorer never sees it. All patterns take linear time and have bounded repeats.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}|[0-9]{1,60})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]{{0,60}})?|\.[0-9]{{1,60}})"
_NUMBER = rf"[-+]?\s?\$?{_DECIMAL}(?:[eE][-+]?[0-9]{{1,3}})?"
_LATEX_FRACTION = r"\\[dt]?frac\s*\{\s*[0-9]{1,60}\s*\}\s*\{\s*[0-9]{1,60}\s*\}"
_FRACTION = rf"[-+]?(?:{_LATEX_FRACTION}|[0-9]{{1,60}}\s*/\s*[-+]?[0-9]{{1,60}})"
_NUMBER_OR_FRACTION = rf"\$?(?:{_FRACTION}|{_NUMBER})\$?"
_REAL_OR_IMAGINARY = (
    r"(?:[0-9]{1,60}(?:\.[0-9]{0,60})?(?:[eE][-+]?[0-9]{1,3})?\s*\*?\s*[ijIJ]?|[ijIJ])"
)
_COMPLEX = (
    rf"\(?\(?\s*[-+]?\s*{_REAL_OR_IMAGINARY}(?:\s*[-+]\s*[-+]?\s*{_REAL_OR_IMAGINARY})?\s*\)?\)?"
)
_WORD = r"[A-Za-z]{1,20}\.?"
# A unit may follow the number of a word problem, but no other number.
_UNIT = (
    rf"(?:\\[,;! ]|\s)*(?:\\?%|\\(?:text|mathrm)\{{[A-Za-z .]{{0,60}}\}}"
    rf"|{_WORD}(?: {_WORD}){{0,5}})"
)
_AMOUNT = rf"\(?(?:[A-Za-z]\s*=\s*)?[-+]?(?:\\?\$)?{_DECIMAL}(?:{_UNIT})?\.?\)?"

_NUMERIC_FAMILIES = (
    "aiw", "basic_arithmetic", "chain_sum", "count_primes", "decimal_chain_sum", "dice",
    "fraction_simplification", "gcd", "lcm", "leg_counting", "letter_counting", "products",
    "simple_equations",
)  # fmt: skip
# reasoning-gym's scorer skips the words that it does not know, such as a "not".
_ROLE = r"[A-Z][a-z]{1,20} is an? [a-z]{1,20}"
_PATTERNS = {
    **dict.fromkeys(_NUMERIC_FAMILIES, _NUMBER_OR_FRACTION),
    "caesar_cipher": r"[A-Z]{1,40}(?: [A-Z]{1,40}){0,200}",
    "calendar_arithmetic": rf"[-+]?[0-9]{{1,12}}|{_WORD}",
    "complex_arithmetic": _COMPLEX,
    "course_schedule": r"True|False",
    "family_relationships": r"[A-Za-z]{1,20}(?:-in-law)?",
    "gsm_symbolic": _AMOUNT,
    "knights_knaves": rf"{_ROLE}(?:(?:,? and |, ){_ROLE}){{0,10}}\.?",
    "path_star": r"[0-9]{1,12}(?:\s{1,9}[0-9]{1,12}){0,200}",
    "polynomial_equations": rf"{_NUMBER}(?:\s*,\s*{_NUMBER}){{0,30}}",
    "prime_factorization": r"[-+]?[0-9]{1,60}(?:\s*(?:×|\*|\\times|\\cdot)\s*[0-9]{1,60}){0,200}",
    "spell_backward": r"[A-Za-z0-9]{1,64}",
    "syllogism": r"Yes|No",
    "word_sorting": r"\w{1,40}(?:,\s{0,9}\w{1,40}){0,200}",
}
ANSWER_PATTERNS = {family: re.compile(pattern) for family, pattern in _PATTERNS.items()}

REVIEWED_FAMILIES = frozenset({
    "ab", "acre", "advanced_geometry", "arc_1d", "arc_agi", "base_conversion", "bf",
    "binary_alternation", "circuit_logic", "codeio", "color_cube_rotation", "count_bits",
    "cryptarithm", "decimal_arithmetic", "emoji_mystery", "figlet_font", "futoshiki",
    "game_of_life", "group_anagrams", "isomorphic_strings", "jugs", "kakurasu", "knight_swap",
    "largest_island", "letter_jumble", "list_functions", "mahjong_puzzle", "manipulate_matrix",
    "maze", "mini_sudoku", "modulo_grid", "needle_haystack", "number_filtering",
    "number_format", "number_sequence", "palindrome_generation", "palindrome_partitioning",
    "pool_matrix", "power_function", "quantum_lock", "ransom_note", "rearc", "rectangle_count",
    "rotate_matrix", "rotten_oranges", "self_reference", "sentence_reordering", "shortest_path",
    "simple_geometry", "sokoban", "string_manipulation", "string_splitting", "string_synthesis",
    "sudoku", "survo", "time_intervals", "tower_of_hanoi", "tsumego", "word_ladder",
    "word_sequence_reversal", "zebra_puzzles",
})  # fmt: skip
REFUSED_FAMILIES = {
    **dict.fromkeys(
        ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"),
        "its problems come without a gold answer",
    ),
    "composite": "it mixes other families; name those",
}
_SUPPORTED_FAMILIES = {*SCORERS, *ANSWER_PATTERNS, *REVIEWED_FAMILIES}

_NUMERIC = re.compile(r"(?:\\[dt]?frac|[-+*/.,_(){}$\s0-9eEijIJ])+")
_DIGIT = re.compile(r"[0-9]")
_LETTER = re.compile(r"[A-Za-z]")
_NOT_A_NUMBER = re.compile(r"nan|inf", re.IGNORECASE)


def require_reviewed_family(family: str, where: str) -> None:
    """Raise where reasoning-gym has the family but the lab does not score its answers.

    The error names `where`, the row or the config key of the family.

    Raises:
        UserError: The family has no gold, or its scorer was not reviewed.
    """
    if family in _SUPPORTED_FAMILIES:
        return
    if family in REFUSED_FAMILIES:
        raise UserError(
            f"{where}: the family '{family}' cannot be scored ({REFUSED_FAMILIES[family]}); "
            "leave it out"
        )
    from reasoning_gym.factory import DATASETS

    if family in DATASETS:
        raise UserError(
            f"{where}: the scorer of the family '{family}' was never reviewed and may run an "
            "answer as code; name another family, or give its rows the checker 'math' or 'number'"
        )


def family_verdict(problem: Problem, answer: str) -> Verdict:
    """Compare `answer` with gold by the scorer of the problem's family.

    Only a full score is correct; a partial score is wrong.

    Raises:
        UnreadableGoldError: The scorer rejects the problem's own gold.
        UserError: There is no such family, or the lab does not score it.
    """
    family = _family(problem)
    is_correct: bool | None
    try:
        if family in SCORERS:
            is_correct = SCORERS[family](problem, answer)
        else:
            is_correct = _has_full_score(problem, family, answer)
    except (MemoryError, UserError):
        raise
    except Exception as error:
        # A scorer may fail on the answer or on the problem.
        require_scorable_gold(problem)
        is_correct = None if isinstance(error, NotInGrammarError) else False
    return verdict_of(is_correct)


def require_scorable_gold(problem: Problem) -> None:
    """Raise UnreadableGoldError unless the scorer accepts the problem's own gold."""
    family = _family(problem)
    try:
        if family in SCORERS:
            score = 1.0 if SCORERS[family](problem, problem.gold) else 0.0
        else:
            score = _dataset(family).score_answer(problem.gold, _entry(problem, family))
        details = "" if score == 1.0 else f" (it scores {score}, not 1)"
    except (MemoryError, UserError):
        raise
    except Exception as error:
        details = f" ({type(error).__name__}: {error})"
    if details:
        refuse_gold(problem, "can't score the gold", details)


def _has_full_score(problem: Problem, family: str, answer: str) -> bool | None:
    """Return whether reasoning-gym gives the full score; None for an unparseable answer."""
    if family in ANSWER_PATTERNS:
        if not ANSWER_PATTERNS[family].fullmatch(answer.strip()):
            raise NotInGrammarError("no answer of this family")
    # NaN compares as equal to anything in some scorers.
    elif not _LETTER.search(problem.gold) and _NOT_A_NUMBER.search(answer):
        return None
    if _dataset(family).score_answer(answer, _entry(problem, family)) == 1.0:
        return True
    numeric = _NUMERIC.fullmatch(problem.gold) and _DIGIT.search(problem.gold)
    return None if numeric and not _NUMERIC.fullmatch(answer) else False


def _family(problem: Problem) -> str:
    family = problem.checker.removeprefix(PREFIX)
    require_reviewed_family(family, problem.origin)
    if family not in _SUPPORTED_FAMILIES:
        raise UserError(
            f"{problem.origin}: reasoning-gym has no family '{family}' (checker "
            f"'{problem.checker}'); see its gallery for the names"
        )
    return family


def _entry(problem: Problem, family: str) -> dict[str, Any]:
    metadata = problem.metadata
    if family not in ANSWER_PATTERNS:
        # Some scorers, such as knight_swap's, change the metadata, which other answers share.
        metadata = copy.deepcopy(metadata)
    return {"question": problem.prompt, "answer": problem.gold, "metadata": metadata}


@cache
def _dataset(family: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(family)
