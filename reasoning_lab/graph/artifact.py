"""What stages exchange: a folder of files and a type that says how to read them.

A subclass names its kind once; a stage says by these types what it consumes and produces, and is
given its inputs as instances of them, named by their kind.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reasoning_lab.graph.record import RECORD_FILE, CorruptArtifactError, Record

log = logging.getLogger(__name__)


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

    @property
    def record(self) -> Record:
        """What is written down of it.

        Raises:
            CorruptArtifactError: There is no record, or it cannot be read.
        """
        return Record.read(self.path)

    def ancestors(self) -> list[Record]:
        """The artifacts whose data reached this one, itself included, each once.

        An artifact made from one of its own kind stands for it, unless the kind is learned: what
        curation took out of a corpus reached nobody. Empty where the folder has no record. An
        unreadable record is logged, and what is no longer in the store is left out.
        """
        learned = {cls.kind for cls in Artifact.__subclasses__() if cls.learned}
        records: dict[Path, Record] = {}
        waiting = [self.path]
        while waiting:
            place = waiting.pop()
            if place in records or not (place / RECORD_FILE).is_file():
                continue
            try:
                record = Record.read(place)
            except CorruptArtifactError as fault:
                log.warning("%s: %s; what it was trained on is not known.", place, fault)
                continue
            records[place] = record
            for kind, fingerprint in record.inputs.items():
                if kind != record.kind or kind in learned:
                    waiting += place.parent.parent.glob(f"*/{fingerprint}")
        return list(records.values())
