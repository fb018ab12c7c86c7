"""Objectives over shards on Dask workers, in this process and in processes that are killed."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.distributed import _translate_errors

from .network.product_cases import assert_same_results

dask = pytest.importorskip("distributed")
dask_config = pytest.importorskip("dask.config")
SIZES, SHARDS = [5, 7, 4, 3], 11


def rows(number, dtype="float64", N=30, weights=True):
    rng = np.random.default_rng(number)
    X, y = rng.standard_normal((N + number, 5)), rng.integers(3, size=N + number)
    return (X.astype(dtype), y, rng.random(N + number)) if weights else (X, y)


def whole(shards=SHARDS, **options):
    parts = [rows(i, **options) for i in range(shards)]
    return [np.concatenate(p) for p in zip(*parts)]


@pytest.fixture(scope="module")
def client():
    with dask.Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as c:
        yield c


def local_and_distributed(client, dtype="float64", weights=True, **options):
    model = fc.MLP(SIZES, dtype=dtype)
    X, y, *w = whole(weights=weights)
    b = fc.distributed.Objective(
        model, [partial(rows, i, weights=weights) for i in range(SHARDS)], client=client, **options
    )
    a = fc.Objective(model, X, y, sample_weight=w[0] if w else None, **options)
    return a, b, model.init(rng=0)


@pytest.mark.parametrize("dtype, tol", [("float64", 1e-13), ("float32", 2e-6)])
def test_all_results_of_shards_equal_those_in_memory(client, rng, dtype, tol):
    """All sums over shards agree with those of the same samples in memory, to rounding in float64
    and float32.
    """
    a, b, theta = local_and_distributed(client, dtype, l2=1e-2)
    assert b.n_samples == a.n_samples and b.n_shards == SHARDS
    assert_same_results(b, a, theta, rng.standard_normal((a.n_params, 4)).astype(dtype), tol)
    if dtype == "float32":
        wide = a.astype("float64").gradient(theta), b.astype("float64").gradient(theta)
        assert np.abs(wide[0] - wide[1]).max() <= 1e-14


def test_shards_and_local_blocks_give_bitwise_identical_results(client):
    """Gradient and product of shards are bitwise identical to those of a stream with blocks of
    equal size, because both are added in the same tree.
    """
    parts = [rows(100, N=0, weights=False) for _ in range(1)]
    X, y = np.concatenate([parts[0][0]] * 9), np.concatenate([parts[0][1]] * 9)
    model = fc.MLP(SIZES)
    a = fc.StreamedObjective(model, X, y, block_rows=100, n_threads=1)
    b = fc.distributed.Objective(model, [partial(rows, 100, N=0, weights=False)] * 9, client=client)
    theta, v = model.init(rng=0), np.ones(model.n_params)
    assert np.array_equal(a.gradient(theta), b.gradient(theta))
    assert np.array_equal(a.hessian(theta) @ v, b.hessian(theta) @ v)


def test_algorithms_give_the_same_results_on_shards(client):
    a, b, theta = local_and_distributed(client, weights=False, l2=1e-2)
    H, K = a.hessian(theta), b.hessian(theta)
    assert np.abs(fc.eigsh(H, k=2, rng=0).values - fc.eigsh(K, k=2, rng=0).values).max() <= 1e-9
    density = [fc.spectral_density(op, rng=0, n_probes=2, n_steps=10).nodes for op in (H, K)]
    assert np.abs(density[0] - density[1]).max() <= 1e-9
    run = fc.minimize(a, theta, "newton-cg", max_iter=60, rng=0)
    assert run.success
    found, known = fc.classify(b, run.x), fc.classify(a, run.x)
    assert known.certified and (found.kind, found.certified) == (known.kind, False)
    down = fc.minimize(b, theta, "newton-cg", max_iter=2, rng=0)
    assert down.fun < b.value(theta)
    epochs = [fc.minimize(ob, theta, "adam", batch_size=150, max_iter=1, rng=0).x for ob in (a, b)]
    assert np.abs(epochs[0] - epochs[1]).max() <= 1e-12


def test_shards_can_be_futures_or_delayed_values(client):
    """An objective whose shards are functions, futures or delayed values has the loss in memory. A
    closed objective raises ValueError.
    """
    X, y, w = whole(2)
    given = client.submit(lambda: (X[30:], y[30:], w[30:]), pure=False)
    delayed = pytest.importorskip("dask").delayed(rows)
    model = fc.MLP(SIZES)
    theta = model.init(rng=0)
    want = fc.Objective(model, X, y, sample_weight=w).value(theta)
    for shards in ([partial(rows, 0), given], [delayed(0), delayed(1)]):
        ob = fc.distributed.Objective(model, shards, client=client)
        assert ob.value(theta) == pytest.approx(want, rel=1e-13)
    ob.close()
    with pytest.raises(ValueError, match="the objective is closed"):
        ob.value(theta + 1)


def undecodable():
    return b"\xff".decode()


def test_shards_that_do_not_fit_raise(client):
    """For shards that do not fit the model, the error has the worker's class and message with the
    number of the shard, even for classes whose constructor needs several arguments.
    """
    model = fc.MLP(SIZES)
    make = partial(fc.distributed.Objective, model, client=client)
    X, y = rows(0, weights=False)
    for error, words, shards in (
        (TypeError, "shard 0 must be a function that loads.*got a tuple", [(X, y)]),
        (ValueError, "shards must hold at least one", []),
        (TypeError, "shards must be a sequence.*got a str", "rows.npz"),
        (
            ValueError,
            "in shard 1: X must hold finite numbers",
            [partial(rows, 0), lambda: (X * np.nan, y)],
        ),
        (ValueError, "in shard 1: y must hold labels", [partial(rows, 0), lambda: (X, y + 1)]),
        (TypeError, "in shard 0: the rows must be .*got an ndarray", [lambda: X]),
        (OSError, "in shard 0: ", [partial(np.load, "nowhere.npz")]),
        (TypeError, "shard 0 must be a function .*or a future, got a str", ["rows.npz"]),
        (ValueError, "in shard 0: 'utf-8' codec can't decode", [undecodable]),
    ):
        with pytest.raises(error, match=words):
            make(shards)
    with pytest.raises(ValueError, match="batch normalisation"):
        fc.distributed.Objective(fc.MLP(SIZES, batch_norm=True), [partial(rows, 0)], client=client)
    with pytest.raises(TypeError, match="shards belong to its client"):
        pickle.dumps(make([partial(rows, 0)]))


def test_theta_is_sent_once_per_point(client, monkeypatch):
    """Three products at one theta send the point of the operator only once."""
    a, b, _ = local_and_distributed(client)
    model = fc.MLP([5, 200, 3])
    ob = fc.distributed.Objective(model, [partial(rows, i) for i in range(3)], client=client)
    H, sent = ob.hessian(model.init(rng=0)), []
    submit = client.submit
    monkeypatch.setattr(
        client, "submit", lambda f, *a, **k: (sent.append(f.__name__), submit(f, *a, **k))[1]
    )
    for _ in range(3):
        H @ np.ones(model.n_params)
    assert sent.count("return_argument") == 4


@pytest.mark.nightly
def test_killed_workers_do_not_change_results_bitwise():
    """If two workers are killed during a run, their tasks and shards are repeated on others, and
    products and the run are bitwise identical for one, two and three workers.
    """
    model = fc.MLP(SIZES)
    theta, V = model.init(rng=0), np.random.default_rng(0).standard_normal((93, 3))[:89]
    found = []
    for n_workers, kill in ((1, False), (2, False), (3, True)):
        with (
            dask.LocalCluster(
                n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
            dask.Client(cluster) as client,
        ):
            ob = fc.distributed.Objective(
                model, [partial(rows, i) for i in range(16)], l2=1e-3, client=client
            )
            stop, killed = threading.Event(), []

            def killer(client=client, stop=stop, killed=killed):
                for _ in range(2):
                    if stop.wait(1.0):
                        return
                    pids = client.run(os.getpid)
                    killed.append(next(iter(pids.values())))
                    os.kill(killed[-1], signal.SIGKILL)

            thread = threading.Thread(target=killer)
            if kill:
                thread.start()
            until, H = time.monotonic() + (4.0 if kill else 0.0), ob.hessian(theta)
            while True:
                products = H @ V
                if time.monotonic() >= until:
                    break
                assert np.array_equal(products, found[0][0])
            run = fc.minimize(ob, theta, "newton-cg", max_iter=3, rng=0)
            stop.set()
            if kill:
                thread.join()
                assert len(set(killed)) == 2
            found.append((products, run.x, run.nit))
    for products, x, nit in found[1:]:
        assert np.array_equal(products, found[0][0]) and np.array_equal(x, found[0][1])
        assert nit == found[0][2]


def pinned(dask_scheduler):
    return {key for key, task in dask_scheduler.tasks.items() if task.worker_restrictions}


@pytest.mark.nightly
def test_killing_all_workers_does_not_change_results_bitwise():
    with (
        dask.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        dask.Client(cluster) as client,
    ):
        model = fc.MLP(SIZES)
        ob = fc.distributed.Objective(model, [partial(rows, i) for i in range(4)], client=client)
        H, v = ob.hessian(model.init(rng=0)), np.ones(model.n_params)
        before = H @ v
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        assert np.array_equal(H @ v, before)


def wait_for(there, seconds=400.0):
    """Wait until `there()` returns True, and fail after the given seconds."""
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.02)
    assert there()


def test_client_created_from_an_address_is_closed_with_the_objective(client):
    """Closing an objective that created its client from an address closes that client but not the
    cluster.
    """
    address = client.scheduler.address
    model = fc.MLP(SIZES)
    shards = [partial(rows, i) for i in range(3)]
    with fc.distributed.Objective(model, shards, client=address) as ob:
        own = ob.client
        assert own is not client and own.status == "running"
        X, y, w = whole(3)
        there = fc.Objective(model, X, y, sample_weight=w).value(model.init(rng=0))
        assert ob.value(model.init(rng=0)) == pytest.approx(there, rel=1e-13)
    assert own.status == "closed" and client.status == "running"


def test_workers_with_different_kernels_cause_a_warning(client, monkeypatch):
    def odd(shard):
        n = len(shard.X)
        return n, "avx2" if n % 2 else "avx512"

    monkeypatch.setattr(fc.distributed, "row_count_and_arch", odd)
    with pytest.warns(UserWarning, match=r"the same kernels .*, got avx2, avx512\."):
        ob = fc.distributed.Objective(
            fc.MLP(SIZES), [partial(rows, i) for i in range(3)], client=client
        )
    assert ob.kernels == ("avx2", "avx512")


def test_shards_support_batches_precisions_and_column_bounds(client):
    a, b, theta = local_and_distributed(client, l2=1e-2)
    with pytest.raises(ValueError, match="rows must select at least one sample"):
        b.batch(np.zeros(b.n_samples, bool))
    assert b.with_l2(0.5).value(theta) == pytest.approx(a.with_l2(0.5).value(theta), rel=1e-13)
    assert b.astype("float64") is b and b.astype("float32").dtype == np.float32
    H = b.hessian(theta)
    assert H.astype("float64") is H
    single, exact = H.astype("float32"), a.hessian(theta).to_dense()
    assert single.dtype == np.float32
    assert np.abs(single.to_dense() - exact).max() <= 1e-5 * np.abs(exact).max()
    assert np.abs(H.to_dense() - exact).max() <= 1e-10 * np.abs(exact).max()


@pytest.mark.parametrize("asked", [[300, 0, 150, 7, 7, -1], slice(None, None, -7), [12, 3, 40]])
def test_samples_of_a_batch_are_in_the_order_of_the_shards(client, asked):
    a, b, theta = local_and_distributed(client, weights=False)
    for _ in range(2):
        a, b = a.batch(np.sort(np.arange(a.n_samples)[asked])), b.batch(asked)
        J, ours = a.jacobian(theta), b.jacobian(theta)
        v, u = (np.random.default_rng(0).standard_normal(n) for n in J.shape[::-1])
        assert np.abs(ours @ v - J @ v).max() <= 1e-12
        assert np.abs(ours.T @ u - J.T @ u).max() <= 1e-12
        same = b.astype("float32").jacobian(theta.astype("f4")) @ v.astype("f4")
        assert np.abs(same - J @ v).max() <= 1e-4
        asked = [2, 0, 1]


def integers():
    return np.array([[2**24 + 1, 1], [5, 2**24 + 3]]), np.array([2**24 + 1, 3])


def test_reloaded_shards_have_the_same_numbers(client):
    """A shard that is loaded again has equal numbers: integers beyond the range of float32 integers
    are rounded as before, even if the objective was converted to float64.
    """
    ob = fc.distributed.Objective(fc.MLP([2, 1], dtype="float32"), [integers], "mse", client=client)
    shard = ob.astype("float64")._shards[0].result()
    again = pickle.loads(pickle.dumps(shard))
    assert np.array_equal(again.X, shard.X) and np.array_equal(again.y, shard.y)
    assert shard.X[0, 0] == 2**24


def listening_addresses(processes):
    """Return the set of IPv4 and IPv6 addresses, in hexadecimal, at which the processes accept
    connections.
    """
    sockets, found = set(), set()
    for process in processes:
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(link.readlink())[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:  # LISTEN
                found.add(words[1].partition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are listed by Linux")
def test_local_workers_accept_only_local_connections():
    """Local workers, the scheduler and its web pages listen at 127.0.0.1 only."""
    program = (
        "import fastcurv as fc, numpy as np, sys\n"
        "def rows(): return np.eye(3), np.arange(3)\n"
        "if __name__ == '__main__':\n"
        "    ob = fc.distributed.Objective(fc.MLP([3, 3]), [rows])\n"
        "    print(*ob.client.run(__import__('os').getpid).values(), flush=True)\n"
        "    sys.stdin.read(); ob.close()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as here:
        workers = here.stdout.readline().split()
        assert workers
        found = listening_addresses([here.pid, *map(int, workers)])
        here.communicate()
    assert found == {"0100007F"}


SCHEDULER = """
import asyncio
from distributed import Scheduler, Worker

