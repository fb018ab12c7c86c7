"""Arguments and files that no caller intends: numbers beyond float64, NaN, other types, names with
control characters. Each is used, or rejected with a short error of this library.
"""

import inspect
import io
import traceback
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv.optimize import Checkpoint
from fastcurv.optimize.minimize import METHODS

from .. import nets

ABSURD = (
    *(10**400, -(10**400), float("nan"), float("inf"), -0.0, 5e-324, True, "1", "a\x1b[31m\nb\0"),
    *("\ud800", "x" * 3000, b"\xff", 1j, Decimal("NaN"), [], [[1], [2, 3]], {}, object()),
    *(np.ma.array([1.0], mask=[True]), np.array(0), Fraction(1, 3), 10**70),
    *(np.datetime64("NaT"), np.timedelta64(1, "s"), np.array(None), np.longdouble("1e400")),
)
PACKAGE = str(Path(fc.__file__).parent)


def describe_fault(error):
    """Return a string that states what is wrong with an error: its class, its text, or that another
    library raised it. The string is empty if the error is as expected.
    """
    text, last = str(error), traceback.extract_tb(error.__traceback__)[-1]
    if (
        isinstance(error, OSError) and error.errno is not None
    ):  # an error of the operating system, which quotes the name
        return "" if text.isprintable() else "has control characters"
    known = (ValueError, TypeError, MemoryError, np.linalg.LinAlgError, _engine.NotFiniteError)
    if type(error) not in known:
        return f"is a {type(error).__name__}"
    if not text or not text.isprintable() or len(text) > 700:
        return "is no sentence"
    own = last.filename.startswith(
        (PACKAGE, "fastcurv/")
    )  # the second form is that of compiled modules
    return "" if own else f"comes from {last.filename}"


def calls(net):
    """Yield (function, valid arguments) for the public functions that take scalars. Each method of
    `minimize` has a third element, a dict with the defaults of its options.
    """
    ob, theta, model = net.ob, net.theta, net.model
    H = ob.hessian(theta)
    density = fc.spectral_density(H, 2, 5, rng=0)
    few = {"max_iter": 1, "verdict": False}
    yield fc.MLP, {"sizes": [3, 2]}
    yield model.init, {}
    yield model.astype, {"dtype": "float32"}
    yield fc.Objective, {"model": model, "X": net.X, "y": net.y}
    yield fc.eigsh, {"op": H}
    yield fc.eigvalsh, {"op": H}
    yield fc.inertia, {"op": H}
    yield fc.spectral_density, {"op": H, "n_probes": 2, "n_steps": 3, "n_grid": 64}
    yield fc.trace, {"op": H, "n_probes": 2}
    yield fc.diagonal, {"op": H, "n_probes": 2}
    yield fc.frobenius_norm, {"op": H, "n_probes": 2}
    yield fc.classify, {"ob": ob, "theta": theta}
    yield fc.find_critical_point, {"ob": ob, "theta0": theta, "max_iter": 1}
    yield fc.escape, {"ob": ob, "theta": theta}
    yield fc.newton_step, {"H": H, "g": H.gradient, "damping": 10.0}
    yield fc.saddle_free_newton_step, {"H": H, "g": H.gradient}
    yield fc.minimize, {"ob": ob, "theta0": theta, **few}
    for name, method in METHODS.items():
        yield fc.minimize, {"ob": ob, "theta0": theta, "method": name, **few}, method.option_names()
    yield H.restrict, {"layers": [0]}
    yield H.shift, {"mu": 1.0}
    yield ob.batch, {"rows": [0]}
    yield density.mass, {}
    yield fc.Loss.quantile, {"level": 0.5}
    yield fc.structure.permute_hidden, {"model": model, "theta": theta, "layer": 0, "order": [0]}
    yield fc.load, {"path": "none"}
    yield fc.testing.PrescribedSpectrum, {"values": [1.0, 2.0]}
    yield fc.testing.LinearAutoencoder, {"spectrum": [2.0, 1.0], "p": 1}
    yield fc.testing.QuadraticObjective, {"H": np.eye(2)}


NOT_SCALAR = {"progress", "callback", "self"}


