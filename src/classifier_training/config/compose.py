"""What Hydra is asked to do: overrides made strict, dangerous ones refused, a first composition.

A user's ``key=value`` is handed to Hydra as ``++key=value``, so that a misspelt key reaches our
schema (which lists all problems, with did-you-mean) instead of stopping alone inside Hydra.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from classifier_training.errors import ConfigError

CONF_MODULE = "classifier_training.conf"
DEFAULT_ROOT = "train"

# Keys of Hydra's own section that a command may set: they place the output and name the job.
# Everything else there can name classes that Hydra itself would import.
_HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name")
_HYDRA_PREFIXES = ("hydra.sweeper.params", "hydra.launcher.n_jobs", "hydra.launcher.verbose")
_HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
_HYDRA_TARGET_PREFIXES = ("hydra._internal.", "hydra_plugins.", "logging.")

# Entries that are switched off by null; the names in them are open.
_OPEN_SECTIONS = ("callbacks", "logging")

# Jobs of a sweep that are composed and checked before the first one starts. The others are checked
# when their turn comes.
_CHECKED_JOBS = 32


def make_strict(
    overrides: list[str], *, is_multirun: bool = False, config_dir: str | None = None
) -> list[str]:
    """Rewrite a user's overrides for Hydra.

    Args:
        overrides: As typed.
        is_multirun: Whether they may hold sweeps.
        config_dir: A folder of the user's own YAML files, which may hold groups of her own.

    Raises:
        ConfigError: An override is malformed, or sets what no command may set.
    """
    groups = _groups(config_dir)
    strict = []
    for override in parse(overrides):
        _refuse_dangerous(override)
        _refuse_sweep(override, is_multirun=is_multirun)
        text = str(override.input_line)
        if override.is_delete():
            strict.append(text)
        elif _is_group(override.get_key_element(), groups):
            strict.append(_strict_group(override))
        else:
            strict.append("++" + text.lstrip("+"))
    return strict


def parse(overrides: list[str]) -> list[Override]:
    """Parse overrides with Hydra's own grammar.

    Raises:
        ConfigError: One of them does not follow it.
    """
    parsed = []
    for text in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except HydraException as error:
            raise ConfigError(
                f"cannot read the override {text!r}: {str(error).splitlines()[0]}",
                expected="KEY=VALUE, for example trainer.max_epochs=10",
                fix=_how_to_quote(text),
            ) from error
        if not parsed[-1].key_or_group:
            raise ConfigError(
                f"the override {text!r} names no key",
                expected="KEY=VALUE, for example trainer.max_epochs=10",
                fix="remove it, or name the key",
            )
    return parsed


def allowed_modules(overrides: list[str]) -> list[str]:
    """Return what ``allow_modules`` says on the command line, an empty list without it."""
    for override in reversed(parse(overrides)):
        if override.get_key_element().lstrip("+") == "allow_modules":
            value = override.value()
            return [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return []


def compose_config(
    overrides: list[str],
    *,
    root: str = DEFAULT_ROOT,
    config_dir: str | None = None,
    output_dir: str | None = None,
) -> DictConfig:
    """Compose a configuration without running anything; the ``hydra`` section is checked, then cut.

    Args:
        overrides: As :func:`make_strict` returns them.
        root: Name of a root YAML without its ending.
        config_dir: A folder of the user's own YAML files.
        output_dir: What ``${hydra:runtime.output_dir}`` stands for; None: ``hydra.run.dir``.

    Raises:
        ConfigError: Unknown root, unknown group option, or a value that Hydra refuses.
    """
    try:
        with _sources(root, config_dir) as search:
            config = compose(root, [*overrides, *search], return_hydra_config=True)
            off = _switched_off(overrides)
            if off:
                kept = [text for text in overrides if text not in off.values()]
                _mark_unknown(config, off, compose(root, [*kept, *search]))
    except Exception as error:  # YAML, OmegaConf and Hydra have each their own, also ValueError
        raise explain(error, root) from error
    _check_hydra_section(config)
    return _without_hydra(config, output_dir)


def run_folders(
    overrides: list[str], *, root: str = DEFAULT_ROOT, config_dir: str | None = None
) -> list[Path]:
    """Return the folders (of a single run and of a sweep) that Hydra would make, time-stamped."""
    with _sources(root, config_dir) as search:
        config = compose(root, [*overrides, *search], return_hydra_config=True)
    return [Path(str(config.hydra.run.dir)), Path(str(config.hydra.sweep.dir))]


def first_of_each(overrides: list[str]) -> list[list[str]]:
    """Split a sweep into single jobs in which every swept value occurs at least once."""
    choices = [found for override in parse(overrides) if (found := _choices(override))]
    firsts = [values[0] for values in choices]
    others = (
        [*firsts[:position], choice, *firsts[position + 1 :]]
        for position, values in enumerate(choices)
        for choice in values[1:]
    )
    return [firsts, *islice(others, _CHECKED_JOBS)]


def unresolved(error: OmegaConfBaseException) -> ConfigError:
    """Return the error for a ``${...}`` that leads nowhere."""
    message = str(error)
    place = re.search(r"full_key: (\S+)", message)
    return ConfigError(
        f"{place.group(1) if place else 'a value'}: {message.splitlines()[0]}",
        expected="${...} to name a key that has a value, or ${oc.env:NAME} a variable that is set",
        fix="correct the reference, or set what it names",
    )


def explain(error: Exception, root: str) -> ConfigError:
    """Say in the user's words what Hydra or OmegaConf complained about."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    text = text.replace("'++", "'")  # the user typed no plus signs
    if "Cannot find primary config" in text:
        roots = sorted(path.stem for path in _conf_files() if path.stem.startswith("train"))
        close = difflib.get_close_matches(root, roots, n=1)
        return ConfigError(
            f"there is no configuration named {root!r}",
            expected=f"one of {', '.join(roots)}, or a file in --config-dir",
            fix=f"--config-name {close[0] if close else DEFAULT_ROOT}",
        )
    if "Could not find '" in text:
        return _unknown_option(str(error), text)
    return ConfigError(
        f"the configuration cannot be composed: {text}",
        expected="overrides that fit the shipped YAML (classifier train --cfg job shows it)",
        fix="correct the key or value that the message names",
    )


