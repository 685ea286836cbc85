"""What a node costs: tokens, arithmetic, time and money, each between two bounds.

Artifacts of the store that are alike say what a row took (`estimates.py`). Where there are none,
the config gives upper bounds alone, and the time of these tokens on a known GPU.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from reasoning_lab.commands.estimates import (
    Amount,
    Costs,
    at_most,
    seconds_on,
    train_tokens,
    written_tokens,
)
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.stage import Workload
from reasoning_lab.models.bounds import Bounds
from reasoning_lab.models.cost import (
    DEVICES,
    Decoder,
    Device,
    forward_flops,
    generation_s,
    training_flops,
    training_s,
)
from reasoning_lab.models.footprint import is_known, weight_bytes
from reasoning_lab.training.stage import LabStage, TrainingStage
from reasoning_lab.types import Sequences

# vLLM's own limit on a GPU that is not known.
_VLLM_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a node costs.

    Attributes:
        train_tokens: Trained on.
        written_tokens: Of completions; prompts are not counted.
        flops: Of training on the one and writing the other.
        wall_s: Seconds.
        measured: True = artifacts that are alike took `wall_s`; False = the tokens and the GPU
            give it.
        devices: Devices that are taken meanwhile: all that `hardware` names, or those that a
            cluster is asked for.
        device_s: Seconds of one device, of all of them together.
        money: At `hardware.price_per_hour`; None = there is none.
    """

    train_tokens: Bounds
    written_tokens: Bounds
    flops: Bounds
    wall_s: Bounds
    measured: bool
    devices: int
    device_s: Bounds
    money: Bounds | None


@dataclass(frozen=True)
class NodeConfig:
    """A node, with what the recipe's config says of it.

    Attributes:
        node: The node.
        root: The config.
    """

    node: Node
    root: RootConfig

    @cached_property
    def stage(self) -> LabStage:
        """With its length in steps, where configs bound them."""
        stage = at_most(self.node)
        assert isinstance(stage, LabStage)
        return stage

    @cached_property
    def work(self) -> Workload:
        """In steps."""
        return self.stage.workload()

    @property
    def is_bound(self) -> bool:
        """Whether rows and steps are upper bounds."""
        return self.stage is not self.node.stage

    @cached_property
    def architecture(self) -> dict[str, Any]:
        """The policy's."""
        return architecture_of(self.root.model)

    @cached_property
    def graders(self) -> list[tuple[dict[str, Any], str]]:
        """Architecture and dtype of each policy that it reads and does not train."""
        return [
            (
                self.architecture
                if grader.path is None
                else architecture_of(known_model(grader.path)),
                grader.dtype or self.root.model.sampling_dtype,
            )
            for grader in self.stage.frozen_policies().values()
        ]

    @property
    def vocab_size(self) -> int:
        """Of the architecture."""
        size: int = self.architecture["vocab_size"]
        return size

    @property
    def is_known(self) -> bool:
        """Whether the model's family can be estimated."""
        return is_known(self.architecture)

    @property
    def graders_known(self) -> bool:
        """Whether those of its graders can."""
        return all(is_known(architecture) for architecture, _ in self.graders)

    @property
    def device(self) -> Device | None:
        """The GPU, if it is known."""
        return DEVICES.get(self.root.hardware.gpu_model or "")

    @property
    def sampling_dtype(self) -> str:
        """Precision of what an engine samples from."""
        return self.stage.sampling_dtype(self.root.model)

    @property
    def sampling_weights(self) -> int:
        """Bytes of what an engine samples from."""
        return weight_bytes(self.architecture, self.vocab_size, self.sampling_dtype)

    @property
    def machines(self) -> int:
        """Machines on which it is made."""
        return self.root.hardware.nodes if self.stage.is_spread(self.root.hardware) else 1

    @property
    def ranks(self) -> int:
        """Processes on each."""
        return self.root.hardware.devices if self.stage.is_spread(self.root.hardware) else 1

    @property
    def devices(self) -> int:
        """Devices that are taken meanwhile."""
        hardware, engine = self.root.hardware, self.root.hardware.sampling
        if not hardware.on_cluster:
            return hardware.world_size
        of_engine = engine.tensor_parallel_size * engine.data_parallel_size
        return self.machines * max(self.ranks, of_engine)

    @property
    def _vllm_copies(self) -> int:
        """Copies of vLLM's model that sample at once: one beside each rank, unless ranks share."""
        engine = self.root.hardware.sampling
        copies = max(engine.data_parallel_size, len(engine.rollout_urls))
        if engine.tensor_parallel_size > 1 or engine.rollout_urls:
            return copies
        return max(copies, self.machines * self.ranks)

    @cached_property
    def decoder(self) -> Decoder | None:
        """How its engine decodes; None = a server elsewhere does."""
        hardware, engine = self.root.hardware, self.root.hardware.sampling
        if self.work.engine == "hf":
            return Decoder(hardware.generation_batch_size, copies=self.machines * self.ranks)
        if self.work.engine != "vllm":
            return None
        cache = None if engine.kv_cache_gb is None else engine.kv_cache_gb * 2**30
        if cache is None and self.device is not None:
            share = engine.memory_frac * self.device.memory_bytes * engine.tensor_parallel_size
            cache = max(0.0, share - self.sampling_weights)
        return Decoder(
            self.device.vllm_rows if self.device else _VLLM_ROWS,
            copies=self._vllm_copies,
            devices=engine.tensor_parallel_size,
            cache_bytes=cache,
            starts_kernels=False,
        )


