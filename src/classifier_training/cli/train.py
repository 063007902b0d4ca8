"""``classifier train`` (and ``task_manager``): a Hydra program whose errors are ours.

The whole configuration is checked before torch is imported and before Hydra makes a folder.
"""

from __future__ import annotations

import difflib
import os
import shlex
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from loguru import logger

from classifier_training import __version__
from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.cloud.secrets import resolve
from classifier_training.errors import (
    EXIT_CONFIG,
    EXIT_OK,
    EXIT_TERMINATED,
    EXIT_UNEXPECTED,
    ConfigError,
)

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

# Hydra's flags. Others are refused: Hydra takes the beginning of a flag for the flag itself, so
# that --experimental-re is --experimental-rerun.
_WITH_VALUE = ("--config-name", "-cn", "--config-dir", "-cd", "--cfg", "-c", "--package", "-p")
_INFO = ("--info", "-i")
_INFO_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_COMPLETION = ("--shell-completion", "-sc")
_MULTIRUN = ("--multirun", "-m")
_SHOWS = ("--cfg", "-c", "--help", "-h", "--hydra-help", *_INFO, *_COMPLETION)
_PLAIN = ("--help", "-h", "--hydra-help", "--resolve", *_INFO, *_COMPLETION, *_MULTIRUN)
_REFUSED = {
    "--experimental-rerun": "it reads a pickle, which can run code; use the command that run.json "
    "records instead",
    "--config-path": "use --config-dir DIR for YAML files of your own",
    "-cp": "use --config-dir DIR for YAML files of your own",
    "--run": "leave it out: a single run is what happens without --multirun",
    "-r": "leave it out: a single run is what happens without --multirun",
}


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
    shows_version: bool = False
    existing: frozenset[Path] = frozenset()
    sweep: str = ""


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
    if line.shows_version:
        sys.stdout.write(f"{__version__}\n")
        return EXIT_OK
    for module in ("hydra", "pydantic", "torch", "lightning"):
        if find_spec(module) is None:
            raise need_extra(module, "train")
    resolve(os.environ)
    from classifier_training.config.compose import (
        allowed_modules,
        compose_config,
        first_of_each,
        make_strict,
        run_folders,
    )
    from classifier_training.config.validate import validate

    signal.signal(signal.SIGTERM, _terminate)
    strict = make_strict(line.overrides, is_multirun=line.is_multirun, config_dir=line.config_dir)
    modules = allowed_modules(line.overrides)
    if not line.shows_only:
        jobs = first_of_each(strict) if line.is_multirun else [strict]
        for job in jobs:
            composed = compose_config(job, root=line.root, config_dir=line.config_dir)
            validate(composed, allow_modules=modules)
        folders = run_folders(jobs[0], root=line.root, config_dir=line.config_dir)
        line.existing = frozenset(_existing_parents(folders))
    elif line.is_multirun:  # Hydra shows one job only
        strict = first_of_each(strict)[0]
        line.flags = [flag for flag in line.flags if flag not in _MULTIRUN]
    return _hand_to_hydra(line, strict, modules)


def _split(arguments: list[str]) -> _CommandLine:
    line = _CommandLine()
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            line.overrides.append(argument)
        elif argument == "--debug":
            line.debug = True
        elif argument == "--version":
            line.shows_version = True
        elif name in _WITH_VALUE:
            if not equals:
                value = waiting.popleft() if waiting else ""
            _note_value(line, name, value)
            line.flags += [name, value]
        elif name in _PLAIN:
            line.flags.append(argument)
            takes_next = (name in _INFO and waiting and waiting[0] in _INFO_TOPICS) or (
                name in _COMPLETION and waiting
            )
            if takes_next and not equals:
                line.flags.append(waiting.popleft())
        else:
            raise _unsupported(name)
        line.is_multirun = line.is_multirun or argument in _MULTIRUN
        line.shows_only = line.shows_only or name in _SHOWS
    _refuse_lost_folder(line)
    return line


def _unsupported(name: str) -> ConfigError:
    ours = (*_WITH_VALUE, *_PLAIN, "--debug", "--version")
    close = difflib.get_close_matches(name, ours, n=1)
    hint = f"did you mean {close[0]}?" if close else "classifier train --hydra-help lists the flags"
    return ConfigError(
        f"the option {name} is not supported",
        expected=f"KEY=VALUE, or one of {', '.join(flag for flag in ours if flag[:2] == '--')}",
        fix=_REFUSED.get(name, hint),
    )


