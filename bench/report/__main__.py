"""`python -m bench.report [FIGURES...]`: docs/performance.md and its plots.

The page is made of the figures kept in docs/performance/*.json, which those given replace or join, by their names; of
none given, those of the last `make bench` and `make bench-experiments` here.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.experiments import TITLES
from bench.peers.base import ROOT
from bench.report.page import measured, page
from bench.session import RESULTS

DOCS = ROOT / "docs"
KEPT = DOCS / "performance"


def main(paths: list[Path]) -> None:
    given = {path.stem: json.loads(path.read_text()) for path in paths}
    runs = {**{path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))}, **given}
    if not runs:
        sys.exit("no figures; make bench makes them")
    target = DOCS / "performance.md"
    if target.is_file() and not any(what.startswith("T") for run in runs.values() for what in measured(run)):
        sys.exit(f"{target.relative_to(ROOT)} was made of other figures, and would lose its tables; make bench first")
    check_once(runs)
    for name, run in given.items():
        (KEPT / f"{name}.json").write_text(json.dumps(run, separators=(",", ":")) + "\n")
    others = {path.parent.name: str(path.relative_to(DOCS)) for path in sorted(KEPT.glob("*/*.md"))}
    target.write_text(page([*runs.values()], TITLES, others))
    try:
        from bench.report.plots import plot

        drawn = plot([row for run in runs.values() for row in run["rows"]], KEPT)
    except ImportError:
        drawn = []
        print("no plots: matplotlib is missing; `make bench` installs it (group bench)", file=sys.stderr)
    print(f"{target.relative_to(ROOT)}, {len(drawn)} plots")


def check_once(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """End where two runs measured the same: a table is of one run, or its ratios say nothing."""
    by: dict[str, str] = {}
    for name, run in runs.items():
        for what in measured(run):
            if what in by:
                sys.exit(f"{what} is in {by[what]}.json and in {name}.json; remove one of {KEPT.relative_to(ROOT)}")
            by[what] = name


if __name__ == "__main__":
    standard = [path for name in ("full", "experiments") if (path := RESULTS / f"{name}.json").is_file()]
    main([Path(each) for each in sys.argv[1:]] or standard)
