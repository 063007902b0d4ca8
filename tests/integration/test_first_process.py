"""In a container we are process 1, to which the kernel gives no default signal handlers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers.storage import start, training, wait_for

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def _signal(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Signal process 1 from outside, as an engine does; return exit code and output."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.promise("R2")
@pytest.mark.promise("R3")
@pytest.mark.promise("I3")
def test_process_1_saves_on_sigterm_and_goes_on_after_that_and_after_a_kill(
    folder_data: Path, tmp_path: Path
) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], check=False).returncode
    ):
        pytest.skip("namespaces are not allowed here")
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    command = training(folder_data, run, "trainer.max_epochs=200", "callbacks=none")
    process = start(*command, within=UNSHARE)
    wait_for(last, process)

    code, output = _signal(process, signal.SIGTERM)

    assert code == 143, output
    assert "stopped by SIGTERM; saved" in output
    before = torch.load(last, weights_only=True)["global_step"]
    process = start(*command, within=UNSHARE)
    while torch.load(last, weights_only=True)["global_step"] == before:
        assert process.poll() is None, process.communicate()[0]

    _signal(process, signal.SIGKILL)

    process = start(*command, within=UNSHARE)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "was left behind; it is taken over" in output
    assert torch.load(last, weights_only=True)["epoch"] == 199
