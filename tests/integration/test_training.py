"""Whole runs: what they measure, step by step, and whether it is the same every time."""

from __future__ import annotations

import copy
import csv
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from classifier_training.evaluation.evaluate import evaluate
from classifier_training.models.losses import ClassificationLoss
from classifier_training.models.normalize import Normalize
from classifier_training.run.checkpoint import load_model
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from tests.helpers.checkpoints import differences, read
from tests.helpers.data import write_folder
from tests.helpers.observers import Watch, use
from tests.helpers.runs import tiny_train
from tests.helpers.training import module_of, parts_of, tiny_config, train_only


@pytest.mark.promise("T1")
@pytest.mark.promise("T3")
@pytest.mark.parametrize(("ema", "precision"), [("true", "bf16-mixed"), ("false", "32-true")])
def test_best_epoch_reloaded_best_and_evaluation_agree_on_every_image(
    ema: str, precision: str, folder_data: Path, tmp_path: Path
) -> None:
    run = tiny_train(
        folder_data, tmp_path / "run", f"ema.enabled={ema}", f"trainer.precision={precision}",
        "trainer.max_epochs=3", "checkpoint.monitor=val/loss", *use("Watch"),
    )  # fmt: skip

    best = run.record["best"]["epoch"]
    notes = [note for note in Watch.seen["logits"] if note[0] == best]
    order = torch.cat([indices for _, indices, _ in notes]).numpy()
    seen = torch.cat([logits for _, _, logits in notes]).numpy()
    evaluated = evaluate(run.folder.path, split="val", out=tmp_path / "again", workers=0)
    assert np.array_equal(evaluated.rows, order)
    allowed = 1e-5 * np.maximum(1, np.abs(seen).max(axis=1, keepdims=True))
    assert (np.abs(evaluated.logits - seen) <= allowed).all()

    names = load_model(run.folder.best).metadata.class_map.names
    with (run.folder.evaluation("val") / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    probabilities = torch.softmax(torch.from_numpy(seen).double(), dim=1)
    assert [row["predicted"] for row in rows] == [names[at] for at in seen.argmax(axis=1)]
    for row, wanted in zip(rows, probabilities, strict=True):
        found = [float(row[f"prob:{name}"]) for name in names]
        assert found == pytest.approx(wanted.tolist(), abs=1e-5)

    history = read_history(run.folder.history)
    assert run.best_score == history[best]["val/loss"]
    # By hand from what was seen: the mean negative log-likelihood.
    labels = torch.tensor([names.index(row["true"]) for row in rows])
    nll = -probabilities.log().gather(1, labels[:, None]).mean()
    assert run.best_score == pytest.approx(float(nll), rel=1e-5)


@pytest.mark.promise("T1")
def test_raw_scores_are_those_of_the_raw_weights(folder_data: Path, tmp_path: Path) -> None:
    both = train_only(folder_data, tmp_path / "both", "ema.score_raw=true")
    raw = train_only(folder_data, tmp_path / "raw", "ema.enabled=false")

    rows = zip(read_history(both.history), read_history(raw.history), strict=True)
    for with_both, with_raw in rows:
        assert with_both["val_raw/loss"] == with_raw["val/loss"]
        assert with_both["val/loss"] != with_raw["val/loss"]


@pytest.mark.promise("R7")
def test_every_epoch_is_in_the_curves(folder_data: Path, tmp_path: Path) -> None:
    """The last one too, with its own numbers and not those of the epoch before."""
    folder = train_only(folder_data, tmp_path / "run", "trainer.max_epochs=3", *use("Watch"))

    rows = read_history(folder.history)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [6, 12, 18]
    assert len({row["val/loss"] for row in rows}) == 3
    for epoch, row in enumerate(rows):
        losses = Watch.seen["loss"][6 * epoch : 6 * epoch + 6]
        assert row["train/loss"] == pytest.approx(sum(losses) / 6, rel=1e-5)


def _weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read(folder.last)["state_dict"]
    return state


@pytest.mark.promise("T10")
@pytest.mark.parametrize("model", ["tiny", "dropout"])
def test_same_seed_same_weights_for_any_number_of_workers(
    model: str, folder_data: Path, tmp_path: Path
) -> None:
    given = ("data.sampler=weighted", f"model.name={model}")
    runs = [
        train_only(folder_data, tmp_path / str(workers), f"data.num_workers={workers}", *given)
        for workers in (0, 2)
    ]
    other = train_only(folder_data, tmp_path / "other", "seed=43", *given)

    assert differences(_weights(runs[0]), _weights(runs[1])) == []
    assert runs[0].history.read_text() == runs[1].history.read_text()
    assert differences(_weights(runs[0]), _weights(other)) != []


@pytest.mark.promise("T11")
def test_one_batch_can_be_overfitted(tmp_path: Path) -> None:
    """Labels are drawn by lot, so that only memory can tell them."""
    data = write_folder(tmp_path / "data", counts={"train": 2, "val": 1, "test": 1})
    images = sorted((data / "train").glob("*/*.png"))
    lots = np.random.default_rng(2).permutation(len(images))
    contents = [images[at].read_bytes() for at in lots]
    for path, content in zip(images, contents, strict=True):
        path.write_bytes(content)

    folder = train_only(
        data, tmp_path / "run", "debug=overfit", "trainer.max_epochs=60",
        "optimizer.learning_rate=0.03",
    )  # fmt: skip

    assert read_history(folder.history)[-1]["train/acc_top1"] == 1.0


@pytest.mark.promise("T7")
def test_last_batch_of_one_joins_the_one_before(tmp_path: Path) -> None:
    data = write_folder(
        tmp_path / "data", classes=("a", "b", "c"), counts={"train": 11, "val": 3, "test": 3}
    )

    train_only(data, tmp_path / "run", *use("Watch"))

    sizes = [len(batch.labels) for batch in Watch.seen["batch"]]
    assert sizes == [8, 8, 8, 9] * 2
    for epoch in (0, 4):
        drawn = torch.cat([batch.indices for batch in Watch.seen["batch"][epoch : epoch + 4]])
        assert len(set(drawn.tolist())) == 33


@pytest.mark.promise("T7")
def test_frozen_backbone_is_bit_equal_after_training(folder_data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    start = parts_of(tiny_config(folder_data, "seed=5")).network.network.state_dict()
    torch.save(start, weights)

    folder = train_only(
        folder_data, tmp_path / "run", "model.freeze=true", f"model.weights={weights}"
    )

    state = _weights(folder)
    for name, value in start.items():
        for prefix in ("net.network.", "ema.module.network."):
            is_head = name.startswith("fc.")
            assert torch.equal(state[prefix + name], value) != is_head, name


@pytest.mark.promise("T5")
@pytest.mark.parametrize("channels_last", ["true", "false"])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_precision_and_layout_are_what_was_asked_for(
    precision: str, dtype: torch.dtype, channels_last: str, folder_data: Path, tmp_path: Path
) -> None:
    train_only(
        folder_data, tmp_path / "run", f"trainer.precision={precision}",
        f"model.channels_last={channels_last}", "trainer.max_epochs=1", *use("Watch"),
    )  # fmt: skip

    training = {note[1:] for note in Watch.seen["forward"] if note[0]}
    scoring = {note[1:] for note in Watch.seen["forward"] if not note[0]}
    assert training == {(dtype, channels_last == "true")}
    assert scoring == {(torch.float32, channels_last == "true")}, "scores are fp32"
    assert all(logits.dtype == torch.float32 for _, _, logits in Watch.seen["logits"])


def _norm(gradients: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


@pytest.mark.promise("T5")
def test_gradients_are_clipped(folder_data: Path, tmp_path: Path) -> None:
    norms, largest = {}, {}
    for value, algorithm in (("null", "norm"), (0.05, "norm"), (0.01, "value")):
        train_only(
            folder_data, tmp_path / f"{value}{algorithm}", "trainer.max_epochs=1",
            f"trainer.gradient_clip_val={value}",
            f"trainer.gradient_clip_algorithm={algorithm}", *use("Watch"),
        )  # fmt: skip
        norms[value, algorithm] = [_norm(gradients) for gradients in Watch.seen["gradients"]]
        largest[value, algorithm] = max(
            float(gradient.abs().max()) for step in Watch.seen["gradients"] for gradient in step
        )

    assert min(norms["null", "norm"]) > 0.05
    assert norms[0.05, "norm"] == pytest.approx([0.05] * 6, rel=1e-3)
    assert largest["null", "norm"] > 0.01
    assert largest[0.01, "value"] == pytest.approx(0.01)


@pytest.mark.promise("T5")
def test_accumulated_gradient_is_the_mean_over_the_window(
    folder_data: Path, tmp_path: Path
) -> None:
    given = ("trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=null")
    config = tiny_config(folder_data, *given)
    train_only(folder_data, tmp_path / "run", *given, *use("Watch"))

    parts = parts_of(config)
    net = copy.deepcopy(parts.network).train()
    net.load_state_dict(Watch.seen["initial"][0])
    loss = ClassificationLoss(None, label_smoothing=config.loss.label_smoothing, gamma=0.0)
    for batch in Watch.seen["batch"][:3]:
        images = Normalize(parts.metadata.spec)(batch.images)
        loss(net(images), batch.labels).backward()
    decayed = [p for p in net.parameters() if p.ndim > 1][:2]
    wanted = [parameter.grad / 3 for parameter in decayed]
    for found, expected in zip(Watch.seen["gradients"][0][:2], wanted, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert Watch.seen["global_step"] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.promise("T5")
@pytest.mark.promise("T3")
def test_steps_that_the_scaler_skips_are_counted_and_not_averaged(
    folder_data: Path, tmp_path: Path
) -> None:
    parts = parts_of(tiny_config(folder_data))
    module = module_of(parts)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26, backoff_factor=2.0**-4)
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        gradient_clip_val=1.0,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )

    trainer.fit(module, parts.data)

    taken = len(Watch.seen["net"])
    assert 0 < taken < 12, "the test needs steps of both kinds"
    assert module.optimizer_steps == taken
    assert module.skipped_steps == 12 - taken
    assert module.ema is not None
    assert int(module.ema.n_averaged) == taken
    forward = {note[:2] for note in Watch.seen["forward"]}
    assert forward == {(True, torch.float16), (False, torch.float32)}
    # Clipped after unscaling: a clip of the scaled gradient would leave next to nothing.
    assert all(1e-3 < _norm(gradients) < 1.001 for gradients in Watch.seen["gradients"])


@pytest.mark.promise("T5")
def test_skipped_steps_survive_a_resume_and_are_reported(folder_data: Path, tmp_path: Path) -> None:
    module: Any = module_of(parts_of(tiny_config(folder_data)))
    restored = module_of(parts_of(tiny_config(folder_data)))
    module.trainer = restored.trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    module.optimizer_steps, module.skipped_steps = 7, 3
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}

    module.on_save_checkpoint(checkpoint)
    restored.on_load_checkpoint(checkpoint)

    assert (restored.optimizer_steps, restored.skipped_steps) == (7, 3)
