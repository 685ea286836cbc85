"""Schema of `publish`: whether the policies of a run are pushed to the hub."""

from dataclasses import dataclass, field

from reasoning_lab.config.fields import placement


@dataclass
class PublishConfig:
    """Policies pushed to the Hugging Face hub as soon as they are there, each to its repository.

    The token is that of HF_TOKEN, or of the hub's own login. A push that fails is a warning.

    Attributes:
        repository: OWNER/NAME; the policy of a stage goes to OWNER/NAME-STAGE. null = none is
            pushed.
        stages: Names of the stages whose policies are pushed; null = of all.
        private: Whether a repository that is made for a policy is private. One that is there
            stays as it is.
    """

    repository: str | None = placement(None)
    stages: list[str] | None = field(default=None, metadata={"placement": True})
    private: bool = placement(True)
