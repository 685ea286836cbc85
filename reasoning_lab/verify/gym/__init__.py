"""Answers to problems of reasoning-gym (https://github.com/open-thought/reasoning-gym).

reasoning-gym scores text, and some of its scorers evaluate that text as Python. The lab calls only
scorers that were read and only compare; the others are replaced by rules of the lab's own.

- `expressions`: arithmetic as a grammar, read without evaluation;
- `polynomials`, `calculus`: what the expressions of algebra stand for;
- `rules`: the verdicts of the families whose scorer is replaced;
- `grammars`: what an answer of the other shipped families may look like;
- `families`: which family is judged how, and which are refused.
"""

from reasoning_lab.verify.gym.families import (
    UnscorableGoldError,
    family_verdict,
    refuse_unjudged,
    require_scorable_gold,
)

__all__ = ["UnscorableGoldError", "family_verdict", "refuse_unjudged", "require_scorable_gold"]
