"""Python values as overrides, and what a notebook shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.errors import ConfigError
from classifier_training.run.predictions import Predictions
from classifier_training.run.reader import Run
from classifier_training.training.api import as_overrides, train

pytestmark = pytest.mark.promise("C11")

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXT


@given(SCALARS | st.lists(SCALARS, max_size=4))
def test_value_of_any_kind_reaches_hydra_as_it_is(value: Any) -> None:
    (override,) = as_overrides({"data.test_path": value})

    parsed = OverridesParser.create().parse_override(override).value()
    found = OmegaConf.to_container(OmegaConf.create({"found": _plain(parsed)}), resolve=False)

    assert found == {"found": value}


def _plain(parsed: Any) -> Any:
    if isinstance(parsed, list):
        return [_plain(item) for item in parsed]
    return parsed.text if hasattr(parsed, "text") else parsed


def test_nested_and_dotted_keys_are_the_same_override() -> None:
    dotted = {"trainer.max_epochs": 3, "data.classes": ["00", "NO", "1e3"], "model": "resnet34"}
    nested = {"trainer": {"max_epochs": 3}, "data": {"classes": ["00", "NO", "1e3"]}}

    assert set(as_overrides({**nested, "model": "resnet34"})) == set(as_overrides(dotted))
    composed = compose_config(make_strict([*as_overrides(dotted), "data.data_root=/images"]))
    assert composed.data.classes == ["00", "NO", "1e3"]
    assert composed.model.name == "resnet34"


def test_wrong_key_gets_the_error_of_a_wrong_override(tmp_path: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        train("photos", out=tmp_path / "run", overrides={"optimizer": {"lr": 1, "name": "adam"}})

    assert {problem.key for problem in caught.value.problems} == {"optimizer.lr", "optimizer.name"}
    assert not (tmp_path / "run").exists()


def test_run_and_predictions_show_scores_with_intervals(tiny_run: Run) -> None:
    shown = Run(tiny_run.path)._repr_html_()

    value = tiny_run.metrics("test")["metrics"]["acc_top1"]
    assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in shown
    assert shown.count("data:image/png;base64,") == 1
    predictions = tiny_run.predictions("test")._repr_html_()
    assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in predictions


def test_names_in_a_notebook_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    shown = Predictions(
        name=hostile,
        classes=(hostile, "b"),
        paths=("a.png",),
        true=np.array([0]),
        predicted=np.array([1]),
        probabilities=None,
        losses=None,
    )._repr_html_()

    assert "<script>" not in shown
