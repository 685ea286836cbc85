"""Uploads to the Hugging Face hub, with the token of the environment or of the hub's own login."""

from collections.abc import Mapping
from pathlib import Path

from reasoning_lab.types import UserError


def upload(
    repository: str, files: Mapping[str, Path | bytes], message: str, private: bool = True
) -> str:
    """Upload files in one commit and return the repository's address.

    Args:
        repository: OWNER/NAME; made if it is not there.
        files: By their name in the repository: a file here, or the content itself.
        message: Of the commit.
        private: Whether a repository that is made is private.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    url = api.create_repo(repository, private=private, exist_ok=True)
    api.create_commit(
        repository,
        [CommitOperationAdd(name, content) for name, content in files.items()],
        commit_message=message,
    )
    return str(url)


def require_token(key: str) -> None:
    """Refuse an upload without a token; `key` is what asks for it.

    Raises:
        UserError: HF_TOKEN is not set, and nobody has logged in.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise UserError(
            f"{key}: HF_TOKEN is not set, and there is no login of the hub; set it to a token with "
            "write access, or log in by hf auth login"
        )
