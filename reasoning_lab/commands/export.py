"""A policy of the store as a folder for others: its files and a card that tells how it was made.

Everything on the card is read from records: the chain of stages from each `artifact.json`, data
and licences from the corpora's own cards, results from the evaluations beside them in the store.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reasoning_lab.commands.evaluate import stored_policy
from reasoning_lab.data.card import fenced, markdown_table
from reasoning_lab.data.corpus import PROMPT_IDS
from reasoning_lab.graph.ledger import DROPPED_ROWS, TABLE_COLUMNS, Ledger
from reasoning_lab.graph.recipe import BASE
from reasoning_lab.graph.record import RECORD_FILE, CorruptArtifactError, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.types import UserError

# What a stage leaves for the lab alone.
_OURS = (RECORD_FILE, PROMPT_IDS, DROPPED_ROWS, "history.parquet")
_CARD = "README.md"
_TOKEN = "HF_TOKEN"
_SOURCE_LINES = ("- Problems:", "- Revision:", "- Licence of", "- Completions")
_LIMITS = """\
- It was trained on problems whose answers a program can check, and measured on nothing but what the
  table shows. It was not tested for safety, for other languages or for other tasks.
- What it thinks aloud need not be how it came to its answer.
- Each interval is over new problems with this one policy; another seed's policy differs as well."""


def export(model: str, runs: Path, folder: Path) -> Path:
    """Write the policy's files and its card.

    Args:
        model: A policy's artifact folder, or its fingerprint in the store or the beginning of it.
        runs: Where the store is.
        folder: New or empty.

    Returns:
        The card.

    Raises:
        UserError: There is no such policy, its files are damaged, or the folder holds something.
    """
    place = Path(model) if Path(model).is_dir() else stored_policy(model, runs / "store")
    if place is None or not (place / RECORD_FILE).is_file():
        raise UserError(
            f"model={model}: no policy of a store, so nothing tells how it was made; give a "
            "fingerprint, or a folder runs/store/STAGE/FINGERPRINT"
        )
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"out={folder}: the folder is not empty; name a new one")
    try:
        artifact = Record.read(place.resolve())
        artifact.verify()
    except CorruptArtifactError as error:
        raise UserError(f"model={model}: {error}; run its recipe again to replace it") from error
    if artifact.kind != "policy":
        raise UserError(f"model={model}: it is a {artifact.kind}, not a policy")
    for name in artifact.files:
        if name not in _OURS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / name, folder / name)
    card = folder / _CARD
    card.write_text(model_card(artifact), encoding="utf-8")
    return card


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to a private repository of the hub; the page's address.

    Raises:
        UserError: There is no token in the environment, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    token = check_token(repository)
    try:
        api = HfApi(token=token)
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # Of several libraries: no network, no right, no such name.
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"push={repository}: the hub does not take it ({reason}); '{folder}' is complete, so "
            "upload it later"
        ) from error
    return str(address)


def check_token(repository: str) -> str:
    """The hub's token, from the environment alone."""
    token = os.environ.get(_TOKEN)
    if not token:
        raise UserError(f"push={repository}: {_TOKEN} is not set; set it to a token that may write")
    return token


def model_card(policy: Record) -> str:
    """The text of the card; what the store no longer has is left out and said to be missing."""
    chain = list(_lineage(policy, {}))
    sections = [
        f"---\n{yaml.safe_dump(_header(chain), sort_keys=False)}---",
        f"# {policy.stage} {policy.fingerprint}",
        "A policy made by reasoning_lab. Ask with the chat template; it thinks between `<think>` "
        "and `</think>` and answers in `\\boxed{}`.",
        f"## Recipe\n\n{_recipe(policy, chain)}",
        f"## Data\n\n{_data(chain)}",
        f"## What was dropped\n\n{_dropped(chain)}",
        f"## Evaluation\n\n{_evaluation(chain)}",
        f"## Limits\n\n{_LIMITS}",
        "## Configuration of each stage",
        *(f"### {one.stage} {one.fingerprint}\n\n{_settings(one)}" for one in chain),
    ]
    return "\n\n".join(sections) + "\n"


def _lineage(artifact: Record, seen: dict[str, None]) -> Iterator[Record]:
    """What `artifact` comes from, each once, and itself, in the order in which they were made."""
    for fingerprint in artifact.inputs.values():
        for record in artifact.path.parent.parent.glob(f"*/{fingerprint}/{RECORD_FILE}"):
            if fingerprint not in seen:
                seen[fingerprint] = None
                yield from _lineage(Record.read(record.parent), seen)
    yield artifact


