"""Errors of Hydra and OmegaConf about a user's mistake, in one sentence.

Place in the flow: the command hands over whatever composition raised; the sentence names
where (key, override or file), the value and the remedy. Imports nothing heavy.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from reasoning_lab.config.folder import CONF
from reasoning_lab.types import UserError

CONFIG_DIR_FLAGS = ("-cd", "--config-dir")
# Of Hydra's flags, those whose value is the next word.
_FLAGS_WITH_VALUE = (
    *CONFIG_DIR_FLAGS,
    "-cp",
    "--config-path",
    "-cn",
    "--config-name",
    "-p",
    "--package",
    "-c",
    "--cfg",
    "-i",
    "--info",
    "-e",
    "--experimental-rerun",
)
# What Hydra writes before its own account of an error.
_FILE = re.compile(r"In '([^']+)': ")
_OVERRIDE = re.compile(r"To append to your (?:config|default list) use \+(.+)")
_NO_MATCH = re.compile(r"Could not (?:override|delete) '([^']+)'")
_WANTED = re.compile(r"could not be converted to (\w+)")
_KINDS = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
# `stages` takes nothing but the schemas of stages; a file's mapping becomes the base of all stages.
_NOT_A_STAGE = re.compile(r"is not a subclass of LabStage\.|Dict\[str, LabStage\]")
_UNNAMED_STAGE = re.compile(r"object_type=LabStage$", re.MULTILINE)
_SWEPT = re.compile(r"Ambiguous value for argument '(.+)'$")
_REFUSED_GROUP = "Config group override"
# Former name of a key to its new names; the one that the same mapping has is meant.
_RENAMED = {
    "backfill_rounds": ("dynamic_sampling_rounds",),
    "device": ("gpu_model",),
    "engine": ("sampling", "rollout_engine"),
    "steps": ("length",),
    "warmup_frac": ("schedule",),
    "decay_frac": ("schedule",),
}
# OmegaConf's own failure at `key={...}` where the key is null.
_FILLED_NULL = re.compile(r"'NoneType' object has no attribute 'get'\s+full_key: (\S+)")


def check_subcommand(arguments: Sequence[str], subcommands: Sequence[str]) -> None:
    """Refuse a word that is no subcommand, before Hydra takes it for an override.

    Raises:
        UserError: It says which subcommand was meant, that it must come first, or what it takes.
    """
    waiting = iter(arguments)
    for place, word in enumerate(waiting):
        if word in _FLAGS_WITH_VALUE:
            next(waiting, None)
        elif "=" in word or not word[:1].isalpha():
            continue
        elif word in subcommands:
            if place:
                raise UserError(f"{word}: a subcommand comes first; write reasoning-lab {word} …")
        elif place and (first := arguments[0]) in subcommands:
            raise UserError(
                f"{word}: {first} takes key=value; `reasoning-lab {first} --help` says which"
            )
        else:
            near = difflib.get_close_matches(word, subcommands, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else "an override has the form key=value"
            listed = ", ".join(subcommands)
            raise UserError(f"{word}: there is no such subcommand ({listed}); {remedy}")


def is_composition_error(error: BaseException) -> bool:
    """Whether `error` says that the user's overrides or config files are at fault."""
    if isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError):
        return True
    # Neither library has a class of its own for `group=3` or for a mapping in the place of null.
    if isinstance(error, AttributeError):
        return _FILLED_NULL.match(str(error)) is not None
    return isinstance(error, ValueError) and str(error).startswith(_REFUSED_GROUP)


def one_sentence(error: BaseException) -> str:
    """Say where, what and what to do about an error for which `is_composition_error` holds."""
    # A misspelt word may have meant one of them.
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
    keyed = (link for link in _chain(error) if isinstance(link, OmegaConfBaseException))
    fault = next((link for link in keyed if link.full_key), None)
    if null := _FILLED_NULL.match(str(error)):
        return (
            f"{null[1]}: it is empty here, so it has no keys to set; choose an option that fills "
            f"it (`reasoning-lab --help` lists them), then write {null[1]}.KEY=VALUE"
        )
    if isinstance(error, OverrideParseException):
        return _unreadable_override(str(error.override))
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    if isinstance(error, yaml.YAMLError):
        return f"{' '.join(str(error).split())}: not YAML; mend the file there"
    if isinstance(fault, InterpolationResolutionError):
        message = str(fault).splitlines()[0]
        return f"{fault.full_key}: {message}; write ${{key}} with an existing key's full name"
    if isinstance(fault, MissingMandatoryValue):
        return f"{fault.full_key}: no value is given; add {fault.full_key}=VALUE"
    if isinstance(fault, ValidationError):
        return _where(error) + _wrong_type(fault)
    if isinstance(fault, OmegaConfBaseException):
        return _where(error) + _unknown_key(error, fault, groups)
    return _in_hydras_words(error, groups)


def _unreadable_override(override: str) -> str:
    """What to write in its place: Hydra's own quotes inside the shell's, where these help."""
    key, equals, value = override.partition("=")
    # What begins like a list, a mapping or a quote was hardly meant as one text.
    if equals and not value.startswith(("[", "{", "'", '"')):
        quoted = f"{key}={hydra_quoted(value)}"
        if _reads_as(quoted, value):
            return (
                f"'{override}' cannot be read, as Hydra takes a character of the value for itself; "
                f"write {shlex.quote(quoted)}"
            )
    return f"'{override}' is not an override; write key=value"


