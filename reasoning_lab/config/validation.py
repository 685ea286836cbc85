"""Schema of `validation`: problems on which a policy is measured while it trains."""

from dataclasses import dataclass, field

from reasoning_lab.config.fields import choice, number


@dataclass
class ValidationConfig:
    """pass@1 on problems of the validation split during training, which it does not change.

    Attributes:
        count: Number of problems, the same for every seed; 0 = none.
        every_steps: How often the policy is validated, beginning with the one that came in.
        samples: Completions a problem.
        temperature: Sampling temperature of these completions.
        top_p: Nucleus sampling of these completions.
        max_new_tokens: Token limit of a completion; null = the stage's own.
        levels: Difficulty levels of the problems; null = the stage's own, or all.
        table_rollouts: Completions of each validation that the tracker gets as a table.
    """

    count: int = number(0, least=0)
    every_steps: int = number(10, least=1)
    samples: int = number(1, least=1)
    temperature: float = number(0.6, least=0.0)
    top_p: float = number(0.95, least=0.001, most=1.0)
    max_new_tokens: int | None = number(None, least=1, when_set=True)
    levels: list[int] | None = field(default=None, metadata={"when_set": True})
    table_rollouts: int = number(16, least=0, placement=True)


@dataclass
class OfflineValidationConfig(ValidationConfig):
    """pass@1 on problems of the validation split, of a stage that samples nothing else.

    Attributes:
        rollout_engine: Engine that samples these completions: hf, or vllm, which gets the policy's
            weights before each validation, as in `rl`.
    """

    rollout_engine: str = choice("hf", "vllm", when_set=True)
