"""The subcommand `audit`: compares the verifier with completions that people have labelled.

The file has one JSON object a line: `{"gold": …, "completion": …, "label": true or false}`. The
label says whether the completion is correct. A row may also have `choices`, the options of a
multiple-choice question, and its own `checker`. Rows whose gold the verifier cannot read are
counted and not compared.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_lab.commands.arguments import verified
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.sources.readers import json_lines
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify import build_verifier

_SHARD_ROWS = 4096


class LabelledRow(NamedTuple):
    """One row of the file; `choices` and `checker` are as in `Problem`, None = it names none."""

    line: int
    gold: str
    completion: str
    label: bool
    choices: Sequence[str]
    checker: str | None


def main(arguments: Sequence[str]) -> None:
    """`path=FILE`, `checker=NAME`, and overrides of `hardware` and `paths`."""
    remedy = "audit: name the labelled file, as in audit path=FILE.jsonl"
    verified(arguments, remedy, audit, "audits", "Disagreements")


def audit(
    path: Path, checker: str | None, hardware: HardwareConfig, out_dir: Path
) -> tuple[Mapping[str, int], Path, Ledger]:
    """Verify every row of `path` and write the rows for which verifier and label disagree.

    `checker` is for all rows; None = each row's checker, or else `math`. `out_dir` receives
    `disagreements.jsonl`, and `dropped.jsonl` if some golds cannot be read.

    Returns:
        Numbers of rows, the path of the disagreements, and the ledger of dropped rows. A row is in
        `agree`, `false_positive`, `false_negative` or `unreadable_gold`. Those of `unparseable` and
        `timeout` have this verdict, whatever their label.

    Raises:
        UserError: The file is missing or empty, or a line is not a labelled row.
    """
    rows = [_row(path, number, content) for number, content in json_lines(path, "path")]
    if not rows:
        raise UserError(f"path={path}: the file has no row; give one JSON object a line")
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
                    outcome = {"answer": answer, "verdict": str(verdict)}
                    stream.write(json.dumps(row._asdict() | outcome) + "\n")
    disagreeing = counts["false_positive"] + counts["false_negative"]
    ledger.write_rows(out_dir)
    result = {"n": len(rows), "agree": len(rows) - disagreeing - len(golds.dropped)}
    names = ("false_positive", "false_negative", Verdict.UNPARSEABLE, Verdict.TIMEOUT)
    result |= {str(name): counts[name] for name in names}
    return {**result, "unreadable_gold": len(golds.dropped)}, disagreements, ledger


def _row(path: Path, line: int, content: Any) -> LabelledRow:
    try:
        gold, completion, label = (content[key] for key in ("gold", "completion", "label"))
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path}, line {line}: not an object with gold, completion and label ({error}); "
            "mend the line"
        ) from error
    choices, checker = content.get("choices", []), content.get("checker")
    complaint = ""
    if not isinstance(gold, str) or not isinstance(completion, str) or label not in (True, False):
        complaint = "gold and completion are text and label is true or false"
    elif not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        complaint = "choices is not a list of texts"
    elif checker is not None and not isinstance(checker, str):
        complaint = "checker is not a text"
    if complaint:
        raise UserError(f"{path}, line {line}: {complaint}; mend the line")
    return LabelledRow(line, gold, completion, bool(label), choices, checker)


def _problem(path: Path, row: LabelledRow, checker: str | None) -> Problem:
    origin = f"{path}, line {row.line}"
    metadata = {"row": origin} | ({"choices": row.choices} if row.choices else {})
    chosen_checker = checker or row.checker or "math"
    return Problem(origin, row.gold, chosen_checker, "audit", metadata=metadata)
