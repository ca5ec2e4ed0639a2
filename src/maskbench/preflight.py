"""Look through a data set before training on it: `python -m maskbench.preflight data=coco data.root=DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskbench.data.preflight.findings import SEVERITIES
from maskbench.data.preflight.survey import survey
from maskbench.runtime import verb
from maskbench.runtime.console import complain, say
from maskbench.runtime.preflight import layout
from maskbench.runtime.preflight_page import NUMBERS, listed, verdict, write
from maskbench.runtime.values import require

FAULTY = 3
"""Exit status when errors were found; 1 is a look that could not be taken."""


def preflight(cfg: DictConfig) -> dict[str, Any]:
    """Every record and photo is looked at once; what is wrong goes to preflight.json and, with pictures, to a page."""
    require(cfg, {"out": str})
    looked = survey(layout(cfg))
    page, found = write(looked, Path(cfg.out)), looked.as_dict()
    for severity in SEVERITIES:
        tell = complain if severity == "error" else say
        for line in listed(found, severity):
            tell(f"{severity} {line}")
    say(f"{verdict(found['counts'])} {page} shows them")
    return {
        "root": found["root"],
        "page": str(page),
        "findings": str(page.with_name(NUMBERS)),
        **{f"{severity}s": count for severity, count in found["counts"].items()},
        "kinds": {group["kind"]: group["count"] for group in found["findings"]},
    }


def main() -> None:
    verb.run("preflight", preflight, status=lambda found: FAULTY if found["errors"] else 0)


if __name__ == "__main__":
    main()
