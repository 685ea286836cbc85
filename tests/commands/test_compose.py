"""Every stage option composes, every import path resolves, and content is identity."""

from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from omegaconf import MISSING

from reasoning_lab.commands.schemas import stage_classes
from reasoning_lab.config.components import EngineConfig, SourceConfig, register_component
from reasoning_lab.config.fields import fraction
from reasoning_lab.config.folder import CONF
from reasoning_lab.config.targets import factory, resolve
from reasoning_lab.data.teachers.config import RecordedTeacherConfig
from reasoning_lab.evaluate.stage import EvaluateStage
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import UserError
from tests.conftest import Compose
from tests.support.composition import BARE, sentence_of
from tests.support.sources import file_source

GENERATED = "reasoning_lab.data.sources.config.ReasoningGymConfig"
GENERATED_OPTIONS = "{families: {gcd: {1: {}}}, test_frac: 0.1, validation_frac: 0.1}"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
STAGE_OPTIONS = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))


@pytest.mark.parametrize("option", STAGE_OPTIONS)
def test_stage_option_composes_into_its_own_schema(option: str, composed: Compose) -> None:
    added = [f"+stage@stages.my_{name}={name}" for name in STAGE_OPTIONS]
    root = composed(*added, "stages.my_opd.teacher.stage=my_midtrain").root
    config = root.stages[f"my_{option}"]
    assert isinstance(config, stage_classes()[config.name])
    assert set(config.reads) <= {"model", "data", "benchmarks"}
    if hasattr(config, "optimization"):
        assert callable(factory(config.optimization.optimizer.arguments(), "optimizer"))
        assert callable(factory(config.optimization.schedule.arguments(), "schedule"))
    if hasattr(config, "teacher"):
        config.teacher.check("teacher")


def test_code_of_ones_own_is_called_with_its_options(composed: Compose) -> None:
    words = ["data=custom", f"data._target_={GENERATED}"]
    source = composed(*words, f"data.options={GENERATED_OPTIONS}").source
    assert source.provenance()["name"] == "reasoning-gym: gcd"
    with pytest.raises(UserError, match=r"^data\.options: .*'path' of .*; it takes families, test"):
        composed(*words, "data.options.path=x")
    teacher = ["teacher@stages.distill.teacher=custom", "stages.distill.teacher.options={rate: 1}"]
    path = "reasoning_lab.data.teachers.config.ProceduralTeacherConfig"
    with pytest.raises(UserError, match=r"^stages\.distill\.teacher\.options: .*'rate' of"):
        composed(*teacher, f"stages.distill.teacher._target_={path}")


@dataclass
class TicketsConfig(SourceConfig):
    """Typed options of a user's own source."""

    path: str = MISSING
    test_frac: float = fraction(0.1)
    validation_frac: float = fraction(0.1)

    def build(self) -> Any:
        return file_source(self.path, self.test_frac, self.validation_frac, {})


def tickets(folder: Path) -> list[str]:
    """Overrides that choose a user's own option, which is written below `folder`."""
    register_component("data", "tickets", TicketsConfig)
    (folder / "data").mkdir()
    option = "defaults: [{/schema/data@_here_: tickets}]\n"
    (folder / "data" / "tickets.yaml").write_text(option)
    return [f"hydra.searchpath=[file://{folder}]", "data=tickets"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("data.pth=x", "no key 'pth' in data; did you mean 'path'?"),
        ("data.test_frac=2", "data.test_frac: 2.0 is too large"),
        ("data.test_frac=a", "is not a number"),
        ("data.validation_frac=0.2", "add data.path=VALUE"),
    ],
)
def test_options_of_ones_own_are_typed(override: str, complaint: str, tmp_path: Path) -> None:
    words = tickets(tmp_path)
    path = [] if "VALUE" in complaint else ["data.path=tickets.jsonl"]
    assert complaint in sentence_of(BARE, *words, *path, override)


def test_options_of_ones_own_compose(composed: Compose, tmp_path: Path) -> None:
    words, problems = tickets(tmp_path), tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1 + 1?", "gold": "2"}\n')
    recipe = composed(*words, f"data.path={problems}", "data.test_frac=0.2")
    assert recipe.root.data == TicketsConfig(str(problems), test_frac=0.2)


def test_teacher_is_swapped_with_all_its_options(composed: Compose) -> None:
    stage = composed("teacher@stages.distill.teacher=recorded").root.stages["distill"]
    assert isinstance(stage, DistillStage)
    assert stage.teacher == RecordedTeacherConfig()


