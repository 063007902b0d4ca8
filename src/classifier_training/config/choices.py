"""Choices that the configuration and the torch-free runtime share."""

from __future__ import annotations

from typing import Literal, get_args

ResizeMode = Literal["squash", "pad", "crop"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)
