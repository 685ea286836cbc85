"""How devices share the training of a policy: DDP, FSDP2 and DeepSpeed's ZeRO, through Lightning.

A stage's module and its plan of batches are the same under each; what differs is who holds which
weights, and so how a gradient is clipped, a checkpoint written and a whole weight read. Every rank
starts from the whole policy in its own memory. With bfloat16, ZeRO keeps float32 master weights.
"""

import copy
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import DeepSpeedPrecision
from pytorch_lightning.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from reasoning_lab.config.hardware import SHARDED, HardwareConfig
from reasoning_lab.kernels.binding import mixes_precision
from reasoning_lab.kernels.logprobs import use_shared_forward
from reasoning_lab.models.adapters import has_adapter
from reasoning_lab.system.ranks import rank, world_size
from reasoning_lab.types import UserError


class Shards(ModelParallelStrategy):
    """FSDP2; reads the whole weights on rank 0 when training has ended."""

    def teardown(self) -> None:
        _keep_whole(self.lightning_module)
        super().teardown()


class ZeRO(DeepSpeedStrategy):
    """DeepSpeed, on CPUs too; reads the whole weights on rank 0 when training has ended."""

    def setup_environment(self) -> None:
        if not isinstance(self.accelerator, CPUAccelerator):
            super().setup_environment()
            return
        import deepspeed

        # DeepSpeed would compile it for minutes; gloo does as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.parallel_devices = [
            torch.device("cpu", i) for i in range(world_size() // self.num_nodes)
        ]
        # Past Lightning's own refusal of CPUs.
        super(DeepSpeedStrategy, self).setup_environment()

    def teardown(self) -> None:
        _keep_whole(self.lightning_module)
        super().teardown()


