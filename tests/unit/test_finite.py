"""A loss that is no number stops the run, names its images, and leaves whole checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classifier_training.data.dataset import Batch
from classifier_training.errors import DivergedError
from classifier_training.training.nan_guard import FiniteGuard, require_finite_weights
from tests.helpers.checkpoints import read
from tests.helpers.observers import use
from tests.helpers.training import module_of, parts_of, tiny_config, train_only


def _guard(every: int) -> FiniteGuard:
    return FiniteGuard(every, lambda index: f"image-{index}.png")


def _observe(guard: FiniteGuard, step: int, loss: float, device: str = "cpu") -> None:
    indices = torch.tensor([10 * step, 10 * step + 1])
    guard.observe(torch.tensor(loss, device=device), indices, step)


@pytest.mark.promise("T6")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("bad_step", [0, 3, 4, 7])
def test_names_the_first_bad_step_and_its_images(bad: float, bad_step: int) -> None:
    guard = _guard(4)

    def observe_all() -> None:
        for step in range(8):
            _observe(guard, step, bad if step >= bad_step else 1.0)

    with pytest.raises(DivergedError) as stopped:
        observe_all()

    assert f"step {bad_step};" in stopped.value.what
    assert f"image-{10 * bad_step}.png" in stopped.value.what
    assert f"image-{10 * bad_step + 10}.png" not in stopped.value.what
    assert stopped.value.exit_code == 4


@pytest.mark.promise("T6")
def test_a_look_in_between_finds_it_too() -> None:
    guard = _guard(1000)
    guard.check()
    for step in range(900):
        _observe(guard, step, 1.0 if step != 5 else float("nan"))

    with pytest.raises(DivergedError, match=r"step 5;[\s\S]*image-50.png"):
        guard.check()


@pytest.mark.promise("T6")
def test_long_lists_are_cut() -> None:
    guard = _guard(1)

    with pytest.raises(DivergedError, match="and 92 more"):
        guard.observe(torch.tensor(float("nan")), torch.arange(100), 0)


@pytest.mark.promise("T6")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_are_checked_wherever_the_fault_is(bad: float) -> None:
    weights = [torch.ones(3, 4), torch.zeros(2), torch.arange(3), torch.ones(())]
    require_finite_weights(weights, "the weights")
    for number in (0, 1, 3):
        damaged = [tensor.clone() for tensor in weights]
        damaged[number].view(-1)[-1] = bad
        with pytest.raises(DivergedError, match="the weights are not finite"):
            require_finite_weights(damaged, "the weights")


@pytest.mark.promise("T6")
def test_guard_reads_the_device_only_every_n_steps() -> None:
    """A meta tensor has no values: whatever reads one fails, as it would wait on a GPU."""
    guard = _guard(5)

    for step in range(4):
        _observe(guard, step, 1.0, device="meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        _observe(guard, 4, 1.0, device="meta")


@pytest.mark.filterwarnings("ignore:.*not registered")  # there is no trainer to log to
@pytest.mark.promise("T6")
@pytest.mark.parametrize(
    "overrides",
    [(), ("loss=weighted", "loss.focal_gamma=2.0"), ("ema.enabled=false",)],
    ids=["default", "weighted focal", "no ema"],
)
def test_training_step_never_reads_the_device(
    overrides: tuple[str, ...], folder_data: Path
) -> None:
    """Forward, loss, scores, guard, backward and average, on a device whose values nobody knows."""
    config = tiny_config(folder_data, "trainer.log_every_n_steps=5", *overrides)
    module = module_of(parts_of(config)).to("meta")
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8, device="meta")
    labels = torch.zeros(8, dtype=torch.int64, device="meta")

    for number in range(4):
        module.training_step(Batch(images, labels, labels), number).backward()
        if module.ema is not None:
            module.ema.update_parameters(module.net)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        module.training_step(Batch(images, labels, labels), 4)


@pytest.mark.promise("T6")
@pytest.mark.parametrize(
    ("every", "accumulate", "step"),
    [(4, 1, 8), (1000, 1, 8), (1, 1, 8), (1000, 2, 4)],
    ids=["between looks", "before the save", "at once", "accumulating"],
)
def test_run_stops_and_its_checkpoints_stay_finite(
    every: int, accumulate: int, step: int, folder_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError) as stopped:
        train_only(
            folder_data, tmp_path / "run", f"trainer.log_every_n_steps={every}",
            f"trainer.accumulate_grad_batches={accumulate}",
            *use("Poison", epoch=1, batch=2), *use("Watch"),
        )  # fmt: skip

    # Six batches an epoch; the third of the second is number 8. The one that raises is not noted.
    manifest = parts_of(tiny_config(folder_data)).data.manifest
    drawn = _third_batch_of_second_epoch(folder_data)
    assert stopped.value.exit_code == 4
    assert f"step {step};" in stopped.value.what
    for index in drawn:
        assert manifest.describe(index) in stopped.value.what
    for name in ("best", "last"):
        checkpoint = read(tmp_path / "run" / "checkpoints" / f"{name}.ckpt")
        assert checkpoint["epoch"] == 0
        floats = [t for t in checkpoint["state_dict"].values() if t.is_floating_point()]
        assert all(torch.isfinite(tensor).all() for tensor in floats)


def _third_batch_of_second_epoch(data: Path) -> list[int]:
    sampler = parts_of(tiny_config(data)).data.sampler(epoch=1)
    return [draw.row for draw in list(sampler)[2]]


@pytest.mark.promise("T6")
def test_huge_learning_rate_ends_as_divergence(folder_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as stopped:
        train_only(
            folder_data, tmp_path / "run", "optimizer.learning_rate=1e30",
            "trainer.gradient_clip_val=null", "schedule.warmup_epochs=0",
        )  # fmt: skip

    assert "learning_rate" in stopped.value.fix
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.promise("T6")
def test_large_weights_are_finite() -> None:
    """The square of 1e30 is beyond float32."""
    require_finite_weights([torch.full((3,), 1e30)], "the weights")
    with pytest.raises(DivergedError):
        require_finite_weights([torch.tensor([1e30, float("nan")])], "the weights")
