"""What a process of vLLM beside trainers is told; vLLM itself is not needed for it."""

from dataclasses import replace

import pytest
import torch

from reasoning_lab.config.hardware import HardwareConfig, SamplingHardwareConfig
from reasoning_lab.config.rollout_engine import uses_servers
from reasoning_lab.sampling.vllm import vllm_environment
from reasoning_lab.types import UserError
from tests.support.stages import RL

TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def on_gpus(strategy: str = "single", **sampling: object) -> HardwareConfig:
    limits = SamplingHardwareConfig(**sampling)  # type: ignore[arg-type]
    return HardwareConfig(accelerator="gpu", strategy=strategy, devices=2, sampling=limits)


@pytest.mark.parametrize(
    ("seen", "devices", "expected"),
    [
        (None, (0, 1), "0"),
        (None, (3, 1), "3"),
        (None, (2, 2), "2,3"),
        # This process's second GPU is the machine's sixth.
        ("4,5,6", (1, 1), "5"),
        ("GPU-a,GPU-b", (1, 1), "GPU-b"),
        ("4,5,6", None, "4,5,6"),
        (None, None, None),
    ],
)
def test_a_vllm_sees_the_gpus_of_its_rank_alone(
    seen: str | None,
    devices: tuple[int, int] | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert vllm_environment(on_gpus(), devices).get("CUDA_VISIBLE_DEVICES") == expected


def test_a_vllm_is_no_rank_of_the_trainers_and_has_the_threads_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in TORCHRUN:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment = vllm_environment(HardwareConfig(threads=3), (0, 1))
    assert not environment.keys() & set(TORCHRUN)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"] == "3"
    threads = vllm_environment(HardwareConfig(), (0, 1))["OMP_NUM_THREADS"]
    assert threads == str(torch.get_num_threads())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed3"])
def test_each_rank_has_a_vllm_unless_servers_are_named_or_several_devices_share_one(
    strategy: str,
) -> None:
    assert not uses_servers(on_gpus(strategy))
    assert not uses_servers(on_gpus(strategy, data_parallel_size=2))
    for shared in ({"tensor_parallel_size": 2}, {"rollout_urls": ["http://a:1"]}):
        assert uses_servers(on_gpus(strategy, **shared))
        stage = replace(RL, rollout_engine="vllm")
        with pytest.raises(UserError, match=r"^hardware.sampling.sleep: only vLLM in"):
            stage.check("stages.rl", on_gpus(strategy, sleep=True, **shared))
