"""Write the tables of products in docs/speed.md, and docs/speed.png, from stored runs of `hvp.py`.

    python benchmarks/speed_picture.py

A run is stored by ``hvp.py --json benchmarks/results/NAME.json`` on a machine without other work:
the machine, kernels, versions, threads, date, and all rounds. Its table stands in docs/speed.md
below the line ``<!-- results/NAME.json -->``, and the picture shows the first run by name. A run
with ``--products --blocks``, stored as ``blocks-NAME.json``, adds columns for 16 vectors at once.
"""

import json
import re
from pathlib import Path

import command
import numpy as np
from workloads import WORKLOADS

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = Path(__file__).resolve().parent / "results"
PEERS = {"torch": "torch", "jax": "JAX", "curvlinops": "curvlinops", "pyhessian": "PyHessian"}
DTYPES = ("float32", "float64")


def main():
    args = command.parser(__doc__).parse_args()
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("hvp*.json"))}
    if not runs:
        raise SystemExit("No stored run. Write one: python benchmarks/hvp.py --json FILE.")
    with command.run(args) as numbers:
        page = DOCS / "speed.md"
        page.write_text(with_tables(page.read_text(), runs))
        numbers["times as long"] = draw(next(iter(runs.values())))


def ratios(run, call="product"):
    """Return a dict by network of the times of other libraries over that of fastcurv: for each, a
    dict by library of the list for all precisions. JAX has the faster of its two ways. `call` is
    "product", or "block" for 16 vectors at once.
    """
    found = {}
    for record in run["records"]:
        for label, peer in PEERS.items():
            times = [
                calls[call]
                for name, calls in record["seconds"].items()
                if name.startswith(label) and call in calls
            ]
            if times:
                own = found.setdefault(record["workload"], {})
                own.setdefault(peer, []).append(min(times) / record["seconds"]["fastcurv"][call])
    return found


def table(run, blocks):
    """Return the table of a run in Markdown, with a line below that describes the run. If `blocks`
    is a run with blocks of 16 vectors, their columns are added.
    """
    found = ratios(run)
    for name, own in (ratios(blocks, "block") if blocks else {}).items():
        found[name] |= {f"{peer}, 16 vectors": times for peer, times in own.items()}
    peers = list(dict.fromkeys(peer for own in found.values() for peer in own))
    lines = [f"| network | {' | '.join(peers)} | of FMA peak |", "|---" * (len(peers) + 2) + "|"]
    for name, own in found.items():
        shares = [r["share_of_peak"] for r in run["records"] if r["workload"] == name]
        cells = [" / ".join(f"{ratio:.3g}" for ratio in own.get(peer, [])) for peer in peers]
        cells.append(" / ".join(f"{share:.0%}" for share in shares))
        network = str(WORKLOADS[name]).rpartition(",")[0]
        lines.append(f"| {network} | {' | '.join(cells)} |")
    facts = run["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines += ["", f"{facts['cpu']}, threads: {facts['threads']}, {facts['time']}; {versions}."]
    return "\n".join(lines)


def with_tables(text, runs):
    """Return the page with the table of each stored run below its line."""
    for name, run in runs.items():
        line = re.escape(f"<!-- results/{name}.json -->\n")
        below = rf"(?<={line}).*?(?=\n## |\n<!--|\Z)"
        path = RESULTS / f"blocks-{name}.json"
        blocks = json.loads(path.read_text()) if path.exists() else None
        text = re.sub(below, f"\n{table(run, blocks)}\n", text, count=1, flags=re.DOTALL)
    return text


def draw(run, path=DOCS / "speed.png"):
    """Draw the ratios of a run to torch and JAX as bars, and return all by network."""
    from fastcurv import plots

    found = ratios(run)
    figure = plots.new_figure((7.6, 4.8))
    ax = figure.add_subplot()
    at = np.arange(2 * len(found))
    for k, (peer, color) in enumerate((("torch", plots.ORANGE), ("JAX", plots.BLUE))):
        values = np.concatenate([own[peer] for own in found.values()])
        ax.barh(at + 0.2 - 0.4 * k, values, 0.38, color=color, label=peer)
        for y, x in zip(at, values):
            ax.text(x * 1.02, y + 0.2 - 0.4 * k, f"{x:.3g}", va="center", fontsize=8)
    ax.axvline(1, color=plots.GREY, lw=1)
    ax.set_xscale("log")
    ax.set_yticks(at, [f"{name}, {dtype}" for name in found for dtype in DTYPES], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("time of one Hessian-vector product, fastcurv = 1")
    ax.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)
    return found


if __name__ == "__main__":
    main()
