"""Rounding units of a Hessian product: a running error analysis in NumPy, with one unit for each
operation.

Each number carries a bound on its rounding error in multiples of eps. A sum of products adds the
sum of their absolute values once, however long it is, so an accurate implementation stays within a
few of these units. The analysis shares no code with the bounds that the package proves.
"""

import functools

import numpy as np

from fastcurv.structure.parameters import has_skip_connection
from fastcurv.structure.tables import activation_spec, loss_spec


@functools.cache
def max_derivatives(name):
    """Return the largest absolute values of the second and third derivatives of an activation at
    points of [-30, 30] without 0, two floats. Second derivatives are complex steps, third ones
    their differences.
    """
    z = np.linspace(-30, 30, 60_000)  # a grid that does not contain 0, where the kinks are
    second = activation_spec(name).slope(z + 1e-100j).imag / 1e-100
    third = [np.abs(np.diff(second[side])).max() / (z[1] - z[0]) for side in (z < 0, z > 0)]
    return np.abs(second).max(), max(third)


def _loss(ref, z, ez, rz, erz):
    """Return (delta, ed, rd, erd): bounds on |delta| and |rdelta|, each followed by its rounding
    units, for each sample and output. `rz` bounds |rz|, and `ez` and `erz` are the units of z and
    rz.
    """
    cross, share = ref.loss == "cross_entropy", np.abs(ref.scale()) * np.ones((len(z), 1))
    y = np.asarray(ref.y, float)
    curve, size = 1.0, np.ones_like(z)
    if ref.loss == "mse":
        curve, size = 2.0, 2 * (np.abs(z) + np.abs(y.reshape(len(z), -1)))
    # the third derivative of an exponential loss is bounded by its second
    elif loss_spec(ref.loss).given is not None:
        with np.errstate(over="ignore"):
            second = np.abs(loss_spec(ref.loss).given(z, y.reshape(len(z), -1))[2])
        curve, size = 1 + second, (1 + second) * (1 + np.abs(z)) + np.abs(y.reshape(len(z), -1))
    delta = share * size
    ed = share * curve * ez + delta
    rows = rz.sum(axis=1, keepdims=True) if cross else 0
    long = erz.sum(axis=1, keepdims=True) if cross else 0
    rd = share * curve * (rz + rows)
    erd = share * curve * (erz + long + (rz + rows) * (1 + ez))
    return delta, ed, rd, erd


def units(ref, theta, v):
    """Return the norm of the rounding units of the Hessian product ``H v`` of the
    `ReferenceObjective` `ref` at theta, as a float.
    """
    theta, v = np.asarray(theta, float), np.asarray(v, float)
    X = np.abs(np.asarray(ref.X, float))
    zs, _ = ref.model.forward(theta, np.asarray(ref.X, float))
    layers = [[np.abs(p) for p in layer] for layer in ref.model.unflatten(theta)]
    moved = [[np.abs(p) for p in layer] for layer in ref.model.unflatten(v)]
    names, last = ref.model.activation, len(layers) - 1

    # Forward: a, ra and their units ea, era; ra is bounded by absolute values.
    a, ea, ra, era = [X], [np.zeros_like(X)], [np.zeros_like(X)], [np.zeros_like(X)]
    ez, rz, erz, d1, d2, d3 = [], [], [], [], [], []
    for l, ((W, b), (V, vb)) in enumerate(zip(layers, moved, strict=True)):
        ez.append(ea[l] @ W.T + a[l] @ W.T + b)
        rz.append(ra[l] @ W.T + a[l] @ V.T + vb)
        erz.append(era[l] @ W.T + ea[l] @ V.T + rz[l])
        if l == last:
            break
        phi, first = activation_spec(names[l]).phi, activation_spec(names[l]).slope
        d1.append(np.abs(first(zs[l])))
        second, third = max_derivatives(names[l])
        d2.append(second)
        d3.append(third)
        skip = has_skip_connection(ref.model, l)
        a.append(np.abs(phi(zs[l])) + (a[l] if skip else 0))
        ea.append(d1[l] * ez[l] + a[-1] + (ea[l] if skip else 0))
        ra.append(d1[l] * rz[l] + (ra[l] if skip else 0))
        era.append(d1[l] * erz[l] + (d2[l] + d1[l]) * rz[l] * (1 + ez[l]) + ra[-1])
        era[-1] += era[l] if skip else 0

    delta, ed, rd, erd = _loss(ref, zs[last], ez[last], rz[last], erz[last])

    # Backward, and the units of every part of the result.
    total, e_skip = 0.0, None
    for l in range(last, -1, -1):
        W, V = layers[l][0], moved[l][0]
        dW = rd.T @ ea[l] + erd.T @ a[l] + ed.T @ ra[l] + delta.T @ era[l]
        dW += rd.T @ a[l] + delta.T @ ra[l]
        total += np.sum(dW**2) + np.sum((erd + rd).sum(axis=0) ** 2)
        if l == 0:
            break
        e, ee = delta @ W, ed @ W + delta @ W
        re, ere = rd @ W + delta @ V, erd @ W + ed @ V + rd @ W + delta @ V
        if e_skip is not None:
            e, ee, re, ere = (x + s for x, s in zip((e, ee, re, ere), e_skip, strict=True))
        h = l - 1
        e_skip = (e, ee, re, ere) if has_skip_connection(ref.model, h) else None
        bend = d2[h] + d3[h] * ez[h]
        delta, ed_next = e * d1[h], ee * d1[h] + e * d2[h] * ez[h] + e * d1[h]
        rd = re * d1[h] + e * d2[h] * rz[h]
        erd = ere * d1[h] + re * bend * (1 + ez[h]) + ee * d2[h] * rz[h] + e * d2[h] * erz[h]
        erd += e * (d2[h] + d3[h]) * rz[h] * (1 + ez[h]) + rd
        ed = ed_next
    return float(np.sqrt(total)) + 2 * float(np.max(ref.l2)) * float(np.linalg.norm(v))
