"""Out-of-memory and worker failures, as errors that a user can fix."""

from __future__ import annotations

import re

import torch

from classifier_training.config.schema import Config
from classifier_training.errors import ClassifierTrainingError, ConfigError

_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory", re.IGNORECASE)
_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) "
    r"(?:is (killed by signal: [^.]+)|(exited[^.]*))"
)


def explain(error: BaseException, config: Config) -> ClassifierTrainingError | None:
    """Return the error to report instead of one of torch; None for an unknown one.

    Args:
        error: What training raised.
        config: Names what could be made smaller.
    """
    text = str(error)
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY.search(text)
    worker = _WORKER.search(text)
    if worker is not None:
        return _worker_death(worker, config)
    return _out_of_memory(text, config) if is_memory else None


def _out_of_memory(text: str, config: Config) -> ConfigError:
    size, batch = config.transforms.image_size, config.data.images_a_batch
    batches = config.trainer.accumulate_grad_batches
    smaller = max(1, batch // 2)
    ways = [
        f"data.batch_size={smaller} trainer.accumulate_grad_batches={2 * batches} "
        "(the same step, half the memory)",
        "data.batch_size=auto (the largest that fits)",
        f"a smaller transforms.image_size than {size}",
        "a smaller model",
    ]
    if config.trainer.precision == "32-true":
        ways.insert(1, "trainer.precision=auto")
    if not config.model.freeze:
        ways.append("model.freeze=true")
    return ConfigError(
        f"not enough memory for batches of {batch} images of {size} x {size}: "
        f"{(text.splitlines() or ['out of memory'])[0][:300]}",
        expected="a batch, its activations and gradients in the memory of the device",
        fix=f"in a new hydra.run.dir: {'; or '.join(ways)}. What was saved before is complete",
    )


def _worker_death(found: re.Match[str], config: Config) -> ClassifierTrainingError:
    how = found[2] or found[3]
    return ClassifierTrainingError(
        f"a DataLoader worker (pid {found[1].strip()}) was lost: {how.strip()}",
        expected="DataLoader workers that live as long as the run; the system kills them most "
        "often when memory runs out",
        fix="run the same command again to resume from the newest checkpoint, with fewer of them: "
        f"data.num_workers=N (now {config.data.num_workers}), data.prefetch_factor=1 or "
        "data.cache=none",
    )
