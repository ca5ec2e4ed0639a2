from __future__ import annotations

from pathlib import Path

import pytest

from maskbench.runtime.nvidia import driver, smallest_memory, visible_gpus


@pytest.mark.parametrize(
    ("named", "found"),
    [("0,2", ["0", "2"]), ("GPU-1a, GPU-2b", ["GPU-1a", "GPU-2b"]), ("", []), ("-1", []), ("0,-1,1", ["0"])],
)
def test_the_environment_names_the_gpus(monkeypatch: pytest.MonkeyPatch, named: str, found: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == found


def test_else_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (visible_gpus(), driver()) == ([], None)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ncase $1 in *index) echo 0; echo 1;; *) echo 580.1; echo 580.1;; esac\n")
    program.chmod(0o755)
    assert (visible_gpus(), driver()) == (["0", "1"], "580.1")
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert (visible_gpus(), driver()) == ([], None)


def test_the_gpu_with_the_least_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smallest_memory() is None
    program = tmp_path / "nvidia-smi"
    every = ["0, GPU-1a, 81920 MiB", "1, GPU-2b, 24576 MiB", "2, GPU-3c, 40960 MiB", "3, GPU-4d, [N/A]"]
    lines = "".join(f"echo '{line}';" for line in every)
    program.write_text(f"#!/bin/sh\ncase $1 in *=index) echo 0; echo 1; echo 2; echo 3;; *) {lines} esac\n")
    program.chmod(0o755)
    assert smallest_memory() == 24 * 2**30
    for named, gigabytes in {"0,2": 40, "0": 80, "GPU-1a,GPU-2": 24}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert smallest_memory() == gigabytes * 2**30
    for none in ("", "3"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert smallest_memory() is None
