"""From a completion's text to a verdict: extract the answer, compare it with gold, survive both."""

from functools import cache
from importlib.metadata import version

from reasoning_lab.verify.answers import extract_answer
from reasoning_lab.verify.pool import Verifier, verifier_of

# Raised with every change of a rule; then the stages that use verdicts raise theirs too.
VERDICTS = 3

__all__ = ["Verifier", "extract_answer", "verifier_of", "verifier_version"]


@cache
def verifier_version() -> str:
    """The rules and the packages that decide a verdict, each with its version."""
    packages = ("reasoning-lab", "math-verify", "reasoning-gym")
    versions = (f"{package} {version(package)}" for package in packages)
    return ", ".join([f"verdicts {VERDICTS}", *versions])