class ZeROPrecision(DeepSpeedPrecision):
    """Lightning's, less what would change a batch or its loss."""

    def convert_input(self, data: Any) -> Any:
        """A batch's logprobs and weights stay float32, whatever the policy is."""
        return data

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning has divided the loss by the accumulation; DeepSpeed must not do so again."""
        super().backward(tensor, *args, scale_wrt_gas=False, **kwargs)


def check_drives(hardware: HardwareConfig) -> None:
    """Refuse to offload to drives where DeepSpeed cannot.

    Raises:
        UserError: Its operator for asynchronous files cannot be built here.
    """
    if hardware.offload != "nvme":
        return
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible():
        raise UserError(
            "hardware.offload=nvme: DeepSpeed cannot build its operator 'async_io' here; install "
            "libaio with its headers (libaio-dev), or set hardware.offload=cpu"
        )


@contextmanager
def drives_of(hardware: HardwareConfig, work_dir: Path) -> Iterator[Path | None]:
    """A training's own folder on this machine's drives, removed when the training has ended.

    None = nothing is offloaded to them.
    """
    path = hardware.offload_path
    folder = None if path is None else Path(path).absolute() / work_dir.name
    try:
        yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def trainer_options(
    hardware: HardwareConfig,
    dtype: str,
    clip_norm: float,
    accumulation: int | None,
    drives: Path | None,
) -> dict[str, Any]:
    """What `pl.Trainer` is told of devices and strategy.

    Args:
        hardware: A valid combination, as composition has it.
        dtype: The policy's.
        clip_norm: Largest norm of the gradient; ZeRO clips by itself.
        accumulation: Micro-batches of a device that make a step; None = the module steps itself.
        drives: This training's own folder on the machine's drives; None = they are not used.
    """
    check_drives(hardware)
    options: dict[str, Any] = {
        "accelerator": hardware.accelerator,
        "devices": hardware.devices,
        "num_nodes": hardware.nodes,
    }
    if accumulation is not None:
        options |= {"accumulate_grad_batches": accumulation, "gradient_clip_val": clip_norm}
    if hardware.strategy == "ddp":
        options["strategy"] = "ddp"
    elif hardware.strategy == "fsdp":
        options["strategy"] = Shards(hardware.world_size, 1)
    elif hardware.strategy != "single":
        precision = ZeROPrecision("bf16-true" if dtype == "bfloat16" else "32-true")
        zero = ZeRO(config=zero_config(hardware, clip_norm, drives), precision_plugin=precision)
        options["strategy"] = zero
    return options


def zero_config(hardware: HardwareConfig, clip_norm: float, drives: Path | None) -> dict[str, Any]:
    """What DeepSpeed is told; arguments as in `trainer_options`."""
    zero: dict[str, Any] = {"stage": int(hardware.strategy[-1])}
    if hardware.offload != "none":
        zero["offload_optimizer"] = {"device": hardware.offload}
    if drives is not None:
        zero["offload_optimizer"]["nvme_path"] = str(drives)
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": clip_norm,
    }


def shard(module: pl.LightningModule, policy: PreTrainedModel) -> None:
    """Under FSDP, divide the policy among the ranks, block by block; else do nothing."""
    if not isinstance(module.trainer.strategy, Shards) or hasattr(policy, "_shared_forward"):
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    assert module.device_mesh is not None
    mesh = module.device_mesh["data_parallel"]
    blocks = set(policy._no_split_modules or ())
    for part in list(policy.modules()):
        if type(part).__name__ in blocks:
            fully_shard(part, mesh=mesh)
    fully_shard(policy, mesh=mesh)
    # The logprobs call parts of the policy, past its own forward, whose hooks gather its weights.
    use_shared_forward(policy)
    register_fsdp_forward_method(policy, "_shared_forward")


def whole_weights(policy: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, gathered from all ranks one at a time; every rank reads all of them."""
    for name, parameter in policy.named_parameters():
        if isinstance(parameter, DTensor):
            yield name, parameter.full_tensor().detach()
        elif hasattr(parameter, "ds_id"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach()
        else:
            yield name, parameter.detach()


def gathered_weights(policy: PreTrainedModel) -> dict[str, Tensor]:
    """A copy of every parameter on the CPU of rank 0, empty elsewhere; every rank calls it.

    Beside an adapter it has what learns alone.
    """
    names = [name for name, _ in policy.named_parameters()]
    if has_adapter(policy):
        names = [name for name, value in policy.named_parameters() if value.requires_grad]
    weights = {}
    for name, weight in whole_weights(policy):
        if rank() == 0 and name in names:
            weights[name] = weight.cpu().clone()
    return weights


def sampling_model(
    policy: PreTrainedModel, strategy: str, is_apart: bool = False, in_bfloat16: bool = False
) -> PreTrainedModel:
    """What samples while `policy` trains: the policy itself, or a copy for `copy_weights`.

    It is a copy where no process holds whole weights, and where it is to be apart from the policy
    or in bfloat16, as it always is for a policy of mixed precision. Call it before a strategy
    divides the policy.
    """
    in_bfloat16 = mixes_precision(policy) or (in_bfloat16 and policy.dtype != torch.bfloat16)
    if not (is_apart or in_bfloat16 or strategy in SHARDED):
        return policy
    model: PreTrainedModel = copy.deepcopy(policy).eval()
    for parameter in model.parameters() if in_bfloat16 else ():
        # Buffers keep their precision: positions are too large for bfloat16. A quantized weight is
        # no number.
        if parameter.is_floating_point():
            parameter.data = parameter.data.bfloat16()
    return model


def copy_weights(policy: PreTrainedModel, target: PreTrainedModel) -> None:
    """Bring `target`, a whole copy on every rank, up to the policy's weights."""
    if target is not policy:
        load_weights(target, whole_weights(policy))


@torch.no_grad()
def load_weights(target: PreTrainedModel, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy weights of the policy, by name, to its copy `target`."""
    targets = dict(target.named_parameters())
    for name, weight in weights:
        if targets[name].requires_grad:  # Beside an adapter the others stay as they were.
            targets[name].copy_(weight)


def snapshot(
    weights: Iterable[tuple[str, Tensor]], target: PreTrainedModel
) -> list[tuple[str, Tensor]]:
    """A policy's weights now, for `load_weights` later."""
    targets = dict(target.named_parameters())
    return [
        (name, weight.to(targets[name].dtype, copy=True))
        for name, weight in weights
        if targets[name].requires_grad
    ]


def _keep_whole(module: pl.LightningModule | None) -> None:
    """Keep the policy's state as `module.weights` on rank 0, unless training was cut short."""
    if module is None or module.trainer.interrupted:
        return
    policy = cast(PreTrainedModel, module.policy)
    buffers = dict(policy.named_buffers())
    state = {name: buffers[name].cpu() for name in policy.state_dict() if name in buffers}
    module.weights = state | gathered_weights(policy)  # type: ignore[assignment]


def backward(module: pl.LightningModule, loss: Tensor, last: bool) -> None:
    """Add a micro-batch's gradient, in manual optimization; `last` = the step follows."""
    if isinstance(module.trainer.strategy, ZeRO):
        engine = module.trainer.strategy.deepspeed_engine
        engine.set_gradient_accumulation_boundary(last)
        # Its forward would do so, which here holds every micro-batch: the next one adds to the
        # gradient of those before it.
        engine.optimizer.clear_backward_seen_flag()
    module.manual_backward(loss)


def clipped_step(
    module: pl.LightningModule, optimizer: Optimizer | LightningOptimizer, clip_norm: float
) -> float:
    """Clip the gradient by the norm over all ranks and step; returns that norm."""
    norm = clip(module, optimizer, clip_norm)
    optimizer.step()
    return gradient_norm(module, norm)


def clip(
    module: pl.LightningModule, optimizer: Optimizer | LightningOptimizer, clip_norm: float
) -> Tensor | None:
    """Clip the gradient to a norm over all ranks; the one that it had, or None = ZeRO will clip.

    With `clip_norm` 0 it is measured and left as it is.
    """
    if isinstance(module.trainer.strategy, ZeRO):
        return None
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return torch.nn.utils.clip_grad_norm_(learning, clip_norm or math.inf)


def gradient_norm(module: pl.LightningModule, clipped: Tensor | None) -> float:
    """The gradient's norm over all ranks in the last step: what `clip` gave, or what ZeRO did."""
    if clipped is None:
        engine: Any = module.trainer.strategy.deepspeed_engine  # type: ignore[attr-defined]
        return float(engine.get_global_grad_norm())
    return float(clipped.full_tensor() if isinstance(clipped, DTensor) else clipped)


def mean_over_ranks(values: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The mean of each scalar over all ranks, in one exchange."""
    if world_size() == 1:
        return dict(values)
    together = torch.stack([value.to(device) for value in values.values()])
    dist.all_reduce(together)
    return dict(zip(values, (together / world_size()).unbind(), strict=True))
