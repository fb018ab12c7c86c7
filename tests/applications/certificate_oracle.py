"""A second reader of certificates, in 60 digits of mpmath: an oracle for the checker.

It knows the loss alone. Derivatives are central differences with the step 1e-30 in 130 digits, so
their relative errors are near 1e-60.
"""

import json

import numpy as np
from mpmath import mp, mpf

DIGITS = 130
STEP = mpf(10) ** -30
ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, mpf(0)),
    "tanh": mp.tanh,
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "softplus": lambda z: mp.log(1 + mp.exp(z)),
}


def to_mpf(text):
    return mpf(float.fromhex(text))


def loss_of_row(name, z, y):
    if name == "mse":
        return sum((a - b) ** 2 for a, b in zip(z, y))
    if name == "cross_entropy":
        return sum(y) * mp.log(sum(map(mp.exp, z))) - sum(a * b for a, b in zip(z, y))
    if name == "binary_cross_entropy":
        return sum(mp.log(1 + mp.exp(a)) - a * b for a, b in zip(z, y))
    return sum(mp.exp(a) - a * b + (b * mp.log(b) - b if b else 0) for a, b in zip(z, y))


class Oracle:
    """The loss of a certificate, given as text, with derivatives by differences."""

    def __init__(self, text):
        mp.dps = DIGITS
        self.document = json.loads(text)
        self.theta = [to_mpf(t) for t in self.document["theta"]]
        data, network = self.document["data"], self.document["network"]
        self.sizes = network["sizes"]
        self.X = [[to_mpf(t) for t in row] for row in data["X"]]
        classes = range(self.sizes[-1])
        self.y = [
            [mpf(row == i) for i in classes] if isinstance(row, int) else [to_mpf(t) for t in row]
            for row in data["y"]
        ]
        weights = data["sample_weight"]
        self.weights = [to_mpf(w) for w in weights] if weights else [mpf(1)] * len(self.X)
        self.name, l2 = self.document["loss"]["name"], self.document["loss"]["l2"]
        self.l2 = to_mpf(l2)

    def outputs(self, theta, x):
        network, rest, a = self.document["network"], iter(theta), x
        penalised = []
        for l, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:])):
            W = [[next(rest) for _ in range(inputs)] for _ in range(outputs)]
            b = [next(rest) if network["bias"] else mpf(0) for _ in range(outputs)]
            penalised += [t for row in W for t in row]
            penalised += b if self.document["loss"]["l2_biases"] else []
            z = [sum(w * t for w, t in zip(row, a)) + c for row, c in zip(W, b)]
            if l == len(self.sizes) - 2:
                return z, penalised
            phi = [ACTIVATIONS[network["activations"][l]](t) for t in z]
            a = [s + t for s, t in zip(phi, a)] if network["skips"][l] else phi
        raise AssertionError

    def loss(self, theta):
        value = mpf(0)
        for x, y, weight in zip(self.X, self.y, self.weights):
            z, penalised = self.outputs(theta, x)
            value += weight * loss_of_row(self.name, z, y) if weight else 0
        divisor = len(self.X) * (1 if self.name == "cross_entropy" else self.sizes[-1])
        return value / divisor + self.l2 / 2 * sum(t * t for t in penalised)

    def moved(self, theta, *steps):
        theta = list(theta)
        for i, step in steps:
            theta[i] += step
        return self.loss(theta)

    def gradient(self, theta):
        return [
            (self.moved(theta, (i, STEP)) - self.moved(theta, (i, -STEP))) / (2 * STEP)
            for i in range(len(theta))
        ]

    def hessian(self, theta):
        n, here = len(theta), self.loss(theta)
        H = mp.matrix(n)
        for i in range(n):
            for j in range(i):
                ends = [
                    s * t * self.moved(theta, (i, s * STEP), (j, t * STEP))
                    for s in (1, -1)
                    for t in (1, -1)
                ]
                H[i, j] = H[j, i] = sum(ends) / (4 * STEP**2)
            ends = self.moved(theta, (i, STEP)) + self.moved(theta, (i, -STEP))
            H[i, i] = (ends - 2 * here) / STEP**2
        return H

    def form(self, theta, u):
        """Return the second derivative of the loss along u / ||u||."""
        length = mp.sqrt(sum(t * t for t in u))
        ends = [[a + s * STEP * b / length for a, b in zip(theta, u)] for s in (1, -1)]
        return (sum(self.loss(end) for end in ends) - 2 * self.loss(theta)) / STEP**2

    def refutation(self):
        """Return a sentence if the claim is seen to be false, otherwise an empty string."""
        claim = self.document["claim"]
        if claim["kind"] == "values":
            gradient = mp.sqrt(sum(t * t for t in self.gradient(self.theta)))
            for name, value in (("loss", self.loss(self.theta)), ("gradient_norm", gradient)):
                low, high = (to_mpf(t) for t in claim[name])
                if not low - mpf(10) ** -50 <= value <= high + mpf(10) ** -50:
                    return f"{name} is {mp.nstr(value, 20)}"
            return ""
        radius = to_mpf(claim["radius"])
        if "positive_direction" in claim:
            return self.refutation_of_directions(claim, radius)
        return self.refutation_of_inertia(claim, radius)

    def refutation_of_inertia(self, claim, radius):
        H, theta = self.hessian(self.theta), list(self.theta)
        for _ in range(8):
            step = mp.lu_solve(H, mp.matrix(self.gradient(theta)))
            theta = [a - b for a, b in zip(theta, step)]
        distance = mp.sqrt(sum((a - b) ** 2 for a, b in zip(theta, self.theta)))
        if not mp.norm(step) < mpf(10) ** -40 or not distance <= radius:
            return f"the critical point is {mp.nstr(distance, 20)} from theta"
        values = mp.eigsy(self.hessian(theta), eigvals_only=True)
        smallest = to_mpf(claim["min_abs_eigenvalue"])
        counts = [sum(s * t >= smallest for t in values) for s in (1, -1)]
        if counts != [claim["positive"], claim["negative"]]:
            return f"the eigenvalues are {mp.nstr(values, 10)}"
        return ""

    def refutation_of_directions(self, claim, radius):
        rng = np.random.default_rng(0)
        for _ in range(4):
            step = [mpf(t) for t in rng.standard_normal(len(self.theta))]
            length = mp.sqrt(sum(t * t for t in step))
            point = [a + radius * b / length for a, b in zip(self.theta, step)]
            for sign, name in ((-1, "negative"), (1, "positive")):
                u = [to_mpf(t) for t in claim[f"{name}_direction"]]
                form, curvature = self.form(point, u), to_mpf(claim[f"{name}_curvature"])
                if not sign * (form - curvature) >= 0 or not sign * curvature > 0:
                    return f"the {name} curvature is {mp.nstr(form, 20)}"
        return ""
