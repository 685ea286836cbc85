"""Reports: tables, paired comparisons and figures, for people, papers and programs.

Place in the flow: last, with rows and results of a finished recipe or of the store. Each file is
renamed into place, figures before the page that shows them, so a reader never sees half a file.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.evidence import LEDGER_COLUMNS, Evidence
from reasoning_lab.report.figures import save_ablation, save_ladder, save_lengths
from reasoning_lab.report.head import head_facts, head_sentences
from reasoning_lab.report.page import html_page
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.report.table import (
    comparison_cells,
    heading,
    latex_tables,
    markdown_table,
    mean_cells,
    row_cells,
    sentence,
    sentences,
)
from reasoning_lab.system.files import write_atomically
from reasoning_lab.types import UserError

_METHOD = (
    "Intervals are 95% and clustered by problem; those over seeds are Student's t over the seeds' "
    "own means. Differences are paired over problems, with p from a sign-flip permutation test. "
    "With three seeds or more they are over seeds and problems too, which then decides the words. "
    "p is corrected by Holm's method for the number of comparisons in the same table; those on "
    "single domains are counted apart."
)


def write_report(
    rows: Sequence[Row],
    claims: Claims,
    results: Sequence[StageResult],
    evidence: Evidence,
    out_dir: Path,
) -> dict[str, Path]:
    """Write the report into `out_dir`, which is created if missing.

    `report.html`, `report.md`, `report.tex`, `report.json`, `report.csv` (the rows),
    `comparisons.csv`, `dropped.csv` and the figures `ladder.png`, `lengths.png`, `ablation.png`.
    Files without content are not written.

    Returns:
        Paths under `html`, `markdown`, `latex`, `json`, `csv`, `comparisons`, `dropped` and the
        figures' names.

    Raises:
        UserError: There are no rows.
        ValueError: A number is NaN or infinite.
    """
    if not rows:
        raise UserError(f"{out_dir}: there is no evaluation to report; run a recipe that evaluates")
    content = _content(rows, claims, evidence)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    out_dir.mkdir(parents=True, exist_ok=True)
    whole = [result for result in results if result.domain is None]
    variants = [comparison for comparison in claims.variants if comparison.domain is None]
    figures: dict[str, Callable[[Path], None]] = {"ladder": lambda path: save_ladder(rows, path)}
    if whole:
        figures["lengths"] = lambda path: save_lengths(whole, path)
    if variants:
        figures["ablation"] = lambda path: save_ablation(variants, path)
    files = {
        "json": ("report.json", text),
        "csv": ("report.csv", _csv([row.as_json() for row in rows])),
        "comparisons": ("comparisons.csv", _csv([*content["differences"], *content["ablations"]])),
        "dropped": ("dropped.csv", _csv(_drops(evidence))),
        "latex": ("report.tex", latex_tables(rows, claims, _METHOD)),
        "markdown": ("report.md", _markdown(rows, claims, evidence, list(figures))),
        "html": ("report.html", html_page(rows, claims, evidence, _METHOD)),
    }
    paths = {}
    for name, draw in figures.items():
        paths[name] = write_atomically(out_dir / f"{name}.png", draw)
    for name, (file, content_text) in files.items():
        if content_text:
            paths[name] = write_atomically(
                out_dir / file, partial(Path.write_text, data=content_text, encoding="utf-8")
            )
    return paths


def _content(rows: Sequence[Row], claims: Claims, evidence: Evidence) -> dict[str, Any]:
    """What `report.json` holds."""
    content: dict[str, Any] = {
        "rows": [row.as_json() for row in rows],
        "differences": [comparison.as_json() for comparison in claims.stages],
        "ablations": [comparison.as_json() for comparison in claims.variants],
        "means": [mean.as_json() for mean in claims.means],
    }
    if facts := head_facts(evidence):
        content["run"] = facts
    if ledgers := evidence.ledgers():
        content["ledgers"] = ledgers
    if overlaps := evidence.overlaps():
        content["prompts_seen_before"] = overlaps
    return content


def _markdown(
    rows: Sequence[Row], claims: Claims, evidence: Evidence, figures: Sequence[str]
) -> str:
    """The Markdown page: tables, figures, a sentence for each comparison, and the method."""
    parts = [f"# {heading(rows)}\n"]
    if facts := head_sentences(evidence):
        parts.append("".join(f"- {fact}\n" for fact in facts))
    if claims.variants:
        parts += [
            "## What each variant changed\n",
            "".join(f"- {line}\n" for line in sentences(claims.variants)),
            markdown_table(*comparison_cells(claims.variants)),
            "![difference of each variant to the full recipe](ablation.png)\n",
            "## Results\n",
        ]
    if claims.means:
        means = markdown_table(*mean_cells(claims.means))
        parts += ["Mean over seeds:\n", means, "Each seed:\n"]
    parts.append(markdown_table(*row_cells(rows)))
    parts.append("![pass@1 after each stage, with 95% intervals](ladder.png)\n")
    if claims.stages:
        parts.append("## What each stage changed\n")
    groups: dict[tuple[str, str], list[str]] = {}
    for comparison in claims.stages:
        lines = groups.setdefault((comparison.variant, comparison.benchmark), [])
        lines.append(f"- {sentence(comparison)}\n")
    for (variant, benchmark), lines in groups.items():
        parts += [
            f"On {benchmark} ({variant_label(variant)}), in percentage points:\n",
            "".join(lines),
        ]
    if "lengths" in figures:
        parts.append("![lengths of right and wrong completions](lengths.png)\n")
    if overlaps := evidence.overlap_sentences():
        parts += ["## Prompts seen before\n", "".join(f"- {one}\n" for one in overlaps)]
    if cells := evidence.ledger_cells():
        parts += ["## What was dropped\n", markdown_table(LEDGER_COLUMNS, cells)]
    parts.append(f"{_METHOD}\n")
    return "\n".join(parts)


def _drops(evidence: Evidence) -> list[dict[str, Any]]:
    """A row for each stage, unit and reason; units without drops have one with an empty reason."""
    rows = []
    for counts in evidence.ledgers():
        labels = {key: counts[key] for key in ("stage", "fingerprint", "unit", "in", "out")}
        for reason, count in (counts["dropped"] or {"": 0}).items():
            rows.append({**labels, "reason": reason, "dropped": count})
    return rows


def _csv(entries: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; an interval becomes two columns, a list of seeds one."""
    if not entries:
        return ""
    flat = []
    for entry in entries:
        line: dict[str, Any] = {}
        for name, value in entry.items():
            if name == "ci95":
                line |= {"ci95_low": value[0], "ci95_high": value[1]}
            else:
                line[name] = " ".join(map(str, value)) if isinstance(value, list) else value
        flat.append(line)
    text = io.StringIO()
    columns = list(dict.fromkeys(name for line in flat for name in line))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
