"""Random calls of the public API from two threads for a given time.

    python -m tests.tools.soak [seconds, default 3600] [seed]

No call may raise an unexpected error, all results must be finite, products must be repeatable, and
memory must not grow.
"""

from __future__ import annotations

import collections
import random
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

import fastcurv as fc

from .. import nets
from ..plans import limited


class Scene:
    """A random problem, and the calls that can be made on it."""

    def __init__(self, dice: random.Random) -> None:
        draw = np.random.default_rng(dice.getrandbits(40))
        self.dice, self.draw = dice, draw
        sizes = [dice.choice((1, 2, 3, 7, 8, 9, 17, 33)) for _ in range(dice.randint(2, 4))]
        net = nets.draw(
            draw,
            sizes,
            [dice.choice(nets.ACTIVATIONS) for _ in sizes[2:]] or "tanh",
            dice.choice(nets.LOSSES),
            N=dice.choice((1, 2, 5, 17, 64, 300)),
            bias=dice.random() < 0.8,
            residual=dice.random() < 0.3,
            batch_norm=len(sizes) > 2 and dice.random() < 0.2,
            weights=dice.random() < 0.3,
            l2=dice.choice((0.0, 1e-3, 0.1)),
            dtype=dice.choice(nets.DTYPES),
            n_threads=dice.choice((1, 2)),
        )
        self.ob, self.model, self.theta = net.ob, net.model, net.theta
        self.n, self.N = net.n, len(net.X)
        self.H = self.ob.hessian(self.theta)
        self.v = draw.standard_normal(self.n).astype(self.model.dtype)
        self.first = self.H @ self.v

    def __repr__(self) -> str:
        return f"{self.ob!r} with N = {self.N}, l2 = {self.ob.l2}"

    def product(self) -> object:
        again = self.H @ self.v
        assert np.array_equal(again, self.first), "a product changed its bits"
        return again

    def block(self) -> object:
        V = self.draw.standard_normal((self.n, self.dice.randint(1, 6))).astype(self.model.dtype)
        return self.H @ V, self.H.quadratic_form(V)

    def other_operators(self) -> object:
        J = self.ob.jacobian(self.theta)
        G = self.ob.ggn(self.theta)
        F = G if self.model.batch_norm else self.ob.empirical_fisher(self.theta)
        return J @ self.v, J.T @ (J @ self.v), G @ self.v, F @ self.v

    def values(self) -> object:
        theta = self.theta + self.dice.choice((0.0, 0.1, 3.0)) * self.v
        return (*self.ob.value_and_gradient(theta), self.ob.hessp(theta, self.v))

    def parts(self) -> object:
        layers = [self.dice.randrange(len(self.model.sizes) - 1)]
        block = self.H.restrict(layers=layers)
        rows = self.draw.permutation(self.N)[: self.dice.randint(1, self.N)]
        return block @ np.ones(block.shape[1]), self.ob.batch(rows).gradient(self.theta)

    def in_chunks(self) -> object:
        ob = limited(self.ob, int(self.dice.uniform(0.3, 2) * self.H.nbytes) + 1)
        return ob.hessian(self.theta) @ self.v

    def spectrum(self) -> object:
        k, seed = self.dice.randint(1, min(4, self.n)), self.dice.getrandbits(20)
        which = self.dice.choice(("LM", "LA", "SA", "BE"))
        pairs = fc.eigsh(self.H, k=k, which=which, seed=seed, max_products=200)
        return pairs.values, pairs.residuals, fc.trace(self.H, n_probes=4, seed=seed).estimate

    def density(self) -> object:
        found = fc.spectral_density(self.H, n_probes=2, n_steps=10, seed=1)
        return found.density

    def dense(self) -> object:
        if self.n >= 300:
            return None
        bound = fc.inertia(self.H).error_bound  # infinite if a variance may be 0
        assert bound >= 0 and (np.isfinite(bound) or self.model.batch_norm)
        return fc.eigvalsh(self.H)

    def verdict(self) -> object:
        return fc.classify(self.ob, self.theta, max_products=100, seed=0).gradient_norm

    def descent(self) -> object:
        method = self.dice.choice(("adam", "l-bfgs", "trust-region", "newton-cg", "sgd"))
        found = fc.minimize(
            self.ob, self.theta, method, max_iter=5, max_time=2, seed=0, verdict=False
        )
        return found.x, found.fun

    def file(self) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x"
            fc.save(path, self.model, self.theta)
            model, theta = fc.load(path)
        assert model == self.model and np.array_equal(theta, self.theta)
        return theta

    def nonsense(self) -> object:
        bad = self.dice.choice((self.v[:-1], None, "v", self.v[None, None], self.v + 1j, object()))
        call = self.dice.choice((self.H.product, self.ob.value, self.H.quadratic_form))
        try:
            call(bad)
        except (ValueError, TypeError) as error:
            assert "\n" not in str(error)
            return None
        raise AssertionError(f"{call} took {bad!r}")


CALLS = [Scene.product] * 6 + [Scene.block, Scene.other_operators, Scene.values, Scene.parts]
CALLS += [Scene.in_chunks, Scene.spectrum, Scene.density, Scene.dense, Scene.verdict]
CALLS += [Scene.descent, Scene.file, Scene.nonsense]


def finite(found: object) -> bool:
    parts = found if isinstance(found, tuple) else (found,)
    return all(part is None or bool(np.isfinite(part).all()) for part in parts)


def resident_megabytes() -> float:
    """Return the resident memory of the process in MB, or 0 if the system does not report it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 / 1e6 if statm.exists() else 0.0


def soak(seconds: float, seed: int) -> int:
    end, counts = time.monotonic() + seconds, collections.Counter()
    failures: list[str] = []

    def work(member: int) -> None:
        dice, scenes = random.Random(f"{seed} {member}"), []
        while time.monotonic() < end and not failures:
            name, scene = "a new scene", None
            try:
                if len(scenes) < 4 or dice.random() < 0.05:
                    scenes = [*scenes[-4:], Scene(dice)]
                scene, call = dice.choice(scenes), dice.choice(CALLS)
                name = call.__name__
                found = call(scene)
            except ValueError as error:
                # Some memory limits are too small for one sample.
                if "memory" not in str(error) or "needed" not in str(error):
                    failures.append(f"{name} of {scene!r}\n{traceback.format_exc()}")
                continue
            except BaseException:
                failures.append(f"{name} of {scene!r}\n{traceback.format_exc()}")
                continue
            counts[name] += 1
            wild = name in ("values", "descent")  # the loss may overflow at other points
            if not wild and not finite(found):
                failures.append(f"{name} gave what is not finite: {scene.ob!r} {found}")

    begin = time.monotonic()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    shown: list[float] = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(60.0, max(0.1, seconds / 10)))
        shown.append(resident_megabytes())
    taken = time.monotonic() - begin
    print(f"{sum(counts.values())} calls in {taken:.0f} s: {dict(counts.most_common())}")
    print("MB held over time:", [round(mb) for mb in shown])
    for failure in failures:
        print(failure)
    late = shown[len(shown) // 3 :] or [0.0]
    grows = late[-1] > 1.2 * late[0] + 50
    if grows:
        print("memory grows")
    return bool(failures) or grows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    words = sys.argv[1:]
    raise SystemExit(soak(float(words[0]) if words else 3600.0, int(words[1]) if words[1:] else 0))
