"""`python -m bench.report [FIGURES...]`: docs/performance.md and its plots, of one or more runs' figures."""

import json
import sys
from pathlib import Path
from typing import Any

from bench.experiments import TITLES
from bench.peers.base import ROOT
from bench.report.page import page
from bench.session import RESULTS


def main(paths: list[Path]) -> None:
    runs: list[dict[str, Any]] = [json.loads(path.read_text()) for path in paths]
    run = {**runs[0], "rows": [row for each in runs for row in each["rows"]]}
    target = ROOT / "docs" / "performance.md"
    target.write_text(page(run, TITLES))
    try:
        from bench.report.plots import plot

        drawn = plot(run, ROOT / "docs" / "performance")
    except ImportError:
        drawn = []
        print("no plots: matplotlib is missing; `make bench` installs it (group bench)", file=sys.stderr)
    print(f"{target.relative_to(ROOT)}, {len(drawn)} plots")


if __name__ == "__main__":
    standard = [path for name in ("full", "experiments") if (path := RESULTS / f"{name}.json").is_file()]
    main([Path(each) for each in sys.argv[1:]] or standard)
