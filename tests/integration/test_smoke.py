from __future__ import annotations

import pytest

from classifier_training.run.reader import Run


@pytest.mark.promise("T1")
def test_metric_of_best_epoch_is_metric_of_evaluation(tiny_run: Run) -> None:
    measured = tiny_run.metrics("val")["metrics"]["f1_macro"]["value"]

    assert measured == pytest.approx(tiny_run.best_score, abs=1e-12)
