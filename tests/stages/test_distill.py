"""Distillation with a model as teacher: sharded, verified, resumable."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config import targets
from reasoning_lab.config.components import CustomEngine, CustomTeacher, EngineConfig
from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.data.teachers.teacher import SolutionWriter
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.sampling.config import (
    JUDGE_PROMPT,
    HFEngineConfig,
    ModelJudgeConfig,
    ModelTeacherConfig,
    VLLMEngineConfig,
    parse_verdict,
)
from reasoning_lab.stages.distill.produce import run
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict
from reasoning_lab.verify import Verifier
from tests.support.contexts import data_context
from tests.support.scripted import ScriptedEngine
from tests.support.sources import file_source
from tests.support.trained import trained_ids

SCRIPTED = "tests.support.scripted.ScriptedEngine"

PROBLEMS = 20
# Every third answer is wrong, every fifth has no box.
ANSWERS = {
    f"number {n}": "hm\n</think>\n"
    + ("no idea" if n % 5 == 0 else f"\\boxed{{{n + (n % 3 == 0)}}}")
    for n in range(2 * PROBLEMS)
}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as shared:
        yield shared


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ALLOWED_PREFIXES", ("reasoning_lab.", "tests."))
    ScriptedEngine.reset()


@pytest.fixture
def context(tmp_path: Path, verifier: Verifier) -> StageContext:
    rows = tmp_path / "numbers.jsonl"
    rows.write_text(
        "".join(f'{{"prompt": "number {n}", "gold": "{n}"}}\n' for n in range(2 * PROBLEMS))
    )
    source = file_source(str(rows), 0.1, 0.2, {"family": "numbers"})
    return data_context(tmp_path, "distill", source, verifier)


def scripted(model: str = "sage", **options: Any) -> CustomEngine:
    return CustomEngine(model, SCRIPTED, {"answers": ANSWERS, **options})


def teacher(**changes: Any) -> ModelTeacherConfig:
    config = ModelTeacherConfig(scripted(), "Think.", "<think>\n", 0.5, 1.0, 9)
    return replace(config, **changes)


def judge(reply: str) -> ModelJudgeConfig:
    """A judge with one reply: it is scripted by the question's first line, the same for all."""
    first = JUDGE_PROMPT.splitlines()[0]
    return ModelJudgeConfig(scripted("referee", answers={first: reply}, ending=""), 9)


def config(**changes: Any) -> DistillStage:
    return replace(
        DistillStage(
            teacher=teacher(),
            problems=ProblemsConfig(levels=[1], count=PROBLEMS),
            validation=4,
            rollouts=2,
            shard_problems=6,
        ),
        **changes,
    )


def written(context: StageContext) -> dict[str, list[Rollout]]:
    names = ("accepted", "rejected", "validation")
    return {name: read_rollouts(context.out_dir / f"{name}.parquet") for name in names}


def test_accepted_and_rejected_are_what_the_verifier_says(context: StageContext) -> None:
    metrics = run(config(), context)
    corpus = written(context)
    assert len(corpus["accepted"]) + len(corpus["rejected"]) == 2 * PROBLEMS
    for rollout in corpus["accepted"] + corpus["rejected"]:
        number = int(rollout.problem.gold)
        expected = Verdict.CORRECT if number % 3 else Verdict.WRONG
        assert rollout.verdict is (expected if number % 5 else Verdict.UNPARSEABLE)
        assert rollout.author == "sage"
    assert {rollout.verdict for rollout in corpus["accepted"]} == {Verdict.CORRECT}
    assert Verdict.CORRECT not in {rollout.verdict for rollout in corpus["rejected"]}
    assert metrics["accepted_frac"] == len(corpus["accepted"]) / (2 * PROBLEMS)
    trained = {rollout.problem.id for rollout in corpus["accepted"] + corpus["rejected"]}
    assert trained_ids(context.out_dir) == trained
    assert not trained & {rollout.problem.id for rollout in corpus["validation"]}


def test_what_is_rejected_is_counted(context: StageContext, tmp_path: Path) -> None:
    """By the answers that the script gives to each number, twice."""
    run(config(), context)
    drawn = {
        int(one.problem.gold) for name in ("accepted", "rejected") for one in written(context)[name]
    }
    unread = sum(n % 5 == 0 for n in drawn)
    wrong = sum(n % 3 == 0 and n % 5 != 0 for n in drawn)
    counts = context.ledger.as_json()
    assert counts["problems"] == {
        "in": PROBLEMS,
        "out": PROBLEMS - unread - wrong,
        "dropped": {"no_accepted_rollout": unread + wrong},
    }
    assert counts["rollouts"] == {
        "in": 2 * PROBLEMS,
        "out": 2 * (PROBLEMS - unread - wrong),
        "dropped": {"unparseable": 2 * unread, "wrong": 2 * wrong},
        "selected": ["wrong"],
    }
    assert counts["validation_problems"]["in"] == 4
    assert counts["validation_problems"]["out"] == len(written(context)["validation"])
    assert f"| problems | {PROBLEMS} |" in (context.out_dir / "README.md").read_text()


