"""The subcommand `rescore`: verifies an evaluation's completions again, without generating any.

The checker may be another one, or the verifier a newer one. The artifact with its verdicts stays
unchanged.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reasoning_lab.commands.arguments import verified
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import read_rollouts, write_rollouts
from reasoning_lab.data.curation.selection import group_by_problem
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy
from reasoning_lab.evaluate.benchmark import correct_samples, measured
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.evaluate.statistics import Difference, Estimate, paired_difference, pass_at_1
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.system.files import write_atomically
from reasoning_lab.types import UserError
from reasoning_lab.verify import build_verifier, verifier_version


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
    old = read_rollouts(folder / COMPLETIONS)
    ledger = Ledger()
    with build_verifier(hardware) as verifier:
        golds = ReadableGoldFilter(
            verifier, ledger, lambda _: UnreadablePolicy("drop", 1.0, "rescore")
        )
        distinct = {r.problem.id: r.problem for r in old}
        if checker is not None:
            distinct = {key: replace(problem, checker=checker) for key, problem in distinct.items()}
        readable = {problem.id: problem for problem in golds.filter(distinct.values())}
        ledger.require_passed("problems", f"checker={checker}", "choose one that reads the golds")
        old = [rollout for rollout in old if rollout.problem.id in readable]
        problems = [readable[rollout.problem.id] for rollout in old]
        verdicts = verifier.verify(problems, [rollout.completion.text for rollout in old])
    new = [
        replace(rollout, problem=problem, answer=answer, verdict=verdict, judge=None)
        for rollout, problem, (answer, verdict) in zip(old, problems, verdicts, strict=True)
    ]
    groups = group_by_problem(new)
    before, after = correct_samples(group_by_problem(old)), correct_samples(groups)
    verdict_pairs = [(a.verdict, b.verdict) for a, b in zip(old, new, strict=True)]
    out_dir.mkdir(parents=True, exist_ok=True)
    metrics = {
        **measured(groups),
        "unreadable_golds": len(golds.dropped),
        "verifier": verifier_version(),
        "rescored": str(folder),
    }
    text = json.dumps(metrics, indent=2)
    write_atomically(out_dir / "metrics.json", lambda path: path.write_text(text))
    completions = write_atomically(out_dir / COMPLETIONS, lambda path: write_rollouts(path, new))
    result = Rescored(
        pass_at_1(before),
        pass_at_1(after),
        paired_difference(after, before),
        dict(Counter(f"{a} -> {b}" for a, b in verdict_pairs if a is not b)),
    )
    return result, completions, ledger
