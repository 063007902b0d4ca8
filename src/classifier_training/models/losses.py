"""The training loss: cross-entropy with smoothing, class weights, focus and priors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier_training.config.schema import LossConfig


def cross_entropy(
    config: LossConfig, class_weights: Tensor | None, log_priors: Tensor
) -> ClassificationLoss:
    """Build the loss of ``loss.name=cross_entropy``; see ``register_loss``."""
    tau = config.logit_adjustment
    return ClassificationLoss(
        class_weights,
        label_smoothing=config.label_smoothing,
        gamma=config.focal_gamma,
        logit_offsets=tau * log_priors if tau else None,
    )


class ClassificationLoss(nn.Module):
    """Weighted, smoothed cross-entropy; focal when ``gamma > 0`` (Lin et al. 2017, eq. 4).

    Each image's loss is multiplied by ``(1 - p_true) ** gamma``; with ``gamma = 0`` the value is
    that of :func:`torch.nn.functional.cross_entropy` with the same weights and smoothing.

    Offsets of ``tau * log(prior)`` make it the logit-adjusted loss of Menon et al. 2021 ("Long-tail
    learning via logit adjustment", eq. 10). They are of the loss alone: scores and the exported
    network use the plain logits.

    Args:
        class_weights: ``(C,)`` float32, or None.
        label_smoothing: Share of the target spread over all classes.
        gamma: Exponent of the focal factor.
        logit_offsets: ``(C,)`` float32 added to every image's logits, or None.
    """

    class_weights: Tensor | None
    logit_offsets: Tensor | None

    def __init__(
        self,
        class_weights: Tensor | None,
        *,
        label_smoothing: float,
        gamma: float,
        logit_offsets: Tensor | None = None,
    ) -> None:
        super().__init__()
        # Not part of checkpoints: they follow from the data.
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("logit_offsets", logit_offsets, persistent=False)
        self._label_smoothing = label_smoothing
        self._gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of ``(N, C)`` logits and ``(N,)`` int64 labels, in float32."""
        logits = logits.float()
        if self.logit_offsets is not None:
            logits = logits + self.logit_offsets
        if self._gamma == 0:
            return F.cross_entropy(
                logits,
                labels,
                weight=self.class_weights,
                label_smoothing=self._label_smoothing,
            )
        losses = F.cross_entropy(
            logits,
            labels,
            weight=self.class_weights,
            label_smoothing=self._label_smoothing,
            reduction="none",
        )
        log_true = F.log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)
        # -expm1 keeps precision where p is close to 1. At 0 the slope of a power below one is
        # infinite, and times the zero gradient of a saturated softmax no number.
        tiny = torch.finfo(torch.float32).tiny
        focus = (-torch.expm1(log_true)).clamp_min(tiny) ** self._gamma
        if self.class_weights is None:
            return (focus * losses).mean()
        return (focus * losses).sum() / self.class_weights[labels].sum()
