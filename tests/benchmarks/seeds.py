"""How many seeds a difference between two recipes takes, by the power of the paired t-test.

Prints a table: seeds with which a true difference is found with p < 0.05 in four of five cases. A
seed's measured difference scatters by training noise and by its completions, of which one problem
has the variance p (1 - p); its mean over Beta(1.2, 0.8) is 0.16, as in `test_seed_inference.py`.

    python -m tests.benchmarks.seeds

With `simulate` it prints how often the report's test over seeds calls one of 10,000 simulated null
differences significant, and how often it and the t-test find one of 3 points, of 2,000.

With `equivalence` it prints what `reproduce` says of 10,000 simulated pairs of runs, by margins of
5 points: in how many per cent of the cases it is wrong, and in how many right.
"""

import sys

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

POWER = 0.8
MOST_SEEDS = 100
PROBLEM_VARIANCE = 0.16
DIFFERENCES = (0.01, 0.02, 0.03, 0.05)
NOISES = (0.0, 0.005, 0.01, 0.02)
COMPLETIONS = (600, 1200, 4800)


def power(seeds: int, difference: float, noise: float, completions: int) -> float:
    """How often p < 0.05 and the sign is right."""
    deviation = np.sqrt(noise**2 + 2 * PROBLEM_VARIANCE / completions)
    critical = student.isf(0.025, seeds - 1)
    return float(nct.sf(critical, seeds - 1, difference / deviation * np.sqrt(seeds)))


def seeds_for(difference: float, noise: float, completions: int) -> str:
    """The least number of at least three."""
    for seeds in range(3, MOST_SEEDS + 1):
        if power(seeds, difference, noise, completions) >= POWER:
            return str(seeds)
    return f"> {MOST_SEEDS}"


def simulate() -> None:
    """False alarms and power, by training noise and seeds."""
    from tests.evaluate.test_seed_inference import rates

    for noise in (0.0, 0.01, 0.02):
        for seeds in (3, 5, 8, 10):
            alarms, _ = rates(10_000, seeds, noise)
            power_of_test, power_of_t = rates(2_000, seeds, noise, difference=0.03)
            print(f"{noise} {seeds}: {alarms:.3f}; {power_of_test:.3f} of {power_of_t:.3f}")


def equivalence() -> None:
    """Errors and power of the equivalence test, by training noise and seeds."""
    from tests.evaluate.test_equivalence import rates

    margin = 0.05
    print(
        "| noise | page's seeds | new seeds | equivalent, a margin apart | different, equal |"
        f" equivalent, equal | different, two margins apart |\n|{' --: |' * 7}"
    )
    for noise in (0.0, 0.01, 0.02):
        for earlier, new in ((3, 1), (3, 2), (3, 5), (8, 1), (8, 2), (8, 5)):
            equal, apart, far = (
                rates(10_000, earlier, new, noise, shift, margin)
                for shift in (0.0, margin, 2 * margin)
            )
            cells = [f"{100 * rate:.1f}" for rate in (apart[0], equal[1], equal[0], far[1])]
            print(f"| {100 * noise:g} | {earlier} | {new} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    if sys.argv[1:] in (["simulate"], ["equivalence"]):
        {"simulate": simulate, "equivalence": equivalence}[sys.argv[1]]()
        return
    columns = " | ".join(f"{100 * noise:g} points of noise" for noise in NOISES)
    print(f"| difference | completions | {columns} |\n| --: | --: |{' --: |' * len(NOISES)}")
    for difference in DIFFERENCES:
        for completions in COMPLETIONS:
            cells = [seeds_for(difference, noise, completions) for noise in NOISES]
            print(f"| {100 * difference:g} points | {completions:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