@pytest.mark.parametrize(
    "values", [ABSURD[::4], pytest.param(ABSURD, marks=pytest.mark.nightly)], ids=["few", "all"]
)
def test_absurd_arguments_are_used_or_rejected_with_a_short_error(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, wrong = nets.draw(0, [3, 3, 2], loss="cross_entropy", N=12, l2=1e-2), []
    for function, given, *options in calls(net):
        names = [*inspect.signature(function).parameters, *(options[0] if options else ())]
        for name in (name for name in names if name not in NOT_SCALAR | {"options"}):
            if options and name not in options[0]:
                continue  # arguments of `minimize` itself are tested once
            for value in values:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        function(**{**given, name: value})
                except Exception as error:
                    fault = describe_fault(error)
                    if fault:
                        called = getattr(function, "__qualname__", str(function))
                        wrong.append((called, name, ascii(value)[:40], fault, ascii(error)[:120]))
    assert wrong == []


def test_names_of_a_million_characters_are_rejected_with_a_short_error():
    """No close name is searched for such a name, which would take seconds."""
    net, name = nets.draw(0, [3, 2]), 1_000_000 * "n" + "_threads"
    for call in (fc.minimize, fc.sample_critical_points):
        with pytest.raises(TypeError) as error:
            call(net.ob, **{name: 1})
        assert describe_fault(error.value) == ""
    with pytest.raises(AttributeError) as missing:
        getattr(fc, name)
    assert len(str(missing.value)) <= 700


def test_file_names_with_null_characters_are_rejected(tmp_path):
    model = fc.MLP([2, 1])
    theta = model.init(rng=0)
    ob = fc.Objective(model, np.ones((2, 2)), np.ones((2, 1)), "mse")
    for name in ("\0", f"{tmp_path}/a\0b", "\ud800", b"a\0"):
        for call in (
            lambda name: fc.save(name, model, theta),
            fc.load,
            lambda name: fc.minimize(ob, theta, checkpoint=name),
            lambda name: fc.minimize(ob, theta, checkpoint=Checkpoint(resume=name)),
        ):
            with pytest.raises(
                ValueError, match="must be the name of a file, without null"
            ) as told:
                call(name)
            assert describe_fault(told.value) == ""
        if isinstance(name, str):
            with pytest.raises(ValueError, match="X must be the name of a file"):
                fc.StreamedObjective(model, f"{name}.npy", "y.npy")


def damaged(content, dice, reach):
    """Return the bytes `content` with a few of its first `reach` bytes changed or removed at random
    by `dice`.
    """
    content = bytearray(content)
    for _ in range(1 + dice.integers(4)):
        at = int(dice.integers(reach))
        if dice.random() < 0.3:
            del content[at : at + int(dice.integers(1, 9))]
        else:
            content[at] = dice.integers(256)
    return bytes(content)


def bad_errors_of_readers(read_file, path, contents):
    """Write each of `contents` to the path and call `read_file`. Return (contents with their faults
    and errors, number of errors), where a fault is an error that is not a short message of this
    library.
    """
    wrong, refused = [], 0
    for content in contents:
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_file()
        except Exception as error:
            refused += 1
            if describe_fault(error):
                wrong.append((content[:140], describe_fault(error), ascii(error)[:120]))
    return wrong, refused


def test_damaged_npy_files_are_rejected_with_a_short_error(tmp_path):
    """Reading .npy files with truncated, invalid or randomly mutated headers returns an array or
    raises a short error.
    """
    buffer, path, model = io.BytesIO(), tmp_path / "X.npy", fc.MLP([3, 1])
    np.save(buffer, np.ones((6, 3)))
    whole = buffer.getvalue()
    archive = io.BytesIO()
    np.savez(archive, X=np.ones((6, 3)))
    by_hand = [b"", whole[:9], whole[:60], whole[:200], archive.getvalue()]
    for old, new in (
        (b"(6, 3)", b"(6, 3"),
        (b"(6, 3)", b"(-6,3)"),
        (b"{", b"'''"),
        (b"<f8", b"|O8"),
    ):
        by_hand.append(whole.replace(old, new))
    by_hand += [whole.replace(b"'descr'", b"'desc\x1b'"), whole.replace(b"(6, 3)", b"((((((")]
    dice, theta = np.random.default_rng(0), model.init(rng=0)
    np.save(tmp_path / "y.npy", np.ones((6, 1)))

    def read_file():
        return fc.StreamedObjective(model, path, tmp_path / "y.npy", loss="mse").value(theta)

    drawn = [damaged(whole, dice, 120) for _ in range(150)]
    wrong, refused = bad_errors_of_readers(read_file, path, by_hand + drawn)
    assert wrong == [] and refused > 50
    assert bad_errors_of_readers(read_file, path, by_hand)[1] == len(by_hand)


def test_matrices_whose_eigenvalues_overflow_are_rejected():
    """A matrix whose largest eigenvalue overflows, although its entries do not, is rejected."""
    A = np.full((5, 5), 1e308)
    for read_file in (
        lambda: fc.eigsh(A, 1),
        lambda: fc.eigsh(A, 2, "BE"),
        lambda: fc.eigvalsh(A),
        lambda: fc.inertia(A),
        lambda: fc.newton_step(A, np.ones(5)),
    ):
        with pytest.raises(ValueError) as told:
            read_file()
        assert describe_fault(told.value) == ""