def architecture_of(model: ModelConfig) -> dict[str, Any]:
    """As configured, or of a local checkpoint's config; with its vocabulary's size."""
    config = Path(model.path or "") / "config.json"
    architecture: dict[str, Any] = model.architecture
    if model.path is not None and config.is_file():
        architecture = json.loads(config.read_text(encoding="utf-8"))
    return {"vocab_size": model.vocab_size, **architecture}


def known_model(path: str) -> ModelConfig:
    """What conf/model says of a checkpoint; without an architecture if no option names it."""
    for file in sorted((CONF / "model").glob("*.yaml")):
        option = yaml.safe_load(file.read_text(encoding="utf-8"))
        if option.get("path") == path:
            architecture, vocab_size = option["architecture"], option["vocab_size"]
            return ModelConfig(path, architecture=architecture, vocab_size=vocab_size)
    return ModelConfig(path)


def price(config: NodeConfig, costs: Costs) -> Price:
    """What a node costs, by what artifacts of the store took and by its config."""

    def like(amount: Amount) -> Bounds | None:
        bounds = costs.expected(config.node, amount, config.work.rows)
        return replace(bounds, least=None) if bounds and config.is_bound else bounds

    hardware, work = config.root.hardware, config.work
    data_decides = work.trained is None and isinstance(config.stage, TrainingStage)
    trained = like(train_tokens) or (Bounds() if data_decides else _at_most(work.trained))
    written = like(written_tokens) or _at_most(work.written)
    measured_s = like(seconds_on(hardware.kind))
    flops = seconds = Bounds()
    if config.is_known and config.graders_known and (work.trained or work.written):
        least, most = (trained.least, written.least), (trained.most, written.most)
        extrapolated = trained.extrapolated or written.extrapolated
        flops = Bounds(_flops(config, *least), _flops(config, *most), extrapolated)
        seconds = Bounds(_seconds(config, *least), _seconds(config, *most), extrapolated)
    wall_s = measured_s or seconds
    device_s = wall_s.map(lambda count: count * config.devices)
    rate = hardware.price_per_hour
    return Price(
        train_tokens=trained,
        written_tokens=written,
        flops=flops,
        wall_s=wall_s,
        measured=measured_s is not None,
        devices=config.devices,
        device_s=device_s,
        money=None if rate is None else device_s.map(lambda count: count / 3600 * rate),
    )


def _at_most(rows: Sequences | None) -> Bounds:
    """Tokens of rows that are as long as they may be."""
    return Bounds.exactly(0) if rows is None else Bounds(None, rows.rows * rows.tokens)


def _flops(config: NodeConfig, trained: float | None, written: float | None) -> float | None:
    """Of so many tokens, in rows that are equally long."""
    if trained is None or written is None:
        return None
    rows = config.work.written
    forward = 0.0
    if rows is not None:
        tokens = written / rows.rows
        forward = forward_flops(config.architecture, config.vocab_size, rows.rows, tokens)
    return forward + _training_flops(config, trained)


def _training_flops(config: NodeConfig, tokens: float) -> float:
    """Of training on so many tokens, and of the forward passes of those that grade them."""
    rows, graded = config.work.trained, config.work.graded
    if rows is None:
        return 0.0
    row_tokens = tokens / rows.rows
    training = training_flops(config.architecture, config.vocab_size, rows.rows, row_tokens)
    if graded is None:
        return training
    return training + sum(
        forward_flops(architecture, architecture["vocab_size"], graded.rows, row_tokens)
        for architecture, _ in config.graders
    )


def _seconds(config: NodeConfig, trained: float | None, written: float | None) -> float | None:
    """Of so many tokens on a known GPU."""
    rows, device = config.work.written, config.device
    if device is None or trained is None or written is None:
        return None
    seconds = training_s(_training_flops(config, trained), device, config.machines * config.ranks)
    if rows is None:
        return seconds
    if config.decoder is None:
        return None
    of = (config.architecture, config.vocab_size, config.sampling_dtype)
    tokens = written / rows.rows
    return seconds + generation_s(*of, rows.rows, tokens, config.decoder, device)
