"""Ctrl-C in the algorithms is answered within 200 ms: by what is known, or by the end of it."""

PROGRAM = """
import os, signal, sys, tempfile, threading, time
import numpy as np
import fastcurv as fc
from fastcurv.common.files import read_tensors, write_tensors
from fastcurv.certify.dense_hessian import layered
from fastcurv.certify.dense_hessian import gram_enclosure

def answered(call, clock, after):
    # how long from Ctrl-C to the end of the call, by KeyboardInterrupt or with what is known; one
    # that ends on its own is made again
    pressed, end = [], None
    def press():
        pressed.append(clock())
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(after, press)
    timer.start()
    try:
        while not pressed:
            call()
        end = clock()
        time.sleep(0.05)                         # where it comes between the two
    except KeyboardInterrupt:
        pass
    return (end or clock()) - pressed[0]

rng = np.random.default_rng(0)
def drawn(sizes, N):
    model = fc.MLP(sizes, "tanh")
    X, y = rng.standard_normal((N, sizes[0])), rng.standard_normal((N, sizes[-1]))
    return fc.Objective(model, X, y, "mse", l2=1e-3, n_threads=2), model.init(seed=0)
ob, theta = drawn([400, 300, 300, 10], 4000)
H = ob.hessian(theta)
v = rng.standard_normal(H.shape[0])
A = rng.standard_normal((2000, 2000))
A = A + A.T
expected = H @ v
wide, there = drawn([784, 512, 512, 10], 64)
W = wide.hessian(there)
small, at = drawn([20, 30, 3], 300)
few, at_few = drawn([60, 40, 40, 10], 4000)
normed = fc.MLP([20, 30, 3], batch_norm=True)
N = fc.Objective(normed, small.X, small.y, "mse").hessian(normed.init(seed=0))
streamed = fc.StreamedObjective(ob.model, ob.X, ob.y, "mse", l2=1e-3)
S = streamed.hessian(theta)
folder = tempfile.mkdtemp()
large = np.zeros(10_000_000)
write_tensors(folder + "/y", {"x": large})
"""
CALLS = {
    "eigsh": "fc.eigsh(H, 4, seed=0)",
    "spectral_density": "fc.spectral_density(H, seed=0)",
    "trace": "fc.trace(H, n_probes=300, seed=0)",
    "diagonal": "fc.diagonal(H, n_probes=300, seed=0)",
    "to_dense": "H.restrict(layers=[2]).to_dense()",
    "eigvalsh": "fc.eigvalsh(A)",
    "inertia": "fc.inertia(A)",
    "classify": "fc.classify(ob, theta, gradient_tol=1e9, seed=0)",
    "minimize": "fc.minimize(ob, theta, 'newton-cg', verdict=False)",
    "minimize by steps": "fc.minimize(ob, theta, 'adam', batch_size=100, max_iter=10**6)",
    "find_critical_point": "fc.find_critical_point(ob, theta)",
    "saddle_free_newton_step": "fc.saddle_free_newton_step(H, H.gradient, k=200)",
    "escape": "fc.escape(ob, theta, direction=v)",
    "newton_step": "fc.newton_step(H, H.gradient, damping=1.0)",
    "newton_step of a matrix": "fc.newton_step(A, v[:2000], damping=1e4)",
    "sample_critical_points": "fc.sample_critical_points(small, 50, seed=0)",
    "Krylov": "fc.spectrum.Krylov(W, seed=0).eigsh(10, 'BE')",
    "eigsh between products": "fc.eigsh(W, 10, 'BE', seed=0, space='parameters')",
    "the trace by a sketch": "fc.trace(W, 60, 'xtrace', 0, space='parameters')",
    "the diagonal by a sketch": "fc.diagonal(W, 60, seed=0)",
    "frobenius_norm": "fc.frobenius_norm(W, 60, seed=0, space='parameters')",
    "streamed": "(streamed.value_and_gradient(theta), S @ v)",
    "streamed steps": "fc.minimize(streamed, theta, 'adam', batch_size=100, max_iter=10**6)",
    "the matrix by layers": "layered(few, at_few, 'hessian')",
    "the Gram matrix of outputs": "fc.inertia(wide.ggn(there).reduced('outputs'))",
    "the proof of that matrix": "gram_enclosure(wide, there, 'ggn')",
    "bounds on all columns": "H.column_bounds()",
    "bounds on all columns with batch normalisation": "N.column_bounds()",
    "save": "write_tensors(folder + '/x', {'x': large})",
    "load": "read_tensors(folder + '/y')",
}


def test_ctrl_c_is_answered_within_200_ms(clock, python):
    """The best of five: the machine has other work. The operator is as good as before. The
    processor's time is that of both threads.
    """
    most = 0.4 if clock == "process_time" else 0.2
    python(
        PROGRAM
        + f"""
slowest = {{}}
for name, call in {CALLS}.items():
    late = []
    for after in (0.15, 0.3, 0.4, 0.2, 0.35):
        late.append(answered(eval("lambda: " + call), time.{clock}, after))
        if late[-1] <= {most}:
            break
    slowest[name] = min(late)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.array_equal(H @ v, expected), name
assert max(slowest.values()) <= {most}, slowest
""",
    )


def test_ctrl_c_within_a_restart_is_answered_in_half_of_its_time(clock, python):
    """Where the basis takes 512 MB its rotation is cut short, and the pairs that come back are as
    good as said: the best of two.
    """
    python(
        f"from time import {clock} as clock"
        + """
import os, signal, threading
import numpy as np
from scipy.sparse.linalg import LinearOperator
import fastcurv as fc
from fastcurv.spectrum.eigsh import ThickRestart

d = np.cumsum(np.random.default_rng(0).uniform(0.5, 1, 223_000))
d /= d[-1]
op = LinearOperator((len(d), len(d)), matvec=lambda v: d * v.ravel(), dtype=float)
pressed, restart = [], ThickRestart._restart

def press():
    pressed.append(clock())
    os.kill(os.getpid(), signal.SIGINT)

def then_pressed(search):
    begin = clock()
    if whole:
        threading.Timer(0.08, press).start()
    restart(search)
    whole.append(clock() - begin)

ThickRestart._restart = then_pressed
late, whole = [], []
for k in (10, 4):
    whole.clear()
    found = fc.eigsh(op, k, "BE", seed=0)
    late.append((clock() - pressed[-1]) / whole[0])
    assert found.interrupted and len(found) == k and found.n_products > 250
    R = d[:, None] * found.vectors - found.vectors * found.values
    assert (np.linalg.norm(R, axis=0) <= found.residuals * (1 + 1e-6)).all()
    if late[-1] <= 0.5:
        break
assert min(late) <= 0.5, late
""",
    )
