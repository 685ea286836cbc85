"""A user's file, as it is, through all four steps on a checkpoint: `recipe=own`, also killed."""

import json
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.data.corpus import read_rollouts
from tests.conftest import lab, start_lab
from tests.support.twins import TWINS, save_twin, twin_model, twin_tokenizer

pytestmark = pytest.mark.long

# Rates at which a model of two layers learns to write a thought and one of two answers.
FAST = [
    *(f"stages.{name}.optimization.learning_rate=5e-3" for name in ("midtrain", "sft")),
    *(f"stages.{name}.optimization.length=12 epochs" for name in ("midtrain", "sft")),
    *("stages.midtrain.trained=completion", "stages.midtrain.optimization.batch_size=2"),
]
# So small a model knows no instruction, and one epoch says as much as three.
SMALL = [
    *("benchmarks.own.sampling.max_new_tokens=48", "model.dtype=float32"),
    "stages.rl.optimization.length=2 steps",
    *("tracker.mode=disabled", "hardware.threads=1", "data.unreadable=drop"),
]


def solved(number: int) -> dict[str, Any]:
    """As GSM8K writes it."""
    gold = 1 if number % 2 else 2
    return {"question": f"Is {number} odd?", "answer": f"{number} ends so.\n#### {gold}"}


def command(path: Path, model: Path, *overrides: str) -> list[str]:
    source = ["data=jsonl", f"data.path={path}"]
    return ["recipe=own", *source, "model=checkpoint", f"model.path={model}", *SMALL, *overrides]


def artifacts(folder: Path) -> dict[str, dict[str, Any]]:
    """The record of each stage, with its folder; evaluations by their number alone."""
    records = [json.loads(file.read_text()) for file in folder.glob("runs/store/*/*/artifact.json")]
    return {record["stage"]: record for record in records}


@pytest.fixture(scope="module")
def solutions_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a file of solutions, dirty rows among them, went through all steps."""
    folder = tmp_path_factory.mktemp("solutions")
    rows = [json.dumps(solved(number)) for number in range(100, 172)]
    rows[5:5] = ['{"question": "broken"', json.dumps({"question": "Is 7 odd?"}), rows[0]]
    wrong = {"question": "Is 99 odd?", "answer": "no\n#### many"}
    (folder / "solved.jsonl").write_text("\n".join([*rows, json.dumps(wrong)]), encoding="utf-8")
    twin = TWINS["qwen2_5"]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    larger = replace(twin, architecture={**twin.architecture, **sizes})
    tokenizer = twin_tokenizer(larger, rows)
    save_twin(twin_model(larger, tokenizer), tokenizer, folder / "twin")
    words = command(folder / "solved.jsonl", folder / "twin", *FAST)
    process = start_lab(*words, cwd=folder)
    delay = random.Random(1).uniform(20, 40)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, out, err = lab(*words, cwd=folder)
    assert code == 0, out + err
    assert "prompt=question, gold=answer, gold_in=after ####, solutions=answer" in out + err
    return folder


def test_recorded_solutions_teach(solutions_run: Path) -> None:
    records = artifacts(solutions_run)
    assert records.keys() == {"distill", "midtrain", "sft", "prefer", "dpo", "rl", "evaluate"}
    distill = records["distill"]
    dropped = distill["ledger"]["rows"]["dropped"]
    assert dropped["malformed_row"] == dropped["missing_gold"] == dropped["duplicate_prompt"] == 1
    assert distill["metrics"]["accepted_frac"] > 0.9
    # 128 is more than the longest of these few documents has, prompts and markup included.
    assert records["midtrain"]["metrics"]["row_tokens"] == 256
    assert records["sft"]["metrics"]["document_tokens"]["longest"] < 128
    assert records["rl"]["metrics"]["max_new_tokens"] == 256
    assert records["prefer"]["metrics"]["pairs"] > 0


def test_answers_alone_are_taught_by_the_checkpoint_itself(
    solutions_run: Path, tmp_path: Path
) -> None:
    rows = [
        {"problem": row["question"], "gold": row["answer"].rpartition(" ")[2]}
        for row in map(solved, range(200, 260))
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (policy,) = (solutions_run / "runs" / "store" / "sft").glob("????????????????")
    teacher = "stages.distill.teacher.otherwise"
    own = [f"{teacher}.instruction=", f"{teacher}.temperature=1.0", f"{teacher}.max_new_tokens=64"]
    code, out, err = lab(*command(tmp_path / "answers.jsonl", policy, *own), cwd=tmp_path)
    assert code == 0, out + err
    records = artifacts(tmp_path)
    (corpus,) = (tmp_path / "runs" / "store" / "distill").glob("????????????????")
    rollouts = read_rollouts(corpus / "accepted.parquet") + read_rollouts(
        corpus / "rejected.parquet"
    )
    assert records["distill"]["metrics"]["rollouts"] == len(rollouts)
    right = Counter(one.problem.prompt for one in rollouts if one.correct)
    for rollout in rollouts:
        count = right[rollout.problem.prompt]
        assert rollout.problem.level == (1 if count >= 3 else 2 if count else 3)
    assert records["sft"]["metrics"]["examples"] == len(right)
