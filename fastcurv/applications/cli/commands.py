"""The subcommands. Each returns its exit status, or None for 0."""

from __future__ import annotations

import itertools
import shlex
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastcurv as fc

from ...common.errors import escape_unprintable
from ...common.files import write_atomically
from ...common.optional import optional_import
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS
from ..certificate.check_certificate import check_file
from .output import (
    PAGE_SUFFIXES,
    TABLE_SUFFIXES,
    CommandOutput,
    check_figure_output,
    check_output_path,
    verdict_facts,
    write_stream,
)
from .predict import given_options
from .tables import ReadingOptions

NETWORK_SUFFIXES = (".safetensors",)


def demo(args: Namespace, out: CommandOutput) -> None:
    """Run the demonstration on real data."""
    from .demo import run_demo

    check_output_path(args.out, kinds=PAGE_SUFFIXES)
    check_figure_output(args.figure)
    with optional_import("the data and pictures of the demo", "demo"):
        import matplotlib.figure  # noqa: F401
        import sklearn.datasets  # noqa: F401
    out.working = True
    facts = run_demo(
        args.out,
        picture=args.figure,
        seed=args.seed,
        n_threads=args.threads,
        quick=args.quick,
        progress=args.progress,
        say=out.print_text,
    )
    out.add_facts(
        report=facts["report"],
        verdict=verdict_facts(facts["verdict"]),
        saddle=verdict_facts(facts["saddle"]),
    )


def unused_path(name: str) -> str:
    """Return the name if no file has it, otherwise the first unused name with -2, -3, ... before
    the suffix.
    """
    path = Path(name)
    numbered = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))
    return str(next(p for p in itertools.chain([path], numbered) if not p.exists()))


def predict(args: Namespace, out: CommandOutput) -> None:
    """Write the predictions of a network for the samples of a file, as CSV."""
    from .predict import format_csv, prediction_columns

    check_output_path(args.out, kinds=TABLE_SUFFIXES)
    columns, notes = prediction_columns(args)
    out.working = True
    # Standard output is reserved for the table.
    for sentence in notes:
        write_stream("stderr", escape_unprintable(sentence) + "\n")
    if args.out is None:
        out.print_csv(format_csv(columns))
    else:
        out.print_text(f"saved {write_atomically(args.out, format_csv(columns).encode())}")
        out.add_facts(out=args.out)
    out.add_facts(predictions=columns, notes=list(notes))


def check(args: Namespace, out: CommandOutput) -> int:
    """Check a certificate. Return 0 if its claim is confirmed, 1 if it is not confirmed, and 2 if
    the file is not understood.
    """
    status, sentence = check_file(args.certificate, out.print_text)
    out.print_text(sentence)
    out.add_facts(status=status, sentence=sentence)
    return status


def report(args: Namespace, out: CommandOutput) -> int:
    """Train a network on a table, and write the page on how far the network can be trusted. Return
    1 if a proof was required and the verdict is not proved.
    """
    from .coding import code_table
    from .network import network_of_fit
    from .page import build_page
    from .report import check_report_packages
    from .table_fit import choose_fit
    from .tables import read_table, table_suffix

    check_report_packages()
    check_output_path(args.out, kinds=PAGE_SUFFIXES)
    if args.table == "-":
        raise ValueError(
            "table must be a file, got '-', which is standard input. Write it to a .csv file first."
        )
    table_suffix(args.table)
    check_output_path(args.save, "save", NETWORK_SUFFIXES)
    save = args.save or unused_path(str(Path(args.out).with_suffix(NETWORK_SUFFIXES[0])))

    def note(text: str) -> None:
        if args.progress:
            write_stream("stderr", f"{text} ...\n")

    note("reading the table")
    options = ReadingOptions(**given_options(args))
    table = read_table(args.table, options, args.target)
    data = code_table(table, options, args.target, args.loss, args.groups)
    out.working = True
    found = choose_fit(data, args, note)
    network = network_of_fit(found, data.coding, data.y)
    notes = [*data.notes, found.decay_note]
    for sentence in notes:
        out.print_text(sentence)
    failure = None
    try:
        out.add_facts(out=network.save(save))
        out.print_text(f"saved {save}")
    except (ValueError, OSError) as error:
        failure = error  # raised after the page is written
    cells = np.array([column.cells() for column in data.table.columns], dtype=object).T
    page = build_page(
        found.fit.est,
        data.X,
        data.y,
        names=data.coding.input_names,
        target=data.coding.target,
        notes=notes,
        progress=note,
        seed=args.seed,
        table=([c.name for c in data.table.columns], cells, data.table.places),
        n_columns=len(data.coding.columns),
        found=found,
        network=network,
        commands=_next_commands(args, network, save),
        made=[("table", str(args.table)), ("command", shlex.join(["fastcurv", *args.argv]))],
    )
    path, facts = page.write(args.out), page.to_dict()
    name = "accuracy" if network.classes else "R\u00b2"
    scores = {"left_out_score": "rows left out", "training_score": "rows fitted"}
    known = [f"{facts[score]:.3f} on {rows}" for score, rows in scores.items()]
    if "linear_score" in facts:
        linear = found.rival is None
        score = facts["linear_score" if linear else "network_score"]
        known.append(f"{score:.3f} by a {'linear model' if linear else 'network'}")
    out.print_text(f"{name}: {', '.join(known)}")
    for sentence in facts["warnings"]:
        out.print_text(sentence)
    out.print_text(f"report: {path}")
    out.add_facts(**facts, notes=notes, report=path)
    if failure is not None:
        raise failure
    return int(args.certified and not facts["certified"])


