"""The base of everything that watches training and writes what people look at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from classifier_training.artifacts.history import History
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.artifacts.run_log import log_failure
from classifier_training.errors import InterruptedRunError

# What Lightning calls on a callback, and what we call on an observer; all of it is fenced.
_HOOKS = frozenset(
    name
    for name in vars(pl.Callback)
    if name.startswith("on_") or name in ("setup", "teardown", "state_dict", "load_state_dict")
) | {"on_epoch_recorded"}


class Observer(pl.Callback):
    """A callback that cannot stop training: its hooks stand behind a fence.

    Subclasses write Lightning's hooks as usual. The first exception of one is logged with its
    traceback, and the observer is off for the rest of the run: what it holds may be half a truth
    from then on. A signal (``InterruptedRunError``, ``KeyboardInterrupt``, ``SystemExit``) passes.

    Hooks run on the first process only, and not during the sanity check of validation. They must
    therefore take no part in communication between processes.
    """

    is_off = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _HOOKS & vars(cls).keys():
            setattr(cls, name, _fenced(vars(cls)[name]))

    def on_epoch_recorded(self, folder: RunFolder, history: History) -> None:
        """An epoch's row is in ``metrics.csv`` and its weights are saved; nothing of it follows.

        Called once an epoch, and once when a run goes on, with the rows so far. Lightning's own
        ``on_train_epoch_end`` comes before the scores of that epoch are all known.
        """


def _fenced(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return the hook behind the fence."""

    @functools.wraps(hook)
    def guarded(self: Observer, *args: Any, **kwargs: Any) -> Any:
        trainer = next((arg for arg in args if isinstance(arg, pl.Trainer)), None)
        is_asked = trainer is None or (trainer.is_global_zero and not trainer.sanity_checking)
        try:
            if is_asked and not self.is_off:
                return hook(self, *args, **kwargs)
        except InterruptedRunError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, training matters more
            self.is_off = True
            log_failure(
                error,
                "{} failed in {} and is off for the rest of this run; training goes on",
                type(self).__name__,
                hook.__name__,
            )
        return {} if hook.__name__ == "state_dict" else None

    return guarded
