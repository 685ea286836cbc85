"""Which trackers a run uses, and all of them as one.

`tracker.backends` names them. A tracker of one's own is named by its import path.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reasoning_lab.config.targets import resolve
from reasoning_lab.config.tracker import TrackerConfig
from reasoning_lab.graph.record import Record
from reasoning_lab.tracking.live import LiveTracker
from reasoning_lab.tracking.tracker import TrackedRun, Tracker
from reasoning_lab.types import Rollout, UserError

log = logging.getLogger(__name__)

_KEY = "tracker.backends"
TRACKERS = {
    "wandb": "reasoning_lab.tracking.wandb.WandbTracker",
    "trackio": "reasoning_lab.tracking.trackio.TrackioTracker",
}
# What a tracker leaves out that does not override the method.
_SHOWN_BY = {
    "log_rollouts": "tables of rollouts",
    "log_artifact": "artifacts and their lineage",
    "log_ladder": "the stage table",
}


class Trackers(Tracker):
    """Passes everything on to several trackers; one that raises is warned of and left out."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def log(self, metrics: Mapping[str, Any]) -> None:
        self._pass_on(lambda tracker: tracker.log(metrics))

    def log_rollouts(
        self,
        key: str,
        rollouts: Sequence[Rollout],
        extra_columns: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        self._pass_on(lambda tracker: tracker.log_rollouts(key, rollouts, extra_columns))

    def log_artifact(self, artifact: Record, inputs: Sequence[Record]) -> None:
        self._pass_on(lambda tracker: tracker.log_artifact(artifact, inputs))

    def log_ladder(self, rows: Sequence[Mapping[str, Any]], figure: Path) -> None:
        self._pass_on(lambda tracker: tracker.log_ladder(rows, figure))

    def finish(self) -> None:
        self._pass_on(lambda tracker: tracker.finish())

    def _pass_on(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._trackers.items()]:
            try:
                call(tracker)
            except Exception as error:
                del self._trackers[name]
                kind = type(error).__name__
                log.warning("Tracker %s failed (%s: %s); the run goes on.", name, kind, error)


def check_trackers(config: TrackerConfig) -> None:
    """Raise UserError unless each tracker exists and can be used here; imports none of them."""
    for name in config.backends:
        tracker = _class_of(name)
        if config.mode != "disabled":
            tracker.check()


def modes_of(config: TrackerConfig) -> dict[str, str]:
    """The trackers that a run uses, each with its mode: `online` or `offline`."""
    modes = {name: _class_of(name).mode(config) for name in config.backends}
    return {name: mode for name, mode in modes.items() if mode != "disabled"}


def tracker_of(run: TrackedRun | None, live_dir: Path | None = None) -> Tracker:
    """All trackers of a run as one.

    Args:
        run: What they are told of it; None = it is not tracked.
        live_dir: Where a stage is written down for `reasoning-lab watch`; None = nowhere.
    """
    trackers: dict[str, Tracker] = {} if live_dir is None else {"live": LiveTracker(live_dir)}
    for name, mode in run.modes.items() if run else ():
        _say_what_is_left_out(name)
        trackers[name] = _class_of(name)(run, mode)
    return Trackers(trackers)


@cache
def _say_what_is_left_out(name: str) -> None:
    tracker = _class_of(name)
    left_out = [
        words
        for method, words in _SHOWN_BY.items()
        if getattr(tracker, method) is getattr(Tracker, method)
    ]
    if left_out:
        log.info("Tracker %s leaves out %s.", name, " and ".join(left_out))


def _class_of(name: str) -> Any:
    """The class that `name` stands for, a subclass of `Tracker`.

    Raises:
        UserError: There is none.
    """
    if name not in TRACKERS and "." not in name:
        raise UserError(
            f"{_KEY}: '{name}' is unknown; choose among {', '.join(TRACKERS)}, or name a class of "
            "your own as MODULE.CLASS"
        )
    tracker: Any = resolve(TRACKERS.get(name, name), _KEY)
    if not (isinstance(tracker, type) and issubclass(tracker, Tracker)):
        raise UserError(
            f"{_KEY}: '{name}' is no tracker; name a class that derives from "
            "reasoning_lab.tracking.tracker.Tracker"
        )
    return tracker