def _model(artifact: Record) -> Mapping[str, Any]:
    model: Mapping[str, Any] = artifact.identity["groups"].get("model", {})
    return model


def _base(chain: Sequence[Record]) -> str | None:
    """The hub id that the chain starts from; None = it has its own base, or a local checkpoint."""
    path = _model(chain[-1]).get("path")
    return path if path is not None and "/" in path and _starts_from_base(chain) else None


def _starts_from_base(chain: Sequence[Record]) -> bool:
    return any(
        one.kind == "policy" and "policy" not in one.inputs and _model(one).get("path")
        for one in chain
    )


def _header(chain: Sequence[Record]) -> dict[str, object]:
    base = _base(chain)
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base} if base else {}),
        "tags": ["reasoning", "reasoning-lab"],
    }


def _recipe(policy: Record, chain: Sequence[Record]) -> str:
    model = _model(policy)
    if not _starts_from_base(chain):
        start = "The base policy was trained from nothing."
    elif (hub := _base(chain)) is not None:
        start = f"It starts from {hub} at revision {model.get('revision')}; that licence holds on."
    else:
        start = f"It starts from a local checkpoint whose content hash is {model.get('path')}."
    rows = [
        (
            one.stage,
            one.fingerprint,
            str(one.seed),
            ", ".join(f"{kind} {maker}" for kind, maker in one.inputs.items()),
            _count(one.metrics.get("train_tokens")),
            _count(one.metrics.get("wall_s")),
        )
        for one in chain
    ]
    heads = ("stage", "artifact", "seed", "made from", "trained tokens", "seconds")
    versions = ", ".join(f"{name} {number}" for name, number in policy.versions.items())
    return f"{start}\n\n{markdown_table(heads, rows)}\n\nMade with {versions}."


def _data(chain: Sequence[Record]) -> str:
    told = [
        f"**{one.stage} {one.fingerprint}**\n\n" + "\n".join(_source_lines(one.path / _CARD))
        for one in chain
        if one.kind == "corpus" and (one.path / _CARD).is_file()
    ]
    drawn = [
        f"- {one.stage} drew its problems by `{data['options'].get('_target_')}`."
        for one in chain
        if (data := one.identity["groups"].get("data"))
    ]
    missing = sorted({m for one in chain for m in one.inputs.values()} - _names(chain))
    gone = [f"The store no longer holds {name}, which it comes from." for name in missing]
    return "\n\n".join([*told, "\n".join(drawn), *gone]).strip() or "None is on record."


def _dropped(chain: Sequence[Record]) -> str:
    """Of each stage and unit what came in, what went out, and why the rest did not."""
    rows = [
        [f"{one.stage} {one.fingerprint}", *cells]
        for one in chain
        for cells in Ledger.of(one.ledger).cells()
    ]
    return markdown_table(("stage", *TABLE_COLUMNS), rows) if rows else "None is on record."


def _names(chain: Sequence[Record]) -> set[str]:
    return {one.fingerprint for one in chain}


def _source_lines(card: Path) -> list[str]:
    lines = card.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(_SOURCE_LINES)]


def _evaluation(chain: Sequence[Record]) -> str:
    """Of every policy of the chain, and of the checkpoint that it starts from."""
    policies = {one.fingerprint: one.stage for one in chain if one.kind == "policy"}
    base = {k: v for k, v in _model(chain[-1]).items() if k != "adapter"}
    found: dict[str, list[tuple[str, ...]]] = {name: [] for name in ("", *policies)}
    for one in Store(chain[-1].path.parent.parent).artifacts():
        of = one.inputs.get("policy", "")
        mine = of in policies or (of == "" and _starts_from_base(chain) and _model(one) == base)
        if one.kind == "evaluation" and mine:
            found[of].append(_result(policies.get(of, BASE), one))
    rows = [row for of in found for row in found[of]]
    heads = (
        "policy",
        "benchmark",
        "pass@1",
        "95% interval",
        "problems",
        "samples",
        "temperature",
        "top-p",
        "max. tokens",
    )
    return markdown_table(heads, rows) if rows else "None is in the store."


def _result(stage: str, one: Record) -> tuple[str, ...]:
    config, measured = one.identity["config"], one.metrics
    sampling = config["benchmark"]["sampling"]
    low, high = measured["ci95"]
    return (
        stage,
        str(config["name"]),
        f"{measured['pass@1']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{measured['n']:,}",
        str(measured["samples"]),
        f"{sampling['temperature']:g}",
        f"{sampling['top_p']:g}",
        f"{sampling['max_new_tokens']:,}",
    )


def _settings(one: Record) -> str:
    return fenced(yaml.safe_dump(dict(one.identity), sort_keys=False).strip(), most=None)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