def test_the_engine_hears_problem_and_instruction_with_a_seed_a_rollout(
    context: StageContext,
) -> None:
    run(config(), context)
    prompts = [prompt for call in ScriptedEngine.calls for prompt in call]
    assert all(prompt.endswith("\nThink.") for prompt in prompts)
    # Six problems twice, but for the rest of the last shard and the validation problems.
    assert [len(call) for call in ScriptedEngine.calls] == [12, 12, 12, 4, 4]
    texts = [rollout.completion.text for rollout in written(context)["accepted"]]
    assert len(set(texts)) == len(texts)
    assert ScriptedEngine.closed == 1


def test_the_students_corpus_has_text_and_no_token_of_the_teachers(context: StageContext) -> None:
    run(config(), context)
    for rollout in written(context)["accepted"]:
        assert rollout.completion.text.startswith("<think>\nhm\n</think>\n\\boxed")
        assert list(rollout.completion.token_ids) == []


def test_a_killed_distillation_goes_on_with_no_row_lost_or_doubled(
    context: StageContext, tmp_path: Path
) -> None:
    run(config(), context)
    expected = written(context)
    third = ScriptedEngine.calls[2][0].splitlines()[0]
    again = replace(context, out_dir=tmp_path / "again", work_dir=tmp_path / "again_work")
    again.out_dir.mkdir()
    ScriptedEngine.reset(lost_at=third)
    with pytest.raises(RuntimeError):
        run(config(), replace(again, ledger=Ledger()))
    assert ScriptedEngine.closed == 1
    ScriptedEngine.reset()
    again = replace(again, ledger=Ledger())
    run(config(), again)
    assert written(again) == expected
    assert again.ledger.as_json() == context.ledger.as_json()
    # The two shards before the kill were not asked for again.
    assert [len(call) for call in ScriptedEngine.calls] == [12, 4, 4]


def test_an_answer_in_prose_is_boxed_where_there_is_no_box(context: StageContext) -> None:
    answers_by_prompt = {
        name: answer.replace("no idea", "the answer is 5,000") for name, answer in ANSWERS.items()
    }
    model_teacher = teacher(
        engine=scripted(answers=answers_by_prompt), answer_pattern="answer is ([0-9,]+)"
    )
    run(config(teacher=model_teacher), context)
    rollouts_by_gold = {
        rollout.problem.gold: rollout for side in written(context).values() for rollout in side
    }
    for gold, rollout in rollouts_by_gold.items():
        if int(gold) % 5 == 0:
            assert rollout.completion.text.startswith("<think>\nhm\n</think>\nthe answer is 5,000")
            assert rollout.completion.text.endswith(")\n\\boxed{5,000}")
            assert rollout.verdict is Verdict.WRONG
        else:
            assert rollout.completion.text.count("boxed") == 1
    assert any(int(gold) % 5 == 0 for gold in rollouts_by_gold)


# At the limit, in the thought and behind it; in the thought, where the engine does not say so.
_CUT_OFF_KINDS = [
    ("a draft: \\boxed{{{}}}, but wait", True),
    ("hm\n</think>\n\\boxed{{{}}} and furthermore", True),
    ("a draft: \\boxed{{{}}}, but wait", False),
    ("hm\n</think>\n<think>again: \\boxed{{{}}}", False),
]
CUT_OFF = {
    f"number {n}": Completion([], text.format(n), truncated=truncated)
    for number, n in enumerate(range(1, 2 * PROBLEMS, 2))
    for text, truncated in [_CUT_OFF_KINDS[number % 4]]
}


def cut_off_teacher() -> ModelTeacherConfig:
    return teacher(
        engine=scripted(answers=ANSWERS | CUT_OFF),
        answer_pattern="draft: ([^,]+)|number ([0-9]+)",
    )


def test_what_was_cut_off_is_rejected_whatever_its_draft_says(
    context: StageContext, tmp_path: Path
) -> None:
    options = {"problems": ProblemsConfig(levels=[1], count=22), "teacher": cut_off_teacher()}
    # A judge that accepts all that it is asked about.
    metrics = run(config(**options, judge=judge("Correct.")), context)
    corpus = written(context)
    trained = [*corpus["accepted"], *corpus["rejected"]]
    cut_off = [rollout for rollout in trained if rollout.problem.prompt in CUT_OFF]
    assert metrics["cut_off"] == len(cut_off) > 8
    for rollout in cut_off:
        assert rollout.verdict is Verdict.UNPARSEABLE
        assert rollout.judge is None
        assert rollout.completion.truncated
        assert rollout.completion.text.count("boxed") == 1
    for side in ("accepted", "validation"):
        assert not [one for one in corpus[side] if one.problem.prompt in CUT_OFF]
        assert not any(one.completion.truncated for one in corpus[side])
    card = (context.out_dir / "README.md").read_text()
    assert f"before the end of the thought: {len(cut_off)}." in card
    again = replace(context, out_dir=tmp_path / "kept", work_dir=tmp_path / "kept_work")
    again.out_dir.mkdir()
    metrics = run(config(**options, truncated="keep"), again)
    assert metrics["cut_off"] == len(cut_off)
    accepted = [one for one in written(again)["accepted"] if one.problem.prompt in CUT_OFF]
    assert any("furthermore" in one.completion.text for one in accepted)
    assert all(one.completion.truncated for one in accepted)


