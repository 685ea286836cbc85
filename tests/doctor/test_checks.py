"""Each bug of the field is put into a sound checkpoint, and its check names it; no other does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.model import AdapterConfig, ModelConfig
from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.doctor.check import Examined, State, ok, run_checks
from reasoning_lab.doctor.checks import CHECKS
from reasoning_lab.doctor.model_under_test import (
    ContextDemand,
    ModelUnderTest,
    OpenEngine,
    hf_engine,
)
from reasoning_lab.models.policy import build_policy, save_policy
from reasoning_lab.models.tokenizer import train_tokenizer
from reasoning_lab.types import Problem
from reasoning_lab.verify import Verifier
from tests.support import damage
from tests.support.composition import models
from tests.support.damage import (
    CONFIG,
    TOKENIZER,
    Damage,
    change_weights,
    edit,
    rewrite_template,
)
from tests.support.families import architecture
from tests.support.twins import FAMILIES, TWINS, Twin, save_twin, twin_model, twin_tokenizer

TEXTS = ["the coin shows heads or tails", "so it is <think> and </think>", "a pad"]
PROBLEMS = [Problem(f"What is {n} + 4?", str(n + 4), "number", "sums") for n in range(4)]
REFERENCE = HardwareConfig(kernels="reference", verifier_workers=1)
HARDWARE = HardwareConfig(verifier_workers=1)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verifier]:
    """It knows two checkers of a user, which are of no use."""
    folder = tmp_path_factory.mktemp("checkers")
    (folder / "doctor_checkers.py").write_text(
        "def accepts(problem, answer):\n    return True\n\n\n"
        "def compares(problem, answer):\n    return answer == problem.gold\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv(TRUSTED_VARIABLE, "doctor_checkers")
        with Verifier(1, timeout_s=20, memory_mb=1024) as opened:
            yield opened


def save(twin: Twin, folder: Path) -> None:
    tokenizer = twin_tokenizer(twin, TEXTS)
    save_twin(twin_model(twin, tokenizer), tokenizer, folder)


def examined(model: ModelUnderTest) -> dict[str, Examined]:
    return {one.check.name: one for one in run_checks(CHECKS, model)}


def in_state(results: Mapping[str, Examined], *states: State) -> dict[str, str]:
    return {
        name: one.result.sentence for name, one in results.items() if one.result.state in states
    }


LLAMA: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}
CHATTING = {
    name: twin
    if twin.architecture
    else replace(twin, architecture=LLAMA, generation_ends=[twin.turn_end])
    for name, twin in FAMILIES.items()
}


@pytest.mark.parametrize("family", CHATTING)
def test_nothing_is_wrong_with_a_sound_twin(
    family: str, verifier: Verifier, tmp_path: Path
) -> None:
    save(CHATTING[family], tmp_path)
    options = ModelConfig(path=str(tmp_path), adapter=AdapterConfig(rank=4))
    model = ModelUnderTest(options, HARDWARE, PROBLEMS, [ContextDemand("key", 32, True)], verifier)
    results = examined(model)
    assert in_state(results, State.WRONG, State.FAILED, State.NOT_RUN) == {}
    # The adapter's check is among those that ran.
    assert results["adapter-not-in-engine"].result == ok()


def test_nothing_is_wrong_with_the_lab_s_own_model(verifier: Verifier, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    save_policy(
        build_policy(models()["tiny"].architecture, tokenizer, "float32", 0), tokenizer, tmp_path
    )
    options = ModelConfig(path=str(tmp_path))
    results = examined(ModelUnderTest(options, HARDWARE, PROBLEMS, [], verifier))
    assert in_state(results, State.WRONG, State.FAILED, State.NOT_RUN) == {}


@dataclass(frozen=True)
class Case:
    """A bug, and where it is put.

    Attributes:
        check: The check that is to name it.
        says: A part of the sentence.
        twin: The checkpoint that is damaged.
        folder: Damages its files.
        policy: Damages the loaded model.
        engine: Samples from it.
        hardware: With which kernels.
        adapter: That is configured.
        demands: What is asked of its context.
        problems: That it is trained on.
    """

    check: str
    says: str
    twin: Twin = field(default_factory=lambda: TWINS["qwen3"])
    folder: Damage | None = None
    policy: Callable[[PreTrainedModel], None] | None = None
    engine: OpenEngine = hf_engine
    hardware: HardwareConfig = field(default_factory=lambda: HARDWARE)
    adapter: AdapterConfig | None = None
    demands: list[ContextDemand] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=lambda: PROBLEMS)


def scaled(name: str, factor: float) -> Damage:
    def change(weights: dict[str, Tensor]) -> None:
        weights[name] = weights[name] * factor

    return change_weights(change)


def without(name: str) -> Damage:
    def change(weights: dict[str, Tensor]) -> None:
        del weights[name]

    return change_weights(change)


def own_head(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1


def not_a_number(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"][3] = torch.nan


def empty_row(weights: dict[str, Tensor]) -> None:
    # The 285 tokens of text come first, then those of `special`: <|im_start|> is the second.
    weights["model.embed_tokens.weight"][286] = 0


def add_token(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)


CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = TWINS["qwen3"].template or ""
R1 = TWINS["r1_distill_qwen"]
DROPOUT = edit(CONFIG, lambda config: config.update(attention_dropout=0.5))
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
GENERATION = "generation_config.json"


def user_problems(checker: str, gold: str = "{}") -> list[Problem]:
    return [
        replace(p, checker=f"doctor_checkers.{checker}", gold=gold.format(p.gold)) for p in PROBLEMS
    ]


CASES = [
    Case(
        "tokenizer-unreadable",
        "cannot render a user's turn",
        folder=rewrite_template("", "{{ raise_exception('no') }}"),
    ),
    Case(
        "start-token-twice",
        "'<|begin_of_sentence|>' twice",
        R1,
        rewrite_template("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}"),
    ),
    Case("start-token-missing", "{{ bos_token }}", R1, rewrite_template("{{ bos_token }}", "")),
    Case(
        "end-token-not-trained",
        "ends a turn with '<|im_end|>', which is no control token",
        replace(TWINS["qwen2_5"], special=["<|endoftext|>", "<|im_start|>"]),
    ),
    Case(
        "end-token-not-trained",
        "no end token",
        TWINS["llama3_2"],
        edit("tokenizer_config.json", lambda content: content.update(eos_token=None)),
    ),
    Case(
        "text-lost",
        "becomes 'a  b\\n\\n\\tc'",
        folder=edit(TOKENIZER, lambda content: content.update(normalizer={"type": "Lowercase"})),
    ),
    Case(
        "data-becomes-markup",
        "'IM_START' in a problem's text",
        replace(
            TWINS["qwen3"],
            special=["<|endoftext|>", "<|im_end|>"],
            plain=["IM_START"],
            template=CHATML.replace("<|im_start|>", "IM_START"),
        ),
    ),
    Case(
        "no-generation-prompt",
        "add_generation_prompt",
        folder=rewrite_template(CHATML_PROMPT, ""),
    ),
    Case(
        "thought-closed-by-template",
        "closes the thought",
        folder=rewrite_template("assistant\n'", "assistant\n<think>\n\n</think>\n\n'"),
    ),
    Case(
        "thought-opened-twice",
        "opens a thought with '[THINK]'",
        folder=rewrite_template("assistant\n'", "assistant\n[THINK]'"),
    ),
    Case(
        "question-changed-by-template",
        "message['content'] as it is",
        folder=rewrite_template("message['content']", "message['content'][:300]"),
    ),
    Case(
        "date-in-prompt",
        "strftime_now",
        folder=rewrite_template("{% for", "{{ strftime_now('%d %b %Y') }}{% for"),
    ),
    Case(
        "prompt-ends-inside-token",
        "are one token",
        replace(
            TWINS["qwen3"],
            template=CHATML.replace("\n' + message", ": ' + message").replace(
                "assistant\n", "assistant: "
            ),
        ),
    ),
    Case(
        "rotation-depends-on-length",
        "dynamic",
        folder=edit(CONFIG, lambda config: config.update(rope_parameters=DYNAMIC)),
    ),
    Case("weights-unreadable", "cannot load", folder=damage.cut_off_weights),
    Case("weights-unreadable", "cannot load", folder=damage.point_to_weights),
    Case("weights-missing", "model.norm.weight, which", folder=without("model.norm.weight")),
    Case("tied-heads-apart", "tie_word_embeddings", folder=change_weights(own_head)),
    Case("weights-not-finite", "model.norm.weight", folder=change_weights(not_a_number)),
    Case("token-without-row", "embedding 288 rows", TWINS["llama3_2"], add_token),
    Case(
        "stops-on-text",
        "stops at token 5",
        folder=edit(GENERATION, lambda content: content["eos_token_id"].append(5)),
    ),
    Case("pad-equals-text", "padding is '<|User|>'", replace(R1, pad="<|User|>")),
    Case("markup-never-trained", "<|im_start|>", folder=change_weights(empty_row)),
    Case(
        "logits-not-finite",
        "not finite",
        folder=scaled("model.norm.weight", 3e38),
    ),
    Case(
        "fast-path-differs",
        "set hardware.kernels=reference",
        replace(TWINS["qwen3"], architecture=architecture("granite")),
    ),
    Case("packing-leaks", "padded rows", policy=damage.mix_rows, hardware=REFERENCE),
    Case("context-too-short", "300 tokens", demands=[ContextDemand("stages.rl", 300, True)]),
    Case("dropout-in-training", "set attention_dropout to 0", folder=DROPOUT),
    Case(
        "cache-differs",
        "hardware.sampling.cache=false",
        replace(TWINS["qwen3"], architecture=architecture("mamba")),
    ),
    Case(
        "left-padding-differs",
        "generation_batch_size=1",
        policy=damage.read_padding,
        hardware=REFERENCE,
    ),
    Case("engine-differs-at-1", "other logprobs", engine=damage.stale_engine),
    Case("engine-ignores-temperature", "other logprobs", engine=damage.Ungoverned),
    Case("ratio-not-1-at-rate-0", "gradient of", policy=damage.break_gradient),
    Case(
        "sampling-truncated-in-silence",
        "take top_k",
        folder=edit(GENERATION, lambda content: content.update(do_sample=True, top_k=3)),
        engine=damage.GenerateEngine,
    ),
    Case(
        "adapter-not-in-engine",
        "merged weights",
        engine=damage.BaseEngine(),
        adapter=AdapterConfig(rank=4),
    ),
    Case("truncation-not-flagged", "calls a completion ended", engine=damage.Unflagged),
    Case("end-token-dropped", "in place of", engine=damage.Endless),
    Case("seed-ignored", "same prompts and seeds", engine=damage.Unseeded),
    Case(
        "gold-unreadable",
        "cannot read the gold '11, see above'",
        problems=[replace(problem, gold="11, see above") for problem in PROBLEMS],
    ),
    Case(
        "right-answer-refused", "its own gold", problems=user_problems("compares", "\\boxed{{{}}}")
    ),
    Case("wrong-answer-credited", "other problems' golds", problems=user_problems("accepts")),
    Case(
        "draft-credited",
        "a token that is not special",
        replace(
            TWINS["qwen3"],
            special=[*TWINS["qwen3"].special, "<think>", "</think>"],
            marks=False,
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{n}-{case.check}" for n, case in enumerate(CASES)])
def test_a_bug_is_named_and_nothing_else_is(case: Case, verifier: Verifier, tmp_path: Path) -> None:
    save(case.twin, tmp_path)
    if case.folder is not None:
        case.folder(tmp_path)
    model = ModelUnderTest(
        ModelConfig(path=str(tmp_path), adapter=case.adapter),
        case.hardware,
        case.problems,
        case.demands,
        verifier,
        case.engine,
    )
    if case.policy is not None:
        case.policy(model.policy)
    results = examined(model)
    findings = in_state(results, State.WRONG, State.FAILED)
    assert findings.keys() == {case.check}, findings
    assert case.says in findings[case.check]


def test_a_gold_that_cannot_be_read_is_left_out_like_in_a_stage(
    verifier: Verifier, tmp_path: Path
) -> None:
    save(TWINS["qwen3"], tmp_path)
    problems = [*PROBLEMS, replace(PROBLEMS[0], prompt="And then?", gold="11, see above")]
    options = ModelConfig(path=str(tmp_path))
    results = examined(ModelUnderTest(options, HARDWARE, problems, [], verifier))
    assert in_state(results, State.WRONG, State.FAILED, State.NOT_RUN) == {}
    assert results["gold-unreadable"].result.sentence.startswith("1 of 5 golds cannot be read")


def test_what_the_lab_changes_of_a_tokenizer_is_noted(verifier: Verifier, tmp_path: Path) -> None:
    save(TWINS["qwen3"], tmp_path)
    model = ModelUnderTest(ModelConfig(path=str(tmp_path)), HARDWARE, [], [], verifier)
    sound = examined(model)
    assert sound["tokenizer-unreadable"].result == sound["end-token-not-trained"].result == ok()

    edit("tokenizer_config.json", lambda content: content.update(eos_token="<|im_start|>"))(
        tmp_path
    )
    model = ModelUnderTest(ModelConfig(path=str(tmp_path)), HARDWARE, [], [], verifier)
    assert examined(model)["end-token-not-trained"].result == ok(
        "a completion ends with '<|im_end|>', as a turn does, and not with '<|im_start|>'"
    )

    (tmp_path / "chat_template.jinja").unlink()
    model = ModelUnderTest(ModelConfig(path=str(tmp_path)), HARDWARE, [], [], verifier)
    assert examined(model)["tokenizer-unreadable"].result == ok(
        "it has no chat template, so it gets a plain one"
    )


def test_every_check_but_vllm_s_is_seen_to_fail() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names) >= 25
    # `test_vllm.py` has that one.
    assert {*names} - {case.check for case in CASES} == {"vllm-differs"}
