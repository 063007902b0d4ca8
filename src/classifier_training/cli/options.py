"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]
ModelArgument = Annotated[
    Path, typer.Argument(help="Folder of a run, or an ONNX file.", show_default=False)
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Where the data lies now, if it moved.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
