"""Which number format a device gets, and when a device is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classifier_training.config.schema import TrainerConfig
from classifier_training.errors import ConfigError
from classifier_training.training.hardware import Device, choose_hardware, choose_precision
from tests.helpers.training import tiny_config

_P100 = Device("cuda", "Tesla P100", (6, 0))
_V100 = Device("cuda", "Tesla V100", (7, 0))
_T4 = Device("cuda", "Tesla T4", (7, 5))
_A100 = Device("cuda", "NVIDIA A100", (8, 0))
_L4 = Device("cuda", "NVIDIA L4", (8, 9))
_H200 = Device("cuda", "NVIDIA H200", (9, 0))
_PLAIN_CPU = Device("cpu", "the CPU")
_BF16_CPU = Device("cpu", "the CPU", cpu_bf16=True)
_MPS = Device("mps", "the Apple GPU")


@pytest.mark.promise("T5")
@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (_P100, "32-true"),
        (_V100, "16-mixed"),
        (_T4, "16-mixed"),
        (_A100, "bf16-mixed"),
        (_L4, "bf16-mixed"),
        (_H200, "bf16-mixed"),
        (_PLAIN_CPU, "32-true"),
        (_BF16_CPU, "bf16-mixed"),
        (_MPS, "32-true"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.name} {value.cpu_bf16}",
)
def test_auto(device: Device, precision: str) -> None:
    found, reason = choose_precision("auto", device)

    assert found == precision
    assert reason


@pytest.mark.promise("T5")
@pytest.mark.parametrize(
    ("asked", "device"),
    [
        ("bf16-mixed", _T4),
        ("bf16-mixed", _V100),
        ("bf16-mixed", _P100),
        ("16-mixed", _PLAIN_CPU),
        ("16-mixed", _BF16_CPU),
        ("16-mixed", _MPS),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_a_device_cannot_do_is_refused(asked: str, device: Device) -> None:
    with pytest.raises(ConfigError) as refused:
        choose_precision(asked, device)

    assert asked in refused.value.what
    assert device.name in refused.value.what
    assert refused.value.exit_code == 2


@pytest.mark.promise("T5")
@pytest.mark.parametrize(
    ("asked", "device"),
    [("32-true", _T4), ("16-mixed", _T4), ("16-mixed", _A100), ("bf16-mixed", _PLAIN_CPU)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_was_asked_for_is_done(asked: str, device: Device) -> None:
    assert choose_precision(asked, device)[0] == asked


def _asked(data: Path, accelerator: str) -> TrainerConfig:
    return tiny_config(data, f"trainer.accelerator={accelerator}", "trainer.precision=auto").trainer


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a working GPU is no fault")


@needs_no_gpu
@pytest.mark.promise("C10")
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_visible_but_unusable_gpu_stops_the_run(
    accelerator: str, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()

    with pytest.raises(ConfigError, match=r"nvidia0.*cannot use it") as refused:
        choose_hardware(_asked(folder_data, accelerator), dev=tmp_path)

    assert "trainer=cpu" in refused.value.fix


@needs_no_gpu
@pytest.mark.promise("C10")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpu_is_none(
    hidden: str, folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (tmp_path / "nvidia0").touch()

    found = choose_hardware(_asked(folder_data, "auto"), dev=tmp_path)

    assert found.accelerator in ("cpu", "mps")


@pytest.mark.promise("C10")
def test_cpu_is_had_for_the_asking(folder_data: Path, tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()

    found = choose_hardware(_asked(folder_data, "cpu"), dev=tmp_path)

    assert found.accelerator == "cpu"
    assert found.precision in ("32-true", "bf16-mixed")


@needs_no_gpu
@pytest.mark.promise("C10")
def test_missing_gpu_is_refused(folder_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accelerator=cuda"):
        choose_hardware(_asked(folder_data, "cuda"), dev=tmp_path)
