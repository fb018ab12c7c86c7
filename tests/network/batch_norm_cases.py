"""Networks with batch normalisation, and the truth by complex steps."""

import zlib

import numpy as np

import fastcurv as fc
from fastcurv.reference import ReferenceModel, ReferenceObjective

STEP = 1e-100


class Problem:
    """A normalised network on random data, its oracle, and an interesting theta: no gamma is 1, no
    beta and no b is 0.
    """

    def __init__(
        self,
        sizes,
        activation="tanh",
        loss="mse",
        N=33,
        *,
        bias=True,
        residual=False,
        weights=False,
        l2=0.0,
        dtype="float64",
        **options,
    ):
        rng = np.random.default_rng(
            zlib.crc32(repr((sizes, activation, loss, N, bias, residual)).encode())
        )
        self.model = fc.MLP(
            sizes, activation, bias=bias, residual=residual, dtype=dtype, batch_norm=True
        )
        self.n, d = self.model.n_params, sizes[-1]
        X = rng.standard_normal((N, sizes[0])).astype(dtype)
        y = {
            "mse": rng.standard_normal((N, d)),
            "cross_entropy": rng.integers(d, size=N),
            "binary_cross_entropy": rng.integers(2, size=(N, d)),
        }[loss]
        y = y if loss == "cross_entropy" else y.astype(dtype)
        weight = rng.uniform(0.25, 2, N).astype(dtype)
        weight = weight if weights else None

        def noise(*shape):
            return 0.3 * rng.standard_normal(shape)

        self.theta = self.model.flatten(
            [
                (
                    rng.standard_normal((m, k)) / k**0.5,
                    noise(m) if bias else None,
                    *((1 + noise(m), noise(m)) if l < len(sizes) - 2 else ()),
                )
                for l, (m, k) in enumerate(self.model.shapes)
            ]
        )
        self.ob = fc.Objective(self.model, X, y, loss, l2=l2, sample_weight=weight, **options)
        names = activation if isinstance(activation, str) else list(activation)
        self.ref = ReferenceObjective(
            ReferenceModel(sizes, names, bias=bias, residual=residual, batch_norm=True),
            X,
            y,
            loss,
            l2=l2,
            sample_weight=weight,
        )
        self.V = rng.standard_normal((self.n, 2)).astype(dtype)
        self.u = rng.standard_normal((N, d)).astype(dtype)


def asked(p):
    ob, theta, V = p.ob, p.theta, p.V
    H, G, J, v = ob.hessian(theta), ob.ggn(theta), ob.jacobian(theta), np.ascontiguousarray(V[:, 0])
    return {
        "value": ob.value(theta),
        "gradient": H.gradient,
        "H @ v": H @ v,
        "H @ V": H @ V,
        "G @ V": G @ V,
        "J @ v": (J @ v).reshape(p.u.shape),
        "J.T @ u": J.T @ p.u.ravel(),
        "H.quadratic": H.quadratic(V),
        "G.quadratic": G.quadratic(V),
    }
