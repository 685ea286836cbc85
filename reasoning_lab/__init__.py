"""Turn a small language model into a reasoning model, and know how sure the result is."""

__version__ = "0.1.0"