def _unknown_option(message: str, text: str) -> ConfigError:
    wanted = re.search(r"Could not find '([^']*)'", message)
    group, _, option = (wanted.group(1) if wanted else text).rpartition("/")
    listed = message.partition("Available options in")[2].partition("Config search path")[0]
    options = [line.strip() for line in listed.splitlines()[1:] if line.strip() not in ("", "base")]
    close = difflib.get_close_matches(option, options, n=1)
    return ConfigError(
        f"{group}={option} does not exist" if wanted and group else text,
        expected=f"one of {', '.join(options)}" if options else "an existing group and option",
        fix=f"did you mean {group}={close[0]}?"
        if close
        else f"choose one: {group or 'GROUP'}=NAME",
    )


def _groups(config_dir: str | None) -> set[str]:
    own = Path(config_dir) if config_dir else None
    files = [*_conf_files(), *(own.rglob("*.yaml") if own else ())]
    return {path.parent.name for path in files if path.parent not in (own, _conf_folder())}


def _conf_folder() -> Path:
    with resources.as_file(resources.files(CONF_MODULE)) as folder:
        return Path(folder)


def _conf_files() -> list[Path]:
    return sorted(_conf_folder().rglob("*.yaml"))


@contextmanager
def _sources(root: str, config_dir: str | None) -> Iterator[list[str]]:
    """Tell Hydra where YAML files lie; yields the override that adds the second place.

    A root is looked for in the first place alone, so that is the user's folder for a root of hers.
    """
    own = Path(config_dir).resolve() if config_dir is not None else None
    name = f"{root}.yaml"
    if own is None:
        with initialize_config_module(CONF_MODULE, version_base="1.3"):
            yield []
    elif (own / name).is_file() and not (_conf_folder() / name).is_file():
        with initialize_config_dir(str(own), version_base="1.3"):
            yield [f"hydra.searchpath=[pkg://{CONF_MODULE}]"]
    else:
        with initialize_config_module(CONF_MODULE, version_base="1.3"):
            yield [f"hydra.searchpath=[{_quoted(f'file://{own}')}]"]


def _quoted(text: str) -> str:
    """Quote a value for Hydra's grammar."""
    escaped = re.sub(r"(\\*)\"", r'\1\1\\"', text)  # backslashes count before a quote only
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{chr(92) * trailing}"'


def set_to(key: str, value: str) -> str:
    """Return an override that sets a key to a text, whatever characters it has."""
    plain = re.fullmatch(r"\.{0,2}/[\w./:%+@-]*", value, flags=re.ASCII)
    return f"{key}={value if plain else _quoted(value)}"


