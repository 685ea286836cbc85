"""The subcommand `rescore`: verifies an evaluation's completions again, without generating any.

The checker may be another one, or the verifier a newer one. The artifact with its verdicts stays
unchanged.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from reasoning_lab.commands.arguments import verified
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import RolloutFile, RolloutWriter
from reasoning_lab.data.rollout_groups import RolloutGroups
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.evaluate.benchmark import measured
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.evaluate.statistics import Difference, Estimate, paired_difference, pass_at_1
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.record import CorruptArtifactError, Record
from reasoning_lab.system.files import write_atomically
from reasoning_lab.types import Problem, Rollout, UserError
from reasoning_lab.verify import Verifier, build_verifier, verifier_version

_BATCH_ROLLOUTS = 1024


@dataclass(frozen=True, slots=True)
class Rescored:
    """An evaluation with its stored and with new verdicts.

    Attributes:
        before: pass@1 by the stored verdicts.
        after: pass@1 by the new verdicts.
        difference: after - before, paired over problems.
        changed: `old -> new` verdicts to the number of completions.
    """

    before: Estimate
    after: Estimate
    difference: Difference
    changed: dict[str, int]


def main(arguments: Sequence[str]) -> None:
    """`path=FOLDER`, `checker=NAME`, and overrides of `hardware` and `paths`."""
    remedy = "rescore: name an evaluation, as in rescore path=runs/store/evaluate/FINGERPRINT"
    verified(arguments, remedy, rescore, "rescored", "Completions with the new verdicts")


def rescore(
    folder: Path, checker: str | None, hardware: HardwareConfig, out_dir: Path
) -> tuple[Rescored, Path, Ledger]:
    """Write `completions.parquet` with new verdicts and `metrics.json` into `out_dir`.

    `folder` is an evaluation's artifact; without a `checker`, each problem keeps its own. Problems
    whose gold the checker cannot read are dropped from both sides.

    Returns:
        The comparison, the path of the completions, and the ledger of dropped problems.

    Raises:
        UserError: There are no completions in `folder`, or the checker can read no gold.
    """
    if not (folder / COMPLETIONS).is_file():
        raise UserError(
            f"path={folder}: the folder has no {COMPLETIONS}; give an evaluation's folder, "
            "runs/store/evaluate/FINGERPRINT"
        )
    old, ledger = RolloutFile(folder / COMPLETIONS), Ledger()
    thought_prefix = _thought_prefix(folder)
    tally = _Tally()
    out_dir.mkdir(parents=True, exist_ok=True)
    with build_verifier(hardware) as verifier:
        golds = ReadableGoldFilter(
            verifier, ledger, lambda _: UnreadablePolicy("drop", 1.0, "rescore")
        )
        distinct = {problem.id: problem for problem in old.problems()}
        if checker is not None:
            distinct = {key: replace(problem, checker=checker) for key, problem in distinct.items()}
        readable = {problem.id: problem for problem in golds.filter(distinct.values())}
        ledger.require_passed("problems", f"checker={checker}", "choose one that reads the golds")

        def write(path: Path) -> None:
            remaining = iter(old)
            with RolloutWriter(path) as writer:
                while batch := list(islice(remaining, _BATCH_ROLLOUTS)):
                    stored = [rollout for rollout in batch if rollout.problem.id in readable]
                    rescored = _verified(stored, readable, verifier, thought_prefix)
                    writer.write(rescored)
                    tally.add(stored, rescored)

        completions = write_atomically(out_dir / COMPLETIONS, write)
    metrics = {
        **measured(RolloutGroups([RolloutFile(completions)])),
        "unreadable_golds": len(golds.dropped),
        "verifier": verifier_version(),
        "thought_prefix": thought_prefix,
        "rescored": str(folder),
    }
    text = json.dumps(metrics, indent=2)
    write_atomically(out_dir / "metrics.json", lambda path: path.write_text(text))
    return tally.result(), completions, ledger


class _Tally:
    """Whether each problem's completions are correct, by both verdicts."""

    def __init__(self) -> None:
        self._before: dict[str, list[bool]] = defaultdict(list)
        self._after: dict[str, list[bool]] = defaultdict(list)
        self._changed = Counter[str]()

    def add(self, stored: Sequence[Rollout], rescored: Sequence[Rollout]) -> None:
        for old, new in zip(stored, rescored, strict=True):
            self._before[old.problem.id].append(old.correct)
            self._after[old.problem.id].append(new.correct)
            if old.verdict is not new.verdict:
                self._changed[f"{old.verdict} -> {new.verdict}"] += 1

    def result(self) -> Rescored:
        stored, rescored = list(self._before.values()), list(self._after.values())
        difference = paired_difference(rescored, stored)
        return Rescored(pass_at_1(stored), pass_at_1(rescored), difference, dict(self._changed))


def _thought_prefix(folder: Path) -> str:
    """What the policy's chat template writes of a thought, before each completion."""
    try:
        return str(Record.read(folder).metrics.get("thought_prefix", ""))
    except CorruptArtifactError:  # A copy without its record, or one of an earlier version.
        return ""


def _verified(
    rollouts: Sequence[Rollout],
    problems: Mapping[str, Problem],
    verifier: Verifier,
    thought_prefix: str,
) -> list[Rollout]:
    """The rollouts with new verdicts, each as a rollout of the problem of its id."""
    current = [problems[rollout.problem.id] for rollout in rollouts]
    texts = [thought_prefix + rollout.completion.text for rollout in rollouts]
    judgements = verifier.judge(current, texts)
    return [
        judgement.applied_to(replace(rollout, problem=problem, judge=None))
        for rollout, problem, judgement in zip(rollouts, current, judgements, strict=True)
    ]
