"""What every method promises, as tests. A package says where its configs are, and has each promise tested of each:

from maskbench.testing import contract


class TestContract(contract.Contract):
    configs = "pkg://paper.conf"
"""

from __future__ import annotations

from maskbench.testing.configuration import Configuration
from maskbench.testing.prediction import Prediction
from maskbench.testing.training import Training


class Contract(Configuration, Training, Prediction):
    """All promises; `Subject` says what else can be set, and what a test of one's own may ask for."""
