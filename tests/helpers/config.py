"""Validated configurations for tests that need a part of one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from classifier_training.config.compose import allowed_modules, compose_config, make_strict
from classifier_training.config.schema import Config, DataConfig
from classifier_training.config.validate import validate


@cache
def config_of(*overrides: str) -> Config:
    """Compose and validate as ``classifier train`` does."""
    return validate(
        compose_config(make_strict(list(overrides))), allow_modules=allowed_modules(list(overrides))
    )


def data_config(root: Path | str, source: str = "folder", **changes: Any) -> DataConfig:
    """The data section of a source; ``changes`` replace its values (small batches by default)."""
    data = config_of(f"data={source}", "data.data_root=/nowhere").data
    return data.model_copy(update={"data_root": str(root), "batch_size": 1, **changes})
