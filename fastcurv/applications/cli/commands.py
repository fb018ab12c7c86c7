"""The subcommands. Each returns its exit status, or None for 0."""

from __future__ import annotations

import itertools
import math
import shlex
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fastcurv as fc

from ...common.checks import check_choice
from ...common.errors import escape_unprintable
from ...common.files import expand_home, raise_if_special_file, write_atomically
from ...common.optional import optional_import
from ...common.runtime import raise_if_interrupted
from ...optimize.minimize import METHODS, STOCHASTIC_METHODS
from ...spectrum.density import density_of_matrix_eigenvalues
from ...spectrum.draw import sign_count_clause
from ...spectrum.results import missed_clause
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS
from ..certificate.check_certificate import check_file
from ..plots.spectrum import (
    PLOT_DENSE_MAX_N,
    SpectrumDisplay,
    all_eigenpairs,
    extreme_eigenpairs,
    select_extreme_pairs,
)
from .advice import ShellCommands
from .data import DATA_SOURCES, DataCoding, Dataset, is_table, resolve_source
from .models import cluster_objective, is_model_file, open_model, read_model
from .output import (
    DEFAULT_OUTPUT_FILE,
    PAGE_SUFFIXES,
    TABLE_SUFFIXES,
    CommandOutput,
    check_figure_output,
    check_inputs_kept,
    check_output_path,
    describe_objective,
    eigenpair_lines,
    ending_message,
    format_point,
    objective_facts,
    point_facts,
    verdict_facts,
    verdict_lines,
    write_stream,
)
from .recipe import (
    RUN_SUFFIXES,
    SAVED_RECORD_FIELDS,
    SavedRun,
    TrainingRecipe,
    check_saved_size,
    load_run,
    reading_options,
    save_run,
)

CERTIFICATE_SUFFIXES = (".json",)
DEFAULT_SAVE_SUFFIX = ".npz"  # suffix of the network that `report` saves next to its page
# fields of a `TrainingRecipe` that describe the network
NETWORK_FIELDS = ("hidden", "activation", "residual", "batch_norm")


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
        accuracy=facts["accuracy"],
        verdict=verdict_facts(facts["verdict"]),
        saddle=verdict_facts(facts["saddle"]),
        loss_at_saddle=facts["loss_at_saddle"],
        loss_after_escape=facts["loss_after_escape"],
        failed=facts["failed"].to_dict()["causes"],
    )


def train(args: Namespace, out: CommandOutput) -> int:
    """Train a network, refine it with a second method, and save it. Return 1 if the refinement was
    requested and did not converge.
    """
    check_output_path(args.out or DEFAULT_OUTPUT_FILE, kinds=RUN_SUFFIXES)
    check_choice(args.method, tuple(METHODS), "method")
    check_choice(args.refine, (*METHODS, "none"), "refine")
    recipe, data, objective, theta = prepare_training(args)
    check_saved_size(args.out or DEFAULT_OUTPUT_FILE, data.coding)
    shell = ShellCommands(recipe)
    out.working = True
    out.print_text(describe_objective(objective, data))
    for sentence in data.notes:
        out.print_text(f"  {sentence}")
    out.print_text(f"  start         {format_point(objective, theta, data)}")
    out.add_facts(**objective_facts(objective, data))
    results: list[tuple[str, Any]] = []
    best: tuple[Any, float] = (None, np.inf)

    def store_result(intermediate_result: Any) -> None:
        nonlocal best
        if intermediate_result.fun < best[1]:
            best = intermediate_result.x, intermediate_result.fun

    def save(theta: np.ndarray) -> ShellCommands:
        counts = tuple((name, len(r.history["loss"])) for name, r in results)
        place = args.out or unused_path(DEFAULT_OUTPUT_FILE)
        history = join_records([r for _, r in results])
        coding = network_coding(objective, theta, data)
        path = save_run(place, recipe, objective.model, theta, history, counts, coding=coding)
        out.add_facts(out=path)
        return replace(shell, model=str(place))

    first = {"max_iter": args.epochs, "seed": args.seed, "verdict": args.refine == "none"}
    if args.method in STOCHASTIC_METHODS:
        first["batch_size"] = args.batch_size
    if args.learning_rate is not None:
        first["learning_rate"] = args.learning_rate
    common = {"max_time": args.max_time, "progress": args.progress, "callback": store_result}
    try:
        for method, options in ((args.method, first), (args.refine, {"max_iter": args.max_steps})):
            if method != "none" and options["max_iter"]:
                results.append((method, fc.minimize(objective, theta, method, **options, **common)))
                theta = raise_if_interrupted(results[-1][1]).x
                out.print_text(f"  {method:<13} {format_point(objective, theta, data)}")
    except BaseException:
        # If workers are lost, memory runs out, or Ctrl-C is pressed, the best point found is saved.
        if best[0] is not None:
            save(best[0])
        raise
    shell = save(theta)
    refining, end = args.refine != "none", results[-1][1] if results else None
    done = not refining or (end is not None and bool(end.success))
    if refining and end is not None:
        out.print_text(f"  {ending_message(end)}")
    out.print_text(
        f"saved {out.facts['out']}"
        + f"; `{shell.continuation_command()}` continues training" * (not done)
    )
    out.add_facts(**point_facts(objective, theta, data))
    if end is not None:
        out.add_facts(success=bool(end.success), kind=end.kind)
        out.add_facts(message=ending_message(end))
    return 0 if done else 1


