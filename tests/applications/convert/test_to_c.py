"""The C file of a network compiles without warnings, agrees with Python, and can be loaded by
CasADi.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc
from fastcurv._engine import available_archs
from fastcurv.applications.convert import to_c
from fastcurv.structure.tables import activation_spec

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O2", "-shared", "-fPIC")
EVERY = list(to_c.C_FORMULAS)
NETWORKS = [  # sizes, activations, bias, residual
    ([4, 20, 20, 4], "tanh", True, False),
    ([3, *[5] * len(EVERY), 2], EVERY, True, True),
    ([3, *[3] * len(EVERY), 3], EVERY[::-1], False, True),
    ([1, 1, 17, 6], ["gelu", "silu"], True, True),
    ([30, 8, 1], "softplus", True, False),
    ([5, 4], "tanh", False, False),
    ([4, 2], "tanh", True, False),
]

needs_compiler = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def compile_network(folder, model, theta, name="net", flags=FLAGS, **words):
    """Return (library, call) for the C file of a network, written and compiled in `folder`.
    ``call(function, *arrays)`` calls a function of the library, and asserts that the function
    writes only into its workspace.
    """
    path = folder / f"{name}.c"
    fc.to_c(model, theta, path, name=name, **words)
    subprocess.run([CC, *flags, path, "-o", path.with_suffix(".so"), "-lm"], check=True)
    library = ctypes.CDLL(str(path.with_suffix(".so")))
    room = int(path.read_text().split("_WORK = ")[1].split(" ")[0])

    def call(function, *arrays):
        work = np.full(room + 1, np.nan)
        places = [a.ctypes.data_as(ctypes.c_void_p) for a in (*arrays, work)]
        getattr(library, f"{name}_{function}")(*places)
        assert np.isnan(work[-1])  # nothing was written past the end

    return library, call


def derivatives(call, x, weights, d_in, d_out):
    """Return (outputs, Jacobian, Hessian) of the C code for one sample x, of shapes (d_out,),
    (d_out, d_in) and (d_in, d_in), after asserting that the C functions agree. The Hessian is that
    of the outputs' sum with `weights`.
    """
    y, z, J, H = np.empty(d_out), np.empty(d_out), np.empty((d_out, d_in)), np.empty((d_in, d_in))
    call("outputs", x, y)
    call("jacobian", x, z, J)
    first = J.copy()
    assert np.array_equal(y, z)
    call("hessian", x, weights, z, J, H)
    assert np.array_equal(y, z)
    np.testing.assert_allclose(J, first, rtol=0, atol=1e-14 * (1 + np.abs(J).max()))
    return y, first, H


@needs_compiler
@pytest.mark.parametrize("case", range(len(NETWORKS)))
def test_the_c_file_compiles_without_a_warning_and_agrees_with_python(case, tmp_path):
    sizes, activation, bias, residual = NETWORKS[case]
    rng = np.random.default_rng(case)
    for dtype in ("float64", "float32")[: 2 if case == 0 else 1]:
        model = fc.MLP(sizes, activation, bias, residual, dtype)
        theta = model.init(seed=0) + 0.3 * rng.standard_normal(model.n_params)
        _, call = compile_network(tmp_path, model, theta, f"net_{dtype}")
        X = rng.standard_normal((20, sizes[0])) * np.logspace(-3, 1, 20)[:, None]
        weights = rng.standard_normal(sizes[-1])
        tol = 1e-13 if dtype == "float64" else 1e-4
        for x, *true in zip(X, *model.input_derivatives(theta, X, weights)):
            found = derivatives(call, x, weights, sizes[0], sizes[-1])
            for a, b in zip(found, true):
                np.testing.assert_allclose(a, b, rtol=0, atol=tol * (1 + np.abs(b).max()))


@needs_compiler
@pytest.mark.parametrize("activation", sorted(set(EVERY) - {"identity", "relu", "leaky_relu"}))
def test_activations_in_c_are_accurate_far_from_zero(activation, tmp_path):
    """Outputs and their two derivatives in C match the NumPy formulas of each activation to 1e-13,
    for arguments of both signs from 1e-8 to 630 and for 1e155.
    """
    model = fc.MLP([1, 1, 1], activation, bias=False)
    _, call = compile_network(tmp_path, model, np.ones(2))
    size = np.append(np.logspace(-8, 2.8, 60), 1e155)
    z = np.concatenate([-size, size])
    with np.errstate(all="ignore"):
        true = [np.nan_to_num(part) for part in activation_spec(activation).derivatives(z)[:3]]
    for x, a, p, q in zip(z, *true):
        y, J, H = derivatives(call, np.array([x]), np.ones(1), 1, 1)
        assert y[0] == pytest.approx(a, rel=1e-13, abs=1e-300)
        assert J[0, 0] == pytest.approx(p, rel=1e-13, abs=1e-300)
        assert H[0, 0] == pytest.approx(q, rel=1e-13, abs=1e-300)


@needs_compiler
def test_c_functions_are_thread_safe(tmp_path):
    model = fc.MLP([3, 16, 2])
    theta = model.init(seed=0)
    _, call = compile_network(tmp_path, model, theta)
    X = np.random.default_rng(0).standard_normal((400, 3))
    true, wrong = [derivatives(call, x, np.ones(2), 3, 2) for x in X], []

    def work(first):
        for r in (np.arange(400) + first) % 400:
            found = derivatives(call, X[r], np.ones(2), 3, 2)
            if not all(np.array_equal(a, b) for a, b in zip(found, true[r])):
                wrong.append(r)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_compiler
def test_batch_normalisation_is_folded_into_the_c_file(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    model = fc.MLP([3, 5, 2], batch_norm=True)
    theta = model.init(seed=1)
    known = model.statistics(fc.Objective(model, X, X[:, :2], loss="mse"), theta)
    _, call = compile_network(tmp_path, model, theta, statistics=known)
    for x, z in zip(X, model.predict(theta, X, known)):
        y = np.empty(2)
        call("outputs", x, y)
        np.testing.assert_allclose(y, z, atol=1e-13)
    with pytest.raises(ValueError, match="statistics must be given"):
        fc.to_c(model, theta, tmp_path / "none.c")


def test_to_c_rejects_unsupported_networks_without_writing(tmp_path):
    path = tmp_path / "none.c"
    own = fc.MLP([2, 3, 1], fc.Activation(lambda z: (z * z, 2 * z, np.full_like(z, 2.0))))
    with pytest.raises(ValueError, match="model must have built-in activations, got .* Python"):
        fc.to_c(own, own.init(seed=0), path)
    model = fc.MLP([2, 3, 1])
    taken = "double main struct sizeof W1 B3 apply_tanh sin sinf log NAN printf jac a__b multiply"
    taken += " typeof nullptr"
    for name in ("", "2d", "a-b", "a b", "é", 3, "x" * 80, *taken.split()):
        with pytest.raises(ValueError, match="name must be a C identifier"):
            fc.to_c(model, model.init(seed=0), path, name=name)
    with pytest.raises(TypeError, match="model must be an MLP, got"):
        fc.to_c("net", [1.0], path)
    with pytest.raises(ValueError, match="theta"):
        fc.to_c(model, np.full(model.n_params, np.nan), path)
    wide = fc.MLP([30_000, *[100] * 801, 1])
    with pytest.raises(ValueError, match="workspace of fewer than"):
        fc.to_c(wide, np.zeros(wide.n_params), path)
    with pytest.raises(TypeError, match="path must be a str or an os.PathLike, got"):
        fc.to_c(model, model.init(seed=0), 5)
    assert not path.exists()
    os.mkfifo(path)  # opening it would wait for a reader
    with pytest.raises(ValueError, match="got a device or a pipe"):
        fc.to_c(model, model.init(seed=0), path)


@needs_compiler
def test_names_of_the_c_library_are_rejected():
    code = "#define _GNU_SOURCE\n#include <math.h>\n#include <stddef.h>\n"
    command = [CC, "-E", "-dD", "-xc", "-"]
    text = subprocess.run(command, input=code, check=True, capture_output=True, text=True).stdout
    forms = r"(?m)^extern [\w ]*?\**\s*\(?(\w+)\)? \(", r"(?m)^#define (\w+)"
    names = {name for form in forms for name in re.findall(form, text)}
    usable = [name for name in names if "__" not in name and name[0] != "_"]
    assert usable and not [
        name for name in usable if not to_c.RESERVED_NAME_PATTERN.fullmatch(name)
    ]


@needs_compiler
def test_c_files_for_many_inputs_have_no_overflow(tmp_path):
    model = fc.MLP([50_000, 1])
    fc.to_c(model, model.init(seed=0), tmp_path / "net.c")
    subprocess.run([CC, *FLAGS, "-fsyntax-only", tmp_path / "net.c"], check=True)


@needs_compiler
@pytest.mark.parametrize("flags", [["-O3", "-march=native"], ["-O3", "-mavx512f"]])
def test_vectorised_c_agrees_with_python(flags, tmp_path):
    """GCC 12 vectorised this network wrongly for AVX-512 where two functions were inlined."""
    if "-mavx512f" in flags and "avx512" not in available_archs():
        pytest.skip("this processor has no AVX-512")
    model = fc.MLP([2, 5, 5, 2, 3], ["sigmoid", "silu", "gelu"], residual=True)
    theta, x, y, J = model.init(seed=0), np.array([0.3, -0.7]), np.empty(3), np.empty((3, 2))
    _, call = compile_network(tmp_path, model, theta, flags=(*FLAGS, *flags))
    call("jacobian", x, y, J)
    np.testing.assert_allclose(J, model.input_jacobian(theta, x[None])[0], atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("name", ["f", "x", "work", "e", "N", "y", "model", "NET", "x1", "net_2"])
def test_unusual_function_names_give_valid_c(name, tmp_path):
    model = fc.MLP([2, 3, 1])
    try:
        fc.to_c(model, model.init(seed=0), tmp_path / "é net.c", name=name)
    except ValueError as error:
        assert "name must be a C identifier" in str(error)
    else:
        subprocess.run([CC, *FLAGS, "-fsyntax-only", tmp_path / "é net.c"], check=True)


@needs_compiler
def test_casadi_finds_first_and_second_derivatives_in_the_library(tmp_path):
    casadi = pytest.importorskip("casadi")
    for sizes, residual in (([3, 5, 2], False), ([4, 4, 1], True), ([2, 3], False)):
        model = fc.MLP(sizes, "tanh", True, residual)
        theta, name = model.init(seed=0), f"net{sizes[0]}"
        compile_network(tmp_path, model, theta, name)
        net = casadi.external(name, str(tmp_path / f"{name}.so"))
        x, weights = np.linspace(-1, 1, sizes[0]), np.arange(1.0, sizes[-1] + 1)
        z, J, H = model.input_derivatives(theta, x[None], weights)
        at = casadi.MX.sym("x", sizes[0])
        first = casadi.Function("J", [at], [casadi.jacobian(net(at), at)])
        second = casadi.hessian(casadi.dot(net(at), weights), at)[0]
        found = net(x), first(x), casadi.Function("H", [at], [second])(x)
        for a, b in zip(found, (z[0][:, None], J[0], H[0])):
            np.testing.assert_allclose(np.array(a), b, atol=1e-13)


@needs_compiler
def test_the_documented_controller_swings_the_pendulum_up(tmp_path):
    pytest.importorskip("casadi")
    page = (Path(__file__).parents[3] / "docs/slopes.md").read_text()
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    iterations, angle = re.search(r"(\d+) iterations, final angle (\S+)", run.stdout).groups()
    assert int(iterations) < 100 and abs(float(angle)) < 0.5
