"""Schema of `tracker`: where metrics go."""

from dataclasses import dataclass, field

from reasoning_lab.config.fields import number, placement


@dataclass
class TrackerConfig:
    """Weights & Biases; offline by itself when there is no key or no server.

    Attributes:
        mode: auto, online, offline or disabled.
        project: W&B project.
        entity: W&B user or team; null = the key's own.
        tags: Put on every run.
        system_metrics: Whether W&B measures processor, memory, disk, network and GPUs while a stage
            runs, every 15 s. Off by default, as a thread of each run then reads them.
        connect_timeout_s: How long `auto` waits for the server before it goes offline.
    """

    mode: str = placement("auto", ("auto", "online", "offline", "disabled"))
    project: str = placement("reasoning-lab")
    entity: str | None = placement(None)
    tags: list[str] = field(default_factory=list, metadata={"placement": True})
    system_metrics: bool = placement(False)
    connect_timeout_s: float = number(3.0, least=0.0, placement=True)
