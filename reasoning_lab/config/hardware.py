"""Schema of `hardware`: where a run is made and how wide. None of it is identity; no torch here."""

import os
from dataclasses import dataclass, field
from typing import Any

from reasoning_lab.config.fields import number, placement

STRATEGIES = ("single", "ddp", "fsdp", "deepspeed1", "deepspeed2", "deepspeed3")
# Those under which no process holds whole weights.
SHARDED = ("fsdp", "deepspeed3")
OFFLOADS = ("none", "cpu", "nvme")
KERNELS = ("fused", "reference")
GPU_MODELS = ("a10", "a100", "b200", "h100", "h200", "l4", "l40s", "rtx4090")


@dataclass
class SamplingHardwareConfig:
    """What engines may take of this machine, or of a server.

    Attributes:
        tensor_parallel_size: Devices that share one copy of vLLM's model.
        data_parallel_size: Copies of vLLM's model, each in a process of its own, for stages of one
            process; in RL each of several ranks has a copy.
        memory_frac: vLLM's share of a GPU's memory.
        kv_cache_gb: Memory of vLLM's keys and values; null = what is left of `memory_frac`.
        sleep: Whether vLLM gives its memory of the device back between two samplings, for a
            trainer that shares it; needs a GPU, and no server.
        cache: Whether transformers keeps what it has read between two tokens; false = it reads the
            whole text again for each, which is slow and right for models that need another cache.
        url: The OpenAI-compatible server; null = OPENAI_BASE_URL, or else OpenAI's.
        rollout_urls: vLLM servers that draw the rollouts of reinforcement learning and are given
            the policy's weights; empty = each rank has a vLLM of its own.
        weights_dir: Where they read these weights, unless they get them over NCCL; null = the
            stage's work folder, which a server on this machine sees.
        requests_in_flight: Most requests that wait for the server's answer at a time.
        requests_per_minute: Most requests started in a minute; null = no limit.
        request_retries: How often a request that failed or was refused for now is tried again.
        request_timeout_s: Longest wait for one answer.
    """

    tensor_parallel_size: int = number(1, least=1, placement=True)
    data_parallel_size: int = number(1, least=1, placement=True)
    memory_frac: float = number(0.9, least=0.01, most=1.0, placement=True)
    kv_cache_gb: float | None = number(None, least=0.01, placement=True)
    sleep: bool = placement(False)
    cache: bool = placement(True)
    url: str | None = placement(None)
    rollout_urls: list[str] = field(default_factory=list, metadata={"placement": True})
    weights_dir: str | None = placement(None)
    requests_in_flight: int = number(32, least=1, placement=True)
    requests_per_minute: float | None = number(None, least=0.1, placement=True)
    request_retries: int = number(8, least=0, placement=True)
    request_timeout_s: float = number(600.0, least=0.1, placement=True)


@dataclass
class SlurmControllerConfig:
    """What the job of `reasoning-lab submit` asks of the cluster: it runs the command itself.

    Attributes:
        time_limit_minutes: Of one start; at its end the job requeues itself and goes on.
        cpus: CPU cores.
        memory_gb: Memory.
        sbatch: Further options of sbatch, as those of the stages; it takes none of theirs.
    """

    time_limit_minutes: int = number(1440, least=2, placement=True)
    cpus: int = number(2, least=1, placement=True)
    memory_gb: int = number(8, least=1, placement=True)
    sbatch: dict[str, Any] = field(default_factory=dict, metadata={"placement": True})


@dataclass
class SlurmConfig:
    """What each stage that is made as a job of a SLURM cluster asks of it.

    Attributes:
        time_limit_minutes: Of one start; near its end the job saves its training state and requeues
            itself.
        signal_delay_s: Seconds before the time limit at which it does so; a step and a state should
            fit in.
        restarts_without_progress: How often in a row a stage starts again that has saved nothing in
            between, before it is given up.
        cpus_per_device: CPU cores of each process.
        sbatch: Further options of sbatch by their long names, without the dashes in front:
            partition, account, mem, …; a flag's value is true.
        controller: The job of `reasoning-lab submit`.
    """

    time_limit_minutes: int = number(1440, least=2, placement=True)
    signal_delay_s: int = number(300, least=1, placement=True)
    restarts_without_progress: int = number(3, least=0, placement=True)
    cpus_per_device: int = number(8, least=1, placement=True)
    sbatch: dict[str, Any] = field(default_factory=dict, metadata={"placement": True})
    controller: SlurmControllerConfig = field(
        default_factory=SlurmControllerConfig, metadata={"placement": True}
    )


