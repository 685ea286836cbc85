"""The subcommand `rehearse`: a run's settings in minutes on this machine, before a cluster."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from reasoning_lab.commands.arguments import is_multirun, to_overrides
from reasoning_lab.commands.print_plan import between, summary
from reasoning_lab.commands.rehearsal import Rehearsal, rehearse
from reasoning_lab.commands.rehearsal_steps import State
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.commands.sweep import settings
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.types import UserError

_JSON = "format=json"
_FORMATS = (_JSON, "format=table")
_BYTES = ((" GB", 1e9), (" MB", 1e6), (" kB", 1e3), (" B", 1.0))


def main(arguments: Sequence[str]) -> None:
    """Overrides as for a run, perhaps `format=json`; exits with 1 unless everything passed.

    Raises:
        UserError: The settings are impossible, as a run would refuse them, or those of a sweep.
    """
    if is_multirun(arguments):
        raise UserError(
            "rehearse: it takes one run at a time; leave -m out and give each key one value"
        )
    words = [word for word in arguments if word not in _FORMATS]
    rehearsal = rehearse_in_new_folder(settings(to_overrides(words)))
    if _JSON in arguments:
        print(_json(rehearsal))
    else:
        print("\n".join(lines(rehearsal, words)))
    if not rehearsal.passed:
        sys.exit(1)


def rehearse_in_new_folder(root: RootConfig) -> Rehearsal:
    """Rehearse a run; its output and `rehearsal.json` go below `paths.runs`."""
    folder = timestamped_folder(Path(root.paths.runs) / "rehearsals")
    rehearsal = rehearse(root, folder)
    (folder / "rehearsal.json").write_text(_json(rehearsal), encoding="utf-8")
    return rehearsal


def _json(rehearsal: Rehearsal) -> str:
    return json.dumps(as_json(rehearsal), indent=2)


def as_json(rehearsal: Rehearsal) -> dict[str, object]:
    """The rehearsal for programs."""
    return {
        "passed": rehearsal.passed,
        "folder": str(rehearsal.folder),
        "factor": rehearsal.factor,
        "steps": [dataclasses.asdict(step) for step in rehearsal.steps.done],
        "replaced": rehearsal.notes,
        "warnings": rehearsal.warnings,
        "lengths": [dataclasses.asdict(limit) for limit in rehearsal.limits],
        "golds": {"read": rehearsal.golds[0], "unreadable": rehearsal.golds[1]},
        "measured": [dataclasses.asdict(one) for one in rehearsal.measured],
        "unseen": list(rehearsal.unseen),
    }


def lines(rehearsal: Rehearsal, words: Sequence[str]) -> Iterator[str]:
    """What is printed at the end."""
    cut = "no length is cut"
    if rehearsal.factor < 1:
        cut = f"lengths are cut to 1/{1 / rehearsal.factor:.0f}"
    yield f"\nRehearsal of {' '.join(words) or 'the default recipe'}; {cut}."
    for step in rehearsal.steps.done:
        seconds = f"{step.wall_s:6.1f} s" if step.state is not State.NOT_REACHED else " " * 8
        yield f"  {step.state:<12}{seconds}  {step.name}"
        if step.sentence and step.state is State.FAILED:
            yield from (f"      {line}" for line in step.sentence.splitlines())
    yield from _section("Replaced or left out", rehearsal.notes)
    yield from _section("To look at", rehearsal.warnings)
    yield from _section("Lengths in tokens, of real rows, against limits", _length_lines(rehearsal))
    if rehearsal.golds[0]:
        yield f"Golds: {rehearsal.golds[1]} of {rehearsal.golds[0]} cannot be read."
    plan = rehearsal.real_plan
    if plan:
        yield f"Planned for the run itself: {summary(plan)}"
    yield from _section("Measured, and planned for the small recipe", _measured_lines(rehearsal))
    yield from _section("Not seen here", rehearsal.unseen)
    failed = [s.name for s in rehearsal.steps.done if s.state is State.FAILED]
    total = sum(step.wall_s for step in rehearsal.steps.done)
    verdict = f"failed: {', '.join(failed)}" if failed else "everything passed"
    yield f"In {total:.0f} s {verdict}. Output: {rehearsal.folder}"


def _section(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"{title}:"
        yield from (f"  - {sentence}" for sentence in sentences)


def _length_lines(rehearsal: Rehearsal) -> list[str]:
    return [
        f"{one.key}={one.tokens:,}: {one.count} {one.of}, {'' if one.counted else 'about '}"
        f"{one.median:,} (median), {one.p90:,} (nine in ten), {one.longest:,} (longest); "
        f"{one.beyond_frac:.0%} longer"
        for one in rehearsal.limits
    ]


def _measured_lines(rehearsal: Rehearsal) -> list[str]:
    rows = []
    # Evaluations are alike; `rehearsal.json` has them too.
    for one in (one for one in rehearsal.measured if "/" not in one.name):
        needs = one.planned.needs
        sizes = f"{_size(one.disk_bytes)} on disk (planned {between(needs.artifact, _BYTES)})"
        if one.peak_bytes is not None:
            planned_rank = between(needs.rank, _BYTES) or "?"
            sizes += f", {_size(one.peak_bytes)} of a process (planned {planned_rank})"
        rows.append(f"{one.name}: {one.wall_s:.1f} s, {sizes}")
    return rows


def _size(count: float) -> str:
    return between(Bounds.exactly(count), _BYTES) or "0 B"
