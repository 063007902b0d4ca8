"""What of this machine matters to training a certain configuration. Downloads nothing."""

from __future__ import annotations

import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import torch

from classifier_training.config.registry import BACKBONES
from classifier_training.config.schema import Config, ModelConfig
from classifier_training.data.index import DataIndex
from classifier_training.data.loading import resolve_workers
from classifier_training.errors import ClassifierTrainingError, ConfigError
from classifier_training.models.weights import PUBLISHED
from classifier_training.system.machine import Diagnosis, readable_bytes
from classifier_training.system.progress import duration
from classifier_training.system.resources import SHARED_MEMORY, LoaderPlan
from classifier_training.training.estimate import AUTO_MOST, StepEstimate, estimate, with_batch_size
from classifier_training.training.hardware import Hardware, choose_hardware

_PROBE_S = 5.0
_ASSUMED_CLASSES = 10
_ASSUMED_IMAGES = 10_000


def diagnose_training(
    config: Config, index: DataIndex | None, *, times_steps: bool, dev: Path = Path("/dev")
) -> list[Diagnosis]:
    """Look at device, precision, weights, shared memory, and what a step costs.

    Args:
        config: What would be trained.
        index: The data; None: unknown.
        times_steps: Whether a few steps are taken on random images.
        dev: Where the operating system shows devices.
    """
    found = [_cuda(), _weights(config.model), _shared_memory(config)]
    try:
        hardware = choose_hardware(config.trainer, dev=dev)
    except ConfigError as error:
        return [*found, Diagnosis("device", "fail", error.what, error.fix)]
    found += [_device(hardware), _precision(hardware)]
    if times_steps:
        found += _steps(config, hardware, index)
    return found


def _cuda() -> Diagnosis:
    driver = Path("/proc/driver/nvidia/version")
    try:
        line = driver.read_text().splitlines()[0].split("Module")[-1].split()[0]
        installed = f"driver {line}"
    except (OSError, IndexError):
        installed = "no NVIDIA driver"
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return Diagnosis("CUDA", "ok", f"{built}; {installed}")


def _device(hardware: Hardware) -> Diagnosis:
    if hardware.device.kind == "cuda":
        names = [
            f"{torch.cuda.get_device_name(number)} "
            f"({readable_bytes(torch.cuda.get_device_properties(number).total_memory)})"
            for number in range(torch.cuda.device_count())
        ]
        return Diagnosis("device", "ok", ", ".join(names))
    if hardware.device.kind == "mps":
        return Diagnosis("device", "ok", hardware.device.name)
    return Diagnosis("device", "slow", "the CPU", "a GPU trains many times faster")


def _precision(hardware: Hardware) -> Diagnosis:
    return Diagnosis("precision", "ok", f"{hardware.precision}: {hardware.reason}")


def _weights(config: ModelConfig) -> Diagnosis:
    given = config.init_from or (config.weights if config.weights != PUBLISHED else None)
    if given is not None:
        if Path(given).expanduser().exists():
            return Diagnosis("weights", "ok", given)
        return Diagnosis("weights", "fail", f"{given} does not exist", "correct the path")
    if config.weights is None:
        return Diagnosis("weights", "ok", "none: trained from scratch (model.weights=null)")
    try:
        weights = BACKBONES[config.name].weights
    except ConfigError as error:
        return Diagnosis("weights", "fail", error.what, error.fix)
    if weights is None:
        return Diagnosis("weights", "fail", f"{config.name} has none", "model.weights=null")
    url = weights.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if cached.is_file():
        return Diagnosis("weights", "ok", str(cached))
    answer = reach(url)
    if answer is None:
        return Diagnosis("weights", "note", f"not here yet; will be downloaded from {url}")
    return Diagnosis(
        "weights",
        "fail",
        f"not at {cached}, and {url} cannot be reached: {answer}",
        "download it elsewhere and give model.weights=FILE, or model.weights=null",
    )


def reach(url: str, *, seconds: float = _PROBE_S) -> str | None:
    """Ask whether a URL can be had, without its content and within a bounded time.

    Returns:
        None if so, else why not.
    """
    answers = [f"no answer within {seconds:.0f} s"]

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - torchvision's https
        try:
            with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                answers.append("")
        except (OSError, ValueError) as error:
            answers.append(str(error))

    # Looking up a name has no time limit of its own, so the thread may be left behind.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[-1] or None


def _shared_memory(config: Config) -> Diagnosis:
    plan = LoaderPlan(resolve_workers(config.data.num_workers), config.data.prefetch_factor)
    batch = config.data.batch_size
    most = max(AUTO_MOST.values()) if batch == "auto" else batch
    need = plan.bytes(most * 3 * config.transforms.image_size**2)
    what = f"{plan.workers} loader processes x {plan.prefetch} batches need {readable_bytes(need)}"
    free = _free_bytes(SHARED_MEMORY)
    if free is None:
        return Diagnosis("shared memory", "ok", f"{what}; no {SHARED_MEMORY} here")
    found = f"{SHARED_MEMORY} has {readable_bytes(free)} free; {what}"
    if need <= 0.8 * free:
        return Diagnosis("shared memory", "ok", found)
    fix = "docker run --shm-size=2g; until then fewer loader processes are used"
    return Diagnosis("shared memory", "slow", found, fix)


def _free_bytes(place: Path) -> int | None:
    """Return the free bytes of a file system; None where it does not exist."""
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _steps(config: Config, hardware: Hardware, index: DataIndex | None) -> list[Diagnosis]:
    classes = _ASSUMED_CLASSES if index is None else len(index.manifest.class_map)
    images = _ASSUMED_IMAGES if index is None else len(index.manifest.rows("train"))
    try:
        config = with_batch_size(config, hardware, classes=classes, images=images)
        found = estimate(config, hardware, classes=classes)
    except ClassifierTrainingError as error:
        return [Diagnosis("estimate", "fail", error.what, error.fix)]
    return [_memory(config, found), _time(config, found, index)]


def _memory(config: Config, found: StepEstimate) -> Diagnosis:
    asked = config.data.images_a_batch
    what = f"about {readable_bytes(found.bytes_at(asked))} for a batch of {asked}"
    if found.free is None:
        return Diagnosis("estimate: memory", "note", f"{what} (estimated)")
    fits = found.largest_batch
    found_text = f"{what}; {readable_bytes(found.free)} are free: up to {fits} fit (estimated)"
    if fits >= asked:
        return Diagnosis("estimate: memory", "ok", found_text)
    fix = f"data.batch_size={max(1, fits)}, and trainer.accumulate_grad_batches to make up for it"
    return Diagnosis("estimate: memory", "fail", found_text, fix)


def _time(config: Config, found: StepEstimate, index: DataIndex | None) -> Diagnosis:
    rate = f"{found.images_per_s:,.0f} img/s without reading images"
    if index is None:
        hint = "give data.data_root=PATH for the time of an epoch"
        return Diagnosis("estimate: time", "note", f"{rate} (estimated)", hint)
    images = len(index.manifest.rows("train"))
    seconds = images / found.images_per_s
    epochs = config.trainer.max_epochs
    return Diagnosis(
        "estimate: time",
        "ok",
        f"{rate}: {duration(seconds)} an epoch of {images:,} images, {duration(seconds * epochs)}"
        f" for {epochs} epochs (estimated; validation and slow disks come on top)",
    )
