"""How many tokens have their logits in memory together; planning reads it without torch."""

import math

# Values: 128 MiB in float32. Small enough for a laptop, large enough for products at full speed.
LOGITS_AT_ONCE = 2**25
# On a GPU 512 MiB: each part reads the projection, and adds to its gradient, once more.
LOGITS_AT_ONCE_ON_GPU = 2**27


def logits_at_once(vocab_size: int, on_cpu: bool) -> int:
    """Most tokens of a part."""
    return max(1, (LOGITS_AT_ONCE if on_cpu else LOGITS_AT_ONCE_ON_GPU) // vocab_size)


def part_size(tokens: int, most: int) -> int:
    """Tokens of each part, the last aside, where as few as can be have at most `most`.

    Whole eighths of it: the next step's parts find place where this one's were.
    """
    if tokens <= most:
        return tokens
    even = tokens / math.ceil(tokens / most)
    eighth = max(1, most // 8)
    return min(most, math.ceil(even / eighth) * eighth)
