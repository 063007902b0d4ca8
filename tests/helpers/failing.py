"""Observers that fail, to be named on the command line as those of ``observers`` are."""

from __future__ import annotations

import signal
from typing import Any, ClassVar

from classifier_training.callbacks.base import _HOOKS, Callback
from classifier_training.training.signals import interrupted

MODULE = "tests.helpers.failing"


def use(name: str, **arguments: object) -> list[str]:
    """Return the overrides that add an observer of this module to a run."""
    given = [f"callbacks.{name}.{key}={value}" for key, value in arguments.items()]
    return [f"allow_modules=[{MODULE}]", f"callbacks.{name}._target_={MODULE}.{name}", *given]


class _Notes(Callback):
    """Notes how often each hook ran, and raises in one."""

    calls: ClassVar[dict[str, int]] = {}

    def __init__(self, hook: str, kind: str = "RuntimeError") -> None:
        super().__init__()
        self.hook, self.kind = hook, kind
        type(self).calls.clear()

    def _call(self, hook: str) -> Any:
        self.calls[hook] = self.calls.get(hook, 0) + 1
        if hook == self.hook:
            if self.kind == "InterruptedRunError":
                raise interrupted(signal.SIGTERM, "nothing", "the same again")
            raise {"RuntimeError": RuntimeError, "KeyboardInterrupt": KeyboardInterrupt}[self.kind](
                f"no {hook} today"
            )
        return {} if hook == "state_dict" else None


def _failing(name: str) -> Any:
    def hook(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError(28, f"No space left on device, in {name}")

    hook.__name__ = name
    return hook


def _noting(name: str) -> Any:
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._call(name)

    hook.__name__ = name
    return hook


def _class(name: str, base: type[Callback], hook: Any) -> Any:
    """Make a class that has every hook in its body, so that the fence is put around each."""
    return type(name, (base,), {**{of: hook(of) for of in _HOOKS}, "__module__": MODULE})


FailsAt = _class("FailsAt", _Notes, _noting)
FailsEverywhere = _class("FailsEverywhere", Callback, _failing)