def prepare_training(args: Namespace) -> tuple[TrainingRecipe, Dataset, Any, np.ndarray]:
    """Check the options of a training run. Return the recipe, the data, the objective and the
    initial theta.
    """
    given = {
        name: value
        for name in (*NETWORK_FIELDS, "dtype", "l2", "loss", "target", "raw", "held_out")
        if (value := getattr(args, name)) is not None and value is not False  # 0 counts as a value
    }
    if args.start is None:
        if args.data is None:
            raise ValueError(
                f"data must be {DATA_SOURCES}, and none is given. Begin with: fastcurv train iris"
            )
        reading = reading_options(args)
        recipe = TrainingRecipe(args.data, seed=args.seed, reading=reading, **given)
        model, theta = None, None
    else:
        recipe, model, theta = load_training_start(args, given)
    check_inputs_kept(args, recipe.data)
    data = recipe.load_dataset()
    recipe = replace(recipe, data=resolve_source(recipe.data), loss=data.loss, digest=data.digest)
    if model is not None and data.X.shape[1] != model.sizes[0]:
        raise ValueError(
            f"{args.data} must have {model.sizes[0]} features, as many as the network in "
            f"{args.start} has inputs, got {data.X.shape[1]}."
        )
    objective: Any = recipe.build_objective(data, args.threads, model)
    theta = objective.model.init(seed=args.seed) if theta is None else theta
    if theta.shape != (objective.n_params,):
        raise ValueError(
            f"{args.start} must hold {objective.n_params} parameters, those of a network for "
            f"{data.name}, got {theta.size}. Use the data that it was trained on."
        )
    value, gradient = objective.value_and_gradient(theta)
    if not np.isfinite(value) or not np.isfinite(gradient).all():
        of_gradient = " and a gradient with NaN or infinity" * bool(np.isfinite(value))
        raise ValueError(
            "the loss and its gradient must be finite at the initial theta, got a loss of "
            f"{value:g}{of_gradient}. Scale the columns of the data, or leave out --no-standardize."
        )
    return recipe, data, cluster_objective(args.dask, objective, recipe.load_dataset), theta


