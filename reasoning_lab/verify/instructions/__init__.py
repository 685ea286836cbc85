"""Instructions on the form of a response, in IFEval's layout: counts, words, formats, JSON.

Zhou et al. 2023 (arXiv:2311.07911). An instruction is an id, such as `punctuation:no_comma`, and
its arguments. `registry.py` has the table of ids; the other modules have one small pure function
for each. DECISIONS.md says where they differ from the published code.

Responses, and instructions of a dataset, are hostile. So every function takes time that is linear
in the response, and no text of an instruction is used as a regular expression.
"""

from reasoning_lab.verify.instructions.registry import (
    INSTRUCTIONS,
    Instruction,
    InstructionError,
    followed,
    instructions_of,
    parse_instructions,
    read_instructions,
)

__all__ = [
    "INSTRUCTIONS",
    "Instruction",
    "InstructionError",
    "followed",
    "instructions_of",
    "parse_instructions",
    "read_instructions",
]
