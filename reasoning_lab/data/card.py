"""The data card of a corpus: a Hugging Face dataset card that tells what is in the artifact.

`CorpusSummary` counts rollouts as they pass and holds only the problems' ids, lengths and a few
examples; `data_card` turns it into the text of a README.md.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import yaml

from reasoning_lab.data.curation.step import StepCount
from reasoning_lab.graph.ledger import TABLE_COLUMNS, Ledger
from reasoning_lab.types import Rollout, Verdict

_EXAMPLES = 3
_SHOWN_CHARACTERS = 1500
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BACKTICKS = re.compile(r"`+")
# What the hub knows by these names; another licence is `other` with its own name.
_LICENCES = frozenset({"apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit", "odc-by"})
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


@dataclass
class CorpusSummary:
    """Counts of the rollouts that were added.

    `judged` are those verdicts that a judge gave, `cut_off` the truncated rollouts.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    judged: Counter[Verdict] = field(default_factory=Counter)
    authors: Counter[str] = field(default_factory=Counter)
    accepted: Counter[tuple[str, int]] = field(default_factory=Counter)
    problems: Counter[tuple[str, int]] = field(default_factory=Counter)
    cut_off: int = 0
    examples: list[Rollout] = field(default_factory=list)
    lengths: "dict[bool, array[int]]" = field(
        default_factory=lambda: {True: array("q"), False: array("q")}
    )
    _seen: set[int] = field(default_factory=set)

    def add(self, rollouts: Iterable[Rollout]) -> None:
        """Count them; of the accepted, the first few distinct problems become examples."""
        for rollout in rollouts:
            problem = rollout.problem
            group = (problem.family, problem.level)
            self.verdicts[rollout.verdict] += 1
            self.judged[rollout.verdict] += rollout.judge is not None
            self.cut_off += rollout.completion.truncated
            self.authors[rollout.author] += 1
            self.lengths[rollout.correct].append(len(rollout.completion.text))
            self.accepted[group] += rollout.correct
            name = int(problem.id, 16)
            if name not in self._seen:
                self._seen.add(name)
                self.problems[group] += 1
            if rollout.correct and len(self.examples) < _EXAMPLES:
                shown = {example.problem.id for example in self.examples}
                self.examples += [] if problem.id in shown else [rollout]


def data_card(
    name: str,
    about: Mapping[str, str],
    summary: CorpusSummary,
    ledger: Ledger,
    counts: Sequence[StepCount] = (),
) -> str:
    """The text of the card.

    Args:
        name: The stage's, for the title.
        about: `name`, `revision` and `licence` of the problems' source.
        summary: Of the accepted and the rejected rollouts.
        ledger: The stage's; says what is not in the corpus and why.
        counts: What each step of curation left; none for a corpus that was not curated.
    """
    accepted = summary.verdicts[Verdict.CORRECT]
    sections = [
        f"---\n{yaml.safe_dump(_header(name, about, accepted), sort_keys=False)}---",
        f"# {name}: verified reasoning rollouts",
        _sources(about, summary),
        f"## Counts\n\n{_counts(summary)}",
        f"## Lengths of completions, in characters\n\n{_lengths(summary)}",
    ]
    if cells := ledger.cells():
        sections.append(f"## What was dropped\n\n{markdown_table(TABLE_COLUMNS, cells)}")
    if counts:
        sections.append(f"## Curation\n\n{_curation(counts)}")
    sections += ["## Examples", *(_example(rollout) for rollout in summary.examples)]
    return "\n\n".join(sections) + "\n"


def _header(name: str, about: Mapping[str, str], accepted: int) -> dict[str, object]:
    licence = about["licence"].casefold()
    known = licence in _LICENCES
    named = {} if known else {"license_name": re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")}
    files = [
        {"split": split, "path": f"{split}.parquet"}
        for split in ("accepted", "rejected", "validation")
    ]
    return {
        "license": licence if known else "other",
        **named,
        "pretty_name": f"{name} ({about['name']})",
        "task_categories": ["text-generation"],
        "tags": ["reasoning", "chain-of-thought"],
        "size_categories": [next((size for most, size in _SIZES if accepted < most), "n>10M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _sources(about: Mapping[str, str], summary: CorpusSummary) -> str:
    authors = ", ".join(f"{author} ({n:,})" for author, n in sorted(summary.authors.items()))
    return "\n".join(
        [
            f"- Problems: {about['name']}",
            f"- Revision: {about['revision']}",
            f"- Licence of the problems: {about['licence']}",
            f"- Completions (rollouts) by: {authors}",
        ]
    )


def _counts(summary: CorpusSummary) -> str:
    verdicts = [
        (str(verdict), f"{summary.verdicts[verdict]:,}", f"{summary.judged[verdict]:,}")
        for verdict in Verdict
    ]
    groups = [
        (family, str(level), f"{n:,}", f"{summary.accepted[family, level]:,}")
        for (family, level), n in sorted(summary.problems.items())
    ]
    total = ("all", "", f"{summary.problems.total():,}", f"{summary.accepted.total():,}")
    return "\n\n".join(
        [
            markdown_table(("verdict", "rollouts", "of these a judge's"), verdicts),
            f"Cut off, at a limit or before the end of the thought: {summary.cut_off:,}.",
            markdown_table(("family", "level", "problems", "accepted rollouts"), [*groups, total]),
        ]
    )


def _lengths(summary: CorpusSummary) -> str:
    heads = ("", "least", *(f"{q:.0%}" for q in _QUANTILES[1:-1]), "most")
    rows = [
        (word, *(f"{value:,.0f}" for value in np.quantile(summary.lengths[correct], _QUANTILES)))
        for word, correct in (("accepted", True), ("rejected", False))
        if summary.lengths[correct]
    ]
    return markdown_table(heads, rows)


def _curation(counts: Sequence[StepCount]) -> str:
    heads = ("step", "rollouts in", "out", "problems in", "out")
    return markdown_table(
        heads,
        [
            (
                step.step,
                f"{step.rollouts_in:,}",
                f"{step.rollouts_out:,}",
                f"{step.problems_in:,}",
                f"{step.problems_out:,}",
            )
            for step in counts
        ],
    )


def _example(rollout: Rollout) -> str:
    problem = rollout.problem
    return (
        f"{_cell(problem.family)}, level {problem.level}; gold:\n\n{fenced(problem.gold)}\n\n"
        f"{fenced(problem.prompt)}\n\n{fenced(rollout.completion.text)}"
    )


def fenced(text: str, most: int | None = _SHOWN_CHARACTERS) -> str:
    """A block that the text cannot end, however many backticks it has.

    Args:
        text: What is shown.
        most: Characters after which it is cut off; None = never.
    """
    shown = text if most is None or len(text) <= most else f"{text[:most]} […]"
    longest = max((len(run) for run in _BACKTICKS.findall(shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its first column on the left."""
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
