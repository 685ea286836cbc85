"""Which prompts of the pool each step draws, by their recent pass rates.

**Weight.** A prompt's pass rate p is estimated from all its rollouts so far. A rollout counts half
once it is `half_life_steps` steps old, and `prior_rollouts` more, half of them correct, stand for
what is not known. With `draw=learnability` its weight is p (1 - p), the variance of its
correctness. That is "sampling for learnability" of Foster et al. 2025 (arXiv:2502.12272): where all
rollouts or none are correct, advantages are 0. The paper measures p by rollouts made for that
alone; here the rollouts that train are the measurement. The prior keeps every weight above 0, and a
prompt that was never drawn has the largest.

**Rest.** A prompt whose last `rest_rollouts` rollouts or more were all correct, or all incorrect,
is not drawn for `rest_steps` steps. That is the filter before sampling of GRESO (Zheng et al. 2025,
arXiv:2506.02177), which skips such prompts with a probability that grows; a fixed rest says when
they come back.

A step draws without replacement, by exponential races (Efraimidis and Spirakis 2006): of a number
from the exponential distribution divided by its weight, the smallest come first. What follows the
batch replaces dropped prompts. Where fewer prompts than a batch are awake, resting ones are
recalled, in the same order.

A draw follows from the seed, the step and what has been observed, and each step's rollouts are
observed at one moment between two steps. So every rank draws the same, and so does a resumed run.
"""

import hashlib
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.stages.rl.records import DropReason, RewardedGroup
from reasoning_lab.stages.rl.stage import RLStage

_FIELDS = ("correct", "rollouts", "observed_at", "streak", "rests_until", "drawn")