def _refuse_lost_folder(line: _CommandLine) -> None:
    """Hydra reads one of the two folders and passes over the other without a word."""
    lost, used = ("run", "sweep") if line.is_multirun else ("sweep", "run")
    for override in line.overrides:
        if override.lstrip("+").startswith(f"hydra.{lost}.dir="):
            with_or_without = "with" if line.is_multirun else "without"
            raise ConfigError(
                f"{override} has no effect {with_or_without} --multirun",
                expected=f"hydra.{used}.dir=PATH {with_or_without} --multirun",
                fix=f"hydra.{used}.dir={override.partition('=')[2]}",
            )


def _note_value(line: _CommandLine, name: str, value: str) -> None:
    if not value:
        raise ConfigError(
            f"the option {name} has no value",
            expected=f"{name} VALUE",
            fix="give it one, or leave the option out",
        )
    if name in ("--config-name", "-cn"):
        line.root = value.removesuffix(".yaml")
    elif name in ("--config-dir", "-cd"):
        if not Path(value).is_dir():
            raise ConfigError(
                f"--config-dir {value} is not a folder",
                expected="a folder of YAML files",
                fix="correct the path",
            )
        line.config_dir = value


def _hand_to_hydra(line: _CommandLine, strict: list[str], modules: list[str]) -> int:
    """Run the real ``@hydra.main``, so that sweeps, launchers and ``--cfg`` work as ever."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from classifier_training.config.compose import explain

    @hydra.main(
        version_base="1.3", config_path="pkg://classifier_training.conf", config_name=line.root
    )
    def job(composed: DictConfig) -> None:
        _run_job(composed, line, modules)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come out as they are
    try:
        with _arguments([*line.flags, *strict]):
            job()
        if line.sweep:  # unknown here when a launcher ran the jobs elsewhere
            command = shlex.join(["classifier", "runs", line.sweep, "--aggregate"])
            logger.info("mean and interval over seeds or folds: {}", command)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, line.root) from error
    return EXIT_OK


def _run_job(composed: DictConfig, line: _CommandLine, modules: list[str]) -> None:
    from hydra.core.hydra_config import HydraConfig

    from classifier_training.config.compose import set_to
    from classifier_training.config.validate import validate

    path = Path(HydraConfig.get().runtime.output_dir)
    typed = line.overrides
    if line.is_multirun:  # one job of it, as it would be typed alone
        line.sweep = str(HydraConfig.get().sweep.dir)
        typed = [str(text).lstrip("+") for text in HydraConfig.get().overrides.task]
    command = _command(line, typed)
    resume = f"{command} {shlex.quote(set_to('hydra.run.dir', str(path)))}"

    def run() -> int:
        config = validate(composed, allow_modules=modules)
        logger.info("classifier-training {}: run folder {}", __version__, path)
        logger.info("resume later with: {}", resume)
        from classifier_training.run.folder import RunFolder
        from classifier_training.training.fit import fit

        done = fit(config, RunFolder(path, resume_command=resume), command)
        if done is not None:  # the further processes of a distributed run have none
            from classifier_training.cli.verdict import show_verdict

            show_verdict(done)
        return EXIT_OK

    code = EXIT_UNEXPECTED
    try:
        # Lightning starts further processes with this command.
        with _arguments(shlex.split(command)[1:]):
            code = guarded(run, debug=line.debug)
    finally:
        if code != EXIT_OK:
            _remove_empty(path, line.existing)
    if code != EXIT_OK:
        # Hydra would wrap an exception of ours in its own report.
        raise SystemExit(code)


@contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _command(line: _CommandLine, overrides: list[str]) -> str:
    """Return the command without its run folder, which the resume command adds."""
    folder = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=")
    words = [word for word in overrides if not word.lstrip("+").startswith(folder)]
    flags = [flag for flag in line.flags if flag not in _MULTIRUN]
    name = Path(sys.argv[0]).name
    prefix = ["task_manager"] if name == "task_manager" else ["classifier", "train"]
    return shlex.join([*prefix, *flags, *words])


def _existing_parents(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        path = Path.cwd() / folder
        yield from (part for part in (path, *path.parents) if part.exists())


def _remove_empty(path: Path, existing: frozenset[Path]) -> None:
    """Remove a run folder that a refusal left empty, and the empty folders made for it."""
    for folder in (path, *path.parents):
        if folder in existing or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """Before and after training there is nothing to save; the files written so far are whole."""
    sys.stderr.write("stopped by SIGTERM; the same command resumes the run\n")
    raise SystemExit(EXIT_TERMINATED)
