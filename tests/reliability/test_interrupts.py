"""Ctrl-C in the algorithms is answered within 200 ms: by what is known, or by the end of it."""

PROGRAM = """
import os, signal, sys, tempfile, threading, time
import numpy as np
import fastcurv as fc

def answered(call, after):
    # how long from Ctrl-C to the end of the call, by KeyboardInterrupt or with what is known
    pressed = []
    def press():
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(after, press)
    timer.start()
    end = None
    try:
        call()
    except KeyboardInterrupt:
        pass
    end = time.perf_counter()
    timer.cancel()
    assert pressed, "the call ended on its own"
    return end - pressed[0]

rng = np.random.default_rng(0)
def drawn(sizes, N):
    model = fc.MLP(sizes, "tanh")
    X, y = rng.standard_normal((N, sizes[0])), rng.standard_normal((N, sizes[-1]))
    return fc.Objective(model, X, y, "mse", l2=1e-3, n_threads=2), model.init(seed=0)
ob, theta = drawn([400, 300, 300, 10], 4000)
H = ob.hessian(theta)
v = rng.standard_normal(H.shape[0])
A = rng.standard_normal((1500, 1500))
A = A + A.T
expected = H @ v
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
    "escape": "[fc.escape(ob, theta, direction=v) for _ in range(99)]",
}


def test_ctrl_c_is_answered_within_200_ms(python):
    """The best of three: the machine has other work. The operator is as good as before."""
    python(
        PROGRAM
        + f"""
slowest = {{}}
for name, call in {CALLS}.items():
    late = []
    for after in (0.15, 0.3, 0.4):
        late.append(answered(eval("lambda: " + call), after))
        if late[-1] <= 0.2:
            break
    slowest[name] = min(late)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.array_equal(H @ v, expected), name
assert max(slowest.values()) <= 0.2, slowest
""",
        timeout=120,
    )