def _next_commands(args: Namespace, network: Any, save: str) -> list[tuple[str, str]]:
    """Return what a reader of a page on a table can do next, with the command for each."""
    more = ["--probabilities"] if network.classes else ["--interval", "0.95"]
    if len(network.minimum):
        more += ["--domain", "--data", str(args.table)]
    again = ["report", str(args.table), "--target", network.coding.target, "--out", "again.html"]
    again += ["--ignore", network.coding.columns[0].name]
    return [
        (
            "Predict new rows, in a table with the same columns:",
            shlex.join(["fastcurv", "predict", save, "new.csv", *more]),
        ),
        (
            "Fit again, with more rows, or without the columns that you name:",
            shlex.join(["fastcurv", *again]),
        ),
    ]


def bench(args: Namespace, out: CommandOutput) -> None:
    """Print the times of a gradient and of a Hessian-vector product for each dtype. The data are
    random, since their values do not affect the times.
    """
    for dtype in args.dtype:
        bench_objective(args, dtype)  # invalid arguments raise an error before any line is printed
    print_versions(out)
    out.print_text()
    out.print_text(
        f"{'dtype':<9}{'gradient ms':>13}{'product ms':>12}{'product/gradient':>18}"
        f"{'of FMA peak':>13}"
    )
    rows = [bench_row(args, dtype) for dtype in args.dtype]
    for row in rows:
        out.print_text(
            f"{row['dtype']:<9}{row['gradient'] * 1e3:>13.4g}{row['product'] * 1e3:>12.4g}"
            f"{row['product'] / row['gradient']:>18.2f}{row['share_of_peak']:>13.0%}"
        )
    out.add_facts(sizes=args.sizes, samples=args.samples, rows=rows)


def bench_row(args: Namespace, dtype: str) -> dict[str, Any]:
    """Return a dict with the dtype, the seconds of a gradient and of a Hessian-vector product, and
    the fraction of the peak FMA rate that the product reaches.
    """
    objective, theta = bench_objective(args, dtype)
    v = np.random.default_rng(1).standard_normal(theta.size).astype(dtype)
    hessian = objective.hessian(theta)
    # Two points alternate, so that no call can reuse the result of the last one.
    points = itertools.cycle([theta, 0.99 * theta])
    product = best_time(lambda: hessian @ v)
    gradient = best_time(lambda: objective.value_and_gradient(next(points)))
    layers = [m * k for k, m in zip(args.sizes, args.sizes[1:])]
    flops = 2 * args.samples * (2 * layers[0] + 6 * sum(layers[1:]))
    peak = fc._engine.measure_fma_peak(dtype, args.threads or fc._engine.default_n_threads())
    return {
        "dtype": dtype,
        "gradient": gradient,
        "product": product,
        "share_of_peak": flops / product / peak,
    }


def bench_objective(args: Namespace, dtype: str) -> tuple[Any, np.ndarray]:
    """Return the objective to time, with random samples of random classes, and a random start."""
    rng = np.random.default_rng(0)
    model = fc.MLP(args.sizes, activation=args.activation, dtype=dtype)
    X = rng.standard_normal((args.samples, args.sizes[0]))
    y = rng.integers(args.sizes[-1], size=args.samples)
    objective = fc.Objective(
        model, X, y, loss=DEFAULT_LOSS_BY_TARGETS["classes"], n_threads=args.threads
    )
    return objective, model.init(rng=0)


def info(args: Namespace, out: CommandOutput) -> None:
    """Print versions and kernels."""
    print_versions(out)


def print_versions(out: CommandOutput) -> None:
    """Print the result of `fastcurv.show_versions`."""
    facts = fc.show_versions("dict")
    for name, value in facts.items():
        out.print_text(f"{name:>10}: {value}")
    out.add_facts(**facts)


def best_time(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Call `call` repeatedly for `seconds` seconds, and return the shortest time of a call, in
    seconds.
    """
    call()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
