"""How prompts are split by their hash."""

import random
from collections import Counter

from reasoning_lab.data.sources.problem_source import split_of
from reasoning_lab.types import Split


def test_split_shares_follow_the_fractions() -> None:
    rng = random.Random(0)
    ids = [f"{rng.getrandbits(64):016x}" for _ in range(4000)]
    shares = Counter(split_of(name, 0.15, 0.1) for name in ids)
    assert abs(shares[Split.TEST] / 4000 - 0.15) < 0.025
    assert abs(shares[Split.VALIDATION] / 4000 - 0.1) < 0.02
    # By hand: the first eight digits are the position in [0, 1).
    assert split_of("00000000" + "f" * 8, 0.15, 0.1) is Split.TEST
    assert split_of("40000000" + "0" * 8, 0.25, 0.1) is Split.VALIDATION
    assert split_of("ffffffff" + "0" * 8, 0.15, 0.1) is Split.TRAIN