def load_training_start(
    args: Namespace, given: dict[str, Any]
) -> tuple[TrainingRecipe, Any, np.ndarray]:
    """Return the recipe, the model, and theta of the network from which training continues. The
    model is None if the recipe alone describes the network. `given` holds the options that replace
    fields of the recipe.
    """
    path = expand_home(args.start)
    raise_if_special_file(path)
    network = path.is_file() and is_model_file(path)
    for name in NETWORK_FIELDS:
        if name in given and not (name == "activation" and network):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} must be left out with --from, since the file defines it, got "
                f"{given[name]!r}."
            )
    if not network:
        kept = {name: given.get(name) for name in ("l2", "loss", "target", "raw", "held_out")}
        saved = load_run(path, data=args.data, dtype=given.get("dtype"), **kept)
        assert saved.recipe is not None
        reading = reading_options(args, saved.recipe.reading)
        return replace(saved.recipe, reading=reading), saved.model, saved.theta
    if args.data is None:
        line = shlex.join(["fastcurv", "train", "--from", args.start, "data.csv"])
        raise ValueError(
            f"{path} does not name its training data, which must be given. Use: {line}"
        )
    if Path(args.out or DEFAULT_OUTPUT_FILE).suffix.lower() == ".npz":
        raise ValueError(
            "--out must end in .safetensors for an imported network, got "
            f"{args.out or DEFAULT_OUTPUT_FILE!r}."
        )
    model, theta = read_model(path, given.pop("activation", None))
    if "dtype" in given:
        model, theta = model.astype(given["dtype"]), theta.astype(given["dtype"])
    described = recipe_of_model(
        model,
        args.data,
        seed=args.seed,
        n_outputs=model.sizes[-1],
        reading=reading_options(args),
    )
    return replace(described, **(given | {"raw": True})), model, theta


def recipe_of_model(model: Any, data: str, **facts: Any) -> TrainingRecipe:
    """Return a recipe with the architecture of a model, for data that are not scaled. `facts` are
    further fields of the recipe.
    """
    return TrainingRecipe(
        data,
        hidden=tuple(model.sizes[1:-1]),
        activation=model.activation[0] if model.activation else "identity",
        residual=bool(model.residual),
        batch_norm=bool(model.batch_norm),
        dtype=model.dtype.name,
        raw=True,
        **facts,
    )


def unused_path(name: str) -> str:
    """Return the name if no file has it, otherwise the first unused name with -2, -3, ... before
    the suffix.
    """
    path = Path(name)
    numbered = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))
    return str(next(p for p in itertools.chain([path], numbered) if not p.exists()))


def network_coding(objective: Any, theta: np.ndarray, data: Dataset) -> DataCoding:
    """Return the `DataCoding` of a trained network, which converts numbers of a file to inputs, and
    outputs to predictions.
    """
    coding = replace(data.coding, sizes=tuple(objective.model.sizes))
    if not objective.model.batch_norm:
        return coding
    known = objective.statistics(theta)
    moments = tuple((tuple(map(float, m)), tuple(map(float, v))) for m, v in known)
    return replace(coding, statistics=moments)


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


def join_records(results: list[Any]) -> dict[str, np.ndarray]:
    """Return the concatenated records of the results of all methods, with times that continue from
    one method to the next.
    """
    found: dict[str, np.ndarray] = {}
    for r in results:
        new = {name: np.asarray(r.history[name], dtype=float) for name in SAVED_RECORD_FIELDS}
        new["time"] += found["time"][-1] if found else 0.0
        found = {name: np.append(found.get(name, ()), new[name]) for name in SAVED_RECORD_FIELDS}
    return found