def _how_to_quote(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return f"give it a value: {text}=VALUE"
    if not re.fullmatch(r"[+~]{0,2}[A-Za-z_][\w./@-]*", key) or ".." in key:
        return "write the key without spaces, its parts joined by single points"
    return f"quote the value: {shlex.quote(set_to(key, value))}"


def _refuse_sweep(override: Override, *, is_multirun: bool) -> None:
    if is_multirun or not override.is_sweep_override():
        return
    text = str(override.input_line)
    key, _, value = text.partition("=")
    raise ConfigError(
        f"the override {text!r} sets several values",
        expected="one value, unless --multirun is given",
        fix="add --multirun to run a job for each value; "
        f"for one text with commas in it: {shlex.quote(set_to(key, value))}",
    )


def _strict_group(override: Override) -> str:
    """Choose an option whether or not the group has one by default: no plus, null takes it out."""
    text = str(override.input_line).lstrip("+")
    if override.is_sweep_override():
        return text
    value = override.value()
    if value is None:
        return f"~{text.partition('=')[0]}"
    members = value if isinstance(value, list) else [value]
    if not members or not all(isinstance(member, str) and member for member in members):
        raise ConfigError(
            f"the override {text!r} chooses no option",
            expected="GROUP=NAME, the name of a YAML file of that group",
            fix="classifier train --help lists groups and their options",
        )
    return text


def _switched_off(overrides: list[str]) -> dict[tuple[str, str], str]:
    """Find ``callbacks.NAME=null`` and ``logging.NAME=null``."""
    off = {}
    for override in parse(overrides):
        section, _, name = override.get_key_element().lstrip("+").partition(".")
        is_entry = section in _OPEN_SECTIONS and name and "." not in name
        if is_entry and not override.is_delete() and override.value() is None:
            off[section, name] = str(override.input_line)
    return off


def _mark_unknown(config: DictConfig, off: dict[tuple[str, str], str], without: DictConfig) -> None:
    """Leave an empty entry, which validation refuses, for what was off anyway: a misspelt name."""
    for section, name in off:
        if name not in (without.get(section) or {}):
            OmegaConf.update(config, f"{section}.{name}", {}, force_add=True)


def _without_hydra(config: DictConfig, output_dir: str | None) -> DictConfig:
    """Cut the ``hydra`` section, after everything that refers to it has its value."""
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    OmegaConf.set_readonly(config.hydra, False)
    OmegaConf.set_struct(config, False)
    try:
        config.hydra.runtime.output_dir = output_dir or config.hydra.run.dir
        hydra_config.set_config(config)
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.to_container(own, resolve=True)  # names the key in its errors, resolve does not
        OmegaConf.resolve(own)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error
    finally:
        hydra_config.cfg = before
    return own


def _is_group(key: str, groups: set[str]) -> bool:
    name = key.lstrip("+~").partition("@")[0]
    return name in groups or name in _HYDRA_GROUPS


def _refuse_dangerous(override: Override) -> None:
    key = override.get_key_element().lstrip("+~").partition("@")[0]
    is_hydra = key == "hydra" or key.startswith(("hydra.", "hydra/"))
    is_off = override.value() is None
    # Lightning gives it to the processes that it starts.
    is_no_output = key == "hydra.output_subdir" and is_off
    if not is_hydra or key in _HYDRA_GROUPS or is_no_output:
        return
    if key in _HYDRA_KEYS and not override.is_delete():
        if override.value() in (None, ""):
            raise ConfigError(
                f"the override {override.input_line!r} names no folder",
                expected=f"{key}=PATH",
                fix="give a path, or leave it out for a new time-stamped folder under runs",
            )
        return
    if key.startswith(_HYDRA_PREFIXES) and "_target_" not in str(override.input_line):
        return
    raise ConfigError(
        f"the override {override.input_line!r} changes Hydra itself",
        expected=f"one of {', '.join((*_HYDRA_KEYS, *_HYDRA_PREFIXES, *_HYDRA_GROUPS))}",
        fix="remove it",
    )


def _check_hydra_section(config: DictConfig) -> None:
    """Refuse classes that a user's YAML put into Hydra's own section: Hydra would import them."""
    content = OmegaConf.to_container(config.hydra, resolve=False)
    for target in _hydra_targets(content):
        if not target.startswith(_HYDRA_TARGET_PREFIXES):
            raise ConfigError(
                f"the hydra section names the class {target}",
                expected="launchers and sweepers of installed Hydra plugins only",
                fix="remove it from the YAML file",
            )


def _hydra_targets(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [str(node[key]) for key in ("_target_", "()") if isinstance(node.get(key), str)]
        return own + [found for value in node.values() for found in _hydra_targets(value)]
    if isinstance(node, list):
        return [found for value in node for found in _hydra_targets(value)]
    return []


def _choices(override: Override) -> list[str]:
    """Return one override for each value; none where only the sweeper knows the values."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
        return []
    prefix = str(override.input_line).partition("=")[0]
    return [f"{prefix}={text}" for text in override.sweep_string_iterator()]
