"""Outcomes of runs that nobody trained: evaluations with given verdicts, and their rows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.evaluate.benchmark import measured
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.report.evidence import Evidence, GraphNode
from reasoning_lab.report.outcomes import OUTCOMES, verdicts_of_evaluation, write_outcomes
from reasoning_lab.report.overlap import PromptOverlap
from reasoning_lab.report.rows import Row
from reasoning_lab.types import RolloutGroup, Verdict
from tests.support.rollouts import rollout

# Variant, stage and seed.
Policy = tuple[str, str, int]


def write_page(
    folder: Path,
    scratch: Path,
    policies: Sequence[Policy],
    prompts: Sequence[str],
    is_right: Callable[[Policy, int, int], bool],
    samples: int = 1,
    ledgers: Mapping[str, Mapping[str, Mapping[str, object]]] = {},
) -> tuple[list[Row], Evidence]:
    """Write `outcomes.parquet` of policies on a benchmark called `heldout`.

    Args:
        folder: Of the experiment.
        scratch: Where the evaluations go.
        policies: What was evaluated.
        prompts: Of the problems.
        is_right: Of a policy, a problem's and a sample's number.
        samples: Completions of each problem.
        ledgers: Of a policy's stage, two of whose prompts were then trained on before.

    Returns:
        What was written beside the verdicts.
    """
    rows, verdicts, evidence = [], [], Evidence()
    for policy in policies:
        variant, stage, seed = policy
        groups = [
            [
                rollout(prompt, _verdict(is_right(policy, number, sample)), 3 + number % 5)
                for sample in range(samples)
            ]
            for number, prompt in enumerate(prompts)
        ]
        name = f"{variant}-{stage}-{seed}"
        evaluation = Evaluation(scratch / name)
        evaluation.path.mkdir(parents=True)
        write_rollouts(evaluation.completions_file, [one for group in groups for one in group])
        metrics = measured(RolloutGroup(group[0].problem, group) for group in groups)
        rows.append(
            Row(
                variant=variant,
                stage=stage,
                seed=seed,
                benchmark="heldout",
                n=metrics["n"],
                samples=metrics["samples"],
                pass_at_1=metrics["pass@1"],
                ci95=tuple(metrics["ci95"]),
                completion_tokens=metrics["completion_tokens"],
                train_tokens=100,
                wall_s=60.0,
                fingerprint=name,
                measured={"by_sample": metrics["by_sample"], "truncated_frac": 0.0},
            )
        )
        verdicts.append(verdicts_of_evaluation(rows[-1], evaluation))
        overlap = PromptOverlap(9, 2, {"sft": 2}) if stage in ledgers else None
        evidence.nodes[name] = GraphNode(name, name, [], 60.0, ledgers.get(stage, {}), overlap)
    write_outcomes(folder / OUTCOMES, rows, verdicts, evidence)
    return rows, evidence


def _verdict(is_right: bool) -> Verdict:
    return Verdict.CORRECT if is_right else Verdict.WRONG
