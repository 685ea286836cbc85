"""How many tokens have their logits in memory together; planning reads it without torch."""

import math

# Values: 128 MiB in float32. Small enough for a laptop, large enough for products at full speed.
LOGITS_AT_ONCE = 2**25
# On a GPU 512 MiB: each chunk reads the projection, and adds to its gradient, once more.
LOGITS_AT_ONCE_ON_GPU = 2**27
# Values: 16 MiB in float32. Below, torch's own way to the mean gains nothing.
FEW_LOGITS = 2**22


def most_chunk_tokens(vocab_size: int, on_cpu: bool) -> int:
    """Most tokens of a chunk."""
    return max(1, (LOGITS_AT_ONCE if on_cpu else LOGITS_AT_ONCE_ON_GPU) // vocab_size)


def chunk_size(tokens: int, most: int) -> int:
    """Tokens of each chunk, the last aside, where as few as can be have at most `most`.

    Whole eighths of it: memory that one step's chunks freed has room for the next one's.
    """
    if tokens <= most:
        return tokens
    even = tokens / math.ceil(tokens / most)
    eighth = max(1, most // 8)
    return min(most, math.ceil(even / eighth) * eighth)
