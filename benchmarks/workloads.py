"""The shapes that every benchmark is measured on, and what they cost at the least.

Random data of real shapes: a product's time depends on sizes alone, so nothing has to be
downloaded.
"""

from dataclasses import dataclass

import numpy as np

# Matrix products of 2 N in out flops each: (in the first layer, in each other one).
PRODUCTS = {
    "product": (2, 6),  # rz: 1 and 2, rdW: 1 and 2, re: 0 and 2
    "gradient": (2, 3),  # z, dW, and e below
    "ggn": (2, 4),  # the R-passes without the terms in delta
    "quadratic": (1, 3),  # rz: 1 and 2, <delta, ra V'>: 0 and 1
}
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Workload:
    """A network, a loss and a number of samples; ``large`` if matrix products take nearly all
    time.
    """

    name: str
    sizes: tuple
    n_samples: int
    activation: str
    loss: str
    large: bool = True

    def __str__(self):
        sizes = "-".join(map(str, self.sizes))
        return f"{self.name}: {sizes}, N {self.n_samples}, {self.activation}, {self.loss}"

    def flops(self, what="product"):
        """Return the flops of the matrix products that ``what`` needs at least."""
        first, other = PRODUCTS[what]
        layers = [m * k for k, m in zip(self.sizes, self.sizes[1:])]
        return 2 * self.n_samples * (first * layers[0] + other * sum(layers[1:]))

    def problem(self, dtype, seed=0):
        """Return ``X, y, layers, directions``: data, ``[(W, b), ...]`` and a direction of the same
        shapes.
        """
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((self.n_samples, self.sizes[0])).astype(dtype)
        if self.loss == "cross_entropy":
            y = rng.integers(self.sizes[-1], size=self.n_samples)
        else:
            y = rng.standard_normal((self.n_samples, self.sizes[-1])).astype(dtype)
        return X, y, self._layers(rng, dtype), self._layers(rng, dtype)

    def _layers(self, rng, dtype):
        return [
            (
                (rng.standard_normal((m, k)) / np.sqrt(k)).astype(dtype),
                (rng.standard_normal(m) / 10).astype(dtype),
            )
            for k, m in zip(self.sizes, self.sizes[1:])
        ]


_AUTOENCODER = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)

WORKLOADS = {
    w.name: w
    for w in (
        Workload("tiny", (2, 16, 16, 1), 100, "tanh", "mse", large=False),
        Workload("digits", (64, 32, 16, 10), 1797, "tanh", "cross_entropy", large=False),
        Workload("mnist-relu", (784, 512, 512, 10), 1024, "relu", "cross_entropy"),
        Workload("mnist", (784, 512, 512, 10), 1024, "tanh", "cross_entropy"),
        Workload("mnist-128", (784, 512, 512, 10), 128, "tanh", "cross_entropy", large=False),
        Workload("mnist-32", (784, 512, 512, 10), 32, "tanh", "cross_entropy", large=False),
        Workload("mnist-4", (784, 512, 512, 10), 4, "tanh", "cross_entropy", large=False),
        Workload("few-100", (600, 400, 200, 5), 100, "tanh", "cross_entropy", large=False),
        Workload("small-1", (64, 128, 64, 10), 1, "relu", "cross_entropy", large=False),
        Workload("middle-48", (256, 256, 256, 10), 48, "tanh", "cross_entropy", large=False),
        Workload("autoencoder", _AUTOENCODER, 1024, "tanh", "mse"),
        Workload("wide", (1024, 2048, 2048, 1000), 256, "gelu", "cross_entropy"),
        # narrow and tall: tables, surrogates, controllers
        Workload("tall-100", (20, 100, 2), 30000, "sigmoid", "cross_entropy", large=False),
        Workload("tall-64", (13, 64, 1), 60000, "tanh", "mse", large=False),
        Workload("tall-160", (24, 160, 3), 10000, "relu", "cross_entropy", large=False),
        Workload("tall-48", (8, 48, 48, 2), 16000, "softplus", "mse", large=False),
        Workload("tall-32", (64, 32, 16, 10), 30000, "tanh", "cross_entropy", large=False),
        # what is kept is more than a core's share of the third level, or rows make five panels
        Workload("mid-100", (20, 100, 30, 1), 6000, "tanh", "mse", large=False),
        Workload("mid-64", (13, 64, 64, 64, 1), 3000, "tanh", "mse", large=False),
        Workload("mid-50", (30, 50, 2), 648, "tanh", "cross_entropy", large=False),
        Workload("ragged", (100, 300, 70, 200, 9), 900, "tanh", "cross_entropy", large=False),
        Workload("deep-72", (40, *[72] * 10, 6), 600, "tanh", "cross_entropy", large=False),
        Workload("small-10", (4, 10, 10, 1), 300, "tanh", "mse", large=False),
        Workload("small-20", (1, 20, 1), 200, "tanh", "mse", large=False),
        # of the size of a table in a paper: the matrix has 16 to 258 rows
        Workload("sine", (1, 5, 1), 41, "tanh", "mse", large=False),
        Workload("diabetes", (10, 10, 1), 442, "tanh", "mse", large=False),
        Workload("cancer", (9, 5, 5, 2), 699, "tanh", "cross_entropy", large=False),
        Workload("wine", (13, 15, 3), 178, "tanh", "cross_entropy", large=False),
        Workload("small-13", (2, 13, 13, 1), 150, "tanh", "mse", large=False),
    )
}


def flat(layers):
    """Return one vector in the library's order: W1, b1, W2, b2, ..., each row-major."""
    return np.concatenate([part.ravel() for layer in layers for part in layer])
