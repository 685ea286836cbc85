"""From a completion's text to a verdict: extract the answer, compare it with gold, survive both."""

from reasoning_lab.verify.answers import extract_answer
from reasoning_lab.verify.pool import Verifier, verifier_of

__all__ = ["Verifier", "extract_answer", "verifier_of"]
