"""From a completion's text to a verdict: extract the answer, parse it, compare it with gold."""

from functools import cache
from importlib.metadata import version

from reasoning_lab.verify.extraction import extract_answer
from reasoning_lab.verify.verifier import Verifier, build_verifier

# Raise this with every change of a verdict, and the versions of the stages that use verdicts too.
VERDICT_RULES_VERSION = 4
# The lab's own checkers, beside the families of reasoning-gym and those of the user.
CHECKERS = ("math", "number", "choice", "instructions", "python")

__all__ = ["CHECKERS", "Verifier", "build_verifier", "extract_answer", "verifier_version"]


@cache
def verifier_version() -> str:
    """Return the versions of the lab's rules and of the packages that decide a verdict."""
    packages = ("reasoning-lab", "math-verify", "reasoning-gym")
    versions = (f"{package} {version(package)}" for package in packages)
    return ", ".join([f"verdicts {VERDICT_RULES_VERSION}", *versions])
