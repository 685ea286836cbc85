"""Early warnings in words, from the metrics that reinforcement learning logs."""

from collections import deque
from collections.abc import Collection, Mapping

_WINDOW_STEPS = 10
_COLLAPSED_ENTROPY_FRAC = 0.25
_RUNAWAY_LENGTH_RATIO = 2.0
_HIGH_TRUNCATED_FRAC = 0.5


class Health:
    """Compares the last ten steps with this attempt's first ten; each warning is given once."""

    def __init__(self) -> None:
        self._first: list[Mapping[str, float]] = []
        self._last: deque[Mapping[str, float]] = deque(maxlen=_WINDOW_STEPS)
        self._warned: set[str] = set()

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """New warnings after a step.

        Args:
            metrics: `entropy` (at temperature 1 in every step, so that annealing the sampling
                temperature does not lower it), `completion_tokens_mean`, `truncated_frac` and
                `groups_trained`.
        """
        if len(self._first) < _WINDOW_STEPS:
            self._first.append(metrics)
        self._last.append(metrics)
        if len(self._last) < _WINDOW_STEPS:
            return []
        current = self._current_warnings()
        new = [text for name, text in current.items() if name not in self._warned]
        self._warned |= current.keys()
        return new

    def _current_warnings(self) -> dict[str, str]:
        warnings = {}
        before, now = self._mean(self._first, "entropy"), self._mean(self._last, "entropy")
        if now < _COLLAPSED_ENTROPY_FRAC * before:
            warnings["entropy"] = (
                f"entropy collapses: {now:.3f} nats a token, {before:.3f} in the first steps; "
                "raise temperature.end or clip_high, or lower the learning rate"
            )
        before = self._mean(self._first, "completion_tokens_mean")
        now = self._mean(self._last, "completion_tokens_mean")
        truncated = self._mean(self._last, "truncated_frac")
        if now > _RUNAWAY_LENGTH_RATIO * before or truncated > _HIGH_TRUNCATED_FRAC:
            warnings["length"] = (
                f"completions run away: {now:.0f} tokens, {before:.0f} in the first steps, "
                f"{truncated:.0%} cut off; add a length reward, overlong=mask, or max_new_tokens"
            )
        if not self._mean(self._last, "groups_trained"):
            warnings["signal"] = (
                f"no group of the last {_WINDOW_STEPS} steps had anything to learn from; choose "
                "prompts that are solved now and then, a larger group_size, or more "
                "dynamic_sampling_rounds"
            )
        return warnings

    @staticmethod
    def _mean(steps: Collection[Mapping[str, float]], key: str) -> float:
        return sum(metrics[key] for metrics in steps) / len(steps)
