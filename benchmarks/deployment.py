"""The deployed model from JPEG bytes: onnxruntime against torch eager, int8, and `predict`.

    python -m benchmarks.deployment RUN DATA [--images 128] [--rounds 3] [--skip-int8]

RUN is a finished run, DATA any folder with images. Each model decodes, resizes, normalises and
answers the same images from memory, in turn, at batch 1 and 32, with as many threads as there are
cores; p50 and p95 are of one batch, "ratio" the median over batches of torch's time by the
model's (above 1: faster than torch eager). Without RUN/model.int8.onnx an int8 copy is made in a
temporary folder and measured whether or not the gates of `classifier export` would keep it.

Then `predict` on the files is compared with its two limits, each with all cores to itself: reading
and preprocessing without a network, and the network without reading. They share the cores, so no
program can be faster than 1 / (1 / reading + 1 / network); both ratios are printed, and that of a
session whose threads sleep instead of spin while they wait.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from classifier_training.cli.console import set_up_logging
from classifier_training.cli.predict import expand
from classifier_training.evaluation.models import exact_fp32
from classifier_training.exporters.int8 import export_int8
from classifier_training.exporters.latency import SpeedUp
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.sidecar import variant_files
from classifier_training.run.checkpoint import load_model
from classifier_training.run.folder import RunFolder
from classifier_training.system.parallel import prefetch_map
from classifier_training.system.resources import available_cores

Logits = npt.NDArray[np.float32]
Engine = Callable[[list[bytes]], Logits]

BATCH = 32


def torch_eager(run: Path) -> Engine:
    """Answer as the training framework does."""
    model = load_model(RunFolder(run).best)
    exact_fp32()
    torch.set_num_threads(available_cores())

    @torch.inference_mode()
    def answer(batch: list[bytes]) -> Logits:
        pixels = np.stack([model.metadata.spec.load(data, "") for data in batch])
        return np.asarray(model.network(torch.from_numpy(model.metadata.spec.normalize(pixels))))

    return answer


def by_onnxruntime(path: Path) -> Engine:
    """Answer as the deployed predictor does."""
    predictor = Predictor.load(path)

    def answer(batch: list[bytes]) -> Logits:
        return predictor.logits(np.stack([predictor.spec.load(data, "") for data in batch]))

    return answer


def quantized(run: Path, folder: Path) -> Path:
    """Return the run's int8 model, or make one that no gate refuses."""
    kept = variant_files(run, "int8")[0]
    if kept.is_file():
        return kept
    for name in ("run.json", "model.onnx", "labels_mapping.json"):
        shutil.copyfile(run / name, folder / name)
    shutil.copytree(run / "data", folder / "data")

    def any_speed(*_: object, batch: int, pairs: int) -> SpeedUp:
        return SpeedUp(batch, float(pairs), 1.0, 2.0, 2.0)

    done = export_int8(folder, max_loss=1.0, stopwatch=any_speed)
    print(f"int8 made for this benchmark: {done.loss}")
    return done.onnx


def latencies(
    engines: dict[str, Engine], files: list[bytes], batch: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each batch, by engine, taken in turn."""
    batches = [files[at : at + batch] for at in range(0, len(files) - batch + 1, batch)]
    for engine in engines.values():
        engine(batches[0])
    times: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for turn in range(rounds):
        for at, item in enumerate(batches):
            first = (turn + at) % len(names)
            for name in (*names[first:], *names[:first]):
                started = time.perf_counter()
                engines[name](item)
                times[name].append(time.perf_counter() - started)
    return times


def show_latencies(times: dict[str, list[float]], batch: int) -> None:
    """Print p50, p95 and the ratio to the first engine."""
    base = np.array(next(iter(times.values())))
    print(f"\nfrom JPEG bytes, batch {batch} ({len(base)} batches)")
    print(f"{'':24}{'p50 ms':>10}{'p95 ms':>10}{'img/s':>10}{'ratio':>8}")
    for name, taken in times.items():
        seconds = np.array(taken)
        p50, p95 = np.percentile(seconds, (50, 95))
        ratio = np.median(base / seconds)
        print(f"{name:24}{p50 * 1e3:10.1f}{p95 * 1e3:10.1f}{batch / p50:10.1f}{ratio:8.2f}")


def without_spinning(predictor: Predictor) -> Predictor:
    """Return the same model whose idle threads sleep."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(predictor.path), options, providers=["CPUExecutionProvider"])
    return Predictor(session, predictor.sidecar, predictor.path)


def folder_speeds(predictor: Predictor, paths: list[Path], rounds: int) -> dict[str, list[float]]:
    """Return images per second of `predict` and of its limits, by round."""
    spec = predictor.spec

    def prepare(path: Path) -> npt.NDArray[np.float32]:
        return spec.normalize(spec.resize_image(read_image(path))[None])[0]

    tensor = np.stack([prepare(path) for path in paths[:BATCH]])
    sleeping = without_spinning(predictor)

    def read_all() -> None:
        for _ in prefetch_map(prepare, paths, threads=available_cores(), ahead=2 * BATCH):
            pass

    def run_all() -> None:
        for _ in range(len(paths) // BATCH):
            predictor.run(tensor)

    def predict_all(which: Predictor) -> None:
        for _ in which.predict(paths, batch_size=BATCH):
            pass

    work: dict[str, Callable[[], None]] = {
        "reading": read_all,
        "network": run_all,
        "predict": lambda: predict_all(predictor),
        "predict, no spinning": lambda: predict_all(sleeping),
    }
    speeds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            started = time.perf_counter()
            function()
            speeds[name].append(len(paths) / (time.perf_counter() - started))
    return speeds


def show_folder(speeds: dict[str, list[float]]) -> None:
    """Print the speeds and what `predict` reaches of its limits."""
    reading, network = np.array(speeds["reading"]), np.array(speeds["network"])
    slower, shared = np.minimum(reading, network), 1 / (1 / reading + 1 / network)
    print("\na folder of files, images per second (median of the rounds)")
    for name, values in speeds.items():
        print(f"{name:24}{np.median(values):10.1f}")
    for name in ("predict", "predict, no spinning"):
        found = np.array(speeds[name])
        print(
            f"{name}: {np.median(found / slower):.2f} of the slower limit, "
            f"{np.median(found / shared):.2f} of both on shared cores"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=128, help="a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-int8", action="store_true")
    asked = parser.parse_args()
    set_up_logging(debug=False)
    paths = expand([str(asked.data)])[: max(BATCH, asked.images // BATCH * BATCH)]
    if len(paths) < BATCH:
        parser.error(f"{asked.data} has {len(paths)} images; at least {BATCH} are needed")
    files = [path.read_bytes() for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        engines = {
            "torch eager": torch_eager(asked.run),
            "onnxruntime fp32": by_onnxruntime(asked.run),
        }
        if not asked.skip_int8:
            engines["onnxruntime int8"] = by_onnxruntime(quantized(asked.run, Path(folder)))
        for batch in (1, BATCH):
            show_latencies(latencies(engines, files, batch, asked.rounds), batch)
        show_folder(folder_speeds(Predictor.load(asked.run), paths, asked.rounds))


if __name__ == "__main__":
    main()