@dataclass
class RayConfig:
    """What each stage that is made on machines of a Ray cluster asks of it.

    Attributes:
        address: The cluster's; null = RAY_ADDRESS, or the one that this machine belongs to.
        restarts_without_progress: How often in a row a stage that lost a machine starts again
            without having saved anything in between, before it is given up.
        cpus_per_device: CPU cores of each process.
        resources: Further resources that each machine has, by the cluster's own names.
    """

    address: str | None = placement(None)
    restarts_without_progress: int = number(3, least=0, placement=True)
    cpus_per_device: int = number(8, least=1, placement=True)
    resources: dict[str, float] = field(default_factory=dict, metadata={"placement": True})


@dataclass
class HardwareConfig:
    """Where and how wide; never part of a result's identity.

    Attributes:
        accelerator: Lightning's name for the device: cpu, gpu or auto.
        gpu_model: The GPU, by which `plan` estimates hours and a training logs `device/mfu`;
            null = neither.
        price_per_hour: Of one device, in any currency, by which `plan` has a column of money; null
            = it has none.
        devices: Devices of one machine that train a stage together, a process each.
        nodes: Machines that train a stage together, with `devices` each.
        slurm: Every stage is made as a job of a SLURM cluster; null = by this machine.
        ray: Every stage is made on machines of a Ray cluster; null = by this machine.
        strategy: How they share it: single; ddp, a copy of the policy on each; fsdp, shards of
            weights, gradients and optimizer state; deepspeed1, 2 and 3, ZeRO's shards of the
            optimizer state, of the gradients too, and of the weights too.
        offload: Where ZeRO keeps the optimizer's state and the float32 weights: none = on the
            device, cpu = in memory, nvme = on drives, which deepspeed3 alone can.
        offload_path: Folder on the drives of each machine; with offload=nvme.
        activation_checkpointing: Whether the backward pass computes activations again instead of
            keeping them.
        kernels: fused = attention, norms, vocabulary projection and decoding of this lab; reference
            = the model's own forward as transformers has it, with the logits of all tokens in
            memory, for models whose logits are more than hidden states times a matrix.
        threads: CPU threads of torch; null = one a core.
        micro_batch_size: Rows a forward pass, at most; null = the global batch at once. Except in
            RL, one that is smaller than a device's share of `batch_size` divides that share.
        generation_batch_size: Rows decoded together.
        sampling: What engines may take of this machine, or of a server.
        verifier_workers: Processes that check answers.
        verifier_timeout_s: Wall-clock limit of one check.
        verifier_memory_mb: Memory that a check may take beyond its worker's own.
    """

    accelerator: str = placement("cpu")
    gpu_model: str | None = placement(None, GPU_MODELS)
    price_per_hour: float | None = number(None, least=0.0, placement=True)
    devices: int = number(1, least=1, placement=True)
    nodes: int = number(1, least=1, placement=True)
    slurm: SlurmConfig | None = field(default=None, metadata={"placement": True})
    ray: RayConfig | None = field(default=None, metadata={"placement": True})
    strategy: str = placement("single", STRATEGIES)
    offload: str = placement("none", OFFLOADS)
    offload_path: str | None = placement(None)
    activation_checkpointing: bool = placement(False)
    kernels: str = placement("fused", KERNELS)
    threads: int | None = number(None, least=1, placement=True)
    micro_batch_size: int | None = number(None, least=1, placement=True)
    generation_batch_size: int = number(256, least=1, placement=True)
    sampling: SamplingHardwareConfig = field(
        default_factory=SamplingHardwareConfig, metadata={"placement": True}
    )
    verifier_workers: int = number(1, least=1, placement=True)
    verifier_timeout_s: float = number(5.0, least=0.1, placement=True)
    verifier_memory_mb: int = number(1024, least=64, placement=True)

    @property
    def on_cluster(self) -> bool:
        """Whether stages are made on other machines than the command's."""
        return self.slurm is not None or self.ray is not None

    @property
    def kind(self) -> str:
        """Devices on which a stage takes as long as on others of the same kind."""
        if self.accelerator == "cpu":
            return f"{self.world_size} x {self.threads or os.cpu_count()} threads of a CPU"
        return f"{self.world_size} x {self.gpu_model or self.accelerator}"

    @property
    def world_size(self) -> int:
        """Devices that train a stage together, of all machines."""
        return self.devices * self.nodes
