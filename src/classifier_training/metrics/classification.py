"""The one metric object: every score of training and validation from sums, in one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from classifier_training.metrics.from_confusion import macro_scores

TOP_K = 5


class ClassificationMetrics(Metric):
    """Confusion matrix, top-5 hits and summed loss of ``(N, C)`` logits and ``(N,)`` labels.

    All states are sums, so results do not depend on batch size, order or number of processes, and
    an update never waits for the device.

    Args:
        num_classes: ``C``. With five classes or fewer, top-5 is certain and reported as such.
        persistent: Whether the sums are part of the module's state, so that a run which goes on
            inside an epoch keeps them.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    confusion: Tensor
    top5_hits: Tensor
    loss_sum: Tensor
    images: Tensor

    summed_confusion: Tensor
    """``(C, C)`` int64 on the CPU: what the last :meth:`compute` scored, of all processes."""

    def __init__(self, num_classes: int, *, persistent: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        zero = torch.tensor(0, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum", persistent=persistent)
        self.add_state("top5_hits", zero, dist_reduce_fx="sum", persistent=persistent)
        self.add_state("images", zero.clone(), dist_reduce_fx="sum", persistent=persistent)
        self.add_state("loss_sum", torch.tensor(0.0), dist_reduce_fx="sum", persistent=persistent)
        self.summed_confusion = zeros.clone()

    def update(self, logits: Tensor, labels: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: ``(N, C)`` floating point.
            labels: ``(N,)`` int64.
            loss: Scalar mean loss of the batch; by default the plain cross-entropy.
        """
        logits = logits.detach().float()
        cells = labels * self.num_classes + logits.argmax(dim=1)
        # bincount would wait for the device to learn its largest entry.
        ones = torch.ones_like(cells)
        self.confusion.view(-1).scatter_add_(0, cells, ones)
        self.top5_hits += hits_at_k(logits, labels, TOP_K).sum()
        mean = F.cross_entropy(logits, labels) if loss is None else loss.detach()
        self.loss_sum += mean * len(labels)
        self.images += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Return scalar float64 scores by the names of ``config.metric_names.SCORES``."""
        images = self.images.cpu().double().clamp_min(1)  # not every device has float64
        # Here the states are summed over processes; reset() does not touch the copy.
        self.summed_confusion = self.confusion.cpu().clone()
        return {
            "loss": self.loss_sum.cpu() / images,
            "acc_top5": self.top5_hits.cpu() / images,
            **macro_scores(self.summed_confusion),
        }


def hits_at_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return ``(N,)`` bool: whether the label is among the ``k`` largest of ``(N, C)`` logits.

    Of equal logits the lower index comes first, as in ``argmax``. ``topk`` leaves that open: an
    image could be right and not among the first five.
    """
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    not_before = (logits < own) | ((logits == own) & (classes >= labels[:, None]))
    return logits.shape[1] - not_before.sum(dim=1) < k
