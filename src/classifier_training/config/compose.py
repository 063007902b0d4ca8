"""What Hydra is asked to do: overrides made strict, dangerous ones refused, a first composition.

A user's ``key=value`` is handed to Hydra as ``++key=value``, so that a misspelt key reaches our
schema (which lists all problems, with did-you-mean) instead of stopping alone inside Hydra.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
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


def make_strict(overrides: list[str]) -> list[str]:
    """Rewrite a user's overrides for Hydra.

    Raises:
        ConfigError: An override is malformed, or sets what no command may set.
    """
    groups = _groups()
    strict = []
    for override in parse(overrides):
        text = str(override.input_line)
        _refuse_dangerous(override)
        key = override.get_key_element()
        if override.is_delete() or _is_group(key, groups):
            strict.append(text)
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
                mend="quote values with spaces, commas or brackets: 'data.data_root=\"my images\"'",
            ) from error
    return parsed


def allowed_modules(overrides: list[str]) -> list[str]:
    """Return what ``allow_modules`` says on the command line, an empty list without it."""
    for override in reversed(parse(overrides)):
        if override.get_key_element().lstrip("+") == "allow_modules":
            value = override.value()
            return [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return []


def compose_config(
    overrides: list[str], *, root: str = DEFAULT_ROOT, config_dir: str | None = None
) -> DictConfig:
    """Compose a configuration without running anything; the ``hydra`` section is checked, then cut.

    Args:
        overrides: As :func:`make_strict` returns them.
        root: Name of a root YAML without its ending.
        config_dir: A folder of the user's own YAML files.

    Raises:
        ConfigError: Unknown root, unknown group option, or a value that Hydra refuses.
    """
    search = (
        [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    )
    try:
        with initialize_config_module(CONF_MODULE, version_base="1.3"):
            config = compose(root, [*overrides, *search], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, root) from error
    _check_hydra_section(config)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


def first_of_each(overrides: list[str]) -> list[list[str]]:
    """Split a sweep into single jobs in which every swept value occurs at least once."""
    parsed = parse(overrides)
    jobs: list[list[str]] = []
    firsts = [_choices(override)[0] for override in parsed]
    for position, override in enumerate(parsed):
        jobs += [
            [*firsts[:position], choice, *firsts[position + 1 :]]
            for choice in _choices(override)[1:]
        ]
    return [firsts, *jobs]


def explain(error: Exception, root: str) -> ConfigError:
    """Say in the user's words what Hydra or OmegaConf complained about."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "Cannot find primary config" in text:
        roots = sorted(path.stem for path in _conf_files() if path.stem.startswith("train"))
        close = difflib.get_close_matches(root, roots, n=1)
        return ConfigError(
            f"there is no configuration named {root!r}",
            expected=f"one of {', '.join(roots)}, or a file in --config-dir",
            mend=f"--config-name {close[0] if close else DEFAULT_ROOT}",
        )
    if text.startswith(("Could not find", "In '")):
        return _unknown_option(str(error), text)
    return ConfigError(
        f"the configuration cannot be composed: {text}",
        expected="overrides that fit the shipped YAML (classifier train --cfg job shows it)",
        mend="correct the key or value that the message names",
    )


def _unknown_option(message: str, text: str) -> ConfigError:
    wanted = next((part for part in text.replace("'", " ").split() if "/" in part), text)
    group, _, option = wanted.rpartition("/")
    options = sorted(
        path.stem for path in _conf_files() if path.parent.name == group and path.stem != "base"
    )
    close = difflib.get_close_matches(option, options, n=1)
    return ConfigError(
        f"{group}={option} does not exist" if options else message.splitlines()[0],
        expected=f"one of {', '.join(options)}" if options else "an existing group and option",
        mend=f"did you mean {group}={close[0]}?" if close else f"choose one: {group}=NAME",
    )


def _groups() -> set[str]:
    return {path.parent.name for path in _conf_files() if path.parent.name != "conf"}


def _conf_files() -> list[Path]:
    with resources.as_file(resources.files(CONF_MODULE)) as folder:
        return sorted(Path(folder).rglob("*.yaml"))


def _is_group(key: str, groups: set[str]) -> bool:
    name = key.lstrip("+~").partition("@")[0]
    return name in groups or name in _HYDRA_GROUPS


def _refuse_dangerous(override: Override) -> None:
    key = override.get_key_element().lstrip("+~").partition("@")[0]
    is_hydra = key == "hydra" or key.startswith(("hydra.", "hydra/"))
    if not is_hydra or key in _HYDRA_KEYS or key in _HYDRA_GROUPS:
        return
    if key.startswith(_HYDRA_PREFIXES) and "_target_" not in str(override.input_line):
        return
    raise ConfigError(
        f"the override {override.input_line!r} changes Hydra itself",
        expected=f"one of {', '.join((*_HYDRA_KEYS, *_HYDRA_PREFIXES, *_HYDRA_GROUPS))}",
        mend="remove it",
    )


def _check_hydra_section(config: DictConfig) -> None:
    """Refuse classes that a user's YAML put into Hydra's own section: Hydra would import them."""
    content = OmegaConf.to_container(config.hydra, resolve=False)
    for target in _hydra_targets(content):
        if not target.startswith(_HYDRA_TARGET_PREFIXES):
            raise ConfigError(
                f"the hydra section names the class {target}",
                expected="launchers and sweepers of installed Hydra plugins only",
                mend="remove it from the YAML file",
            )


def _hydra_targets(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [str(node[key]) for key in ("_target_", "()") if isinstance(node.get(key), str)]
        return own + [found for value in node.values() for found in _hydra_targets(value)]
    if isinstance(node, list):
        return [found for value in node for found in _hydra_targets(value)]
    return []


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    prefix = str(override.input_line).partition("=")[0]
    return [f"{prefix}={text}" for text in override.sweep_string_iterator()]
