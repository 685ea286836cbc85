"""What stages exchange: a folder of files and a type that says how to read them.

A subclass names its kind once; a stage says by these types what it consumes and produces, and is
given its inputs as instances of them, named by their kind.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Artifact:
    """The folder of something that a stage made; a subclass reads its files.

    Attributes:
        kind: What such an artifact is called: in records, in errors, and as an argument of `run`.
        learned: True = each is a further state of the one before it. A recipe may start from one
            that exists, each is a result of its own, and it remembers what earlier ones were
            trained on.
        base_remedy: How a recipe gets one that exists, for an error; empty = it cannot.
        path: The folder.
    """

    kind: ClassVar[str]
    learned: ClassVar[bool] = False
    base_remedy: ClassVar[str] = ""

    path: Path
