"""The subcommand `export`: copies a policy of the store to a folder and writes its model card.

Everything on the card is read from the store: the stages from each `artifact.json`, data and
licences from the corpora's cards, and results from the evaluations of these policies.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reasoning_lab.commands.arguments import take_values
from reasoning_lab.commands.evaluate import stored_policy
from reasoning_lab.commands.hub_upload import require_token, upload
from reasoning_lab.commands.root_config import PathsConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.card import fenced_block, markdown_table
from reasoning_lab.data.trained_prompts import PROMPT_IDS
from reasoning_lab.evaluate.completions import Evaluation
from reasoning_lab.graph.ledger import DROPPED_ROWS, TABLE_COLUMNS, Ledger
from reasoning_lab.graph.recipe import BASE
from reasoning_lab.graph.record import RECORD_FILE, CorruptArtifactError, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.models.policy_artifact import LAST_WEIGHTS, Policy
from reasoning_lab.types import UserError

# Files of an artifact that only the lab reads.
_INTERNAL_FILES = (RECORD_FILE, PROMPT_IDS, DROPPED_ROWS, "history.parquet")
_CARD = "README.md"
_SOURCE_LINES = ("- Problems:", "- Revision:", "- Licence of", "- Completions")
_LIMITS = """\
- It was trained on problems whose answers a program can check, and measured on nothing but what the
  table shows. It was not tested for safety, for other languages or for other tasks.
- Its written thoughts need not be how it came to its answer.
- Each interval is over new problems with this one policy; another seed's policy differs as well."""


def main(arguments: Sequence[str]) -> None:
    """`model=FINGERPRINT_OR_FOLDER`, `out=FOLDER`, `push=OWNER/NAME` and `paths.runs=FOLDER`."""
    (model, out, repository, runs), unknown = take_values(
        arguments, "model", "out", "push", "paths.runs"
    )
    if not model or not out or unknown:
        raise UserError(
            "export: name what and where to, as in export model=FINGERPRINT out=FOLDER, maybe "
            "with push=OWNER/NAME and paths.runs=FOLDER, and nothing else"
        )
    if repository:
        require_token(f"push={repository}")
    print(f"Card: {export(model, Path(runs or PathsConfig().runs), Path(out))}")
    if repository:
        print(f"Pushed, private: {push(Path(out), repository)}")


def export(model: str, runs: Path, folder: Path) -> Path:
    """Write the policy's files and its card into a new or empty `folder`; the card's path.

    `model` is a policy's artifact folder, or the first digits of its fingerprint in the store.

    Raises:
        UserError: There is no such policy, its files are damaged, or the folder is not empty.
    """
    source = Path(model) if Path(model).is_dir() else stored_policy(model, runs / "store")
    if source is None or not (source / RECORD_FILE).is_file():
        raise UserError(
            f"model={model}: it is not a policy of a store, so its history is unknown; give a "
            "fingerprint, or a folder runs/store/STAGE/FINGERPRINT"
        )
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"out={folder}: the folder is not empty; name a new one")
    try:
        artifact = Record.read(source.resolve())
        artifact.verify()
    except CorruptArtifactError as error:
        raise UserError(f"model={model}: {error}; run its recipe again to replace it") from error
    if artifact.kind != Policy.kind:
        raise UserError(f"model={model}: it is a {artifact.kind}, not a policy")
    for name in published_files(artifact):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.path / name, folder / name)
    card = folder / _CARD
    card.write_text(model_card(artifact), encoding="utf-8")
    return card


