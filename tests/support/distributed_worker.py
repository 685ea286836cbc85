"""What torchrun starts for test_distributed: several jobs in the processes of one launch.

As in `reasoning_lab.launch.rank`, the verifier's workers import this module again.
"""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

if TYPE_CHECKING:
    from reasoning_lab.training.job import Job

_VOCAB_SIZE = 300  # Of the models there, or more.


def main() -> None:
    from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports

    # Each job ends with a collection, which need not look at what is imported.
    with gc_frozen_imports():
        from reasoning_lab.kernels import logit_chunks
        from reasoning_lab.launch import job as launch
        from reasoning_lab.system.files import rename_with_checksum
        from reasoning_lab.system.ranks import Peers, rank
        from reasoning_lab.training import checkpoints
        from reasoning_lab.verify import build_verifier

    launch.end_with_launcher()
    root = Path(sys.argv[1])
    folders = sorted(path.parent for path in root.glob("*/job.yaml"))
    logits_at_once = logit_chunks.LOGITS_AT_ONCE

    def keep(draft: Path, stem: str) -> Path:
        """As `rename_with_checksum`; also keeps a stage's first state, and its best weights."""
        path = rename_with_checksum(draft, stem)
        first_state = root / "kept" / path.parent.parent.name / path.parent.name
        if not first_state.exists():
            first_state.mkdir(parents=True)
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, first_state / path.name)
            for best in path.parent.glob("best-*"):
                shutil.copy2(best, first_state)
        return path

    hardware = launch.read_job(folders[0]).hardware
    with launch.process_group(hardware), build_verifier(hardware) as verifier:
        peers = Peers()
        with patch.object(checkpoints, "rename_with_checksum", keep):
            for folder in folders:
                job = launch.read_job(folder)
                logit_chunks.LOGITS_AT_ONCE = most_logits(job, logits_at_once)
                launch.work(folder, verifier)
        peers.all_gather(None)
        for folder in folders:
            job = launch.read_job(folder)
            if rank() == 0:
                shutil.move(job.out_dir, folder / "whole")
                job.out_dir.mkdir()
                (folder / "outcome.json").rename(folder / "whole.json")
                for states in job.work_dir.glob(f"{job.hardware.strategy}-*x*"):
                    shutil.rmtree(states)
                shutil.copytree(root / "kept" / job.work_dir.name, job.work_dir, dirs_exist_ok=True)
            peers.all_gather(None)
            logit_chunks.LOGITS_AT_ONCE = most_logits(job, logits_at_once)
            launch.work(folder, verifier)


def most_logits(job: "Job", logits_at_once: int) -> int:
    """One device builds all logits at once, these processes some: the results are the same.

    Not where each part's gradient of the vocabulary projection is rounded to bfloat16.
    """
    return logits_at_once if job.model.dtype == "mixed" else 4 * _VOCAB_SIZE


if __name__ == "__main__":
    main()