class Curriculum:
    """What has been observed of N prompts, and the draws that follow from it.

    Args:
        config: The stage's.
        prompts: How many there are, N.
        seed: The run's.

    Attributes:
        metrics: Of the last step that was observed, to be logged under `curriculum/`:
            `effective_prompts` = the number of equally likely prompts with the same sum of squared
            probabilities; `pass_rate_mean` = what was estimated of the step's prompts before its
            rollouts; `never_drawn_frac`; `resting_solved` and `resting_failed` = prompts that are
            not drawn; `recalled` = draws so far of prompts that were resting.
    """

    def __init__(self, config: RLStage, prompts: int, seed: int) -> None:
        self._options = config.curriculum
        self._batch_size = config.optimization.batch_size
        self._most_replacements = config.dynamic_sampling_rounds * self._batch_size
        self._staleness, self._seed = config.staleness, seed
        # Decayed numbers of rollouts as they were when the last of them was observed.
        self._correct, self._rollouts = np.zeros(prompts), np.zeros(prompts)
        self._observed_at = np.zeros(prompts, np.int64)
        # Rollouts since the last one of another outcome; below 0 = they are incorrect.
        self._streak = np.zeros(prompts, np.int64)
        self._rests_until = np.zeros(prompts, np.int64)
        self._drawn = np.zeros(prompts, np.int64)
        self._now, self._recalled = 0, 0
        self._draws: dict[int, tuple[list[int], list[int]]] = {}
        self._lock = Lock()
        self.metrics: dict[str, float] = {}

    def places(self, step: int) -> tuple[list[int], list[int]]:
        """The prompts of a step and those that replace dropped ones, by their places in the pool.

        They are drawn when a step is first asked for, and are the same afterwards. A pool that is
        smaller than the batch is drawn several times over.
        """
        with self._lock:  # The loop asks while rollouts are sampled in another thread.
            if step not in self._draws:
                self._draws[step] = self._draw(step)
            return self._draws[step]

    def observe(self, step: int, places: Sequence[int], groups: Sequence[RewardedGroup]) -> None:
        """Take in what a step sampled; nothing is drawn meanwhile.

        Args:
            step: Steps are observed in their order.
            places: The place in the pool of each group's prompt.
            groups: Those that are too old to train too. Rollouts that no reward could judge count
                as draws alone.
        """
        estimates = self.pass_rates()[list(places)]
        self._now = step + 1
        for place, group in zip(places, groups, strict=True):
            judged = [one for one in group.rollouts if one.dropped is not DropReason.UNJUDGED]
            if judged:
                correct = sum(record.rollout.correct for record in judged)
                self._add(place, step, correct, len(judged))
        for old in [drawn for drawn in self._draws if drawn < step - self._staleness]:
            del self._draws[old]
        weights, resting = self.weights(), self._resting()
        awake = weights[~resting]
        self.metrics = {
            "effective_prompts": float(awake.sum() ** 2 / max((awake**2).sum(), 1e-300)),
            "pass_rate_mean": float(estimates.mean()),
            "never_drawn_frac": float((self._drawn == 0).mean()),
            "resting_solved": int((resting & (self._streak > 0)).sum()),
            "resting_failed": int((resting & (self._streak < 0)).sum()),
            "recalled": self._recalled,
        }

    def pass_rates(self) -> Float[np.ndarray, " N"]:
        """`[N]` float64, in (0, 1), as they are estimated now."""
        decay = self._decay(self._now - self._observed_at)
        prior = self._options.prior_rollouts
        rates = (self._correct * decay + prior / 2) / (self._rollouts * decay + prior)
        return np.asarray(rates)

    def weights(self) -> Float[np.ndarray, " N"]:
        """`[N]` float64, above 0; of a prompt that rests, as if it did not."""
        if self._options.draw == "uniform":
            return np.ones(len(self._drawn))
        rates = self.pass_rates()
        return np.asarray(rates * (1 - rates))

    def record(self, ledger: Ledger) -> None:
        """Add what has become of the pool to the stage's ledger."""
        resting, drawn = self._resting(), self._drawn > 0
        ledger.take("pool_prompts", len(drawn))
        for reason, found in (
            ("never_drawn", ~drawn),
            ("resting_solved", drawn & resting & (self._streak > 0)),
            ("resting_failed", drawn & resting & (self._streak < 0)),
        ):
            ledger.drop("pool_prompts", reason, int(found.sum()), selected=True)

    def state_dict(self) -> dict[str, Any]:
        """What was observed, and the draws that may still be asked for."""
        return {
            "now": self._now,
            "recalled": self._recalled,
            "draws": {
                step: [torch.tensor(part, dtype=torch.int64) for part in draw]
                for step, draw in sorted(self._draws.items())
            },
            **{name: torch.from_numpy(getattr(self, f"_{name}").copy()) for name in _FIELDS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` described."""
        self._now, self._recalled = state["now"], state["recalled"]
        self._draws = {
            step: (chosen.tolist(), replacements.tolist())
            for step, (chosen, replacements) in state["draws"].items()
        }
        for name in _FIELDS:
            setattr(self, f"_{name}", state[name].numpy())

    def _draw(self, step: int) -> tuple[list[int], list[int]]:
        seed = hashlib.sha256(f"{self._seed}/{step}/curriculum".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
        weights, resting = self.weights(), self._resting()
        races: list[Int[np.ndarray, " N"]] = []
        while sum(map(len, races)) < self._batch_size:
            finish = rng.exponential(size=len(weights)) / weights
            races.append(np.lexsort((finish, resting)))
        chosen = np.concatenate(races)[: self._batch_size]
        rest = races[0][self._batch_size :][: self._most_replacements]
        np.add.at(self._drawn, chosen, 1)
        self._recalled += int(resting[chosen].sum())
        return chosen.tolist(), rest[~resting[rest]].tolist()

    def _add(self, place: int, step: int, correct: int, count: int) -> None:
        """Count `count` judged rollouts of one prompt."""
        decay = self._decay(step - self._observed_at[place])
        self._correct[place] = self._correct[place] * decay + correct
        self._rollouts[place] = self._rollouts[place] * decay + count
        self._observed_at[place] = step
        streak = self._streak[place]
        if correct == count:
            streak = max(streak, 0) + count
        else:
            streak = min(streak, 0) - count if correct == 0 else 0
        self._streak[place] = streak
        rests = abs(streak) >= self._options.rest_rollouts
        self._rests_until[place] = self._now + self._options.rest_steps if rests else 0

    def _decay(self, age: Any) -> Any:
        return 0.5 ** (age / self._options.half_life_steps)

    def _resting(self) -> Bool[np.ndarray, " N"]:
        return np.asarray(self._rests_until > self._now)
