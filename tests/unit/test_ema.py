"""The average of the weights, against the formula in plain numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from classifier_training.data.dataset import EvaluationDataset, unwrap
from classifier_training.models.classifier import Classifier
from classifier_training.models.normalize import Normalize
from classifier_training.training.module import Ema
from tests.helpers.observers import Watch, use
from tests.helpers.training import parts_of, tiny_config, train_only


def _reference(values: list[float], decay: float) -> list[float]:
    """The average after each update, by the description: the first copies, then the ramp."""
    averages: list[float] = []
    for update, value in enumerate(values):
        if update == 0:
            averages.append(value)
            continue
        keep = min(decay, (1 + update) / (10 + update))
        averages.append(keep * averages[-1] + (1 - keep) * value)
    return averages


class _Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))
        self.register_buffer("count", torch.tensor(0))


def _averages(values: list[float], decay: float, start: float = -7.0) -> list[tuple[float, ...]]:
    network = _Scalar(start)
    ema = Ema(network, decay)
    found = []
    for number, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
            network.mean.fill_(value)
            network.count.fill_(number * 10)
        ema.update_parameters(network)
        averaged = ema.module
        found.append((float(averaged.weight), float(averaged.mean), int(averaged.count)))
    return found


_VALUES = [0.5, -1.25, 3.0, 2.5, -0.75, 8.0, 0.125, 4.0] * 8


@pytest.mark.promise("T3")
@pytest.mark.promise("T9")
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_follows_the_formula(decay: float) -> None:
    wanted = _reference(_VALUES, decay)

    found = _averages(_VALUES, decay)

    assert [weight for weight, _, _ in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert [buffer for _, buffer, _ in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.promise("T3")
def test_integer_buffers_are_copied() -> None:
    assert [count for _, _, count in _averages(_VALUES[:4], 0.9)] == [0, 10, 20, 30]


@pytest.mark.promise("T3")
def test_untrained_weights_leave_no_trace() -> None:
    assert _averages(_VALUES[:5], 0.999, start=-7.0) == _averages(_VALUES[:5], 0.999, start=1e6)


@pytest.mark.promise("T3")
def test_short_runs_profit() -> None:
    """20 updates after a step from 0 to 1 the average is nearly there; without a ramp it is not."""
    found = _averages([0.0] + [1.0] * 19, 0.9999)

    assert found[-1][0] > 0.99


@pytest.mark.promise("T3")
def test_needs_no_gradients_and_never_trains() -> None:
    ema = Ema(Classifier("tiny", 3), 0.9)

    ema.train()

    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert not any(module.training for module in ema.modules())


@pytest.mark.promise("T3")
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 12), (2, 6), (4, 4)])
def test_follows_optimiser_steps(
    accumulate: int, steps: int, folder_data: Path, tmp_path: Path
) -> None:
    train_only(
        folder_data, tmp_path / "run", f"trainer.accumulate_grad_batches={accumulate}",
        "ema.decay=0.95", *use("Watch"),
    )  # fmt: skip

    weights = [state["network.fc.weight"].double() for state in Watch.seen["net"]]
    assert len(weights) == steps
    by_batch = [state["network.fc.weight"] for state in Watch.seen["ema"]]
    changes = sum(not torch.equal(a, b) for a, b in itertools.pairwise(by_batch))
    assert changes <= steps
    for at in range(weights[0].numel()):
        wanted = _reference([float(weight.flatten()[at]) for weight in weights], 0.95)[-1]
        assert float(by_batch[-1].flatten()[at]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.promise("T3")
def test_validation_sees_the_average_of_trained_weights(folder_data: Path, tmp_path: Path) -> None:
    config = tiny_config(folder_data, "trainer.max_epochs=1")
    parts = parts_of(config)
    train_only(folder_data, tmp_path / "run", "trainer.max_epochs=1", *use("Watch"))
    averaged = Classifier("tiny", 4).to(memory_format=torch.channels_last).eval()
    averaged.load_state_dict(Watch.seen["ema"][-1])

    _, indices, logits = Watch.seen["logits"][0]

    dataset = EvaluationDataset(parts.data.manifest, parts.metadata.spec)
    batch = unwrap(dataset.__getitems__(indices.tolist()))
    with torch.no_grad():
        wanted = averaged(Normalize(parts.metadata.spec)(batch.images))
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert not torch.equal(
        Watch.seen["ema"][-1]["network.fc.weight"], Watch.seen["initial"][0]["network.fc.weight"]
    )
