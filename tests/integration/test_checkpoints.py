"""What lies in a checkpoint, whichever hook saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from classifier_training.errors import ConfigError
from classifier_training.run.checkpoint import load_model
from classifier_training.run.history import read_history
from classifier_training.run.reader import Run
from tests.helpers.checkpoints import differences, read
from tests.helpers.observers import use
from tests.helpers.runs import tiny_train
from tests.helpers.training import train_only

_HOOKS = {
    "batch-end": 6 + 3,
    "before-zero-grad": 6 + 3,
    "validation-start": 1,
    "validation-batch": 3,
    "validation-end": 1,
    "epoch-end": 1,
    "exception": 1,
}


@pytest.mark.promise("T2")
@pytest.mark.parametrize(
    "given",
    [(), ("ema.enabled=false",), ("trainer.accumulate_grad_batches=2",)],
    ids=["ema", "raw", "accumulating"],
)
def test_weights_are_the_live_ones_whichever_hook_saves(
    given: tuple[str, ...], folder_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="as the test wants it"):
        train_only(
            folder_data, tmp_path / "run", *given,
            *use("SaveEverywhere", folder=tmp_path / "saved", fail_at=3),
        )  # fmt: skip

    steps = set()
    for hook, count in _HOOKS.items():
        files = sorted((tmp_path / "saved").glob(f"{hook}-*.ckpt"))
        assert len(files) >= (count if hook != "before-zero-grad" else 1), hook
        for file in files:
            checkpoint, live = read(file), read(file.with_suffix(".live"))
            weights = {key: checkpoint["state_dict"][key] for key in live}
            assert differences(weights, live) == [], file.name
            steps.add(checkpoint["global_step"])
            prefixes = {key.split(".")[0] for key in checkpoint["state_dict"]}
            assert prefixes == {"net", "train_scores"} | (
                {"ema"} if "ema" not in str(given) else set()
            )
    assert len(steps) > 3


@pytest.mark.promise("T2")
def test_average_is_that_of_the_very_step(folder_data: Path, tmp_path: Path) -> None:
    """Saved after each batch: the average has been updated as often as there were steps."""
    train_only(
        folder_data, tmp_path / "run", "trainer.accumulate_grad_batches=2",
        *use("SaveEverywhere", folder=tmp_path / "saved"),
    )  # fmt: skip

    for file in (tmp_path / "saved").glob("batch-end-*.ckpt"):
        checkpoint = read(file)
        assert int(checkpoint["state_dict"]["ema.n_averaged"]) == checkpoint["global_step"]


_PLAIN = (str, int, float, bool, type(None), torch.Tensor)


def _odd(value: Any, where: str) -> list[str]:
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _odd(item, f"{where}/{key}")]
    if isinstance(value, (list, tuple)):
        return [line for item in value for line in _odd(item, where)]
    return [] if isinstance(value, _PLAIN) else [f"{where}: {type(value)}"]


@pytest.mark.promise("T2")
@pytest.mark.parametrize("name", ["best", "last", "epoch=0000"])
def test_only_plain_types(name: str, tiny_run: Run) -> None:
    checkpoint = read(tiny_run.folder.checkpoints / f"{name}.ckpt")

    assert _odd(checkpoint, "") == []


@pytest.mark.promise("T2")
def test_callback_that_keeps_an_object_is_refused_before_it_ruins_a_checkpoint(
    folder_data: Path, tmp_path: Path
) -> None:
    """Such a file could never be loaded again: better at the first save than at the resume."""
    with pytest.raises(ConfigError, match="pathlib") as refused:
        train_only(folder_data, tmp_path / "run", *use("KeepsObject"))

    assert "state_dict" in refused.value.expected
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.promise("T2")
def test_compiled_network_is_saved_under_its_own_names(folder_data: Path, tmp_path: Path) -> None:
    plain = train_only(folder_data, tmp_path / "plain")
    compiled = train_only(folder_data, tmp_path / "compiled", *use("Compiled"))

    assert differences(read(compiled.last)["state_dict"], read(plain.last)["state_dict"]) == []
    network = load_model(compiled.best).network
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


@pytest.mark.promise("T2")
@pytest.mark.promise("R1")
@pytest.mark.parametrize("ema", ["true", "false"])
def test_compiled_run_goes_on_and_is_evaluated(ema: str, folder_data: Path, tmp_path: Path) -> None:
    compiled = (*use("Compiled"), f"ema.enabled={ema}")
    train_only(folder_data, tmp_path / "run", "trainer.max_epochs=1", *compiled)

    folder = train_only(folder_data, tmp_path / "run", "trainer.max_epochs=2", *compiled)

    assert read(folder.last)["epoch"] == 1
    assert not any("_orig_mod" in key for key in read(folder.last)["state_dict"])


@pytest.mark.promise("S2")
@pytest.mark.parametrize("top_k", [0, 2, 5])
def test_files_lie_flat_in_one_folder(top_k: int, folder_data: Path, tmp_path: Path) -> None:
    """The monitored metric has a slash in its name."""
    folder = train_only(
        folder_data, tmp_path / "run", "checkpoint.monitor=val/acc_macro",
        f"checkpoint.save_top_k={top_k}", "trainer.max_epochs=3",
    )  # fmt: skip

    names = {path.name for path in folder.path.rglob("*.ckpt")}
    assert names | {"manifest.json"} == {path.name for path in folder.checkpoints.iterdir()}
    assert {"best.ckpt", "last.ckpt"} < names or top_k == 0
    assert len(names) == 2 + min(top_k, 3)


@pytest.mark.promise("R5")
def test_kept_epochs_are_the_best_ones(folder_data: Path, tmp_path: Path) -> None:
    run = tiny_train(
        folder_data, tmp_path / "run", "checkpoint.monitor=val/loss",
        "checkpoint.save_top_k=2", "trainer.max_epochs=4",
    )  # fmt: skip

    losses = {int(row["epoch"]): row["val/loss"] for row in read_history(run.folder.history)}
    wanted = sorted(losses, key=lambda epoch: losses[epoch])[:2]
    kept = {path.name for path in run.folder.checkpoints.glob("epoch=*")}
    assert kept == {f"epoch={epoch:04d}.ckpt" for epoch in wanted}
    for epoch in wanted:
        assert read(run.folder.checkpoints / f"epoch={epoch:04d}.ckpt")["epoch"] == epoch
    assert run.record["best"]["epoch"] == wanted[0]
