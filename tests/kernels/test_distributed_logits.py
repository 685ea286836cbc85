"""Logits in chunks where ZeRO-3 keeps the vocabulary projection in parts, in two real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.divided_head import AT_ONCE, STEPS, VOCAB

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def test_ranks_with_chunks_of_their_own_number_equal_one_process(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.support.divided_head", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert process.returncode == 0, process.stderr[-6000:]
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        assert [result["step"] for result in results] == [*STEPS, *STEPS]
        for result in results:
            assert abs(result["value"]) < 1e-5, result
            assert result["gradient"] < 1e-5 < 1e-3 < result["largest_gradient"], result
            # Rank 0 has its 90 tokens in two chunks, rank 1 its 600 in twelve. The largest tensor
            # is DeepSpeed's buffer of all weights.
            assert result["largest_bytes"] >= 4 * AT_ONCE * VOCAB, result
            if rank == 1:
                assert result["largest_bytes"] < result["logits_bytes"] / 4, result
