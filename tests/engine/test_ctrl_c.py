"""Ctrl-C in the middle of passes, and what it leaves."""

import pytest

from .programs import NET

# --- Ctrl-C, and the end
# ------------------------------------------------------------------------------------------------


INTERRUPT = (
    NET
    + """
def interrupted(call, clock, after=0.3):
    # Ctrl-C that long into the call: how long until KeyboardInterrupt, by that clock
    pressed = []
    def press():
        pressed.append(clock())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(after, press).start()
    try:
        call()
    except KeyboardInterrupt:
        return clock() - pressed[0]
    raise AssertionError("the call ended on its own")
"""
)


@pytest.mark.parametrize(
    "prepare, call",
    [
        (
            "H = drawn([160, 200, 10], 1500)[0].hessian(theta); V = np.tile(v[:, None], 100)",
            "H @ V",
        ),
        (
            "H = drawn([160, 200, 10], 1500)[0].hessian(theta); V = np.tile(v[:, None], 100)",
            "H.quadratic(V)",
        ),
        ("ob = drawn([160, 200, 10], 12000, memory=3000000)[0]; H = ob.hessian(theta)", "H @ v"),
        ("ob = drawn([160, 200, 10], 12000, memory=3000000)[0]", "ob.value_and_gradient(theta)"),
    ],
    ids=["a block of vectors", "forms", "a product in chunks", "a gradient in chunks"],
)
def test_interrupt(prepare, call, clock, python):
    """Ctrl-C ends a call of many seconds within one.

    Plain loops on one thread make the call long.
    """
    python(
        INTERRUPT
        + f"""
ob, theta, v = drawn([160, 200, 10], 1)
{prepare}
late = interrupted(lambda: {call}, time.{clock})
assert late <= 1, f"{{late:.1f}} s late"
""",
        environment={"FASTCURV_ARCH": "reference", "FASTCURV_NUM_THREADS": "1"},
    )


CALLS = [
    "ob.hessian(theta)",
    "ob.value(theta + 1)",
    "ob.value_and_gradient(theta + 1)",
    "H @ v",
    "H @ V",
    "H.quadratic(v)",
    "H.quadratic(V)",
    "J @ v",
    "J.T @ u",
    "ob.model.predict(theta, ob.X)",
    "ob.hessp(theta, v)",
    "ob.ggn(theta)",
    "G @ V",
]


@pytest.mark.parametrize(
    "sizes, N, threads",
    [([784, 512, 512, 10], 3000, 2), ([13, 64, 1], 150_000, 1)],
    ids=["wide", "tall"],
)
def test_ctrl_c_within_200_ms(sizes, N, threads, clock, python):
    """In every compiled pass; and what was interrupted is as good as before. The processor's time
    is that of all threads.
    """
    most = 0.2 * (threads if clock == "process_time" else 1)
    python(
        INTERRUPT
        + f"""
ob, theta, v = drawn({sizes}, {N}, {threads}, dtype="float64")
V, u = np.tile(v[:, None], 4), np.ones({N} * {sizes[-1]})
H, G, J = ob.hessian(theta), ob.ggn(theta), ob.jacobian(theta)
before = H @ v, ob.value(theta), J @ v
slowest = {{}}
for call in {CALLS}:
    once = eval("lambda: " + call)
    def again():                             # the signal falls into the middle of one
        while True:
            once()
    slowest[call] = interrupted(again, time.{clock}, 0.13)
assert max(slowest.values()) <= {most}, slowest
after = H @ v, ob.value(theta), J @ v
assert np.array_equal(before[0], after[0]) and before[1] == after[1]
assert np.array_equal(before[2], after[2])
""",
    )


def test_a_handler_may_use_the_engine_and_fork(python):
    """A signal handler runs in the middle of a pass, which goes on after it to the same bits; in
    its child it cannot.
    """
    python(
        NET
        + """
ob, theta, v = drawn([784, 512, 512, 10], 3000)
small, theta_, v_ = drawn(*WIDE)
H, inner = ob.hessian(theta), small.hessian(theta_)
alone, expected, parent, ran = inner @ v_, H @ v, os.getpid(), []
def handler(*_):
    child = os.fork()
    ran.append((np.array_equal(inner @ v_, alone), child))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    for _ in range(3):
        assert np.array_equal(H @ v, expected)
except RuntimeError as error:
    assert os.getpid() != parent and "forked" in str(error)
    os._exit(7 if np.array_equal(H @ v, expected) and np.array_equal(inner @ v_, alone) else 1)
if os.getpid() != parent:
    os._exit(8)                                  # between two products nothing is lost
assert len(ran) == 1 and ran[0][0]
assert os.waitstatus_to_exitcode(os.waitpid(ran[0][1], 0)[1]) in (7, 8)
""",
    )


def test_interrupted_evaluation_leaves_no_stale_value(python):
    """An exception from a signal handler amid `value` must not make the next call return what stood
    there before.
    """
    python(
        NET
        + """
ob, theta, v = drawn([300, 300, 300, 10], 3000, threads=1)
class Alarm(Exception): pass
def handler(*_): raise Alarm
signal.signal(signal.SIGALRM, handler)
true = ob.batch(slice(None)).value_and_gradient(theta)
begin = time.perf_counter()
ob.value(theta + 1)
taken = time.perf_counter() - begin
seen = 0
for share in (0.2, 0.4, 0.6):
    ob.value(theta + 1)
    signal.setitimer(signal.ITIMER_REAL, max(1e-4, share * taken))
    try:
        ob.value(theta)
        time.sleep(taken)
    except Alarm:
        seen += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert ob.value(theta) == true[0], (ob.value(theta), true[0])
    value, gradient = ob.value_and_gradient(theta)
    assert value == true[0]
    assert np.array_equal(gradient, true[1])
assert seen == 3
"""
    )
