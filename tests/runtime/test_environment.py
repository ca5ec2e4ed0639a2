from __future__ import annotations

import re

import torch

from maskbench.runtime.environment import commit, environment


def test_the_environment_names_what_speeds_depend_on() -> None:
    found = environment(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert found["device"]
    assert found["driver"] is None
    assert found["cuda"] == torch.version.cuda


def test_the_commit_is_a_hash_or_unknown() -> None:
    assert commit() is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit())
