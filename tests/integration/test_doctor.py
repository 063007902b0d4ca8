"""The verdict on a machine: what it says, that it is bounded, and that it changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from typer.testing import CliRunner, Result

from classifier_training.cli.main import app
from classifier_training.system.machine import Diagnosis, diagnose_folder, overall
from classifier_training.training.diagnosis import diagnose_training, reach
from classifier_training.training.estimate import estimate
from classifier_training.training.hardware import choose_hardware
from tests.helpers.storage import OBJECT_STORAGE, ROOT, preloaded
from tests.helpers.training import tiny_config


def _doctor(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def _found(diagnoses: list[Diagnosis], name: str) -> Diagnosis:
    return next(diagnosis for diagnosis in diagnoses if diagnosis.name == name)


@pytest.mark.promise("C20")
def test_a_machine_that_can_train_says_what_it_will_do(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ("model.name=tiny", "model.weights=null", "transforms.image_size=32", "trainer=cpu")

    done = _doctor(f"data.data_root={folder_data}", *tiny, "--json", "found.json")

    assert done.exit_code == 0, done.output
    assert re.search(r"[\x00-\x08\x0b-\x1f]", done.stdout) is None  # no control characters
    assert "can train, slower than it could" in done.stdout  # on a CPU
    content = json.loads((tmp_path / "found.json").read_text())
    found = {row["name"]: row for row in content["found"]}
    assert content["verdict"] == "slow"
    assert "4 classes; train 48, val 24, test 16" in found["data"]["found"]
    assert "img/s" in found["estimate: time"]["found"]
    assert "an epoch of 48 images" in found["estimate: time"]["found"]
    assert {"versions", "[train]", "cores", "memory", "shared memory", "precision"} <= found.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


@pytest.mark.promise("C20")
def test_what_cannot_train_ends_with_2_and_every_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = _doctor("data.data_root=/nowhere", "model.weights=/no/file", "trainer=cpu", "--no-steps")

    assert done.exit_code == 2
    assert "fail  data: " in done.stdout
    assert "fail  weights: /no/file does not exist" in done.stdout
    assert "cannot train" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("C20")
def test_a_misspelt_key_is_told_as_train_tells_it() -> None:
    done = _doctor("optimizer.lr=0.1")

    assert done.exit_code == 2
    assert "optimizer.learning_rate" in done.output


@pytest.mark.promise("C10")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU of this machine works")
def test_a_visible_but_unusable_gpu_is_found(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    config = tiny_config(folder_data, "trainer=default")

    found = diagnose_training(config, None, times_steps=False, dev=tmp_path)

    assert overall(found) == "fail"
    assert "driver" in _found(found, "device").fix


@pytest.mark.promise("D12")
def test_a_shared_memory_that_is_too_small_is_found(folder_data: Path) -> None:
    big = ("transforms.image_size=4096", "data.batch_size=4096", "data.num_workers=8")

    found = diagnose_training(tiny_config(folder_data, *big), None, times_steps=False)

    shared = _found(found, "shared memory")
    assert shared.verdict == "slow"
    assert "--shm-size" in shared.fix


@pytest.mark.promise("R9")
def test_what_a_mount_does_not_do_is_listed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from classifier_training.system.machine import diagnose_folder\n"
        "print([row.found for row in diagnose_folder('run folder', Path(sys.argv[1]))])"
    )
    environment = preloaded(tmp_path, tmp_path / "mount", STORAGE_REFUSE=OBJECT_STORAGE)
    (tmp_path / "mount").mkdir()

    told = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / place)],
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for place in ("mount/run", "disk/run")
    ]

    assert "rename, rewrite, append, hard link, symlink, sync; files are made under" in told[0]
    assert "rename, append, links and sync work" in told[1]
    assert list((tmp_path / "mount").iterdir()) == []


@pytest.mark.promise("R8")
def test_a_folder_that_cannot_be_written_is_found() -> None:
    found = diagnose_folder("run folder", Path("/proc/run"))

    assert overall(found) == "fail"


class _Answers(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - shared with the test on purpose

    def do_HEAD(self) -> None:
        self.asked.append("HEAD")
        time.sleep(30 if self.path == "/slow" else 0)
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append("GET")

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _Answers.asked.clear()
    found = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    found.daemon_threads = True
    found.block_on_close = False
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


@pytest.mark.promise("C20")
def test_asking_for_weights_downloads_nothing_and_cannot_hang(server: str) -> None:
    assert reach(f"{server}/weights.pth") is None
    assert "404" in str(reach(f"{server}/missing"))
    assert "refused" in str(reach("http://127.0.0.1:9/weights.pth"))

    started = time.monotonic()
    assert reach(f"{server}/slow", seconds=0.5)
    assert time.monotonic() - started < 5

    assert set(_Answers.asked) == {"HEAD"}


@pytest.mark.promise("C20")
def test_the_estimate_follows_the_image_size_and_leaves_the_random_stream_alone(
    folder_data: Path,
) -> None:
    small, large = (tiny_config(folder_data, f"transforms.image_size={size}") for size in (64, 128))
    hardware = choose_hardware(small.trainer)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    found = [estimate(config, hardware, classes=4) for config in (small, large)]

    assert torch.equal(torch.rand(3), expected)
    assert 3.5 < found[1].image_bytes / found[0].image_bytes < 4.1
    assert found[1].images_per_s > 0
    assert found[1].largest_batch < found[0].largest_batch


@pytest.mark.promise("C20")
def test_the_base_install_says_what_is_missing(tmp_path: Path) -> None:
    """Only what ``pip install classifier-training`` brings is there."""
    packages = tmp_path / "packages"
    packages.mkdir()
    base = metadata.requires("classifier-training") or []
    waiting = [text for text in base if "extra ==" not in text]
    seen: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate()):
            continue
        seen.add(requirement.name)
        distribution = metadata.distribution(requirement.name)
        waiting += [text for text in distribution.requires or [] if "extra ==" not in text]
        for part in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            link = packages / part
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(part))))
    code = "from classifier_training.cli.main import app; app(prog_name='classifier')"

    done = subprocess.run(
        [sys.executable, "-S", "-c", code, "doctor"],
        env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )

    assert done.returncode == 2, done.stderr
    assert "fail  [train]: not installed: torch" in done.stdout
    assert "pip install 'classifier-training[train]'" in done.stdout