def published_files(policy: Record) -> list[str]:
    """Files of a policy's artifact that make it a model; last weights beside the best are not."""
    hidden = f"{LAST_WEIGHTS}/"
    return [
        name for name in policy.files if name not in _INTERNAL_FILES and not name.startswith(hidden)
    ]


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to a private repository of the hub and return its URL.

    Raises:
        UserError: The hub refuses or cannot be reached.
    """
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    try:
        return upload(repository, files, f"Upload {folder.name}")
    except Exception as error:  # Errors of several libraries: no network, no access, no such name.
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"push={repository}: the upload failed ({reason}); '{folder}' is complete, so "
            "upload it later"
        ) from error


def model_card(policy: Record) -> str:
    """The text of the card; it names artifacts that the store no longer has."""
    lineage = list(_lineage(policy, {}))
    path, revision = (_model(policy).get(key) for key in ("path", "revision"))
    from_base = any(
        artifact.kind == Policy.kind
        and Policy.kind not in artifact.inputs
        and _model(artifact).get("path")
        for artifact in lineage
    )
    header: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["reasoning", "reasoning-lab"],
    }
    start = "The base policy was trained from scratch."
    if from_base and path is not None and "/" in path:
        start = f"It starts from {path} at revision {revision}; its licence applies."
        header["base_model"] = path
    elif from_base:
        start = f"It starts from a local checkpoint whose content hash is {path}."
    versions = ", ".join(f"{name} {number}" for name, number in policy.versions.items())
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {policy.stage} {policy.fingerprint}",
        "A policy trained with reasoning_lab. Prompt it with the chat template; it thinks between "
        "`<think>` and `</think>` and answers in `\\boxed{}`.",
        *_system_prompt(policy),
        f"## Recipe\n\n{start}\n\n{_stages(lineage)}\n\nMade with {versions}.",
        f"## Data\n\n{_data(lineage)}",
        f"## What was dropped\n\n{_dropped(lineage)}",
        f"## Evaluation\n\n{_evaluations(lineage, from_base)}",
        f"## Limits\n\n{_LIMITS}",
        "## Configuration of each stage",
    ]
    for artifact in lineage:
        config = yaml.safe_dump(dict(artifact.identity), sort_keys=False).strip()
        block = fenced_block(config, max_characters=None)
        sections.append(f"### {artifact.stage} {artifact.fingerprint}\n\n{block}")
    return "\n\n".join(sections) + "\n"


def _lineage(artifact: Record, seen: dict[str, None]) -> Iterator[Record]:
    """All artifacts that `artifact` was made from, inputs first, and `artifact` itself last."""
    for fingerprint in artifact.inputs.values():
        for record in artifact.path.parent.parent.glob(f"*/{fingerprint}/{RECORD_FILE}"):
            if fingerprint not in seen:
                seen[fingerprint] = None
                yield from _lineage(Record.read(record.parent), seen)
    yield artifact


def _model(artifact: Record) -> Mapping[str, Any]:
    model: Mapping[str, Any] = artifact.identity["groups"].get("model", {})
    return model


def _system_prompt(policy: Record) -> list[str]:
    """A section that shows it; none where there is none."""
    text = _model(policy).get("system_prompt")
    if text is None:
        return []
    block = fenced_block(text, max_characters=None)
    return [f"The chat template puts this before a chat without a system message:\n\n{block}"]


def _stages(lineage: Sequence[Record]) -> str:
    rows = []
    for artifact in lineage:
        inputs = [f"{kind} {fingerprint}" for kind, fingerprint in artifact.inputs.items()]
        spent = [artifact.metrics.get(key) for key in ("train_tokens", "wall_s")]
        counts = ["" if value is None else f"{value:,.0f}" for value in spent]
        about = (artifact.stage, artifact.fingerprint, str(artifact.seed), ", ".join(inputs))
        rows.append((*about, *counts))
    header = ("stage", "artifact", "seed", "made from", "trained tokens", "seconds")
    return markdown_table(header, rows)


def _data(lineage: Sequence[Record]) -> str:
    corpora, sources = [], []
    for artifact in lineage:
        card = artifact.path / _CARD
        if artifact.kind == Corpus.kind and card.is_file():
            lines = card.read_text(encoding="utf-8").splitlines()
            about = "\n".join(line for line in lines if line.startswith(_SOURCE_LINES))
            corpora.append(f"**{artifact.stage} {artifact.fingerprint}**\n\n{about}")
        if data := artifact.identity["groups"].get("data"):
            # Import path of the user's own source, or of the options of one of the lab's.
            source = data["options"].get("_target_") or data["options"].get("_class_")
            sources.append(f"- {artifact.stage} drew its problems by `{source}`.")
    inputs = {name for artifact in lineage for name in artifact.inputs.values()}
    missing = [
        f"The store no longer has {name}, from which it was made."
        for name in sorted(inputs - {artifact.fingerprint for artifact in lineage})
    ]
    return "\n\n".join([*corpora, "\n".join(sources), *missing]).strip() or "None is on record."


def _dropped(lineage: Sequence[Record]) -> str:
    """For each stage and unit, the counts of inputs, outputs and drops by reason."""
    rows = [
        [f"{artifact.stage} {artifact.fingerprint}", *cells]
        for artifact in lineage
        for cells in Ledger.of(artifact.ledger).cells()
    ]
    return markdown_table(("stage", *TABLE_COLUMNS), rows) if rows else "None is on record."


def _evaluations(lineage: Sequence[Record], from_base: bool) -> str:
    """Results of every policy of the lineage, and of the base model that it starts from."""
    policies = {
        artifact.fingerprint: artifact.stage for artifact in lineage if artifact.kind == Policy.kind
    }
    base = {key: value for key, value in _model(lineage[-1]).items() if key != "adapter"}
    rows_by_policy: dict[str, list[dict[str, str]]] = {name: [] for name in ("", *policies)}
    for artifact in Store(lineage[-1].path.parent.parent).artifacts():
        policy = artifact.inputs.get(Policy.kind, "")
        is_base = policy == "" and from_base and _model(artifact) == base
        if artifact.kind == Evaluation.kind and (policy in policies or is_base):
            rows_by_policy[policy].append(_result(policies.get(policy, BASE), artifact))
    rows = [row for rows in rows_by_policy.values() for row in rows]
    if not rows:
        return "None is in the store."
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def _result(policy: str, evaluation: Record) -> dict[str, str]:
    config, metrics = evaluation.identity["config"], evaluation.metrics
    sampling = config["benchmark"]["sampling"]
    low, high = metrics["ci95"]
    return {
        "policy": policy,
        "benchmark": str(config["benchmark_name"]),
        "pass@1": f"{metrics['pass@1']:.1%}",
        "95% interval": f"{low:.1%} to {high:.1%}",
        "problems": f"{metrics['n']:,}",
        "samples": str(metrics["samples"]),
        "temperature": f"{sampling['temperature']:g}",
        "top-p": f"{sampling['top_p']:g}",
        "max. tokens": f"{sampling['max_new_tokens']:,}",
    }
