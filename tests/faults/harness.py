"""Kills runs at random moments, starts the same command again, and compares what they end with.

Everything is drawn from a seed. A child process is forked from one that has imported everything, so
that a part of a run takes about a second; it calls the real ``classifier train``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from classifier_training.cli.train import train
from classifier_training.run.folder import RunFolder
from classifier_training.training import finish
from classifier_training.training.module import ClassifierModule
from tests.helpers.checkpoints import differences, training_state
from tests.helpers.data import write_folder
from tests.helpers.runs import TINY

_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Scenario:
    """A kind of run.

    Attributes:
        name: As the report calls it.
        overrides: Of every part.
        changing: Overrides of which each part takes the next one.
    """

    name: str
    overrides: tuple[str, ...] = ()
    changing: tuple[str, ...] = ()


SCENARIOS = (
    Scenario("plain"),
    Scenario("workers changed", changing=("data.num_workers=0", "data.num_workers=2")),
    Scenario("accumulation", ("trainer.accumulate_grad_batches=2", "checkpoint.every_n_steps=1")),
    Scenario("bf16", ("trainer.precision=bf16-mixed",)),
    Scenario("weighted sampler", ("data.sampler=weighted", "checkpoint.every_n_steps=4")),
    Scenario("every_n_steps, dropout", ("model.name=dropout", "checkpoint.every_n_steps=2")),
)

# Where a signal is sent from inside the process: at the n-th call of these, n up to the number.
_PLACES: dict[str, tuple[Any, str, int]] = {
    "training step": (ClassifierModule, "training_step", 8),
    "validation": (ClassifierModule, "validation_step", 4),
    "writing a tensor": (torch._C.PyTorchFileWriter, "write_record", 90),
    "before fsync": (os, "fsync", 24),
    "before a rename": (os, "replace", 16),
    "before a link": (os, "link", 4),
    "evaluation": (finish, "write_evaluation", 2),
    "export": (finish, "export_verified", 1),
}


@dataclass
class Report:
    """What happened.

    Attributes:
        kills: How many, by where.
        recoveries: Kills after which the run ended right.
        losses: What went wrong, a line each.
        runs: Runs that were killed and finished.
    """

    kills: dict[str, int] = field(default_factory=dict)
    recoveries: int = 0
    losses: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())

    def __str__(self) -> str:
        places = "".join(f"\n  {count:4d}  {name}" for name, count in sorted(self.kills.items()))
        losses = "".join(f"\n  {line}" for line in self.losses)
        return (
            f"{self.total} kills of {self.runs} runs, {self.recoveries} recoveries, "
            f"{len(self.losses)} losses{losses}\nkills by place:{places}"
        )


@dataclass(frozen=True)
class _Kill:
    """When a part of a run is killed, and how.

    Attributes:
        place: Key of ``_PLACES``; None: by the clock.
        moment: Which call, or after how many seconds.
        numbers: The signals sent, one right after the other.
    """

    place: str | None
    moment: float
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        names = " ".join(signal.Signals(number).name for number in self.numbers)
        return f"{names}: {self.place or 'any moment'}"

    def arm(self) -> None:
        """Let this process send the signals to itself."""
        if self.place is None:
            return
        owner, name, _ = _PLACES[self.place]
        original: Callable[..., Any] = getattr(owner, name)
        calls = itertools.count(1)

        @functools.wraps(original)
        def armed(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == self.moment:
                for number in self.numbers:
                    os.kill(os.getpid(), number)
            return original(*args, **kwargs)

        setattr(owner, name, armed)


def warm_up() -> None:
    """Import what exporting imports when it is first asked to, once instead of in every child."""
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(
            torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), f"{folder}/x.onnx", dynamo=True,
            verbose=False,
        )  # fmt: skip


class Harness:
    """Kills runs of a scenario.

    Args:
        folder: For data, runs and their output.
        seed: Of all that is drawn.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        self._data = write_folder(folder / "images")
        warm_up()
        self.report = Report()

    def attack(self, scenario: Scenario, kills: int, *, each: int = 10) -> None:
        """Kill runs of a scenario ``kills`` times, one run at most ``each`` times."""
        slug = scenario.name.replace(" ", "-").replace(",", "")
        whole = self._folder / slug / "whole"
        started = time.monotonic()
        code = self._part(scenario, whole, 0, None)
        took = time.monotonic() - started
        if code != 0:
            self.report.losses.append(f"{scenario.name}: uninterrupted run ended with {code}")
            return
        done = 0
        for number in itertools.count():
            if done >= kills:
                return
            killed = self._attacked(
                scenario, self._folder / slug / str(number), whole, min(each, kills - done), took
            )
            if killed < 0:
                return
            done += killed

    def _attacked(self, scenario: Scenario, out: Path, whole: Path, kills: int, took: float) -> int:
        """Kill one run so often, let it finish, compare; -1 when it is lost."""
        done = 0
        story = []
        for part in itertools.count():
            kill = self._draw(took) if done < kills else None
            code = self._part(scenario, out, part, kill)
            story.append(f"{kill} -> {code}")
            if code == 0:
                break
            if kill is None or code not in (-9, -15, 130, 143):
                self.report.losses.append(f"{out}: ended with {code} after {'; '.join(story)}")
                return -1
            done += 1
            self.report.kills[str(kill)] = self.report.kills.get(str(kill), 0) + 1
        found = _unlike(out, whole)
        self.report.runs += 1
        if found:
            self.report.losses.append(f"{out}: {found[:5]} after {'; '.join(story)}")
        else:
            self.report.recoveries += done
        return done

    def _draw(self, took: float) -> _Kill:
        numbers = self._rng.choices(
            [(signal.SIGKILL,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)], [6, 3, 1]
        )[0]
        kind = self._rng.random()
        if kind < 0.1:
            return _Kill(None, self._rng.uniform(0, 1), numbers)
        if kind < 0.35:
            return _Kill(None, self._rng.uniform(0, took), numbers)
        # What comes after training takes most of the time; once is enough there.
        place = self._rng.choices(list(_PLACES), [6, 4, 6, 6, 4, 4, 1, 1])[0]
        return _Kill(place, self._rng.randint(1, _PLACES[place][2]), numbers)

    def _part(self, scenario: Scenario, out: Path, part: int, kill: _Kill | None) -> int:
        """Run the command once; return its exit code, or minus the signal that ended it."""
        changing = scenario.changing
        command = [
            *TINY,
            "trainer.max_epochs=3",
            f"data.data_root={self._data}",
            f"hydra.run.dir={out}",
            *scenario.overrides,
            *([changing[part % len(changing)]] if changing else []),
        ]
        out.parent.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if child == 0:
            _become(out.with_name(f"{out.name}-{part}.txt"), command, kill)
        ends = time.monotonic() + _LIMIT_S
        when = time.monotonic() + kill.moment if kill and kill.place is None else None
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            if kill is not None and when is not None and now >= when:
                when = None
                for number in kill.numbers:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child, number)
            if now > ends:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return -int(signal.SIGALRM)
            time.sleep(0.005)


def _become(log: Path, command: list[str], kill: _Kill | None) -> None:
    """Turn this forked process into the command; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if kill is not None:
            kill.arm()
        code = train(command)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        os._exit(code)


def _unlike(out: Path, whole: Path) -> list[str]:
    """List what two finished runs differ in, and what a finished run should not hold."""
    one, other = RunFolder(out), RunFolder(whole)
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        left, right = (training_state(run.checkpoints / name) for run in (one, other))
        found += [f"{name}{line}" for line in differences(left, right)]
    for file in ("metrics.csv", "evaluation/val/predictions.csv", "evaluation/test/metrics.json"):
        if (out / file).read_bytes() != (whole / file).read_bytes():
            found.append(f"{file} differs")
    found += [
        f"{name} too many or missing" for name in sorted(set(_names(out)) ^ set(_names(whole)))
    ]
    status = one.read_record()["status"]
    return found if status == "finished" else [*found, f"status {status}"]


def _names(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
