"""Which devices, strategies and clusters a recipe may be given."""

import pytest

from reasoning_lab.commands.compose import check_hardware
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.hardware import HardwareConfig, RayConfig, SlurmConfig
from reasoning_lab.types import UserError
from tests.conftest import Compose

GENERATED = "reasoning_lab.data.sources.config.ReasoningGymConfig"
GENERATED_OPTIONS = "{families: {gcd: {1: {}}}, test_frac: 0.1, validation_frac: 0.1}"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
STAGE_OPTIONS = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))


def test_micro_batch_that_holds_a_whole_step_is_no_mistake(composed: Compose) -> None:
    """It divides 20, 12 and 16; the 3 rows of mid-training fit in, and RL splits as it comes."""
    assert composed("hardware.micro_batch_size=4", "stages.rl.optimization.batch_size=7").nodes


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["hardware.devices=2"], r"^hardware\.devices=2: strategy=single uses one; set"),
        (
            ["hardware.strategy=ddp", "hardware.nodes=2"],
            r"^hardware\.nodes=2: other machines are reached through SLURM or Ray; choose",
        ),
        (["hardware.nodes=2"], r"^hardware\.nodes=2: strategy=single uses one; set"),
        (
            ["hardware.strategy=ddp", "hardware.offload=cpu"],
            r"^hardware\.offload=cpu: strategy=ddp has no offloading; set hardware\.strategy to",
        ),
        (
            ["hardware.strategy=ddp", "hardware.devices=3"],
            r"^hardware\.devices=3 does not divide stages\.pretrain\.optimization\.batch_size=20;",
        ),
        (
            ["hardware.strategy=ddp", "hardware.devices=2", "hardware.micro_batch_size=4"],
            r"^hardware\.micro_batch_size=4 does not divide .*batch_size=20 / hardware\.devices=2;",
        ),
        (
            ["hardware.strategy=fsdp", "hardware.devices=2"],
            r"^stages\.pretrain\.optimization\.optimizer: hardware\.strategy=fsdp updates shards, "
            r"which 'reasoning_lab\.training\.muon\.MuonAdamW' cannot; choose adamw, as in "
            r"optimizer@stages",
        ),
        (
            ["hardware.strategy=deepspeed2", "model/adapter=lora"],
            r"^model\.adapter: strategy=deepspeed2 divides weights .* set hardware\.strategy to",
        ),
        (
            ["hardware.strategy=zero"],
            r"^hardware\.strategy: 'zero' is unknown; choose single, ddp,",
        ),
    ],
)
def test_impossible_strategy_is_one_sentence(
    overrides: list[str], complaint: str, composed: Compose
) -> None:
    with pytest.raises(UserError, match=complaint) as refusal:
        composed("~stages.midtrain", *overrides)
    assert "\n" not in str(refusal.value)


def test_a_stage_is_made_on_one_kind_of_cluster() -> None:
    hardware = HardwareConfig(slurm=SlurmConfig(), ray=RayConfig())
    with pytest.raises(UserError, match=r"^hardware\.slurm and hardware\.ray: a stage is made"):
        check_hardware(hardware)


def test_strategy_is_no_identity(composed: Compose) -> None:
    alone = [node.fingerprint for node in composed("~stages.midtrain").nodes]
    alike = ["hardware.devices=1", "hardware.micro_batch_size=1"]
    clusters = [[f"hardware={name}", *alike] for name in ("slurm", "ray")]
    for wide in (["hardware.devices=2"], *clusters):
        nodes = composed(*wide, "hardware.strategy=ddp", "~stages.midtrain").nodes
        assert [node.fingerprint for node in nodes] == alone