def spectrum(args: Namespace, out: CommandOutput) -> int:
    """Print extreme eigenvalues with their residuals, and the density. Return 1 if an eigenpair has
    not converged.
    """
    check_figure_output(args.figure)
    data, objective, saved = open_run(args, out)
    hessian = objective.hessian(saved.theta)
    out.print_text(describe_objective(objective, data))
    dense = hessian.shape[0] <= PLOT_DENSE_MAX_N
    known = (
        all_eigenpairs(hessian)
        if dense
        else extreme_eigenpairs(hessian, args.k, args.seed, args.progress)
    )
    pairs = select_extreme_pairs(known, args.k) if dense else known
    out.print_text(eigenpair_lines(pairs))
    density = fc.spectral_density(
        hessian,
        n_probes=args.probes,
        n_steps=args.steps,
        seed=args.seed,
        progress=args.progress,
    )
    every = density_of_matrix_eigenvalues(known.values, hessian.dtype) if dense else density
    negative = every.mass(high=0.0)
    made = "from all eigenvalues" if density.exact else f"{args.probes} probes x {args.steps} steps"
    out.print_text(f"density: {made}; {sign_count_clause(every)}")
    picture = SpectrumDisplay(every, eigenvalues=pairs.values)
    out.add_facts(
        **objective_facts(objective, data),
        eigenvalues=pairs.values,
        residuals=pairs.residuals,
        converged=pairs.converged,
        missed_within=pairs.missed_within,
        copies=missed_clause(pairs) or None,
        n_products=pairs.n_products + density.n_products,
        grid=density.grid,
        density=density.density,
        stderr=density.stderr,
        negative_mass=negative.estimate,
        negative_mass_stderr=negative.stderr,
    )
    out.write_figure(picture, args.figure)
    return 0 if np.all(pairs.converged) else 1


def classify(args: Namespace, out: CommandOutput) -> int:
    """Print the verdict and its evidence, and write its certificate if there is an option for it.
    Return 1 if a proof or a certificate was required, and there is none.
    """
    check_output_path(args.certificate, "certificate", CERTIFICATE_SUFFIXES)
    data, objective, saved = open_run(args, out)
    out.print_text(describe_objective(objective, data))
    shell = make_shell_commands(args, objective, saved, data)
    point = classify_and_print(objective, saved.theta, data, args, out, shell)
    if args.certificate is not None:
        try:
            fc.save_certificate(args.certificate, objective, saved.theta, point)
        except (ValueError, TypeError) as error:
            out.print_text(f"no certificate: {error}")
            out.add_facts(certificate_error=str(error))
            return 1
        out.print_text(f"saved {args.certificate}")
        out.add_facts(out=args.certificate)
    return int(args.certified and not point.certified)


def check(args: Namespace, out: CommandOutput) -> int:
    """Check a certificate. Return 0 if its claim is confirmed, 1 if it is not confirmed, and 2 if
    the file is not understood.
    """
    status, sentence = check_file(args.certificate, args.data, out.print_text)
    out.print_text(sentence)
    out.add_facts(status=status, sentence=sentence)
    return status


def diagnose(args: Namespace, out: CommandOutput) -> None:
    """Print the causes of failing training, in the order in which to correct them, and the advice
    for each.
    """
    check_figure_output(args.figure)
    data, objective, saved = open_run(args, out)
    out.print_text(describe_objective(objective, data))
    found = fc.diagnose(
        objective, saved.theta, saved.named_records, compare=args.compare, max_time=args.max_time
    )
    shell = make_shell_commands(args, objective, saved, data)
    facts = shell.translate_diagnosis(found)
    out.print_text(repr(facts))
    out.add_facts(**objective_facts(objective, data), **facts.to_dict())
    out.write_figure(found, args.figure)


def report(args: Namespace, out: CommandOutput) -> int:
    """Write a report as one page. For a table, the page describes a network trained on the table
    and how far it can be trusted. For a saved network, the page describes training, verdict,
    spectrum, landscape, layers and cost. Return 1 if a proof was required and the verdict is not
    proved.
    """
    from .page import build_report
    from .report import check_report_packages

    check_report_packages()
    check_output_path(args.out, kinds=PAGE_SUFFIXES)
    if args.theta == "-":
        raise ValueError(
            "table must be a file, got '-', which is standard input. Write it to a .csv file first."
        )
    table = is_table(args.theta)
    _check_report_options(args, table)
    if table:
        return report_on_table(args, out)
    data, objective, saved = open_run(args, out)
    shell = make_shell_commands(args, objective, saved, data)
    point = classify_and_print(objective, saved.theta, data, args, out, shell)
    path = build_report(objective, saved, data, point, args, shell).write(args.out)
    out.print_text(f"report: {path}")
    out.add_facts(report=path)
    return int(args.certified and not point.certified)


