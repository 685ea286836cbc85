"""A write-up and the config that made it come in pairs; `smoke` alone tells nothing."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_numbered_experiment_has_its_config_and_each_config_its_write_up() -> None:
    written = {path.parent.name for path in ROOT.glob("experiments/[0-9]*_*/README.md")}
    # A file, or a folder with a file for each arm.
    configured = {path.stem for path in ROOT.glob("conf/experiment/[0-9]*_*")}
    assert written
    assert written == configured
