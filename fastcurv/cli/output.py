"""What the shell command says: to a reader in lines, to a program as one JSON object."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import fastcurv as fc

from ..common.files import check_place, escaped, shown, write_atomically
from ..common.linalg import eigh
from ..common.progress import on_terminal
from ..optimize.finish import NO_REPORT
from ..plots.spectrum import DENSE_BELOW
from ..spectrum.dense import to_dense
from ..spectrum.results import Eigenpairs, left_open
from .report import evidence, plain

PAGES = (".html", ".htm")
TOL = 1e-6  # of the largest eigenvalue: residuals of pairs that count as found


class Output:
    """Lines for a reader, or facts for a program: one of the two reaches standard output.

    Whatever becomes of it, the work goes on, and what is to be saved is saved.

    Parameters
    ----------
    as_json : bool
        Say nothing until `close`, which then prints every fact as one JSON object.

    Attributes
    ----------
    lost : str
        Why something that was said could not be written; empty where all was, or where nobody
        reads: in ``| head``, without a standard output.
    working : bool
        Whether the input was found good: what fails from then on is none of its faults.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.facts: dict[str, Any] = {}
        self.lost = ""
        self.working = False

    def say(self, text: str = "") -> None:
        """Lines for a reader, with what cannot be printed in names from files escaped."""
        if not self.as_json:
            text = "\n".join(map(escaped, text.split("\n")))
            self.lost = write("stdout", fitted(text) + "\n") or self.lost

    def fact(self, **facts: Any) -> None:
        """Facts for a program."""
        self.facts.update(facts)

    def close(self) -> None:
        if self.as_json:
            text = json.dumps(plain(self.facts), indent=2, allow_nan=False)
            self.lost = write("stdout", text.replace("\x7f", "\\u007f") + "\n") or self.lost


def write(name: str, text: str = "") -> str:
    """Write to ``stdout`` or ``stderr`` at once, and say why they could not be.

    Letters that the stream's encoding has not are escaped. Where there is no such stream (``>&-``,
    pythonw) or nobody reads it any more (``| head``), all is well; after a failure the rest goes
    nowhere, in silence.
    """
    stream = getattr(sys, name)
    if stream is None:
        return ""
    try:
        code = stream.encoding or "utf-8"
        stream.write(text.encode(code, "backslashreplace").decode(code))
        stream.flush()
    except (OSError, ValueError) as error:  # a full disk, a terminal that is gone, a closed file
        silence(name)
        return "" if isinstance(error, BrokenPipeError) else str(error)
    return ""


def fitted(text: str) -> str:
    """Long lines broken between words for the terminal they go to, further lines set in as the
    first is; as they are where they go elsewhere.
    """
    if not on_terminal("stdout"):
        return text
    width = max(40, shutil.get_terminal_size().columns)
    lines = []
    for line in text.split("\n"):
        inset = line[: len(line) - len(line.lstrip())]
        broken = textwrap.wrap(line, width, subsequent_indent=inset, break_long_words=False)
        lines += broken if len(line) > width else [line]
    return "\n".join(lines)


def silence(name: str) -> None:
    """Send the rest of a standard stream nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, getattr(sys, name).fileno())
        os.close(nowhere)


def write_picture(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write a figure in the format that the name says, whole or not at all."""
    file = io.BytesIO()
    figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=160)
    return write_atomically(path, file.getvalue())


def extremes(hessian: Any, k: int, seed: Any, progress: bool = False) -> Eigenpairs:
    """The ``k`` lowest and ``k`` highest eigenpairs: of the dense matrix where it is small, so that
    no copy of a multiple eigenvalue is missed.
    """
    n = hessian.shape[0]
    if n <= DENSE_BELOW:
        return ends(every_pair(hessian), k)
    return fc.eigsh(hessian, k=min(2 * k, n), which="BE", tol=TOL, seed=seed, progress=progress)


def every_pair(hessian: Any) -> Eigenpairs:
    """All n eigenpairs, from the matrix of its products."""
    P, n_products = to_dense(hessian)
    P = P.astype(np.float64, copy=False)
    values, V, _ = eigh(P / 2 + P.T / 2)
    scale = float(np.abs(values).max(initial=0.0))
    residuals = np.linalg.norm(P @ V - V * values, axis=0)
    found = values, V, residuals, residuals <= TOL * scale, n_products
    return Eigenpairs(*found, scale=scale, tol=TOL, probed=True, unseen=0.0)


