"""Memory of a process and bytes on disk: by hand, and against what is really written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.data.tokens.table import arrow_table
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.models.footprint import footprint, state_bytes
from reasoning_lab.models.host import (
    Process,
    machine_bytes,
    policy_file_bytes,
    rank_bytes,
    rollout_file_bytes,
    states_bytes,
    table_bytes,
)
from reasoning_lab.types import Completion, Example, Problem, Rollout, Verdict

ADAMW = "torch.optim.AdamW"


def test_a_process_on_a_cpu_holds_the_device_and_what_it_samples() -> None:
    process = Process(
        on_cpu=True, device=Bounds(1e9, 2e9), loaded=9e9, sampled_tokens=1e6, documents=1e6
    )
    most = 0.8e9 + 1.15 * 2e9 + 1e6 * 100 + 1e6 * 25
    assert rank_bytes(process) == Bounds(0.25e9 + 1e9, most)
    assert rank_bytes(Process(on_cpu=True, device=Bounds(1e9))) == Bounds(1.25e9)


def test_a_process_beside_a_gpu_holds_what_it_loads_and_offloads() -> None:
    loading = Process(on_cpu=False, device=Bounds(5e9, 9e9), loaded=8e9, copies=3e9)
    assert rank_bytes(loading) == Bounds(8.25e9, 4e9 + 2 * 8e9 + 3e9)
    offloading = Process(on_cpu=False, device=Bounds(5e9), loaded=8e9, offloaded=16e9)
    assert rank_bytes(offloading) == Bounds(16.25e9, 4e9 + 2 * 8e9 + 1.5 * 16e9)


def test_a_machine_has_all_its_ranks_and_shared_pages_once() -> None:
    """Each of four ranks has two workers of its own, and the process that starts them."""
    machine = machine_bytes(Bounds(1e9, 2e9), 4, True, Bounds(0, 7e9), 2, 1e9)
    assert machine == Bounds(4e9 + 0.1e9, 4 * (2e9 + 3 * 0.15e9 + 2 * 1e9) + 0.4e9 + 7e9)


def test_files_by_hand() -> None:
    assert policy_file_bytes(8e9, 1000) == Bounds(8e9, 8e9 + 1000 * 100 + 1e6)
    assert rollout_file_bytes(10, 500) == Bounds(0, 10 * 8192 + 500 * 16 + 1e6)
    assert table_bytes(10, 500) == Bounds(0, 500 * 4 + 10 * 28 + 1e6)


def test_a_token_table_takes_four_bytes_a_token() -> None:
    """Each of 100 documents has an untrained prompt; two lists have an offset more."""
    documents = [
        document_of(Example(range(3, 3 + row), range(50)), trained=TrainedPart.COMPLETION)
        for row in range(1, 101)
    ]
    tokens = 100 * 50 + 5050
    size = arrow_table(documents).nbytes
    assert size == pytest.approx(4 * tokens + 100 * 24, abs=2 * 4)
    most = table_bytes(100, tokens).most
    assert most is not None
    assert size < most


@pytest.mark.parametrize(
    ("steps", "states"),
    [(None, (0, 3)), (1, (0, 1)), (9, (0, 3)), (10, (1, 3)), (25, (2, 3)), (500, (2, 3))],
)
def test_states_of_a_training_that_saves_every_tenth_step(
    steps: int | None, states: tuple[int, int]
) -> None:
    """The clock may save one after any step."""
    least, most = states
    assert states_bytes(100.0, steps, 10, kept=2) == Bounds(100 * least, (100 + 1e6) * most)


def test_as_many_states_as_are_kept_and_the_one_that_is_written() -> None:
    assert states_bytes(100.0, 500, 10, kept=5) == Bounds(500, (100 + 1e6) * 6)


def test_a_state_is_as_large_as_what_torch_saves(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **options))
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.ones(1, 4, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state")
    architecture = {"model_type": "llama", **options}
    memory = footprint(architecture, 300, "float32", ADAMW, HardwareConfig())
    assert memory is not None
    written = (tmp_path / "state").stat().st_size
    assert state_bytes(memory, "float32", ADAMW, "single") == pytest.approx(written, rel=0.02)


def test_a_state_is_whole_whatever_devices_share() -> None:
    """ZeRO's float32 weights and two moments beside bfloat16 weights; an adapter's own alone."""
    architecture = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }

    def state(strategy: str, dtype: str, rank: int | None = None) -> tuple[int, int]:
        hardware = HardwareConfig("gpu", devices=8, strategy=strategy)
        memory = footprint(architecture, 300, dtype, ADAMW, hardware, lora_rank=rank)
        assert memory is not None
        return state_bytes(memory, dtype, ADAMW, strategy), memory.trained

    for strategy in ("ddp", "fsdp"):
        size, trained = state(strategy, "float32")
        assert size == 12 * trained
    size, trained = state("deepspeed3", "bfloat16")
    assert size == (2 + 12) * trained
    size, trained = state("single", "bfloat16", rank=4)
    assert size == 6 * trained


def test_written_rollouts_stay_below_their_bound(tmp_path: Path) -> None:
    """Ids as random as can be, four letters a token."""
    rng = np.random.default_rng(0)
    rows, tokens = 20, 5_000
    rollouts = [
        Rollout(
            Problem(f"Problem {row}?", "42", "number", "family"),
            Completion(
                rng.integers(0, 200_000, tokens).tolist(),
                "".join(rng.choice([*"abcdefgh "], 4 * tokens)),
            ),
            "42",
            Verdict.CORRECT,
            "teacher",
        )
        for row in range(rows)
    ]
    write_rollouts(tmp_path / "rollouts.parquet", rollouts)
    bound = rollout_file_bytes(rows, rows * tokens).most
    assert bound is not None
    assert 0.2 * bound < (tmp_path / "rollouts.parquet").stat().st_size < bound
