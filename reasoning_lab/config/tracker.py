"""Schema of `tracker`: where metrics go."""

from dataclasses import dataclass, field

from reasoning_lab.config.fields import number, placement


@dataclass
class TrackerConfig:
    """Trackers; Weights & Biases goes offline by itself when there is no key or no server.

    Attributes:
        backends: What shows a run, several at once if you like: wandb, trackio, or a class of your
            own as MODULE.CLASS.
        mode: auto, online, offline or disabled; trackio is never online.
        project: W&B project; trackio's too.
        entity: W&B user or team; null = the key's own.
        tags: Put on every run.
        system_metrics: Whether the tracker measures processor, memory, disk, network and GPUs while
            a stage runs, W&B every 15 s, trackio every 10 s. Off by default, as a thread of each
            run then reads them.
        connect_timeout_s: How long `auto` waits for the server before it goes offline.
    """

    backends: list[str] = field(default_factory=lambda: ["wandb"], metadata={"placement": True})
    mode: str = placement("auto", ("auto", "online", "offline", "disabled"))
    project: str = placement("reasoning-lab")
    entity: str | None = placement(None)
    tags: list[str] = field(default_factory=list, metadata={"placement": True})
    system_metrics: bool = placement(False)
    connect_timeout_s: float = number(3.0, least=0.0, placement=True)
