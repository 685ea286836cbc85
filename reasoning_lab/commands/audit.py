"""The subcommand `audit`: compares the verifier with completions that people have labelled.

The file has one JSON object a line: `{"gold": …, "completion": …, "label": true or false}`. The
label says whether the completion is correct. A row may also have `choices`, the options of a
multiple-choice question, and its own `checker`. Rows whose gold the verifier cannot read are
counted and not compared.
"""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasoning_lab.commands.arguments import verifier_arguments
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.sources.readers import json_lines
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import build_verifier

_SHARD_ROWS = 4096


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One row of the file.

    Attributes:
        line: Line number in the file, from 1.
        gold: The known answer.
        completion: The text that was labelled.
        label: True = the completion is correct.
        choices: Texts of the options in order, for the checker `choice`; empty = unknown.
        checker: As in `Problem.checker`; None = the row names none.
    """

    line: int
    gold: str
    completion: str
    label: bool
    choices: Sequence[str] = ()
    checker: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """How often the verifier and the labels agree.

    Attributes:
        n: Rows.
        agree: Rows for which verifier and label agree.
        false_positive: Rows that the verifier accepts although they are labelled wrong.
        false_negative: Rows that the verifier does not accept although they are labelled correct.
        unparseable: Rows with this verdict, whatever their label.
        timeout: Rows with this verdict, whatever their label.
        unreadable_gold: Rows whose gold the verifier cannot read; all others are in `agree`,
            `false_positive` or `false_negative`.
    """

    n: int
    agree: int
    false_positive: int
    false_negative: int
    unparseable: int
    timeout: int
    unreadable_gold: int


def main(arguments: Sequence[str]) -> None:
    """`path=FILE`, `checker=NAME`, and overrides of `hardware` and `paths`."""
    path, checker, root = verifier_arguments(
        arguments, "audit: name the labelled file, as in audit path=FILE.jsonl"
    )
    folder = timestamped_folder(Path(root.paths.runs) / "audits")
    result, disagreements, ledger = audit(path, checker, root.hardware, folder)
    print(json.dumps(dataclasses.asdict(result)))
    for sentence in ledger.lines():
        print(sentence, file=sys.stderr)
    print(f"Disagreements: {disagreements}", file=sys.stderr)


def audit(
    path: Path, checker: str | None, hardware: HardwareConfig, out_dir: Path
) -> tuple[Audit, Path, Ledger]:
    """Verify every row of `path` and write the rows for which verifier and label disagree.

    Args:
        path: The labelled rows.
        checker: As in `Problem.checker`, for all rows; None = each row's checker, or else `math`.
        hardware: Workers and limits of the verifier.
        out_dir: Created if missing; receives `disagreements.jsonl`, and `dropped.jsonl` if some
            golds cannot be read.

    Returns:
        The counts, the path of the disagreements, and the ledger of dropped rows.

    Raises:
        UserError: A row is malformed; the line is named.
    """
    rows = read_rows(path)
    counts: Counter[str] = Counter()
    ledger = Ledger()
    out_dir.mkdir(parents=True, exist_ok=True)
    disagreements = out_dir / "disagreements.jsonl"
    with build_verifier(hardware) as verifier, disagreements.open("w", encoding="utf-8") as stream:
        golds = ReadableGoldFilter(
            verifier, ledger, lambda _: UnreadablePolicy("drop", 1.0, "audit")
        )
        for start in range(0, len(rows), _SHARD_ROWS):
            pairs = [(row, _problem(path, row, checker)) for row in rows[start:][:_SHARD_ROWS]]
            readable = list(golds.filter(problem for _, problem in pairs))
            shard = [row for row, problem in pairs if problem.id not in golds.dropped]
            answers = verifier.verify(readable, [row.completion for row in shard])
            for row, (answer, verdict) in zip(shard, answers, strict=True):
                counts[verdict] += 1
                correct = verdict is Verdict.CORRECT
                counts["false_positive"] += correct and not row.label
                counts["false_negative"] += row.label and not correct
                if correct != row.label:
                    verified = {"answer": answer, "verdict": str(verdict)}
                    stream.write(json.dumps(dataclasses.asdict(row) | verified) + "\n")
    disagreeing = counts["false_positive"] + counts["false_negative"]
    result = Audit(
        n=len(rows),
        agree=len(rows) - disagreeing - len(golds.dropped),
        false_positive=counts["false_positive"],
        false_negative=counts["false_negative"],
        unparseable=counts[Verdict.UNPARSEABLE],
        timeout=counts[Verdict.TIMEOUT],
        unreadable_gold=len(golds.dropped),
    )
    ledger.write_rows(out_dir)
    return result, disagreements, ledger


def read_rows(path: Path) -> Sequence[LabelledRow]:
    """Read the labelled rows of a file.

    Raises:
        UserError: The file is missing or empty, or a line is not a labelled row.
    """
    rows = [_row(path, number, content) for number, content in json_lines(path, "path")]
    if not rows:
        raise UserError(f"path={path}: the file has no row; give one JSON object a line")
    return rows


def _row(path: Path, line: int, content: Any) -> LabelledRow:
    try:
        gold, completion, label = (content[key] for key in ("gold", "completion", "label"))
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path}, line {line}: not an object with gold, completion and label ({error}); "
            "mend the line"
        ) from error
    if not isinstance(gold, str) or not isinstance(completion, str) or label not in (True, False):
        raise UserError(
            f"{path}, line {line}: gold and completion are text and label is true or false; "
            "mend the line"
        )
    choices = content.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise UserError(f"{path}, line {line}: choices is not a list of texts; mend the line")
    checker = content.get("checker")
    if checker is not None and not isinstance(checker, str):
        raise UserError(f"{path}, line {line}: checker is not a text; mend the line")
    return LabelledRow(line, gold, completion, bool(label), choices, checker)


def _problem(path: Path, row: LabelledRow, checker: str | None) -> Problem:
    origin = f"{path}, line {row.line}"
    metadata = {"row": origin} | ({"choices": row.choices} if row.choices else {})
    chosen_checker = checker or row.checker or "math"
    return Problem(origin, row.gold, chosen_checker, "audit", metadata=metadata)
