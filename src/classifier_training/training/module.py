"""The network in training: steps, scores, averaged weights, and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from classifier_training.config.registry import SCHEDULES
from classifier_training.config.schema import Config
from classifier_training.data.dataset import Batch
from classifier_training.metrics.classification import ClassificationMetrics
from classifier_training.models.classifier import Classifier
from classifier_training.models.normalize import Normalize
from classifier_training.run.checkpoint import ModelMetadata, pack_metadata, plain_key
from classifier_training.training.distributed import (
    RankState,
    RngStates,
    restore_rng,
    rng_states,
    share_of,
)
from classifier_training.training.nan_guard import BatchPlace, FiniteGuard, require_finite_weights
from classifier_training.training.optimizers import build_optimizer, parameter_groups

_Tensors = tuple[Tensor, ...] | list[Tensor]


class Ema(AveragedModel):
    """Averages parameters and floating-point buffers of a network.

    At update ``t`` (from 0) the decay is ``min(decay, (1 + t) / (10 + t))``; the first update
    copies. Without the ramp a short run would mostly average its random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        super().__init__(network, multi_avg_fn=self._average, use_buffers=True)
        # Without this DistributedDataParallel waits for gradients that never come.
        self.requires_grad_(False)
        self.eval()

    def decay_at(self, updates: int) -> float:
        """Return the decay of the update that follows ``updates`` earlier ones."""
        return min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def _average(self, averaged: _Tensors, current: _Tensors, _count: Tensor | int) -> None:
        if not averaged[0].is_floating_point():  # BatchNorm's counters
            torch._foreach_copy_(averaged, current)
            return
        weight = 1 - self.decay_at(int(self.n_averaged))
        torch._foreach_lerp_(averaged, current, weight)

    def train(self, mode: bool = True) -> Ema:
        """Stay in evaluation mode: BatchNorm statistics are averaged, not gathered."""
        return super().train(False)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Ema:
        # The counter stays on the CPU: it is read at every update, and on a GPU each read would
        # wait for the device.
        counter = self.n_averaged
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.n_averaged = counter
        return self


class StepOutput(TypedDict):
    """What callbacks may read after a validation step; tensors stay on the device.

    Attributes:
        logits: ``(N, C)`` float32 of the scored weights.
        labels: ``(N,)`` int64.
        indices: ``(N,)`` int64 manifest indices.
    """

    logits: Tensor
    labels: Tensor
    indices: Tensor


