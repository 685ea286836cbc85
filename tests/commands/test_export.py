"""An exported policy: the same files, and a card that agrees with the records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasoning_lab.commands import export as command
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.graph.record import Metadata, Record
from reasoning_lab.graph.store import Store
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.markup import plain_tokens
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.tokenizer import prompt_texts, prompt_tokens
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.types import Example, UserError

STAGES = ["pretrain", "distill", "midtrain", "sft", "prefer_teacher", "dpo", "rl"]


def export(*words: str) -> None:
    command.main(words)


@pytest.fixture(scope="module")
def artifacts(smoke_run: Path) -> dict[str, Record]:
    store = smoke_run / "runs" / "store"
    artifacts = [Record.read(record.parent) for record in sorted(store.glob("*/*/artifact.json"))]
    return {artifact.stage: artifact for artifact in artifacts if artifact.kind != "evaluation"}


@pytest.fixture(scope="module")
def exported(
    smoke_run: Path, artifacts: dict[str, Record], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "policy"
    fingerprint = artifacts["rl"].fingerprint[:10]
    export(f"model={fingerprint}", f"out={folder}", f"paths.runs={smoke_run / 'runs'}")
    return folder


def test_files_are_those_of_the_store_s_policy(
    exported: Path, artifacts: dict[str, Record]
) -> None:
    """tests/sampling/test_vllm.py has vLLM load such a folder."""
    ours = {path.name for path in exported.iterdir()}
    assert ours == {*artifacts["rl"].files, "README.md"} - {"history.parquet", "prompt_ids.txt"}
    assert {"model.safetensors", "tokenizer.json", "generation_config.json"} <= ours
    for name in ours - {"README.md"}:
        assert (exported / name).read_bytes() == (artifacts["rl"].path / name).read_bytes()


def test_it_answers_in_transformers_as_in_the_lab(exported: Path) -> None:
    # `Any`: transformers' types of `generate` and of a template's tokens do not fit each other.
    model: Any = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    chat = [{"role": "user", "content": "What is 2 + 3?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    theirs = model.generate(**prompt, do_sample=False, max_new_tokens=12)
    policy, ours = load_policy(exported, "float32")
    ids = prompt_tokens(ours, ["What is 2 + 3?"])
    (completion,) = HFEngine(policy, ours, 1).complete(ids, Sampling(0.0, 1.0, 12), [0])
    assert torch.equal(theirs[0], torch.tensor([*ids[0], *completion.token_ids]))


def test_the_evaluation_harness_reads_it_as_the_lab_does(exported: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=str(exported), device="cpu")
    policy, tokenizer = load_policy(exported, "float32")
    questions = ["What is 2 + 3?", "What is 4 - 1?"]
    prompts = [
        harness.apply_chat_template([{"role": "user", "content": question}])
        for question in questions
    ]
    assert prompts == prompt_texts(tokenizer, questions)
    answers = ["\\boxed{5}", "it is\n\\boxed{4}"]
    pairs = list(zip(prompts, answers, strict=True))
    results = harness.loglikelihood(
        [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)],
        disable_tqdm=True,
    )
    examples = [
        Example(prompt, answer)
        for prompt, answer in zip(
            prompt_tokens(tokenizer, questions), plain_tokens(tokenizer, answers), strict=True
        )
    ]
    with torch.no_grad():
        batch = completion_batch(examples)
        sums = batch.sum_by_document(token_logprobs(policy, batch))
    assert [logprob for logprob, _ in results] == pytest.approx(sums.tolist(), abs=1e-4)


def test_card_tells_what_the_records_tell(
    exported: Path, smoke_run: Path, artifacts: dict[str, Record]
) -> None:
    _, header, card = (exported / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["pipeline_tag"] == "text-generation"
    recipe = card[card.index("## Recipe") : card.index("## Data")]
    rows = [line.split(" | ") for line in recipe.splitlines() if line.startswith("| ")][2:]
    # By hand: a policy's stages in the order in which each was needed.
    assert [row[0].removeprefix("| ") for row in rows] == STAGES
    for row in rows:
        artifact = artifacts[row[0].removeprefix("| ")]
        assert row[1:3] == [artifact.fingerprint, str(artifact.seed)]
        assert f"### {artifact.stage} {artifact.fingerprint}" in card
    assert "trained from scratch" in recipe
    dropped = card[card.index("## What was dropped") : card.index("## Evaluation")]
    for artifact in (artifacts["midtrain"], artifacts["distill"]):
        for unit, counts in artifact.ledger.items():
            name = f"{artifact.stage} {artifact.fingerprint} | {unit.replace('_', ' ')}"
            assert f"| {name} | {counts['in']:,} | {counts['out']:,} |" in dropped
    data = card[card.index("## Data") : card.index("## What was dropped")]
    assert "- Licence of the problems: Apache-2.0" in data
    results = [line for line in card.splitlines() if "| heldout |" in line]
    assert [line.split(" | ")[0] for line in results] == [
        f"| {name}" for name in ("pretrain", "midtrain", "sft", "dpo", "rl")
    ]
    (evaluation,) = [
        record
        for path in (smoke_run / "runs/store/evaluate").glob("*/artifact.json")
        if (record := json.loads(path.read_text()))["inputs"]["policy"]
        == artifacts["rl"].fingerprint
    ]
    low, high = evaluation["metrics"]["ci95"]
    assert f"| {low:.1%} to {high:.1%} | 14 | 1 |" in results[-1]
    settings = card.split(f"### rl {artifacts['rl'].fingerprint}")[1].split("```")[1]
    assert yaml.safe_load(settings.removeprefix("text"))["config"]["group_size"] == 8


def test_card_names_the_checkpoint_that_the_recipe_started_from(tmp_path: Path) -> None:
    """It also names an input that the store no longer has."""
    identity = {
        "config": {},
        "groups": {"model": {"path": "owner/base", "revision": "abc"}},
        "inputs": {"corpus": "0" * 16},
        "seed": 0,
    }

    def build(out_dir: Path, work_dir: Path) -> Metadata:
        (out_dir / "config.json").write_text("{}")
        return Metadata(kind="policy", identity=identity, inputs={"corpus": "0" * 16}, seed=0)

    def evaluation_of(model: dict[str, str], score: float) -> Callable[[Path, Path], Metadata]:
        sampling = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 9}
        config = {"benchmark_name": "aime24", "benchmark": {"sampling": sampling}}
        return lambda out_dir, work_dir: Metadata(
            kind="evaluation",
            identity={"config": config, "groups": {"model": model}},
            inputs={},
            seed=0,
            metrics={"pass@1": score, "ci95": [0.0, 0.5], "n": 30, "samples": 3},
        )

    store = Store(tmp_path / "runs/store")
    store.obtain("sft", "a" * 16, build)
    store.obtain(
        "evaluate", "b" * 16, evaluation_of({"path": "owner/base", "revision": "abc"}, 0.25)
    )
    store.obtain(
        "evaluate", "c" * 16, evaluation_of({"path": "owner/base", "revision": "abd"}, 0.75)
    )
    export("model=aaaaaaaa", f"out={tmp_path / 'out'}", f"paths.runs={tmp_path / 'runs'}")
    card = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "owner/base"
    assert "starts from owner/base at revision abc" in card
    assert f"The store no longer has {'0' * 16}" in card
    assert "| base | aime24 | 25.0% | 0.0% to 50.0% | 30 | 3 | 0.6 | 0.95 | 9 |" in card
    assert "75.0%" not in card


def test_arguments_that_cannot_be_exported_are_refused(
    smoke_run: Path, artifacts: dict[str, Record], tmp_path: Path
) -> None:
    runs, out = f"paths.runs={smoke_run / 'runs'}", f"out={tmp_path / 'new'}"
    rl = f"model={artifacts['rl'].path}"
    (tmp_path / "file").touch()
    for words, message in [
        ([rl], "export: name what and where to"),
        ([rl, out, "seed=1"], "and nothing else"),
        ([rl, f"out={tmp_path}"], "the folder is not empty"),
        (["model=012345ab", out, runs], "no policy in"),
        (["model=owner/name", out, runs], "it is not a policy of a store"),
        ([f"model={artifacts['distill'].path}", out], "it is a corpus, not a policy"),
        ([rl, out, "push=owner/name"], "HF_TOKEN is not set"),
    ]:
        with pytest.raises(UserError, match=message):
            export(*words)
        assert not (tmp_path / "new").exists()


def test_unreachable_hub_leaves_the_folder(
    artifacts: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)  # Tests set HF_HUB_OFFLINE.
    with pytest.raises(UserError, match=r"push=owner/name: the upload failed .*is complete"):
        export(f"model={artifacts['rl'].path}", f"out={tmp_path / 'new'}", "push=owner/name")
    assert (tmp_path / "new" / "README.md").exists()
