"""How many tokens have their logits in memory together; planning reads it without torch."""

# Values: 128 MiB in float32. Small enough for a laptop, large enough for products at full speed.
LOGITS_AT_ONCE = 2**25


def logits_at_once(vocab_size: int) -> int:
    """Tokens of a part, where the logits of all trained tokens would be more."""
    return max(1, LOGITS_AT_ONCE // vocab_size)
