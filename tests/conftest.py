"""What every test runs under: executed shapes, one thread, no network, a seed, and folders of its own."""

from __future__ import annotations

import os

# Before anything reads them: no network, no window, and no login.
os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="Agg", OMP_NUM_THREADS="1", WANDB_MODE="offline", WANDB_SILENT="true")

import jaxtyping

# Before maskbench is imported: the shapes in its signatures become checks. An int is a float, as mypy has it.
jaxtyping.install_import_hook(
    ["maskbench", "paper"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real photographs, goldens and published results, which lie outside the checkout.

    A test that needs them is skipped where they are missing, and fails if MASKBENCH_REQUIRE_SHARED=1 says that they
    must be there.
    """
    folder = (ROOT / os.environ.get("MASKBENCH_SHARED", "../shared")).resolve()
    if folder.is_dir():
        return folder
    reason = f"{folder} is missing: set MASKBENCH_SHARED to the shared folder"
    if os.environ.get("MASKBENCH_REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Drawn data sets and W&B's files go to a folder of the session, which its worker processes share."""
    base = tmp_path_factory.getbasetemp()
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKBENCH_CACHE", str(session / "cache"))
        patch.setenv("WANDB_DIR", str(base))
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries draw from the global state)
    torch.manual_seed(0)
