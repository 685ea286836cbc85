"""Early warnings in words, from what reinforcement learning logs anyway."""

from collections import deque
from collections.abc import Collection, Mapping

_WINDOW_STEPS = 10
_COLLAPSED_FRAC = 0.25
_RUNAWAY = 2.0
_MANY_TRUNCATED_FRAC = 0.5


class Health:
    """Compares the last ten steps with this attempt's first ten; each warning is given once."""

    def __init__(self) -> None:
        self._first: list[Mapping[str, float]] = []
        self._last: deque[Mapping[str, float]] = deque(maxlen=_WINDOW_STEPS)
        self._told: set[str] = set()

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        """What there is to say after a step.

        Args:
            values: `entropy` (at temperature 1 in every step, as the steps' own temperatures
                would be compared otherwise), `completion_tokens_mean`, `truncated_frac` and
                `groups_trained`.
        """
        if len(self._first) < _WINDOW_STEPS:
            self._first.append(values)
        self._last.append(values)
        if len(self._last) < _WINDOW_STEPS:
            return []
        complaints = self._complaints()
        said = [text for name, text in complaints.items() if name not in self._told]
        self._told |= complaints.keys()
        return said

    def _complaints(self) -> dict[str, str]:
        found = {}
        before, now = self._mean(self._first, "entropy"), self._mean(self._last, "entropy")
        if now < _COLLAPSED_FRAC * before:
            found["entropy"] = (
                f"entropy collapses: {now:.3f} nats a token, {before:.3f} in the first steps; "
                "raise temperature.end or clip_high, or lower the learning rate"
            )
        before = self._mean(self._first, "completion_tokens_mean")
        now = self._mean(self._last, "completion_tokens_mean")
        truncated = self._mean(self._last, "truncated_frac")
        if now > _RUNAWAY * before or truncated > _MANY_TRUNCATED_FRAC:
            found["length"] = (
                f"completions run away: {now:.0f} tokens, {before:.0f} in the first steps, "
                f"{truncated:.0%} cut off; add a length reward, overlong=mask, or max_new_tokens"
            )
        if not self._mean(self._last, "groups_trained"):
            found["signal"] = (
                f"no group of the last {_WINDOW_STEPS} steps had anything to learn from; choose "
                "prompts that are solved now and then, a larger group_size, or backfill_rounds"
            )
        return found

    @staticmethod
    def _mean(steps: Collection[Mapping[str, float]], key: str) -> float:
        return sum(values[key] for values in steps) / len(steps)
