"""Callbacks that tests name on the command line: they disturb a run, or note what they see.

Use them as ``callbacks.x._target_=tests.helpers.observers.NAME`` with ``allow_modules=[MODULE]``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

MODULE = "tests.helpers.observers"


def use(name: str, **arguments: object) -> list[str]:
    """Return the overrides that add a callback of this module to a run."""
    given = [f"callbacks.{name}.{key}={value}" for key, value in arguments.items()]
    return [f"allow_modules=[{MODULE}]", f"callbacks.{name}._target_={MODULE}.{name}", *given]


class Kill(Callback):
    """Sends this process a signal at one place of a run, the first time it is reached.

    Args:
        hook: Name of the hook that sends.
        epoch: In which epoch.
        batch: At which batch of it (hooks without a batch pass over this).
        marker: A file that is made then, so that the same command later goes on in peace.
        number: Which signal.
        times: How often.
    """

    def __init__(
        self,
        hook: str,
        epoch: int,
        marker: str,
        batch: int = 0,
        number: int = signal.SIGTERM,
        times: int = 1,
    ) -> None:
        self._place = (hook, epoch, batch)
        self._marker = Path(marker)
        self._number = number
        self._times = times

    def _reached(self, hook: str, trainer: pl.Trainer, batch: int | None) -> None:
        wanted_hook, epoch, wanted = self._place
        is_here = hook == wanted_hook and trainer.current_epoch == epoch
        if is_here and batch in (None, wanted) and not self._marker.exists():
            self._marker.touch()
            for _ in range(self._times):
                os.kill(os.getpid(), self._number)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reached("train_start", trainer, None)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._reached("batch_start", trainer, batch_idx)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._reached("batch_end", trainer, batch_idx)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        self._reached("backward", trainer, trainer.fit_loop.epoch_loop.batch_idx)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._reached("validation", trainer, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reached("epoch_end", trainer, None)


class SaveEverywhere(Callback):
    """Saves a checkpoint from many hooks, and beside it the weights that live at that moment.

    Args:
        folder: Gets ``HOOK-N.ckpt`` and ``HOOK-N.live``.
        fail_at: Batch of epoch 1 that raises, or -1.
    """

    def __init__(self, folder: str, fail_at: int = -1) -> None:
        self._folder = Path(folder)
        self._fail_at = fail_at
        self._saved: dict[str, int] = {}

    def _save(self, hook: str, trainer: pl.Trainer, module: Any) -> None:
        number = self._saved[hook] = self._saved.get(hook, -1) + 1
        name = self._folder / f"{hook}-{number:02d}"
        live = {f"net.{key}": value.clone() for key, value in module.net.state_dict().items()}
        if module.ema is not None:
            averaged = module.ema.module.state_dict()
            live |= {f"ema.module.{key}": value.clone() for key, value in averaged.items()}
        self._folder.mkdir(exist_ok=True)
        torch.save(live, name.with_suffix(".live"))
        trainer.save_checkpoint(name.with_suffix(".ckpt"))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == self._fail_at:
            raise RuntimeError("as the test wants it")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._save("batch-end", trainer, pl_module)

    def on_before_zero_grad(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        self._save("before-zero-grad", trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save("validation-start", trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._save("validation-batch", trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save("validation-end", trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save("epoch-end", trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._save("exception", trainer, pl_module)


class Poison(Callback):
    """Makes the head so large at one batch that its loss is not finite; weights still are.

    Args:
        epoch: In which epoch.
        batch: At which batch.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        self._place = (epoch, batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self._place:
            with torch.no_grad():
                pl_module.net.head.weight.fill_(3e38)


class Amplify(Callback):
    """Multiplies the gradients of one step.

    Args:
        step: Optimiser step, from 0.
        factor: By how much.
    """

    def __init__(self, step: int, factor: float) -> None:
        self._step, self._factor = step, factor

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self._step:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._factor)


class Sleep(Callback):
    """Makes each step take longer.

    Args:
        seconds: By how much.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        time.sleep(self._seconds)


class KeepsObject(Callback):
    """Has a state that only a pickle can hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"where": Path("somewhere")}


class Compiled(Callback):
    """Compiles the network (with the backend that does nothing, which is quick)."""

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        pl_module.net = torch.compile(pl_module.net, backend="eager")


class Watch(Callback):
    """Notes what happens, in :attr:`seen`, for tests that run in the same process."""

    seen: ClassVar[dict[str, list[Any]]] = {}

    @classmethod
    def note(cls, what: str, value: Any) -> None:
        """Add a note."""
        cls.seen.setdefault(what, []).append(value)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.seen.clear()
        self.note("initial", _copied(pl_module.net))

        def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            self.note("lr", [group["lr"] for group in optimizer.param_groups])

        def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            self.note("net", _copied(pl_module.net))
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.note("gradients", [parameter.grad.clone() for parameter in parameters])

        def forwarded(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            layout = torch.channels_last
            layouts = [
                tensor.is_contiguous(memory_format=layout)
                for tensor in (inputs[0], module.weight, output)
            ]
            self.note("forward", (pl_module.training, output.dtype, all(layouts)))

        scored = pl_module.net if pl_module.ema is None else pl_module.ema.module
        for network in {pl_module.net, scored}:
            conv = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
            conv.register_forward_hook(forwarded)
        trainer.optimizers[0].register_step_pre_hook(before)
        trainer.optimizers[0].register_step_post_hook(after)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.note("loss", float(outputs["loss"]))
        self.note("batch", batch)
        self.note("global_step", trainer.global_step)
        if pl_module.ema is not None:
            self.note("ema", _copied(pl_module.ema.module))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.note("logits", (trainer.current_epoch, outputs["indices"], outputs["logits"].clone()))


def _copied(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}