async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        async with Worker(scheduler.address, nthreads=1, dashboard_address="127.0.0.1:0"):
            print(scheduler.address, flush=True)
            await scheduler.finished()

asyncio.run(main())
"""


@contextlib.contextmanager
def scheduler_process():
    """Start a process with a scheduler and a worker, yield (process, address), and kill the process
    at the end.
    """
    with subprocess.Popen(
        [sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.kill()


def test_lost_scheduler_raises_an_error_that_names_it():
    with scheduler_process() as (process, address), dask.Client(address) as client:
        shards = [partial(small_shard, i) for i in range(3)]
        b = fc.distributed.Objective(fc.MLP(SIZES), shards, client=client)
        theta = b.model.init(rng=0)
        b.value(theta)
        process.kill()
        process.wait()
        soon = dask_config.set({"distributed.comm.timeouts.connect": "3s"})
        with (
            soon,
            pytest.raises(
                ConnectionError, match="the connection to the scheduler of Dask was lost"
            ),
        ):
            for k in range(1000):
                b.value(theta * (1 + k))


def small_shard(number):
    """Return (X, y) of the shard with this number. The function uses no other name of this file
    except NumPy, so that it can be sent to workers.
    """
    rng = np.random.default_rng(number)
    return rng.standard_normal((9, 5)), rng.integers(3, size=9)


def test_an_empty_client_address_raises():
    with pytest.raises(ValueError, match="^client must be a Client, the address.*got ''"):
        fc.distributed.Objective(fc.MLP(SIZES), [partial(small_shard, 0)], client="")


def test_a_client_that_cannot_start_threads_raises_a_clear_error(monkeypatch):
    def none_left(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(dask, "Client", none_left)
    with pytest.raises(OSError, match="Dask cannot be started or reached: can't start new thread"):
        fc.distributed.Objective(
            fc.MLP(SIZES), [partial(small_shard, 0)], client="tcp://127.0.0.1:1"
        )


@pytest.mark.parametrize("error", ["CancelledError", "KilledWorker", "CommClosedError"])
def test_dask_errors_without_a_message_get_one(error, client, monkeypatch):
    from distributed.comm import CommClosedError

    kinds = {"CommClosedError": CommClosedError, "CancelledError": dask.CancelledError}
    gone = dask.KilledWorker("task", "tcp://x", 3) if error == "KilledWorker" else kinds[error]()
    with pytest.raises(ConnectionError, match="(Use|Start a) "), _translate_errors():
        raise gone
    b = fc.distributed.Objective(fc.MLP(SIZES), [partial(small_shard, 0)], client=client)
    monkeypatch.setattr(client, "map", lambda *_, **__: (x for x in ()).throw(gone))
    with pytest.raises(ConnectionError, match="(Use|Start a) "):
        b.value(b.model.init(rng=0))
