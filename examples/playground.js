/* A small network trained in the page, with its exact Hessian: `numerics` has no page in it, the rest draws and listens.
 * tests/applications/test_playground.py compares its numbers and words with fastcurv. Nothing is loaded from elsewhere. */
"use strict";

const numerics = (() => {
  const EPS = 2 ** -52;

  /* A problem is {inputs, hidden, linear, X, y, l2}. Linear: no biases, identity, mean squared error. Otherwise: biases,
   * tanh, binary cross-entropy of the output as a logit. theta has the order of fastcurv: W1 by rows, b1, w2, b2. */
  const size = ({ inputs, hidden, linear }) => (linear ? hidden * (inputs + 1) : hidden * (inputs + 2) + 1);

  function output(p, theta, x) {
    const { inputs, hidden, linear } = p, bias = inputs * hidden, top = linear ? bias : bias + hidden;
    let f = linear ? 0 : theta[top + hidden];
    for (let j = 0; j < hidden; j++) {
      let z = linear ? 0 : theta[bias + j];
      for (let i = 0; i < inputs; i++) z += theta[j * inputs + i] * x[i];
      f += theta[top + j] * (linear ? z : Math.tanh(z));
    }
    return f;
  }

  /* The loss of one sample and its first two derivatives by the output. */
  function lossOf(linear, f, y) {
    if (linear) return [(f - y) ** 2, 2 * (f - y), 2];
    const t = Math.exp(-Math.abs(f)), s = f >= 0 ? 1 / (1 + t) : t / (1 + t);
    return [Math.max(f, 0) - y * f + Math.log1p(t), s - y, t / (1 + t) ** 2];
  }

  const penalty = (p, theta) => (p.l2 / 2) * theta.reduce((sum, w) => sum + w * w, 0);
  const value = (p, theta) =>
    p.X.reduce((sum, x, k) => sum + lossOf(p.linear, output(p, theta, x), p.y[k])[0], 0) / p.X.length + penalty(p, theta);

  /* The gradient and, by the R-operator, the product of the Hessian with v: an r before a name is its derivative along v. */
  function product(p, theta, v) {
    const { inputs, hidden, linear, X, y, l2 } = p, bias = inputs * hidden, top = linear ? bias : bias + hidden;
    const n = theta.length, gradient = Array(n).fill(0), Hv = gradient.slice();
    const a = new Float64Array(hidden), slope = a.slice(), bend = a.slice(), rz = a.slice();
    X.forEach((x, k) => {
      let f = linear ? 0 : theta[n - 1], rf = linear ? 0 : v[n - 1];
      for (let j = 0; j < hidden; j++) {
        let z = linear ? 0 : theta[bias + j];
        rz[j] = linear ? 0 : v[bias + j];
        for (let i = 0; i < inputs; i++) {
          z += theta[j * inputs + i] * x[i];
          rz[j] += v[j * inputs + i] * x[i];
        }
        a[j] = linear ? z : Math.tanh(z);
        slope[j] = linear ? 1 : (1 - a[j]) * (1 + a[j]);
        bend[j] = linear ? 0 : -2 * a[j] * slope[j];
        f += theta[top + j] * a[j];
        rf += v[top + j] * a[j] + theta[top + j] * slope[j] * rz[j];
      }
      const [, first, second] = lossOf(linear, f, y[k]), e = first / X.length, re = (second * rf) / X.length;
      for (let j = 0; j < hidden; j++) {
        const w = theta[top + j];
        gradient[top + j] += e * a[j];
        Hv[top + j] += re * a[j] + e * slope[j] * rz[j];
        const delta = e * w * slope[j];
        const rdelta = (re * w + e * v[top + j]) * slope[j] + e * w * bend[j] * rz[j];
        for (let i = 0; i < inputs; i++) {
          gradient[j * inputs + i] += delta * x[i];
          Hv[j * inputs + i] += rdelta * x[i];
        }
        if (!linear) [gradient[bias + j], Hv[bias + j]] = [gradient[bias + j] + delta, Hv[bias + j] + rdelta];
      }
      if (!linear) [gradient[n - 1], Hv[n - 1]] = [gradient[n - 1] + e, Hv[n - 1] + re];
    });
    return { gradient: gradient.map((g, i) => g + l2 * theta[i]), Hv: Hv.map((h, i) => h + l2 * v[i]) };
  }

  const hessian = (p, theta) =>
    Array.from(theta, (_, i) => product(p, theta, theta.map((_w, j) => (i === j ? 1 : 0))).Hv);

  /* Eigenvalues in ascending order and unit eigenvectors of a symmetric matrix, by Jacobi's rotations. */
  function eigen(H) {
    const n = H.length, A = H.map((row, i) => Float64Array.from(row, (x, j) => (x + H[j][i]) / 2));
    const V = A.map((_, i) => Float64Array.from(A, (_row, j) => (i === j ? 1 : 0)));  // its rows become the eigenvectors
    const least = 0.01 * EPS * Math.sqrt(A.reduce((sum, row) => sum + dot(row, row), 0));
    const rotate = (u, v, c, s) => {
      for (let k = 0; k < n; k++) [u[k], v[k]] = [c * u[k] - s * v[k], s * u[k] + c * v[k]];
    };
    for (let sweep = 0, left = 1; sweep < 30 && left > 0; sweep++) {
      left = 0;
      for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) {
        const b = A[i][j], d = A[j][j] - A[i][i], tau = d / (2 * b);
        if (!(Math.abs(b) > least)) continue;
        left++;
        const t = (tau >= 0 ? 1 : -1) / (Math.abs(tau) + Math.hypot(1, tau)), c = 1 / Math.hypot(1, t), s = t * c;
        const low = A[i][i] - t * b, high = A[j][j] + t * b;
        rotate(A[i], A[j], c, s);  // rows; the columns are their mirror image
        rotate(V[i], V[j], c, s);
        for (let k = 0; k < n; k++) [A[k][i], A[k][j]] = [A[i][k], A[j][k]];
        [A[i][i], A[j][j], A[i][j], A[j][i]] = [low, high, 0, 0];
      }
    }
    const order = A.map((_, i) => i).sort((i, j) => A[i][i] - A[j][j]);
    return { values: order.map((i) => A[i][i]), vectors: order.map((i) => Array.from(V[i])) };
  }

  function dot(u, v) {
    let sum = 0;
    for (let i = 0; i < u.length; i++) sum += u[i] * v[i];
    return sum;
  }
  const norm = (v) => Math.hypot(...v);
  const add = (theta, step, by = 1) => theta.map((w, i) => w + by * step[i]);

  /* Everything at theta, with the kind of the point by fastcurv's rule: theta is near a critical point if Newton's model
   * promises a decrease g'|H|^-1 g / 2 of at most 1e-8 of the loss, or one that is lost in rounding. */
  function measure(p, theta) {
    const loss = value(p, theta), n = theta.length;
    if (!Number.isFinite(loss) || !theta.every(Number.isFinite)) return { loss, kind: "not_critical", values: [], finite: false };
    const gradient = product(p, theta, theta).gradient, H = hessian(p, theta), { values, vectors } = eigen(H);
    const largest = Math.max(...values.map(Math.abs)), error = 8 * n * EPS * largest;
    const moved = H.map((row) => row.reduce((sum, h, j) => sum + Math.abs(h * theta[j]), 0));  // |H| |theta|
    const slopes = vectors.map((v) => dot(v, gradient));
    const slack = vectors.map((v) => 64 * EPS * v.reduce((sum, x, i) => sum + Math.abs(x) * moved[i], 0));
    const sizes = values.map((x) => Math.max(Math.abs(x), error));
    const promised = (s) => (s > 0 ? 1 : 0) * s * s;
    const decrement = sizes.reduce((sum, x, i) => sum + promised(Math.abs(slopes[i]) - slack[i]) / x / 2, 0);
    const stored = 0.5 * (8 * EPS) ** 2 * theta.reduce((sum, w, i) => sum + Math.abs(w) * moved[i], 0);
    if (!Number.isFinite(decrement)) return { loss, kind: "not_critical", values: [], finite: false };
    const threshold = Math.max(1e-8 * loss, stored, Number.MIN_VALUE);
    const near = decrement <= threshold;
    // The toy does not change along (c w1, w2 / c): the eigenvalue of that direction counts as 0 near a critical point.
    const orbit = p.linear && near ? [theta[0], -theta[1]] : theta.map(() => 0);
    const isExplained = (x, k) => Math.abs(x) <= 1e-6 * largest && Math.abs(dot(vectors[k], orbit)) > 0.99 * norm(orbit);
    const signs = values.map((x, k) => (Math.abs(x) <= error || isExplained(x, k) ? 0 : Math.sign(x)));
    const [negative, zero, positive] = [-1, 0, 1].map((sign) => signs.filter((s) => s === sign).length);
    const explained = values.filter(isExplained).length;
    let kind = negative ? (positive ? "saddle" : "maximum") : "minimum";
    if (!near) kind = "not_critical";
    else if (zero > explained && kind !== "saddle") kind = "degenerate";
    const gradientNorm = norm(gradient), times = Math.sqrt(decrement / threshold);
    return { loss, gradient, gradientNorm, times, decrement, threshold, H, values, vectors, slopes, error, signs, negative, zero, positive, explained, kind, finite: true };
  }

  /* The sentence about a point, in the words of fastcurv's verdicts; nothing here is a proof. */
  function sentence(m) {
    const below = "the gradient norm is below its tolerance";
    const aside = m.explained ? " except one, which is zero because w\u2081c and w\u2082/c give the same network" : "";
    if (!m.finite) return "Not critical: the loss or a derivative is not finite. Choose a new start.";
    switch (m.kind) {
      case "minimum": return `Minimum: ${below} and all eigenvalues are positive${aside}. Training has probably converged.`;
      case "maximum": return `Maximum: ${below} and all eigenvalues are negative${aside}. Step along the lowest eigenvector to leave it.`;
      case "saddle": return `Saddle: ${below} and the Hessian has eigenvalues of both signs. Step along the lowest eigenvector to leave it.`;
      case "degenerate": return `Degenerate: ${below}, but ${m.zero - m.explained} of the eigenvalues count as zero, so the kind is unknown.`;
      default: return `Not critical: a Newton step is predicted to change the loss by ${short(m.decrement)}, where at most ${short(m.threshold)} is tolerated.`;
    }
  }

  const short = (x) => {
    const size = Math.abs(x);
    if (!Number.isFinite(x)) return "infinity";
    const text = size >= 1e6 || (x && size < 1e-3) ? (+x.toPrecision(2)).toExponential() : String(+x.toPrecision(3));
    return text.replace("e+", "e").replaceAll("-", "\u2212");
  };

  /* One step of each method: from what was measured at theta to the vector that is added; `state` belongs to a run. */
  const METHODS = {
    "gradient descent": (m, state, rate) => m.gradient.map((g) => -rate * g),
    momentum: (m, state, rate) => {
      state.v = m.gradient.map((g, i) => 0.9 * (state.v ? state.v[i] : 0) + g);
      return state.v.map((v) => -rate * v);
    },
    Adam: (m, state, rate) => {
      const t = (state.t = (state.t || 0) + 1);
      state.m = m.gradient.map((g, i) => 0.9 * (state.m ? state.m[i] : 0) + 0.1 * g);
      state.s = m.gradient.map((g, i) => 0.999 * (state.s ? state.s[i] : 0) + 0.001 * g * g);
      return state.m.map((v, i) => (-rate * v) / (1 - 0.9 ** t) / (Math.sqrt(state.s[i] / (1 - 0.999 ** t)) + 1e-8));
    },
    Newton: (m) => along(m, (x) => (Math.abs(x) > m.error ? 1 / x : 0)),
    "saddle-free Newton": (m) => along(m, (x) => 1 / (Math.abs(x) + Math.min(1e-3, m.gradientNorm) || 1)),
  };
  const FIRST_ORDER = { "gradient descent": 0.3, momentum: 0.1, Adam: 0.03 };  // with their usual learning rates
  const along = (m, weight) =>
    m.gradient.map((_, i) => -m.vectors.reduce((sum, v, k) => sum + weight(m.values[k]) * m.slopes[k] * v[i], 0));

  /* The lowest point on the line theta + t v, |t| <= 20: a grid that grows by 15%, then golden sections around its best. */
  function lowest(p, theta, v) {
    const at = (t) => value(p, add(theta, v, t));
    let best = 0, least = value(p, theta);
    for (const sign of [1, -1]) for (let t = 1e-6; t < 20; t *= 1.15) if (at(sign * t) < least) least = at((best = sign * t));
    let low = best / 1.15, high = best * 1.15;
    for (let k = 0; best && k < 60; k++) {
      const first = high - 0.618034 * (high - low), second = low + 0.618034 * (high - low);
      if (at(first) < at(second)) high = second;
      else low = first;
    }
    const middle = (low + high) / 2;
    return at(middle) < least ? middle : best;
  }

  /* A unit more with all its weights 0, which changes no output. */
  function widen(p, theta) {
    const { inputs, hidden } = p, bias = inputs * hidden, top = bias + hidden, zeros = Array(inputs).fill(0);
    const wider = [...theta.slice(0, bias), ...zeros, ...theta.slice(bias, top), 0, ...theta.slice(top, top + hidden), 0, theta[top + hidden]];
    return { p: { ...p, hidden: hidden + 1 }, theta: wider };
  }

  /* The same network with its units in the order `order`, each with the sign `signs`: tanh and the identity are odd. */
  function permute(p, theta, order, signs) {
    const { inputs, hidden, linear } = p, bias = inputs * hidden, top = linear ? bias : bias + hidden, out = theta.slice();
    order.forEach((from, j) => {
      for (let i = 0; i < inputs; i++) out[j * inputs + i] = signs[j] * theta[from * inputs + i];
      if (!linear) out[bias + j] = signs[j] * theta[bias + from];
      out[top + j] = signs[j] * theta[top + from];
    });
    return out;
  }

  /* Uniform and normal numbers from a seed (mulberry32; Box and Muller). */
  function random(seed) {
    const uniform = () => {
      let t = (seed = (seed + 0x6d2b79f5) | 0);
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return { uniform, normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()) };
  }

  const DATA = {
    spirals: () => samples(80, ({ uniform, normal }, k) => {
      const t = Math.sqrt(0.05 + 0.95 * uniform()), angle = 1.6 * Math.PI * t + Math.PI * (k % 2);
      return [2 * t * Math.cos(angle) + 0.05 * normal(), 2 * t * Math.sin(angle) + 0.05 * normal()];
    }),
    moons: () => samples(60, ({ uniform, normal }, k) => {
      const angle = Math.PI * uniform(), side = k % 2 ? -1 : 1;
      return [1.2 * (side * Math.cos(angle) - side / 2) + 0.15 * normal(), 1.2 * (side * Math.sin(angle) - side / 4) + 0.15 * normal()];
    }),
    toy: () => ({ X: [[1]], y: [1] }),
  };
  const samples = (n, point) => {
    const source = random(1), X = Array.from({ length: n }, (_, k) => point(source, k));
    return { X, y: X.map((_, k) => k % 2) };
  };
  const problem = (data, hidden, l2) => {
    const linear = data === "toy";
    return { inputs: linear ? 1 : 2, hidden: linear ? 1 : hidden, linear, l2: linear ? 0 : l2, ...DATA[data]() };
  };
  /* A start: random, close to the saddle where all weights are 0, or with hidden units that are all alike. */
  const start = (p, seed, from = "random") => {
    const { uniform, normal } = random(seed), { inputs, hidden, linear } = p, n = size(p);
    if (linear) return Array.from({ length: n }, () => 4 * uniform() - 2);
    const scale = (i) => (i < inputs * hidden ? 1 / Math.sqrt(inputs) : i < n - 1 && i >= n - 1 - hidden ? 1 / Math.sqrt(hidden) : 0.5);
    const theta = Array.from({ length: n }, (_, i) => scale(i) * normal());
    if (from === "plateau") return theta.map((w) => 1e-3 * w);
    if (from !== "equal") return theta;
    return permute(p, theta, Array(hidden).fill(0), Array(hidden).fill(1));
  };
  /* The problem on some of its samples, drawn at random. */
  const batch = (p, k, { uniform }) => {
    const rows = Array.from({ length: k }, () => Math.floor(uniform() * p.X.length));
    return { ...p, X: rows.map((r) => p.X[r]), y: rows.map((r) => p.y[r]) };
  };

  return { size, output, value, product, hessian, eigen, measure, sentence, short, METHODS, FIRST_ORDER, add, norm, dot, lowest, widen, permute, random, problem, start, batch };
})();

