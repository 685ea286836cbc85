"""Policies on the Hugging Face hub: what `export push=` and the option `publish` upload.

A policy goes up in one commit: its files and its card. The card is sent again when the run has
ended, as its evaluations come after it.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from reasoning_lab.commands.export import model_card, published_files
from reasoning_lab.commands.hub_upload import require_token, upload
from reasoning_lab.config.publish import PublishConfig
from reasoning_lab.graph.record import Record
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.types import UserError

log = logging.getLogger(__name__)

_CARD = "README.md"


def check_publish(config: PublishConfig, policies: Sequence[str]) -> None:
    """Refuse what cannot be published, before anything is trained.

    Args:
        config: What is to be published.
        policies: Names of the stages that make a policy.

    Raises:
        UserError: There is no token, the hub would not take the name, or a stage makes no policy.
    """
    if config.repository is None:
        return
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # Public.

    for name in config.stages or []:
        if name not in policies:
            raise UserError(
                f"publish.stages: no stage '{name}' makes a policy; choose among "
                f"{', '.join(policies)}"
            )
    for name in policies:
        repository = _repository(config, name)
        try:
            validate_repo_id(repository)
        except HFValidationError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(
                f"publish.repository={config.repository}: the hub takes no '{repository}' "
                f"({reason}); give OWNER/NAME"
            ) from error
        if "/" not in repository:
            raise UserError(
                f"publish.repository={config.repository}: it names no owner; give OWNER/NAME"
            )
    require_token(f"publish.repository={config.repository}")


class Publisher:
    """Pushes the policies of one run; what fails is a warning.

    Args:
        config: What is to be published; checked by `check_publish`.
    """

    def __init__(self, config: PublishConfig) -> None:
        self._config = config
        self._published: dict[str, tuple[Record, str]] = {}

    def publish(self, name: str, record: Record) -> str | None:
        """Push what stage `name` made; the address, or None where nothing is pushed."""
        config = self._config
        wanted = config.stages is None or name in config.stages
        if config.repository is None or record.kind != Policy.kind or not wanted:
            return None
        files: dict[str, Path | bytes] = {
            file: record.path / file for file in published_files(record)
        }
        card = model_card(record)
        files[_CARD] = card.encode()
        url = self._upload(name, files, f"{record.stage} {record.fingerprint}")
        if url is not None:
            self._published[name] = (record, card)
        return url

    def update_cards(self) -> None:
        """Send those cards again that have more evaluations by now."""
        for name, (record, sent) in self._published.items():
            card = model_card(record)
            if card != sent:
                self._upload(name, {_CARD: card.encode()}, "Evaluations")

    def _upload(self, name: str, files: Mapping[str, Path | bytes], message: str) -> str | None:
        repository = _repository(self._config, name)
        try:
            return upload(repository, files, message, self._config.private)
        except Exception as error:  # As in `export.push`, errors of several libraries.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning(
                "%s was not published at %s (%s); the run goes on, and the same command pushes it "
                "again.",
                name,
                repository,
                reason,
            )
            return None


def _repository(config: PublishConfig, stage: str) -> str:
    return f"{config.repository}-{stage}"
