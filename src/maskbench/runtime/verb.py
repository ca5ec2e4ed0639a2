"""How every verb starts and ends: Hydra composes, errors of the user's are one red message, the last line is JSON."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, InstantiationException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import maskbench
from maskbench.errors import MaskbenchError
from maskbench.runtime.command_line import MEMBERLESS, explain, refuse_parts, usage
from maskbench.runtime.console import complain, say
from maskbench.runtime.ranks import leads
from maskbench.runtime.searchpath import searched

Task = Callable[[DictConfig], dict[str, Any]]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def config_folder() -> Path:
    """Where the Hydra configs are: beside the modules in an installed copy, at the root in a checkout."""
    package = Path(maskbench.__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def config_folders() -> list[Path]:
    """All that a config can be chosen from: ours, and what this process's command line names beside it.

    Raises:
        ConfigError: it names what is not there.
    """
    return [config_folder(), *searched(sys.argv[1:])]


def run(name: str, task: Task, status: Callable[[dict[str, Any]], int] = lambda found: 0) -> None:
    """Compose `conf/NAME.yaml` with the command line, hand it to `task`, print what it returns as a line of JSON.

    Args:
        name: of the verb.
        task: what it does.
        status: the exit status of a task that came to its end, by what it returned.
    """
    with report_errors():
        folders = config_folders()
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(usage(name, *folders))
        return

    @functools.wraps(task)
    def printed(cfg: DictConfig) -> None:
        with report_errors():
            refuse_parts(cfg, HydraConfig.get().runtime.choices, *folders)
            found = task(cfg)
            if leads():
                print(json.dumps(found), flush=True)
            if code := status(found):
                raise SystemExit(code)

    # Or Hydra prints what it thinks of an error, and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(printed)()
    except KeyboardInterrupt as interruption:  # which says how to go on, where somebody along its way knew
        say(f"\n{str(interruption) or 'Interrupted.'}")
        raise SystemExit(INTERRUPTED) from None
    except (ConfigCompositionException, OverrideParseException) as error:  # Hydra's others may be bugs of ours
        complain(explain(error, *folders))
        raise SystemExit(1) from None
    except ValueError as error:
        if not str(error).startswith(MEMBERLESS):
            raise
        complain(
            f"a group is given the name of one of its members, as in data=coco; maskbench {name} --help lists them"
        )
        raise SystemExit(1) from None
    except InstantiationException as error:  # of a launcher or sweeper, which says what is wrong with its settings
        if not isinstance(error.__cause__, MaskbenchError):
            raise
        complain(str(error.__cause__))
        raise SystemExit(1) from None


@contextmanager
def report_errors() -> Iterator[None]:
    """Print what is the user's to mend as one red message, without a traceback, and exit with 1."""
    try:
        yield
    except MissingMandatoryValue as error:
        complain(f"{error.full_key} is not set: say {error.full_key}=... on the command line")
        raise SystemExit(1) from None
    except (MaskbenchError, OmegaConfBaseException) as error:
        complain(str(error))
        raise SystemExit(1) from None