def ends(pairs: Eigenpairs, k: int) -> Eigenpairs:
    """The ``k`` lowest and ``k`` highest of all pairs."""
    n = len(pairs)
    kept = np.r_[:k, n - k : n] if 2 * k < n else np.arange(n)
    parts = {name: getattr(pairs, name)[kept] for name in ("values", "residuals", "converged")}
    return replace(pairs, vectors=pairs.vectors[:, kept], **parts)


def describe(objective: Any, data: Any) -> str:
    """One line: the net, the data, the objective."""
    facts = description(objective, data)
    name = facts["activation"]
    name += ", skip connections" * facts["residual"]
    name += ", batch normalisation" * facts["batch_norm"]
    sizes = "-".join(map(str, facts["sizes"]))
    return (
        f"{shown(data.name)}: {facts['samples']} samples; net {sizes}, {name}, "
        f"{objective.n_params} parameters; {data.loss}, l2 {facts['l2']:g}"
    )


def description(objective: Any, data: Any) -> dict[str, Any]:
    """The net, the data, the objective, as facts."""
    model = objective.model
    used = list(dict.fromkeys(model.activation))
    return {
        "data": data.name,
        "samples": len(data.X),
        "sizes": list(model.sizes),
        "activation": ", ".join(used) or "linear",
        "residual": bool(model.residual),
        "batch_norm": bool(model.batch_norm),
        "dtype": str(np.dtype(model.dtype)),
        "n_params": objective.n_params,
        "loss": data.loss,
        "l2": float(np.max(objective.l2)),
    }


def standing(objective: Any, theta: np.ndarray, data: Any) -> dict[str, Any]:
    """Loss, gradient norm and scores at ``theta``."""
    value, gradient = objective.value_and_gradient(theta)
    known = objective.statistics(theta) if objective.model.batch_norm else None
    facts: dict[str, Any] = {"value": value, "gradient_norm": float(np.linalg.norm(gradient))}
    for name, X, y in (("train", data.X, data.y), ("held_out", data.X_test, data.y_test)):
        if len(X):
            score = data.score(objective.model.predict(theta, X, known), y)
            facts[f"{name}_{data.score_name.replace(' ', '_').lower()}"] = score
    return facts


def state(objective: Any, theta: np.ndarray, data: Any) -> str:
    """Loss, gradient norm and scores at ``theta`` in one line."""
    value, norm, *scores = standing(objective, theta, data).values()
    held_out = f", held out {scores[1]:.3f}" if len(scores) > 1 else ""
    return (
        f"loss {value:.6f}, gradient norm {norm:.1e}, {data.score_name} {scores[0]:.3f}{held_out}"
    )


def told(run: Any) -> str:
    """Why a run ended, without the call of Python that judges its end."""
    return str(run.message).replace(NO_REPORT, "")


def pair_lines(pairs: Any) -> list[str]:
    lines = [f"{'eigenvalue':>14}  residual"]
    for value, residual, converged in zip(pairs.values, pairs.residuals, pairs.converged):
        lines.append(f"{value:>14.6g}  {residual:.0e}{'' if converged else '  not converged'}")
    return [*lines, ", ".join([f"{pairs.n_products} products", *filter(None, [left_open(pairs)])])]


def verdict_lines(point: Any) -> list[str]:
    lines = [
        f"verdict: {point.kind.replace('_', ' ')}{' (certified)' if point.certified else ''}",
        f"  {point.sentence}",
        f"  {point.reason}",
    ]
    return lines + [f"  {name:<32} {value}" for name, value in evidence(point)]


def verdict_facts(point: Any) -> dict[str, Any]:
    """Every field of a verdict that is a number, a word or None; vectors are left out."""
    facts = {f.name: getattr(point, f.name) for f in fields(point)}
    kept = {k: v for k, v in facts.items() if not isinstance(v, np.ndarray) and k != "at_nearest"}
    return kept | {"minimum_ratio": point.minimum_ratio, "index": point.index}


def check_out(path: str | Path | None, name: str = "out") -> None:
    """Find out before any work whether a file can be written there; see `check_place`."""
    if path is not None:
        check_place(path, name, folders=True)


def check_page(path: str | Path) -> None:
    """`check_out`, for a report."""
    if Path(path).suffix.lower() not in PAGES:
        raise ValueError(f"out is {str(path)!r}; wanted a name that ends in {' or '.join(PAGES)}")
    check_out(path)


def check_picture(path: str | Path | None, name: str = "figure") -> None:
    """`check_out`, for a picture of a format that matplotlib knows."""
    if path is None:
        return
    known = (".png", ".svg", ".pdf")
    if Path(path).suffix.lower() not in known:
        raise ValueError(f"{name} is {str(path)!r}; wanted a name that ends in {', '.join(known)}")
    check_out(path, name)
