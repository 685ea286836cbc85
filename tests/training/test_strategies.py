"""What DeepSpeed is told of drives, read by its own config, and what is said where it has none."""

from pathlib import Path

import pytest

pytest.importorskip("deepspeed")
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import OffloadDeviceEnum

from reasoning_lab.commands.plan import planned
from reasoning_lab.training.strategies import check_drives, drives_of, zero_config
from reasoning_lab.types import UserError
from tests.conftest import Compose
from tests.support.composition import PHI4_BY_TRANSFORMERS

ON_DRIVES = (
    *PHI4_BY_TRANSFORMERS,
    "hardware=h100x8_zero3",
    "model.dtype=bfloat16",
    "hardware.offload=nvme",
    "hardware.offload_path=/drive",
)


def test_deepspeed_reads_the_drive_from_what_it_is_told(composed: Compose) -> None:
    hardware = composed(*ON_DRIVES).root.hardware
    with drives_of(hardware, Path("runs/work/sft-abc")) as drives:
        options = zero_config(hardware, 1.0, drives)
    read = DeepSpeedZeroConfig(**options["zero_optimization"])
    assert read.stage == 3
    assert read.offload_optimizer is not None
    assert read.offload_optimizer.device == OffloadDeviceEnum.nvme
    assert read.offload_optimizer.nvme_path == Path("/drive/sft-abc")


def test_plan_moves_the_states_from_memory_to_the_drives(composed: Compose) -> None:
    """Sixteen bytes a parameter: float32 weights, gradients and AdamW's two moments."""
    (node,) = [n for n in planned([composed(*ON_DRIVES)]) if n.stage == "sft"]
    assert node.memory is not None
    assert node.memory.nvme == 16 * node.memory.parameters
    assert (node.memory.host, node.memory.optimizer, node.memory.master) == (0, 0, 0)


def test_drives_without_the_operator_are_refused(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda self: False)
    with pytest.raises(UserError, match=r"^hardware\.offload=nvme: .* 'async_io' here; install"):
        check_drives(composed(*ON_DRIVES).root.hardware)
    check_drives(composed(*PHI4_BY_TRANSFORMERS).root.hardware)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hardware.strategy=deepspeed2"], "offload=nvme: strategy=deepspeed2 cannot offload to"),
        (["hardware.offload=cpu"], "offload_path=/drive: it is the folder on the drives of"),
        (["hardware.offload_path=null"], "offload_path=None: it is the folder on the drives of"),
    ],
)
def test_what_cannot_be_offloaded_is_one_sentence(
    overrides: list[str], message: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=message):
        composed(*ON_DRIVES, *overrides)