# options of `report` that apply only to a table, and those that apply only to a saved network
TABLE_ONLY_OPTIONS = ("hidden", "alpha", "save", "groups", "network")
NETWORK_ONLY_OPTIONS = ("data", "activation", "dtype", "l2", "gradient_tol", "failure_probability",
               "max_products")  # fmt: skip


def _check_report_options(args: Namespace, table: bool) -> None:
    """Raise ValueError for options of `report` that do not apply to the input: a table if `table`
    is True, otherwise a saved network.
    """
    for name in NETWORK_ONLY_OPTIONS if table else TABLE_ONLY_OPTIONS:
        if getattr(args, name) is not None:
            option, what = f"--{name.replace('_', '-')}", "a table" if table else "a saved network"
            raise ValueError(f"{option} must be left out with {args.theta}, which is {what}.")


def report_on_table(args: Namespace, out: CommandOutput) -> int:
    """Train a network on a table, and write the page on how far the network can be trusted. Return
    1 if a proof was required and the verdict is not proved.
    """
    from .fit_numbers import errors_to_save
    from .fit_report import build_page
    from .fit_table import DEFAULT_HIDDEN, choose_model, fit_table

    check_output_path(args.save, "save", RUN_SUFFIXES)
    save = args.save or unused_path(str(Path(args.out).with_suffix(DEFAULT_SAVE_SUFFIX)))
    began = time.monotonic()

    def note(text: str) -> None:
        if args.progress:
            write_stream("stderr", f"{text} ...\n")

    fit = fit_table(
        args.theta,
        args.target,
        loss=args.loss,
        hidden=DEFAULT_HIDDEN if args.hidden is None else args.hidden,
        alpha=args.alpha,
        seed=args.seed,
        n_threads=args.threads,
        max_time=args.max_time,
        options=reading_options(args),
        note=note,
        save=args.save,
        groups=args.groups,
    )
    out.working = True
    left = math.inf if args.max_time is None else args.max_time - (time.monotonic() - began)
    fit, found = choose_model(
        fit,
        keep_network=bool(args.network),
        keep_decay=args.alpha is not None,
        max_seconds=left,
        note=note,
    )
    out.print_text(describe_objective(fit.ob, fit.data))
    for sentence in fit.notes:
        out.print_text(sentence)
    failure = None
    try:
        out.add_facts(out=fit.save(save, errors_to_save(found)))
        out.print_text(f"saved {save}")
    except (ValueError, OSError) as error:
        failure = error  # raised after the page is written
    page, facts = build_page(
        fit.trained_network,
        fit.data.X,
        fit.table.y,
        names=fit.names,
        target=fit.table.target,
        notes=fit.notes,
        group_notes=fit.table.group_notes,
        source=fit.source,
        progress=note,
        seed=args.seed,
        table=(fit.table.names, fit.table.values, fit.table.places),
        n_columns=fit.n_columns(),
        found=found,
        commands=_next_commands(args, fit, save),
        made=[("table", str(args.theta)), ("command", shlex.join(["fastcurv", *args.argv]))],
    )
    path = page.write(args.out)
    scores = {"left_out_score": "rows left out", "training_score": "rows fitted"}
    known = [f"{facts[name]:.3f} on {rows}" for name, rows in scores.items()]
    other = next((name for name in ("network_score", "linear_score") if name in facts), None)
    if other is not None:
        kind = "a linear model" if other == "linear_score" else "a network"
        known.append(f"{facts[other]:.3f} by {kind}")
    out.print_text(f"{fit.data.score_name}: {', '.join(known)}")
    for sentence in facts["warnings"]:
        out.print_text(sentence)
    out.print_text(f"report: {path}")
    out.add_facts(**(objective_facts(fit.ob, fit.data) | facts), notes=list(fit.notes), report=path)
    if failure is not None:
        raise failure
    return int(args.certified and not facts["certified"])