class ClassifierModule(pl.LightningModule):
    """Trains ``net`` and scores its average.

    ``net`` (raw) and ``ema`` (averaged) are both submodules, so every checkpoint holds both under
    the keys ``net.*`` and ``ema.module.*``, whichever hook saved it. Nothing is ever swapped.

    Args:
        net: The network.
        loss: Maps logits and labels to a scalar.
        metadata: What a checkpoint says about the network.
        config: Optimiser, schedule, EMA and trainer sections are read.
        name_of: Names the image of a manifest index.
    """

    def __init__(
        self,
        net: Classifier,
        loss: nn.Module,
        metadata: ModelMetadata,
        config: Config,
        name_of: Callable[[int], str],
    ) -> None:
        super().__init__()
        self.net = net
        self.ema = Ema(net, config.ema.decay) if config.ema.enabled else None
        self.loss = loss
        self.metadata = metadata
        self.config = config
        self.normalize = Normalize(metadata.spec)
        classes = len(metadata.class_map)
        self.train_scores = ClassificationMetrics(classes, persistent=True)
        self.val_scores = ClassificationMetrics(classes, persistent=False)
        self.raw_scores = (
            ClassificationMetrics(classes, persistent=False)
            if self.ema is not None and config.ema.score_raw
            else None
        )
        self.guard = FiniteGuard(config.trainer.log_every_n_steps, name_of)
        self.optimizer_steps = 0
        self.skipped_steps = 0
        self._rng: RngStates = {}
        self._place: BatchPlace | None = None
        if self.ema is not None:
            # A CPU counter and weights that no gradient reaches: nothing for DDP to broadcast.
            self._ddp_params_and_buffers_to_ignore = [
                f"ema.{name}" for name in self.ema.state_dict()
            ]

    @property
    def scored(self) -> nn.Module:
        """The network whose scores count: the average when there is one."""
        return self.net if self.ema is None else self.ema.module

    @property
    def val_confusion(self) -> Tensor:
        """``(C, C)`` int64 counts of the last validation, of all processes; rows are truth.

        For callbacks, from ``on_validation_end`` on.
        """
        return self.val_scores.summed_confusion

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Note where the batch stands, so that a bad one can be replayed."""
        self._place = BatchPlace(self.current_epoch, batch_idx, rng_states(self.device))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the scalar loss of a batch."""
        logits = self.net(self._input(batch))
        loss: Tensor = self.loss(logits, batch.labels)
        self.guard.observe(loss, batch.indices, self.global_step, self._place)
        self.train_scores.update(logits, batch.labels, loss)
        self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Score a batch in full fp32, whatever the training precision."""
        with torch.autocast(self.device.type, enabled=False):
            images = self._input(batch)
            logits = self.scored(images)
            self.val_scores.update(logits, batch.labels)
            if self.raw_scores is not None:
                self.raw_scores.update(self.net(images), batch.labels)
        return StepOutput(logits=logits, labels=batch.labels, indices=batch.indices)

    def on_train_epoch_end(self) -> None:
        """Log the scores of the raw weights on augmented training images."""
        self._log_scores("train", self.train_scores)
        self.log("lr", self._learning_rate(), logger=False)

    def on_validation_start(self) -> None:
        """Score everywhere the running statistics that a checkpoint holds: the first process's.

        Each process gathers its own, and nothing else keeps those of the average equal.
        """
        if self.trainer.world_size > 1:
            for network in (self.net, self.scored):
                for buffer in network.buffers():
                    dist.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """Log the scores that decide which epoch is best."""
        self._log_scores("val", self.val_scores)
        if self.raw_scores is not None:
            self._log_scores("val_raw", self.raw_scores)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer and the schedule over the run's optimizer steps."""
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = total / self.config.trainer.max_epochs
        section = self.config.schedule
        warmup_steps = min(round(section.warmup_epochs * per_epoch), total - 1)
        factor: Callable[[int], float] = SCHEDULES[section.name](section, warmup_steps, total)
        optimizer = build_optimizer(self.net, self.config.optimizer)
        optimizer.register_step_post_hook(self._count_step)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and average at once: a checkpoint saved by any later hook holds this step's."""
        before = self.optimizer_steps
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.optimizer_steps == before:
            self.skipped_steps += 1  # the gradient scaler found an overflow
        elif self.ema is not None:
            self.ema.update_parameters(self.net)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the network in the checkpoint; refuse to save what is not finite."""
        self.guard.check()
        require_finite_weights(self.state_dict().values(), "the weights")
        pack_metadata(checkpoint, self.metadata)
        checkpoint["steps"] = {"optimizer": self.optimizer_steps, "skipped": self.skipped_steps}
        checkpoint["ranks"] = self._gathered()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {plain_key(key): value for key, value in state.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the step counts, and keep the random states for when training starts."""
        self.optimizer_steps = checkpoint["steps"]["optimizer"]
        self.skipped_steps = checkpoint["steps"]["skipped"]
        own_share = share_of(checkpoint["ranks"], self.trainer.global_rank, self.trainer.world_size)
        self._rng = own_share["rng"]
        checkpoint["state_dict"].update(own_share["sums"])
        own = {plain_key(key): key for key in self.state_dict()}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {own.get(key, key): value for key, value in state.items()}

    def on_train_start(self) -> None:
        """Continue the random stream; rates and decay are those of this run's configuration.

        A checkpoint brings those of the run that saved it, whose schedule was another if it was
        shorter or lies elsewhere.
        """
        restore_rng(self._rng)
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        wanted = parameter_groups(self.net, self.config.optimizer)
        scheduler.base_lrs = [group["lr"] for group in wanted]
        groups = scheduler.optimizer.param_groups
        for own, given, factor in zip(groups, wanted, scheduler.lr_lambdas, strict=True):
            own["initial_lr"] = given["lr"]
            own["lr"] = given["lr"] * factor(scheduler.last_epoch)
            own["weight_decay"] = given["weight_decay"]
            if "betas" in own:
                own["betas"] = tuple(self.config.optimizer.betas)

    def _gathered(self) -> list[RankState]:
        """Return what differs between processes, by rank; the rest they have in common."""
        sums = self.train_scores.state_dict(prefix="train_scores.")
        own = RankState(rng=rng_states(self.device), sums={k: v.cpu() for k, v in sums.items()})
        if self.trainer.world_size == 1:
            return [own]
        gathered: list[Any] = [None] * self.trainer.world_size
        dist.all_gather_object(gathered, own)
        return gathered

    def _input(self, batch: Batch) -> Tensor:
        images: Tensor = self.normalize(batch.images)
        if self.config.model.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _log_scores(self, prefix: str, scores: ClassificationMetrics) -> None:
        for name, value in scores.compute().items():
            # Loggers get these as rows of metrics.csv, after the checkpoint is saved.
            self.log(f"{prefix}/{name}", value, logger=False)
        scores.reset()

    def _learning_rate(self) -> Tensor:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return torch.tensor(rate, dtype=torch.float64)  # as written, not rounded to float32

    def _count_step(self, *_: Any) -> None:
        self.optimizer_steps += 1