def _reads_as(override: str, value: str) -> bool:
    """Whether Hydra reads `override` and finds `value` in it."""
    try:
        parsed = OverridesParser.create().parse_override(override).value()
    except (HydraException, ValueError):
        return False
    # OmegaConf turns an escaped interpolation into itself only when it reads the key.
    return str(parsed).replace("\\${", "${") == value


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what led to it, outermost first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _where(error: BaseException) -> str:
    match = _FILE.match(str(error))
    return f"{match[1]}.yaml: " if match else ""


def _unknown_key(error: BaseException, fault: OmegaConfBaseException, groups: Sequence[str]) -> str:
    key, parent = str(fault.key), str(fault.full_key).rpartition(".")[0]
    override = _OVERRIDE.search(str(error))
    existing = [str(name) for name in fault.parent_node] if _is_mapping(fault.parent_node) else []
    if not parent:
        existing = sorted({*existing, *groups})
    where = override[1] if override else fault.full_key
    if key in existing and all(isinstance(name, int) for name in fault.parent_node):
        return f"{where}: the keys of {parent} are numbers; write {parent}={{{key}: ...}}"
    if key in existing:
        return f"~{where}: this key cannot be taken out; give it a value, or take out keys below it"
    place = f" in {parent}" if parent else ""
    if _UNNAMED_STAGE.search(str(fault)):
        return no_stage(parent)
    if key == "_target_" and parent:
        kind = "data" if ".sources." in parent else parent.rpartition(".")[2]
        return (
            f"{where}: only code of your own is named by _target_; begin the option's file with "
            f"defaults: [{{/schema/{kind}@_here_: custom}}] and put the arguments under options"
        )
    for name in _RENAMED.get(key, ()):
        if parent and name in existing:
            return f"{where}: '{key}' is now called '{name}'; write {parent}.{name}"
    return f"{where}: there is no key '{key}'{place}" + _nearest(key, existing)


def _is_mapping(node: object) -> bool:
    return isinstance(node, DictConfig) and not node._is_none() and not node._is_missing()


def no_stage(key: str) -> str:
    """What to do about a stage at `key` that no option has given a schema."""
    return (
        f"{key}: a stage comes with its option; write +stage@{key}=sft to add one, or ~{key} to "
        "leave it out"
    )


def _nearest(word: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; choose among {', '.join(names)}" if names else "; take it out"


def _wrong_type(fault: ValidationError) -> str:
    message = str(fault).splitlines()[0]
    where = f"{fault.full_key}={fault.value}"
    if fault.key != "stages" and _NOT_A_STAGE.search(str(fault)):
        return no_stage(f"stages.{fault.key}")
    if "value: {" in message:
        name = fault.full_key
        return (
            f"{name}: it is no key yet of the mapping that holds it; write the mapping, as "
            f"MAPPING={{{name}: {{KEY: value}}}}"
        )
    if fault.value is None:
        return f"{fault.full_key}=null: it cannot be empty; give a value"
    if match := _WANTED.search(message):
        kind = _KINDS.get(match[1], f"a value of type {match[1]}")
        return f"{where}: '{fault.value}' is not {kind}; give {kind}"
    if "Union[int, str]" in message:
        return f"{where}: '{fault.value}' is not an integer; give an integer"
    if "ListConfig" in message:
        return f"{where}: '{fault.value}' is not a list; write [{fault.value}]"
    if "Dict[" in message or "subclass of" in message:
        return f"{where}: '{fault.value}' is not a mapping; set the keys below {fault.full_key}"
    return f"{where}: {message}; see `reasoning-lab --cfg job` for the type of every key"


def _unknown_option(error: MissingConfigException) -> str:
    wanted = error.missing_cfg_file or ""
    group, _, option = wanted.rpartition("/")
    if not group:
        return f"--config-name={wanted}: there is no such config; leave --config-name out"
    match = _FILE.match(str(error))
    # Only a file can name an option in another's place; the root's defaults are overridden.
    where = "" if match is None or match[1] == "config" else f"{match[1]}.yaml: "
    remedy = _nearest(option, error.options) if error.options else f"; see conf/{group}"
    return f"{where}{group}={option}: group '{group}' has no option '{option}'{remedy}"


def _in_hydras_words(error: BaseException, groups: Sequence[str]) -> str:
    """Errors that come without a key of their own: the first line, and the nearest group."""
    first = str(error).strip().splitlines()[0].rstrip(".")
    if match := _NO_MATCH.search(first):
        word = match[1]
        override = _OVERRIDE.search(str(error))
        choices = re.search(r"one of (.+)\?", str(error))
        names = choices[1].split(", ") if choices else list(groups)
        where = override[1] if override else word
        return f"{_where(error)}{where}: there is no '{word}' to change" + _nearest(word, names)
    if match := _SWEPT.search(first):
        key, _, value = match[1].partition("=")
        return (
            f"{match[1]}: a comma separates the values of a sweep; add -m to run each of them, or "
            f"""write {shlex.quote(f'{key}="{value}"')} for one value with a comma"""
        )
    if first.startswith("Could not append"):
        key = first.rpartition(" ")[2].strip("'")
        return f"+{key}: the key exists; write {key}=VALUE without the +"
    if first.startswith(_REFUSED_GROUP):
        given = "null" if first.endswith("NoneType") else "no name"
        return (
            f"a config group was given {given}; choose one of its options by name, or leave it out"
        )
    return f"{first}; `reasoning-lab --cfg job` shows every key with its value"


def hydra_quoted(value: str) -> str:
    """`value` in the quotes in which Hydra takes every character of it for itself."""
    # A backslash means itself there, except before a quote.
    inside = re.sub(r'(\\*)"', r'\1\1\\"', value)
    inside = re.sub(r"(\\+)$", r"\1\1", inside).replace("${", "\\${")
    return f'"{inside}"'