class CarelessTeacher:
    """Never says that a completion was cut off; half of each problem's are."""

    name = "careless"

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[SolutionWriter]:
        return nullcontext(self._write)

    def _write(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        texts = ["<think>\n\\boxed{{{}}}", "<think>\n</think>\n\\boxed{{{}}}"]
        return [[Completion([], text.format(one.gold)) for text in texts] for one in problems]


def test_a_thought_without_an_end_is_cut_off_whatever_the_teacher_says(
    context: StageContext,
) -> None:
    metrics = run(config(teacher=CustomTeacher(f"{__name__}.CarelessTeacher")), context)
    assert metrics["cut_off"] == metrics["verdict/unparseable"] == PROBLEMS
    assert metrics["accepted_frac"] == 0.5
    assert all("</think>" in one.completion.text for one in written(context)["accepted"])


def test_nothing_accepted_is_told(context: StageContext) -> None:
    silent = teacher(engine=scripted(answers=dict.fromkeys(ANSWERS, "hm")))
    with pytest.raises(UserError, match=r"none of 40 .*\(40 cut off\); ask easier"):
        run(config(teacher=silent), context)


def test_too_few_problems_are_found_before_the_teacher_is_asked(context: StageContext) -> None:
    with pytest.raises(UserError, match="asked for"):
        run(config(problems=ProblemsConfig(levels=[1], count=400)), context)
    assert ScriptedEngine.calls == []


def test_an_unreadable_gold_is_named_by_its_row_before_the_teacher_is_asked(
    context: StageContext, tmp_path: Path
) -> None:
    rows = tmp_path / "golds.jsonl"
    golds = ["none" if n == 7 else str(n) for n in range(40)]
    rows.write_text(
        "".join(f'{{"prompt": "number {n}", "gold": "{gold}"}}\n' for n, gold in enumerate(golds))
    )
    source = file_source(str(rows), 0.0, 0.2, {"checker": "number"})
    everything = ProblemsConfig(levels=[1], count=26)
    with pytest.raises(UserError, match=r"golds\.jsonl, line 8: .*'none'"):
        run(config(problems=everything), replace(context, source=source))
    assert ScriptedEngine.calls == []


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (HFEngineConfig("./nowhere"), r"teacher\.engine\.model: there is no folder"),
        (CustomEngine("x", "os.system"), r"teacher\.engine\._target_: .*may not be named"),
        (CustomEngine("x", SCRIPTED), r"engine\.options: missing a required argument: 'answers'"),
        (CustomEngine("x", SCRIPTED, {"answers": {}, "answer": 1}), "takes model, answers"),
    ],
)
def test_an_impossible_engine_is_refused_at_composition(engine: EngineConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(teacher=teacher(engine=engine)).check("stages.distill", HardwareConfig())


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasoning_lab.config.components.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"teacher\.engine: .*reasoning-lab\[vllm\]"):
        teacher(engine=VLLMEngineConfig("m")).check("teacher")


def test_a_moved_model_folder_is_the_same_teacher(tmp_path: Path) -> None:
    def identity(folder: str, content: str) -> Any:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(content)
        return config(teacher=teacher(engine=scripted(str(tmp_path / folder)))).identity()

    assert identity("a", "{}") == identity("b", "{}")
    assert identity("c", "{}") != identity("d", "[]")


def test_a_judge_decides_what_the_verifier_cannot_read_and_signs_it(context: StageContext) -> None:
    metrics = run(config(judge=judge("It names no number.\nCorrect.")), context)
    corpus = written(context)
    for rollout in corpus["accepted"] + corpus["rejected"]:
        is_unread = int(rollout.problem.gold) % 5 == 0
        assert rollout.judge == ("referee" if is_unread else None)
        assert not is_unread or rollout.verdict is Verdict.CORRECT
    unread = sum(rollout.judge is not None for rollout in corpus["accepted"])
    assert unread > 0
    assert metrics["judged/correct"] == unread
    assert metrics["verdict/unparseable"] == 0
    question = JUDGE_PROMPT.splitlines()[0]
    judged = [prompt for call in ScriptedEngine.calls for prompt in call if question in prompt]
    assert len(judged) >= unread
    assert all("<student>\n<think>\nhm\n</think>\nno idea" in prompt for prompt in judged)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("correct", Verdict.CORRECT),
        ("He is not wrong:\n**Correct**.", Verdict.CORRECT),
        ("5 is not 6.\nWrong", Verdict.WRONG),
        ("I cannot tell.", None),
        ("correct, I think", None),
        ("", None),
    ],
)
def test_a_reply_counts_by_its_last_word(reply: str, verdict: Verdict | None) -> None:
    assert parse_verdict(reply) is verdict
