"""Fast paths through a model: attention, norms, logprobs by parts and decoding."""
