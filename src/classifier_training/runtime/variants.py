"""Other forms of the exported model: where each lies beside it, with a sidecar of its own."""

from __future__ import annotations

from pathlib import Path

from classifier_training.runtime.sidecar import ONNX_NAME, SIDECAR_NAME

# Weights in int8; uint8 pixels as input.
VARIANTS = ("int8", "uint8")


def variant_files(folder: Path, variant: str) -> tuple[Path, Path]:
    """Return where the ONNX file and the sidecar of one of ``VARIANTS`` lie in a folder."""
    onnx, sidecar = Path(ONNX_NAME), Path(SIDECAR_NAME)
    return (
        folder / f"{onnx.stem}.{variant}{onnx.suffix}",
        folder / f"{sidecar.stem}.{variant}{sidecar.suffix}",
    )


def sidecar_of(onnx_path: Path) -> Path:
    """Return where the sidecar of an ONNX file lies: that of its variant, else the usual one."""
    variant = Path(onnx_path.stem).suffix.removeprefix(".")
    if variant in VARIANTS:
        return variant_files(onnx_path.parent, variant)[1]
    return onnx_path.with_name(SIDECAR_NAME)


def remove_pair(onnx: Path, sidecar: Path) -> None:
    """Remove an ONNX file and its sidecar, where they are."""
    onnx.unlink(missing_ok=True)
    sidecar.unlink(missing_ok=True)
