"""The plots of a run: one a load, as SVG that is the same for the same figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.report.found import Found, is_limit, mode_of
from bench.report.page import TITLES

_LIMIT, _OURS, _OTHERS = "#9aa0a6", "#1a73e8", "#f29900"
_SETTINGS: Final = {"svg.hashsalt": "forebay", "svg.fonttype": "none", "font.size": 9}


def plot(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `<load>-<dtype>.svg` for each load that was measured."""
    import matplotlib as mpl

    mpl.use("svg")
    folder.mkdir(parents=True, exist_ok=True)
    found = Found(rows)
    written = []
    with mpl.rc_context(_SETTINGS):
        for load, dtype in TITLES:
            if found.contenders(load, dtype):
                written.append(folder / f"{load}-{dtype}.svg")
                _plot(found, load, dtype, written[-1])
    return written


def _plot(found: Found, load: str, dtype: str, path: Path) -> None:
    """Throughput, CPU and latency side by side, a bar for each contender."""
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    peers = found.contenders(load, dtype)[::-1]  # the first one on top
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 0.34 * len(peers) + 1.2), sharey=True)
    log = " (log)" if load == "T3" else ""
    panels = (
        ("requests/s, 64 in flight\nor backlog, whichever is more", "per_s", True),
        (f"CPU ms a request{log}", "cpu_ms", False),
        (f"99th percentile, ms,\n64 in flight{log}", "p99_ms", False),
    )
    for axis, (title, name, most) in zip(axes, panels, strict=True):
        for place, peer in enumerate(peers):
            modes = (
                [mode_of(peer)] if is_limit(peer) else ["closed 64"] if name == "p99_ms" else ["closed 64", "backlog"]
            )
            spreads = [spread for mode in modes if (spread := found.spread(load, dtype, peer, mode, name))]
            if not spreads or (is_limit(peer) and name == "p99_ms"):
                continue
            spread = (max if most else min)(spreads, key=lambda spread: spread.median)
            reach = [[spread.median - spread.least], [spread.most - spread.median]]
            colour = _LIMIT if is_limit(peer) else _OURS if peer.startswith("Forebay") else _OTHERS
            axis.barh(place, spread.median, color=colour, xerr=reach, error_kw={"lw": 0.8})
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        if load == "T3":  # its contenders lie three orders of magnitude apart
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_ylim(-0.6, len(peers) - 0.4)
    axes[0].set_yticks(range(len(peers)), peers)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