def _next_commands(args: Namespace, fit: Any, save: str) -> list[tuple[str, str]]:
    """Return what a reader of a page on a table can do next, with the command for each."""
    from ..uncertainty.laplace import LOSSES_OF_KNOWN_INFORMATION

    predict = ["fastcurv", "predict", save, "new.csv"]
    if not fit.coding.classes:
        predict += ["--interval", "0.95"]
        predict += ["--domain"] if fit.ob.loss in LOSSES_OF_KNOWN_INFORMATION else []
    else:
        predict += ["--probabilities"]
    again = [
        "fastcurv",
        "report",
        str(args.theta),
        "--target",
        fit.table.target,
        "--out",
        "again.html",
    ]
    used = next(code.name for code in fit.coding.codes if code.kind != "left out")
    return [
        ("Predict new rows, in a table with the same columns:", shlex.join(predict)),
        (
            "Fit again, with more rows, or without the columns that you name:",
            shlex.join([*again, "--ignore", used]),
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
    return objective, model.init(seed=0)


def info(args: Namespace, out: CommandOutput) -> None:
    """Print versions and kernels."""
    print_versions(out)


# --- functions shared by several commands


def open_run(args: Namespace, out: CommandOutput) -> tuple[Any, Any, SavedRun]:
    """Return the data, the objective and the saved run for the file ``args.theta``, after
    validating the input. For an imported network, the run has no recipe.
    """
    path = expand_home(args.theta)
    raise_if_special_file(path)
    if path.is_file() and is_model_file(path):
        data, objective, theta = open_model(path, args)
        out.working = True
        return data, objective, SavedRun(None, theta)
    if args.activation is not None:
        raise ValueError(
            f"--activation must be left out with {path}, which names its activations, got "
            f"{args.activation!r}."
        )
    instead = {name: getattr(args, name) for name in ("data", "loss", "l2", "target", "dtype")}
    saved = load_run(path, **instead)
    assert saved.recipe is not None
    recipe = replace(saved.recipe, reading=reading_options(args, saved.recipe.reading))
    saved = replace(saved, recipe=recipe)
    check_inputs_kept(args, recipe.data)
    data = recipe.load_dataset()
    if recipe.digest not in ("", data.digest):
        raise ValueError(
            f"{recipe.data} must hold the data that {args.theta} was trained on, but its content "
            "has changed since. Give --data to use it nevertheless."
        )
    objective = recipe.build_objective(data, args.threads, saved.model)
    if saved.theta.shape != (objective.n_params,):
        raise ValueError(
            f"{args.theta} must hold {objective.n_params} parameters, those of a network for "
            f"{data.name}, got {saved.theta.size}. Use the data that it was trained on."
        )
    there = replace(recipe, data=resolve_source(recipe.data))
    objective = cluster_objective(getattr(args, "dask", None), objective, there.load_dataset)
    out.working = True
    return data, objective, saved


def classify_and_print(
    objective: Any,
    theta: np.ndarray,
    data: Dataset,
    args: Namespace,
    out: CommandOutput,
    shell: ShellCommands,
) -> fc.CriticalPoint:
    """Return the verdict on a point, after printing it with its evidence."""
    point = fc.classify(
        objective,
        theta,
        gradient_tol=args.gradient_tol,
        failure_probability=args.failure_probability,
        max_products=args.max_products,
        max_time=args.max_time,
        seed=args.seed,
        progress=args.progress,
    )
    told = shell.translate_verdict(point)
    out.print_text(verdict_lines(told))
    out.add_facts(**(objective_facts(objective, data) | verdict_facts(told)))
    return told


def make_shell_commands(
    args: Namespace, objective: Any, saved: SavedRun, data: Dataset
) -> ShellCommands:
    """Return the `ShellCommands` for a run, or for another program's network."""
    if saved.recipe is not None:
        # the data, if they replace those of the recipe
        changed = args.data if saved.recipe.digest == "" else None
        return ShellCommands(replace(saved.recipe, loss=data.loss), args.theta, changed)
    facts = {"l2": float(np.max(objective.l2)), "loss": data.loss, "target": args.target}
    facts["reading"] = reading_options(args)
    return ShellCommands(
        recipe_of_model(objective.model, args.data, **facts), args.theta, args.data
    )


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
