"""The whole recipe on conversations, with a system prompt that every policy keeps."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from reasoning_lab.commands import api as lab
from reasoning_lab.commands import export
from reasoning_lab.commands.compose import compose
from reasoning_lab.config.components import EngineConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.corpus import RolloutFile
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.sampling.config import HFEngineConfig
from reasoning_lab.sampling.engine import Sampling, with_instruction
from reasoning_lab.types import Message, Prompt
from tests.stages.test_twins import COINS, RUN, artifacts, save_coin_tosser, write_coins
from tests.support.composition import composed_config
from tests.support.twins import FAMILIES, save_twin, twin_model, twin_tokenizer

SYSTEM = 'Toss "fairly", {{ 1 / 0 }}.'
GEMMA = replace(
    FAMILIES["gemma"],
    architecture={"model_type": "llama", "tie_word_embeddings": True},
    generation_ends=["<end_of_turn>"],
)
EARLIER = (Message("user", "coin 7"), Message("assistant", "it shows \\boxed{1}"))


def write_chats(folder: Path) -> None:
    """Plain ones, some with an earlier turn, and some with a system message too."""
    rows = []
    for number, (prompt, gold) in enumerate(COINS):
        turns = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": f"it shows \\boxed{{{gold}}}"},
        ]
        earlier = [{"role": turn.role, "content": turn.content} for turn in EARLIER]
        own = [{"role": "system", "content": "Be brief."}]
        messages = [*(own if number % 4 == 3 else []), *(earlier if number % 2 else []), *turns]
        rows.append({"messages": messages})
    (folder / "coins.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_recipe_on_conversations_keeps_its_system_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coins(tmp_path)
    save_coin_tosser(GEMMA, tmp_path / "checkpoint", tmp_path / "work")
    write_chats(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [word for word in RUN if not word.startswith("data.rows")]
    columns = ["prompt=messages", "gold=messages.-1.content", "gold_in=boxed"]
    words += [f"data.rows.{column}" for column in columns]
    config = composed_config(*words)
    config.model.system_prompt = SYSTEM
    lab.run(compose(config))
    records = artifacts(tmp_path)

    rollouts = list(RolloutFile(records["distill"].path / "accepted.parquet"))
    asked = {rollout.problem.earlier_messages for rollout in rollouts}
    assert asked == {(), EARLIER, (Message("system", "Be brief."), *EARLIER)}

    export.main([f"model={records['rl'].fingerprint}", "out=exported"])
    chat = [{"role": "user", "content": "coin 3"}]
    expected = f"<bos><start_of_turn>user\n{SYSTEM}\n\ncoin 3<end_of_turn>\n<start_of_turn>model\n"
    folders = [records[stage].path for stage in ("midtrain", "sft", "dpo", "rl")]
    for folder in [*folders, tmp_path / "exported"]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert text == expected
    assert SYSTEM in (tmp_path / "exported" / "README.md").read_text()

    # The policies learned to answer after it.
    assert records["evaluate"].metrics["truncated_frac"] < 0.5


def test_an_engine_by_path_asks_with_the_system_prompt(tmp_path: Path) -> None:
    tokenizer = twin_tokenizer(GEMMA, ["the coin shows heads"])
    save_twin(twin_model(GEMMA, tokenizer), tokenizer, tmp_path)
    sampling, hardware = Sampling(0.0, 1.0, 8), HardwareConfig()

    def sampled(engine: EngineConfig, *prompts: Prompt) -> list[Sequence[float]]:
        opened = engine.open(hardware)
        completions = opened.generate(list(prompts), sampling, [0] * len(prompts))
        return [completion.logprobs for completion in completions]

    plain = HFEngineConfig(model=str(tmp_path))
    system, user = Message("system", SYSTEM), Message("user", "coin 3")
    own = (Message("system", "Be brief."), user)
    by_message = sampled(plain, (system, user), own)
    by_option = sampled(replace(plain, system_prompt=SYSTEM), "coin 3", own)
    assert by_option == by_message
    assert sampled(plain, "coin 3") != by_message[:1]

    # As training reads it, which loads the policy itself.
    _, trained = load_policy(tmp_path, "float32", system_prompt=SYSTEM)
    _, untouched = load_policy(tmp_path, "float32")
    assert prompt_tokens(trained, ["coin 3"]) == prompt_tokens(untouched, [(system, user)])


def test_an_instruction_follows_the_last_turn() -> None:
    asked = (*EARLIER, Message("user", "coin 3"))
    assert with_instruction(asked, "Box it.") == (*EARLIER, Message("user", "coin 3\nBox it."))
    assert with_instruction(asked, "") == asked
    assert with_instruction("coin 3", "Box it.") == "coin 3\nBox it."