@pytest.mark.parametrize("engine", sorted(path.stem for path in (CONF / "engine").glob("*.yaml")))
@pytest.mark.parametrize(("group", "field"), [("teacher", "teacher"), ("+judge", "judge")])
def test_engine_composes_into_what_asks_it(
    engine: str, group: str, field: str, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reasoning_lab.config.components.find_spec", lambda name: name)
    at = f"stages.distill.{field}"
    words = [f"{at}.engine.model=some/model"]
    if engine == "custom":
        words.append(f"{at}.engine._target_=reasoning_lab.sampling.openai.OpenAIEngine")
        words.append(f"{at}.engine.options.extra_body={{}}")
    stage = composed(f"{group}@{at}=model", f"engine@{at}.engine={engine}", *words).root.stages[
        "distill"
    ]
    assert isinstance(stage, DistillStage)
    part = getattr(stage, field)
    part.check(at)
    assert part.engine.model == "some/model"
    assert type(part.engine) is not EngineConfig


def test_every_stage_of_the_lab_is_discovered() -> None:
    """Under its own name. Evaluations are none: no recipe names them."""
    names: dict[str, set[str]] = {}
    for name, stage in stage_classes().items():
        assert stage.name == name
        names.setdefault(stage.produces.kind, set()).add(name)
    assert names == {
        "corpus": {"curate", "distill"},
        "preferences": {"prefer", "prefer_mixed", "prefer_teacher"},
        "policy": {"pretrain", "midtrain", "sft", "dpo", "rl", "opd"},
    }


@pytest.mark.parametrize("stage", [*stage_classes().values(), EvaluateStage])
def test_what_a_stage_runs_takes_what_the_stage_consumes(stage: type[LabStage]) -> None:
    """The import path of `implementation` is a string, which no type checker follows.

    What a stage may name besides has a default.
    """
    parameters = signature(resolve_name(stage.implementation)).parameters.values()
    _, context, *inputs = (one.name for one in parameters if one.default is Parameter.empty)
    assert context == "context"
    assert inputs == [artifact.kind for artifact in stage.consumes]


@pytest.mark.parametrize(
    "path", ["os.system", "torch.hub.load", "builtins.eval", "reasoning_labs.x"]
)
def test_only_allowed_code_may_be_named(path: str, composed: Compose) -> None:
    with pytest.raises(UserError, match=r"data\._target_.*may not be named"):
        composed("data=custom", f"data._target_={path}")


def test_path_that_leads_nowhere_names_its_key() -> None:
    with pytest.raises(UserError, match=r"stages\.x\.run: there is no 'reasoning_lab\.nothing"):
        resolve("reasoning_lab.nothing.run", "stages.x.run")


def test_model_folder_is_identified_by_its_content(composed: Compose, tmp_path: Path) -> None:
    for name, weights in (("a", b"weights"), ("b", b"weights"), ("c", b"others")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        (tmp_path / name / "config.json").write_text("{}")

    def identity(name: str) -> set[str]:
        recipe = composed("ablate=pretrain", f"model.path={tmp_path / name}")
        return {n.fingerprint for n in recipe.nodes if Policy in n.stage.consumes}

    assert identity("a") == identity("b")
    assert not identity("a") & identity("c")


@pytest.mark.parametrize("config", [None, "{", "[]"])
def test_model_folder_without_a_config_is_refused(
    config: str | None, composed: Compose, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"^model\.path=.*config\.json.*; name the folder of a"):
        composed("model=checkpoint", f"model.path={tmp_path}", "~stages.pretrain")


def test_data_file_is_identified_by_its_content(composed: Compose, tmp_path: Path) -> None:
    def prints(name: str, text: str) -> dict[str, str]:
        path = tmp_path / name
        path.write_text(text)
        nodes = composed("data=jsonl", f"data.path={path}").nodes
        return {node.name: node.fingerprint for node in nodes}

    row = '{"prompt": "1 + 1?", "gold": "2"}\n'
    assert prints("a", row) == prints("b", row)
    assert prints("c", row + row)["distill"] != prints("a", row)["distill"]


def test_a_local_copy_in_a_mixture_is_identified_by_its_content(
    composed: Compose, tmp_path: Path
) -> None:
    def identity(name: str, answer: int) -> str:
        path = tmp_path / name
        path.write_text(f'{{"question": "1 + 1?", "answer": "#### {answer}"}}\n')
        nodes = composed("data=mixture", f"data.sources.gsm8k.path={path}").nodes
        return next(node.fingerprint for node in nodes if node.name == "distill")

    assert identity("a.jsonl", 2) == identity("b.jsonl", 2)
    assert identity("c.jsonl", 3) != identity("a.jsonl", 2)


def test_a_key_that_rows_lack_is_named(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"data\.rows\.promt=question: there is no such key"):
        composed("data=gsm8k", "+data.rows.promt=question")


def test_sleep_is_asked_of_a_gpu_and_changes_no_result(composed: Compose) -> None:
    awake = [node.fingerprint for node in composed().nodes]
    asleep = composed("hardware.accelerator=gpu", "hardware.sampling.sleep=true").nodes
    assert [node.fingerprint for node in asleep] == awake


def test_where_the_rollouts_servers_are_changes_no_result(composed: Compose) -> None:
    """The trainers need no vLLM then."""
    drawn = ["stages.rl.rollout_engine=vllm", "~stages.midtrain"]
    places = [
        ["hardware.sampling.rollout_urls=[http://10.0.0.1:8000]"],
        [
            "hardware.sampling.rollout_urls=[http://a:1/v1,https://b/]",
            *(
                "hardware.sampling.weights_dir=/shared",
                "hardware.strategy=ddp",
                "hardware.devices=2",
            ),
        ],
    ]
    one, other = ([n.fingerprint for n in composed(*drawn, *place).nodes] for place in places)
    assert one == other
    assert one != [node.fingerprint for node in composed("~stages.midtrain").nodes]
