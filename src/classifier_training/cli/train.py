"""``classifier train`` (and ``task_manager``): a Hydra program whose errors are ours.

The whole configuration is checked before torch is imported and before Hydra makes a folder.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from loguru import logger

from classifier_training import __version__
from classifier_training.cli.report import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_CONFIG, EXIT_OK, EXIT_TERMINATED, ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_START = """\
To train, say where your labelled images are:

  classifier train data.data_root=PATH                 a folder per class: PATH/CLASS/*.jpg or
                                                       PATH/{train,val,test}/CLASS/*.jpg
  classifier train data=jsonl data.data_root=PATH      {"image": ..., "suffix": LABEL} a line
  classifier train data=csv data.data_root=PATH        columns path and label

More:

  classifier train --cfg job data.data_root=PATH       show every key and its value
  classifier train data.data_root=PATH model=resnet50 trainer.max_epochs=10
  classifier train data.data_root=PATH debug=limit     the whole way in a minute
  classifier synth DIR && classifier train --config-name train_demo data.data_root=DIR

Nothing to train on yet? `classifier synth DIR` renders jersey numbers.
"""

# Hydra's flags that take a value.
_WITH_VALUE = ("--config-name", "-cn", "--config-dir", "-cd", "--cfg", "-c", "--package", "-p")
_REFUSED = ("--experimental-rerun", "--config-path", "-cp", "--run", "-r")
_SHOWS = ("--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i", "--version")


@dataclass
class _CommandLine:
    """A command split into what is Hydra's and what are overrides."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    root: str = "train"
    config_dir: str | None = None
    debug: bool = False
    is_multirun: bool = False
    shows_only: bool = False


def task_manager() -> None:
    """Entry point of the sibling's launcher: ``task_manager ...`` is ``classifier train ...``."""
    sys.exit(train(sys.argv[1:]))


def train(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    debug = "--debug" in arguments
    set_up_logging(debug=debug)
    return guarded(lambda: _train(arguments), debug=debug)


def _train(arguments: list[str]) -> int:
    if not arguments:
        sys.stderr.write(_START)
        return EXIT_CONFIG
    line = _split(arguments)
    for module in ("hydra", "pydantic", "torch", "lightning"):
        if find_spec(module) is None:
            raise need_extra(module, "train")
    from classifier_training.config.compose import (
        allowed_modules,
        compose_config,
        first_of_each,
        make_strict,
    )
    from classifier_training.config.validate import validate

    signal.signal(signal.SIGTERM, _terminate)
    strict = make_strict(line.overrides)
    modules = allowed_modules(line.overrides)
    if not line.shows_only:
        for job in first_of_each(strict) if line.is_multirun else [strict]:
            composed = compose_config(job, root=line.root, config_dir=line.config_dir)
            validate(composed, allow_modules=modules)
    return _hand_to_hydra(line, strict, modules)


def _split(arguments: list[str]) -> _CommandLine:
    line = _CommandLine()
    waiting = iter(arguments)
    for argument in waiting:
        name, _, value = argument.partition("=")
        if name in _REFUSED:
            raise ConfigError(
                f"the option {name} is not supported",
                expected="--config-name NAME and --config-dir DIR to choose YAML files",
                mend="--experimental-rerun reads a pickle, which can run code; use the command "
                "that run.json records instead",
            )
        if argument == "--debug":
            line.debug = True
        elif name in _WITH_VALUE:
            value = value or next(waiting, "")
            _note_value(line, name, value)
            line.flags += [name, value]
        elif argument.startswith("-"):
            line.flags.append(argument)
        else:
            line.overrides.append(argument)
        line.is_multirun = line.is_multirun or argument in ("-m", "--multirun")
        line.shows_only = line.shows_only or name in _SHOWS
    return line


def _note_value(line: _CommandLine, name: str, value: str) -> None:
    if name in ("--config-name", "-cn"):
        line.root = value.removesuffix(".yaml")
    elif name in ("--config-dir", "-cd"):
        if not Path(value).is_dir():
            raise ConfigError(
                f"--config-dir {value} is not a folder",
                expected="a folder of YAML files",
                mend="correct the path",
            )
        line.config_dir = value


def _hand_to_hydra(line: _CommandLine, strict: list[str], modules: list[str]) -> int:
    """Run the real ``@hydra.main``, so that sweeps, launchers and ``--cfg`` work as ever."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from classifier_training.config.compose import explain

    existing = _existing_part(Path.cwd() / "runs")

    @hydra.main(
        version_base="1.3", config_path="pkg://classifier_training.conf", config_name=line.root
    )
    def job(composed: DictConfig) -> None:
        _run_job(composed, line, modules, existing)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come out as they are
    before = sys.argv
    sys.argv = [before[0], *line.flags, *strict]
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, line.root) from error
    finally:
        sys.argv = before
    return EXIT_OK


def _run_job(composed: DictConfig, line: _CommandLine, modules: list[str], existing: Path) -> None:
    from hydra.core.hydra_config import HydraConfig

    from classifier_training.config.validate import validate

    path = Path(HydraConfig.get().runtime.output_dir)
    command = _command(line)
    resume = f"{command} {shlex.quote(f'hydra.run.dir={path}')}"

    def run() -> int:
        config = validate(composed, allow_modules=modules)
        logger.info("classifier-training {}: run folder {}", __version__, path)
        logger.info("go on later with: {}", resume)
        from classifier_training.artifacts.run_folder import RunFolder
        from classifier_training.training.fit import fit

        done = fit(config, RunFolder(path, resume_command=resume), command)
        from classifier_training.cli.verdict import show_verdict

        show_verdict(done)
        return EXIT_OK

    code = guarded(run, debug=line.debug)
    if code != EXIT_OK:
        _remove_empty(path, existing)
        # Hydra would wrap an exception of ours in its own report.
        raise SystemExit(code)


def _command(line: _CommandLine) -> str:
    """Return the command without its run folder, which the resume command adds."""
    words = [word for word in line.overrides if not word.lstrip("+").startswith("hydra.run.dir=")]
    name = Path(sys.argv[0]).name
    prefix = ["task_manager"] if name == "task_manager" else ["classifier", "train"]
    return shlex.join([*prefix, *line.flags, *words])


def _existing_part(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _remove_empty(path: Path, existing: Path) -> None:
    """Remove a run folder that a refusal left empty, and the empty folders made for it."""
    for folder in (path, *path.parents):
        if folder == existing or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """Before and after training there is nothing to save; the files written so far are whole."""
    sys.stderr.write("stopped by SIGTERM; the same command goes on\n")
    raise SystemExit(EXIT_TERMINATED)
