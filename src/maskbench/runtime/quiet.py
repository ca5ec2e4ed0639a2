"""Messages of libraries that tell a person nothing here, each with the reason."""

from __future__ import annotations

import logging
import warnings


def hush() -> None:
    """Silence them in this process."""
    # the banner of devices, tips and "max_epochs reached" at every start of a trainer
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # workers are a setting: small images are read faster than a worker hands them over
    warnings.filterwarnings("ignore", r"The '\w+_dataloader' does not have many workers")
    # Lightning's own use of torch
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # an epoch shorter than the logging interval has its losses in history.csv
    warnings.filterwarnings("ignore", r"The number of training batches \(\d+\) is smaller than the logging interval")
    # AP and counts after an epoch are of all devices already; loss and memory are the first one's, enough for a curve
    warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\(.*sync_dist=True")
    # a trial on a Slurm cluster is one task, and starts its other processes itself
    warnings.filterwarnings("ignore", r"The `srun` command is available on your system but is not used")
    # a resumed run writes into the folder that it has left
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