/* The page: what is shown of one state, and the controls that change it. */
if (typeof document !== "undefined") (() => {
  const N = numerics, MAX_UNITS = 9, MAX_RECORDS = 2000, REACH = 2.6, BATCH = 10, SOURCE = N.random(7);
  const SURFACE = [[30, 32, 74], [38, 104, 120], [110, 170, 110], [235, 222, 150]];  // from low to high
  const FRAME = { l: 50, r: 10, t: 12, b: 36 };
  const byId = (id) => document.getElementById(id);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  let p, theta, m, state, steps, history, path, seed = 1, running = 0, spoken = 0;

  /* A canvas of its size on the page, in CSS pixels. */
  function pen(id) {
    const canvas = byId(id), c = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    const w = canvas.clientWidth, h = canvas.clientHeight;
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    c.scale(ratio, ratio);
    c.font = "13px system-ui, sans-serif";
    const line = (points, stroke, width = 1.5, dash = []) => {
      c.strokeStyle = stroke;
      c.lineWidth = width;
      c.setLineDash(dash);
      c.beginPath();
      points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
      c.stroke();
      c.setLineDash([]);
    };
    const text = (words, x, y, align = "left", fill = color("soft")) => {
      c.fillStyle = fill;
      c.textAlign = align;
      c.fillText(words, x, y);
    };
    const dot = (x, y, fill, radius, square = false) => {
      c.beginPath();
      if (square) c.rect(x - 0.9 * radius, y - 0.9 * radius, 1.8 * radius, 1.8 * radius);
      else c.arc(x, y, radius, 0, 7);
      c.fillStyle = fill;
      c.fill();
      c.strokeStyle = "#fff";
      c.lineWidth = 1.2;
      c.stroke();
    };
    return { c, w, h, line, text, dot };
  }

  /* The square of the inputs, or of the toy's two weights: place(x, y) is the pixel. */
  function plane(id, shade) {
    const f = pen(id), n = 72, { l, t } = FRAME, w = f.w - l - FRAME.r, h = f.h - t - FRAME.b;
    const place = ([x, y]) => [l + ((x + REACH) / (2 * REACH)) * w, t + h - ((y + REACH) / (2 * REACH)) * h];
    const at = (k) => (2 * k / n - 1) * REACH, small = document.createElement("canvas"), s = small.getContext("2d");
    small.width = small.height = n;
    const image = s.createImageData(n, n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++)
      image.data.set([...shade(at(i + 0.5), at(n - j - 0.5)), 255], 4 * (j * n + i));
    s.putImageData(image, 0, 0);
    f.c.drawImage(small, l, t, w, h);
    const [names, ticks] = [p.linear ? ["w\u2081", "w\u2082"] : ["x\u2081", "x\u2082"], [-2, -1, 0, 1, 2]];
    for (const v of ticks) {
      f.text(N.short(v), place([v, 0])[0], t + h + 16, "center");
      f.text(N.short(v), l - 6, place([0, v])[1] + 4, "right");
    }
    f.text(names[0], l + w / 2, t + h + 32, "center", color("ink"));
    f.text(names[1], 6, t + h / 2 + 4, "left", color("ink"));
    return { ...f, place, at, n };
  }

  /* Where a function on the plane is 0: in each cell, between the edges on which its sign changes. */
  function contour(f, value) {
    const V = Array.from({ length: f.n + 1 }, (_, i) => Array.from({ length: f.n + 1 }, (_x, j) => value(f.at(i), f.at(j))));
    for (let i = 0; i < f.n; i++) for (let j = 0; j < f.n; j++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], cuts = [];
      corners.forEach(([a, b], k) => {
        const [c, d] = corners[(k + 1) % 4], u = V[a][b], v = V[c][d];
        if (u < 0 !== v < 0) cuts.push(f.place([f.at(a + (u / (u - v)) * (c - a)), f.at(b + (u / (u - v)) * (d - b))]));
      });
      for (let k = 0; k + 1 < cuts.length; k += 2) f.line([cuts[k], cuts[k + 1]], color("ink"), 2);
    }
  }

  const mix = (low, high, s) => low.map((x, k) => x + s * (high[k] - x));

  function drawNetwork() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, middle = dark ? [40, 43, 48] : [250, 250, 248];
    const ends = dark ? [[18, 86, 128], [140, 76, 20]] : [[150, 200, 232], [250, 196, 140]];
    const f = plane("plane", (x, y) => {
      const s = Math.tanh(N.output(p, theta, [x, y]) / 2);
      return mix(middle, ends[+(s > 0)], Math.abs(s) || 0);
    });
    contour(f, (x, y) => N.output(p, theta, [x, y]));
    p.X.forEach((x, k) => f.dot(...f.place(x), color(p.y[k] ? "red" : "blue"), 4.5, p.y[k]));
  }

  /* The toy's surface by log(1 + L), its valleys, the way gone so far, and the eigenvector of the lowest eigenvalue. */
  function drawToy() {
    const f = plane("plane", (x, y) => {
      const s = (3 * Math.log1p((1 - x * y) ** 2)) / Math.log1p((1 + REACH ** 2) ** 2), k = Math.min(2, Math.floor(s));
      return mix(SURFACE[k], SURFACE[k + 1], s - k);
    });
    const valley = Array.from({ length: 60 }, (_, k) => (1 / REACH) * REACH ** (k / 29.5));
    f.c.save();
    f.c.beginPath();
    f.c.rect(FRAME.l, FRAME.t, f.w - FRAME.l - FRAME.r, f.h - FRAME.t - FRAME.b);
    f.c.clip();
    for (const s of [1, -1]) f.line(valley.map((w) => f.place([s * w, s / w])), "#cfd6de", 3);
    f.line(path.map(f.place), "#fff", 2);
    if (m.finite) {
      const tip = (s, k) => f.place([theta[0] + s * m.vectors[0][0] * k, theta[1] + s * m.vectors[0][1] * k]);
      for (const s of [1, -1]) {
        const [x, y] = tip(s, 0.75), [u, v] = tip(s, 0.55), across = [(y - v) / 1.7, (u - x) / 1.7];
        f.line([f.place(theta), [u, v]], color("arrow"), 3);
        f.c.fillStyle = color("arrow");
        f.c.beginPath();
        for (const q of [[x, y], [u + across[0], v + across[1]], [u - across[0], v - across[1]]]) f.c.lineTo(...q);
        f.c.fill();
      }
    }
    f.dot(...f.place(theta), color("arrow"), 7);
    f.c.restore();
  }

  /* Bars from 0 on an axis that is linear up to 0.001 and logarithmic beyond. */
  function drawEigenvalues() {
    const f = pen("bars"), { l, t } = FRAME, w = f.w - l - FRAME.r, h = f.h - t - FRAME.b, n = m.values.length;
    const scale = (x) => Math.asinh(x / 1e-3), rate = Number(byId("rate").value), method = byId("method").value;
    const limit = { "gradient descent": 2, momentum: 3.8 }[method] / 10 ** rate;  // the largest stable eigenvalue
    const top = scale(Math.max(2, ...m.values)) * 1.06, low = scale(Math.min(-0.5, ...m.values)) * 1.06;
    const y = (x) => t + h - ((scale(x) - low) / (top - low)) * h;
    for (const x of [-100, -10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10, 100]) if (scale(x) >= low && scale(x) <= top) {
      f.line([[l, y(x)], [l + w, y(x)]], color(x ? "rule" : "soft"), 1);
      f.text(N.short(x), l - 6, y(x) + 4, "right");
    }
    const wide = w / Math.max(n, 8), left = l + (w - wide * n) / 2;
    m.values.forEach((x, k) => {
      const zero = !m.signs[k], end = zero ? y(0) - 2 : y(x);
      f.c.fillStyle = color(zero ? "soft" : x < 0 ? "red" : "blue");
      f.c.fillRect(left + k * wide + wide * 0.12, Math.min(end, y(0)), wide * 0.76, Math.max(Math.abs(end - y(0)), 4 * zero, 1));
    });
    if (scale(limit) < top) {
      f.line([[l, y(limit)], [l + w, y(limit)]], color("ink"), 1.5, [5, 4]);
      f.text(`steps are unstable above ${N.short(limit)}`, l + 4, y(limit) - 5, "left", color("ink"));
    }
    byId("how-many").textContent = n;
    f.text("in ascending order", l + w / 2, t + h + 22, "center", color("ink"));
    const numbers = m.values.map((x) => x.toPrecision(6)).join(", ").replaceAll("-", "\u2212");
    byId("bars").setAttribute("aria-label", m.finite ? `${n} eigenvalues as bars: ${counts()}` : "No eigenvalues");
    if (byId("all").open) byId("numbers").textContent = numbers;
  }

  function drawLoss() {
    const f = pen("losses"), { l, t } = FRAME, w = f.w - l - FRAME.r, h = f.h - t - FRAME.b;
    const shown = history.filter((r) => Number.isFinite(r.loss)).map((r) => ({ ...r, log: Math.log10(Math.max(r.loss, 1e-30)) }));
    const logs = shown.map((r) => r.log), last = Math.max(10, steps);
    const top = Math.max(...logs, -1) + 0.1, low = Math.min(...logs, top - 1) - 0.1;
    const place = ({ step, log }) => [l + (step / last) * w, t + h - ((log - low) / (top - low)) * h];
    const every = Math.ceil((top - low) / 5), marks = top - low < 2.5 ? [1, 2, 5] : [1];
    for (let k = Math.floor(low); k <= top; k++) for (const d of marks) {
      const log = k + Math.log10(d), y = place({ step: 0, log })[1];
      if (log < low || log > top || k % every) continue;
      f.line([[l, y], [l + w, y]], color("rule"), 1);
      f.text(N.short(d * 10 ** k), l - 6, y + 4, "right");
    }
    const unit = 10 ** Math.floor(Math.log10(last)), by = [0.2, 0.5, 1, 2].find((k) => last / (k * unit) <= 5) * unit;
    for (let step = 0; step <= last; step += by) f.text(Math.round(step), Math.min(place({ step, log: 0 })[0], l + w - 8), t + h + 16, "center");
    f.line([[l, t + h], [l + w, t + h]], color("soft"), 1);
    f.line(shown.map(place), color("blue"), 2);
    for (const r of shown) if (r.event) f.dot(...place(r), color("red"), 4);
    f.text("steps", l + w / 2, t + h + 32, "center", color("ink"));
    byId("losses").setAttribute("aria-label", `Loss on a logarithmic axis over ${steps} steps, now ${N.short(m.loss)}`);
  }

  const counts = () => `${m.negative} negative, ${m.zero} zero, ${m.positive} positive`;

  /* Draw everything. The words are read aloud by screen readers, so they change at most once a second while training. */
  function show(done) {
    m = N.measure(p, theta);
    if (p.linear) drawToy();
    else drawNetwork();
    drawEigenvalues();
    drawLoss();
    const right = p.X.filter((x, k) => N.output(p, theta, x) > 0 === p.y[k] > 0.5).length;
    const facts = {
      loss: N.short(m.loss), gradient: m.finite ? N.short(m.gradientNorm) : "\u2013", step: steps, units: p.hidden,
      parameters: theta.length, counts: m.finite ? counts() : "\u2013", lowest: m.finite ? N.short(m.values[0]) : "\u2013",
      highest: m.finite ? N.short(m.values.at(-1)) : "\u2013", right: p.linear ? "\u2013" : `${right} of ${p.X.length}`,
    };
    for (const name in facts) byId(`f-${name}`).textContent = facts[name];
    const now = performance.now();
    if (done !== undefined || !running || now - spoken > 1000) [byId("words").textContent, spoken] = [N.sentence(m), now];
    if (done !== undefined) byId("done").textContent = done;
    byId("words").dataset.kind = m.kind;
    byId("plane").setAttribute("aria-label", p.linear
      ? `Surface of the loss over both weights; the point is at ${theta.map((w) => N.short(w)).join(", ")}`
      : `Decision boundary of the network and its ${p.X.length} samples, ${facts.right} on their side`);
    for (const id of ["train", "one", "escape", "permute", "perturb"]) byId(id).disabled = !m.finite;
    byId("widen").disabled = !m.finite || p.linear || p.hidden >= MAX_UNITS;
    for (const k of [0, 1]) if (p.linear) byId(`w${k + 1}`).value = theta[k];
  }

  function record(event = false) {
    history.push({ step: steps, loss: N.value(p, theta), event });
    path.push(theta.slice());
    if (history.length > MAX_RECORDS) history = history.filter((r, k) => r.event || k % 2 === 0 || k > MAX_RECORDS - 50);
    if (path.length > 2 * MAX_RECORDS) path = path.filter((_, k) => k % 2 === 0);
  }

  /* Change theta by hand: the methods begin anew from there. */
  function jump(next, done) {
    stop();
    [theta, state, steps] = [next, {}, steps + 1];
    record(true);
    show(done);
  }

  function restart(done) {
    stop();
    const data = byId("data").value, atSaddle = data === "toy" && seed === 1;
    p = N.problem(data, Number(byId("units").value), Number(byId("decay").value));
    theta = atSaddle ? [0, 0] : N.start(p, seed, byId("from").value);
    [state, steps, history, path] = [{}, 0, [], []];
    for (const part of document.querySelectorAll("[data-only]")) part.hidden = (part.dataset.only === "toy") !== p.linear;
    record();
    show(done || "");
  }

  /* One step of the chosen method; false where it leaves theta as it is. */
  function step() {
    const method = byId("method").value, rate = 10 ** Number(byId("rate").value);
    const some = byId("batches").checked && !p.linear && method in N.FIRST_ORDER;
    const gradient = some ? N.product(N.batch(p, BATCH, SOURCE), theta, theta).gradient : m.gradient;
    let move = N.METHODS[method]({ ...m, gradient }, state, rate);
    if (method === "saddle-free Newton") {
      for (let k = 0; k < 40 && !(N.value(p, N.add(theta, move)) < m.loss); k++) move = move.map((x) => x / 2);
      if (!(N.value(p, N.add(theta, move)) < m.loss)) return false;
    }
    const next = N.add(theta, move);
    if (next.every((x, k) => x === theta[k])) return false;
    theta = next;
    steps++;
    record();
    return true;
  }

  /* A frame of training: ten steps of a first-order method, or one of Newton's at a speed that can be followed. */
  function frame(time) {
    if (!running) return;
    const first = byId("method").value in N.FIRST_ORDER;
    if (first || time - running > 150) {
      running = time;
      let moved = true;
      for (let k = 0; k < (first ? 10 : 1) && moved; k++) {
        if (k) m = { ...m, gradient: N.product(p, theta, theta).gradient };
        moved = step();
      }
      show();
      const why = !m.finite ? "The steps diverged." : m.kind !== "not_critical" ? "Training stopped at a critical point." : moved ? "" : "No step lowers the loss any more.";
      if (why) {
        stop();
        return show(why);
      }
    }
    requestAnimationFrame(frame);
  }

  function stop() {
    [running, byId("train").textContent] = [0, "Train"];
  }

  const ACTIONS = {
    train: () => {
      if (running) {
        stop();
        return show("Stopped.");
      }
      [running, byId("train").textContent] = [1, "Stop"];
      byId("done").textContent = `Training by ${byId("method").value}.`;
      requestAnimationFrame(frame);
    },
    one: () => {
      stop();
      const before = m.loss, moved = step();
      show(moved ? `One step of ${byId("method").value}: the loss went from ${N.short(before)} to ${N.short(N.value(p, theta))}.` : "The step is 0.");
    },
    escape: () => {
      const t = N.lowest(p, theta, m.vectors[0]), before = m.loss, named = `the eigenvector of eigenvalue ${N.short(m.values[0])}`;
      if (!t) return show(`The loss is not lower anywhere along ${named}.`);
      const next = N.add(theta, m.vectors[0], t);
      jump(next, `A step of length ${N.short(Math.abs(t))} along ${named} took the loss from ${N.short(before)} to ${N.short(N.value(p, next))}.`);
    },
    widen: () => {
      const wide = N.widen(p, theta), before = m.loss;
      p = wide.p;
      byId("units").value = p.hidden;
      jump(wide.theta, `A unit with zero weights was added: the loss changed by ${N.short(N.value(p, wide.theta) - before)}.`);
    },
    permute: () => {
      const source = N.random(history.length + steps), order = Array.from({ length: p.hidden }, (_, k) => k);
      for (let k = order.length - 1; k > 0; k--) {
        const other = Math.floor(source.uniform() * (k + 1));
        [order[k], order[other]] = [order[other], order[k]];
      }
      const signs = order.map((_, k) => (k && source.uniform() < 0.5 ? 1 : -1)), next = N.permute(p, theta, order, signs);
      const old = m, far = N.norm(N.add(next, theta, -1)), now = N.measure(p, next);
      const gap = Math.max(...now.values.map((x, k) => Math.abs(x - old.values[k])));
      jump(next, `Units were permuted and signs flipped: theta moved by ${N.short(far)}, the loss by ${N.short(Math.abs(now.loss - old.loss))}, the eigenvalues by at most ${N.short(gap)}.`);
    },
    perturb: () => {
      const { normal } = N.random(1000 + history.length + steps), next = theta.map((w) => w + 0.05 * normal());
      jump(next, `Noise of standard deviation 0.05 was added to every parameter: the loss went from ${N.short(m.loss)} to ${N.short(N.value(p, next))}.`);
    },
    restart: () => {
      seed++;
      restart("A new random start.");
    },
  };
  const usualRate = () => {
    const method = byId("method").value, usual = N.FIRST_ORDER[method];
    byId("rate").disabled = usual === undefined;
    if (usual) byId("rate").value = Math.log10(p.linear ? usual / 10 : usual);
    state = {};
    showRate();
  };
  const showRate = () => {
    const words = byId("rate").disabled ? "\u2013" : N.short(10 ** Number(byId("rate").value));
    byId("rate-value").textContent = words;
    byId("rate").setAttribute("aria-valuetext", byId("rate").disabled ? "not used by this method" : words);
    show();
  };

  function begin() {
    const named = location.hash.slice(1);
    if ([...byId("data").options].some((option) => option.value === named)) byId("data").value = named;
    for (const id in ACTIONS) byId(id).addEventListener("click", ACTIONS[id]);
    for (const id of ["data", "units", "decay", "from"]) byId(id).addEventListener("change", () => {
      seed = 1;
      restart();
      usualRate();
    });
    byId("method").addEventListener("change", usualRate);
    byId("rate").addEventListener("input", showRate);
    for (const k of [0, 1]) byId(`w${k + 1}`).addEventListener("input", (event) =>
      jump(theta.map((w, j) => (j === k ? Number(event.target.value) : Number.isFinite(w) ? w : 0)), ""));
    byId("plane").addEventListener("pointerdown", (event) => {
      if (!p.linear) return;
      const r = byId("plane").getBoundingClientRect(), w = r.width - FRAME.l - FRAME.r, h = r.height - FRAME.t - FRAME.b;
      const x = ((event.clientX - r.left - FRAME.l) / w - 0.5) * 2 * REACH, y = (0.5 - (event.clientY - r.top - FRAME.t) / h) * 2 * REACH;
      if (Math.max(Math.abs(x), Math.abs(y)) <= REACH) jump([x, y], "The point was moved.");
    });
    byId("all").addEventListener("toggle", () => show());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());
    new ResizeObserver(() => show()).observe(byId("pictures"));
    restart();
    usualRate();
  }
  begin();
})();
