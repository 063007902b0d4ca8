"""List the benchmarks: python -m benchmarks; run one: python -m benchmarks.NAME --help."""

from __future__ import annotations

from pathlib import Path

if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.stem.startswith("_"):
            first = path.read_text(encoding="utf-8").splitlines()[0].strip('"')
            print(f"python -m benchmarks.{path.stem:<22} {first}")
