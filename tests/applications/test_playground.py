"""The playground shows the numbers and words of fastcurv, and its controls work in a browser."""

import importlib.util
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc

from .browser import needs_chromium, reported

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = {"minimum", "maximum", "saddle", "degenerate", "not_critical"}


@pytest.fixture
def page(tmp_path):
    """Write the playground as one HTML file, and return the path."""
    path = EXAMPLES / "playground.py"
    spec = importlib.util.spec_from_file_location("playground", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write(tmp_path / "out")


def run_in_browser(page, script, width=1200):
    """Return the value that `script` passes to `report(value)` in the page. Animation frames are
    timers, so that their number depends on virtual time and not on the speed of the machine.
    """
    report = """
    <script>
    const faults = [];
    window.requestAnimationFrame = (call) => setTimeout(() => call(performance.now()), 16);
    addEventListener("error", (event) => faults.push(event.message));
    const report = (value) => {
      const pre = top.document.createElement("pre");
      pre.id = "result";
      pre.textContent = JSON.stringify({ value, faults });
      top.document.body.appendChild(pre);
    };
    </script>"""
    text = page.read_text().replace("<head>", "<head>" + report)
    text = text.replace("</body>", f"<script>{script}</script></body>")
    result = reported(text, page.parent, width, 600_000)
    assert result["faults"] == []
    return result["value"]


def objective(X, y, hidden, l2):
    """Return the fastcurv objective of a network of the page, or of the toy loss if X has one
    column.
    """
    X, y = np.array(X, dtype=float), np.array(y, dtype=float)
    if X.shape[1] == 1:
        model = fc.MLP([1, hidden, 1], activation="identity", bias=False)
        return fc.Objective(model, X, y[:, None], loss="mse", l2=l2)
    return fc.Objective(fc.MLP([2, hidden, 1]), X, y, loss="binary_cross_entropy", l2=l2)


def random_cases(n_cases, rng):
    """Return a list of (objective, theta, hidden) for networks at random points, at minima, and at
    saddles made by adding a unit with zero weights.
    """
    cases = []
    for k in range(n_cases):
        hidden, l2 = int(rng.integers(1, 9)), float(rng.choice([1e-4, 1e-3, 1e-2]))
        X = rng.standard_normal((int(rng.integers(5, 60)), 2))
        y = (X[:, 0] * X[:, 1] + 0.3 * rng.standard_normal(len(X)) > 0).astype(int)
        if k % 5 == 4:
            X, y, hidden, l2 = np.ones((1, 1)), np.ones(1), 1, 0.0
        ob = objective(X, y, hidden, l2)
        theta = rng.standard_normal(ob.n_params) * rng.choice([0.1, 1.0, 3.0])
        if k % 5 == 4 and k % 10 == 4:
            theta = np.zeros(2)
        elif k % 5 in (1, 2):
            theta = fc.minimize(ob, theta, "trust-region", max_iter=500).x
        if k % 5 == 2:  # add a unit with zero weights
            (W1, b1), (W2, b2) = ob.model.unflatten(theta)
            W1, b1 = np.vstack([W1, np.zeros((1, 2))]), np.append(b1, 0.0)
            theta = np.concatenate([W1.ravel(), b1, W2.ravel(), [0.0], b2])
            hidden += 1
            ob = objective(X, y, hidden, l2)
        cases.append((ob, theta, hidden))
    return cases


NUMBERS = """
report(CASES.map((c) => {
  const p = { ...c, inputs: c.X[0].length, linear: c.X[0].length === 1 };
  const N = numerics, m = N.measure(p, c.theta), steps = {};
  for (const name in N.METHODS) {
    let theta = c.theta;
    const state = {}, first = name in N.FIRST_ORDER;
    for (let k = 0; k < (first ? 5 : 1); k++) {
      const gradient = first ? N.product(p, theta, theta).gradient : m.gradient;
      theta = N.add(theta, N.METHODS[name]({ ...m, gradient }, state, 1e-3));
    }
    steps[name] = theta;
  }
  const Hv = N.product(p, c.theta, c.v).Hv;
  return { ...m, Hv, steps, words: N.sentence(m) };
}));
"""


def compare_with_fastcurv(page, n_cases, rng):
    """Assert that the page's numbers and words for random cases agree with fastcurv, and return the
    list of kinds of the verdicts.
    """
    cases, sent, kinds = random_cases(n_cases, rng), [], []
    for ob, theta, hidden in cases:
        case = {"X": ob.X.tolist(), "y": ob.y.ravel().tolist(), "l2": ob.l2, "hidden": hidden}
        v = rng.standard_normal(theta.size)
        sent.append(case | {"theta": theta.tolist(), "v": v.tolist()})
    said = run_in_browser(page, f"const CASES = {json.dumps(sent)};{NUMBERS}")
    assert len(said) == n_cases
    for (ob, theta, _), case, m in zip(cases, sent, said, strict=True):
        H = ob.hessian(theta)
        dense, gradient = H.to_dense(), ob.gradient(theta)
        scale = np.abs(dense).max()
        assert m["loss"] == pytest.approx(ob.value(theta), rel=1e-12)
        assert np.abs(m["gradient"] - gradient).max() <= 1e-12 * max(1.0, np.abs(gradient).max())
        assert np.abs(np.array(m["H"]) - dense).max() <= 1e-12 * scale
        v = np.array(case["v"])
        assert np.abs(m["Hv"] - H @ v).max() <= 1e-12 * scale * np.abs(v).sum()
        values, vectors = (np.array(m[name], dtype=float) for name in ("values", "vectors"))
        assert np.abs(values - np.linalg.eigvalsh(dense)).max() <= 1e-12 * scale * theta.size
        assert np.abs(vectors @ vectors.T - np.eye(theta.size)).max() <= 1e-12
        assert np.abs(dense @ vectors.T - vectors.T * values).max() <= 1e-12 * scale * theta.size
        check_steps(ob, theta, m, dense)
        verdict = fc.classify(ob, theta)
        assert m["kind"] == verdict.kind, (m["words"], verdict)
        counts = (m["negative"], m["zero"], m["positive"])
        if verdict.kind != "not_critical":
            assert counts == (verdict.n_negative, verdict.n_zero, verdict.n_positive)
        elif verdict.gradient_tol > 0:
            times = verdict.gradient_norm / verdict.gradient_tol
            if verdict.lambda_min > 0:
                assert m["times"] == pytest.approx(times, rel=1e-6), verdict
            else:  # fastcurv computes this tolerance in balanced units
                assert 1 / 3 < m["times"] / times < 3, verdict
        begins = verdict.kind.capitalize().replace("_", " ") + ": "
        assert m["words"].startswith(begins) and "prove" not in m["words"]
        kinds.append(verdict.kind)
    return kinds


def check_steps(ob, theta, m, dense):
    """Assert that five steps of the first-order methods on the page, and one step of its Newton
    methods, agree with fastcurv. `m` holds the page's numbers, and `dense` is the Hessian.
    """
    for name, method in (("gradient descent", "sgd"), ("momentum", "momentum"), ("Adam", "adam")):
        if m["kind"] != "not_critical":  # `minimize` ends or leaves critical points
            continue
        there = fc.minimize(ob, theta, method, max_iter=5, learning_rate=1e-3).x
        assert np.abs(m["steps"][name] - there).max() <= 1e-11 * max(1.0, np.abs(theta).max())
    gradient = np.array(m["gradient"])
    size = float(np.linalg.norm(gradient))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fc.IndefiniteHessianWarning)
        newton = fc.newton_step(dense, gradient)
    free = fc.saddle_free_newton_step(dense, gradient, damping=min(1e-3, size))
    for name, step in (("Newton", newton), ("saddle-free Newton", free)):
        sizes = np.abs(np.array(m["values"], dtype=float))
        condition = sizes.max() / max(sizes[sizes > m["error"]].min(initial=np.inf), 1e-300)
        gap = np.abs(m["steps"][name] - (theta + step)).max()
        assert gap <= 1e-13 * condition * (np.abs(step).max() + np.abs(theta).max()) + 1e-300, name


@needs_chromium
def test_playground_shows_the_numbers_and_words_of_fastcurv(page, rng):
    kinds = compare_with_fastcurv(page, 10, rng)
    assert set(kinds) >= {"minimum", "saddle", "not_critical"}


@needs_chromium
@pytest.mark.nightly
def test_fifty_networks_of_the_playground_have_the_numbers_of_fastcurv(page, rng):
    kinds = compare_with_fastcurv(page, 50, rng)
    assert min(kinds.count(kind) for kind in ("minimum", "saddle", "not_critical")) >= 5


CONTROLS = """
const byId = (id) => document.getElementById(id);
const choose = (id, value) => {
  byId(id).value = value;
  byId(id).dispatchEvent(new Event("change"));
};
const seen = () => {
  const text = (id) => byId(id).textContent, facts = {};
  for (const name of ["loss", "counts", "lowest", "units", "step"]) facts[name] = text(`f-${name}`);
  return { ...facts, kind: byId("words").dataset.kind, words: text("words"), done: text("done") };
};
const click = (id) => {
  byId(id).click();
  return seen();
};
const train = async (method, most) => {
  choose("method", method);
  click("train");
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  for (let k = 0; k < most && byId("train").textContent === "Stop"; k++) await frame();
  if (byId("train").textContent === "Stop") click("train");
  return seen();
};
const without = (boxes, good) => boxes.filter((box) => !good(box)).map((box) => box.id);
(async () => {
  const out = { start: seen(), runs: {} };
  for (const method of ["gradient descent", "momentum", "Adam"])
    out.runs[method] = await train(method, 10);
  out.free = await train("saddle-free Newton", 1e4);
  for (const id of ["one", "perturb", "widen", "permute", "escape"]) out[id] = click(id);
  choose("data", "toy");
  out.toy = seen();
  out.toyEscape = click("escape");
  out.toyEnd = await train("gradient descent", 1e3);
  choose("data", "moons");
  out.moons = seen();
  choose("from", "plateau");
  out.plateau = await train("gradient descent", 2);
  choose("from", "equal");
  out.equal = await train("saddle-free Newton", 1e4);
  byId("batches").checked = true;
  choose("from", "random");
  out.batches = await train("gradient descent", 10);
  byId("batches").checked = false;
  choose("data", "toy");
  choose("method", "gradient descent");
  click("restart");
  byId("rate").value = 1;
  byId("rate").dispatchEvent(new Event("input"));
  out.rate = byId("rate").ariaValueText;
  for (let k = 0; k < 2; k++) {
    click("train");
    for (let wait = 0; wait < 50; wait++) await new Promise((done) => requestAnimationFrame(done));
    click("perturb");
    click("permute");
  }
  out.diverged = { ...seen(), train: byId("train").textContent };
  choose("data", "moons");
  out.runs.Newton = await train("Newton", 100);
  click("all");
  const all = [...document.querySelectorAll("button, select, input, summary, [tabindex]")];
  const boxes = all.filter((box) => box.getClientRects().length);
  const named = (box) => box.ariaLabel || box.textContent.trim() || (box.labels || []).length;
  out.unnamed = without(boxes, named);
  out.outside = without(boxes, (box) => box.getBoundingClientRect().right <= innerWidth);
  out.unreachable = without(boxes, (box) => box.tabIndex >= 0);
  out.unseen = without(boxes.filter((box) => !box.disabled), (box) => {
    box.focus({ focusVisible: true });
    return document.activeElement === box && getComputedStyle(box).outlineStyle !== "none";
  });
  out.pictures = [...document.querySelectorAll("canvas[role=img]")].map((c) => c.ariaLabel);
  out.live = byId("words").closest("[aria-live=polite]") !== null;
  out.wide = document.documentElement.scrollWidth;
  report(out);
})();
"""


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_every_control_of_the_playground_works_by_keyboard_at_both_widths(page, width):
    seen = run_in_browser(page, CONTROLS, width)
    assert seen["wide"] <= width and seen["outside"] == [] and seen["live"]
    assert seen["unnamed"] == seen["unreachable"] == seen["unseen"] == []
    assert len(seen["pictures"]) == 3 and all(len(name) > 20 for name in seen["pictures"])
    assert seen["start"]["kind"] == "not_critical" and seen["start"]["units"] == "4"
    losses = [float(run["loss"]) for run in [seen["start"], *seen["runs"].values()][:4]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert {run["kind"] for run in seen["runs"].values()} <= KINDS
    assert seen["free"]["kind"] == "minimum", seen["free"]
    assert seen["free"]["counts"] == "0 negative, 0 zero, 17 positive"
    assert seen["one"]["kind"] == "minimum"
    assert seen["perturb"]["kind"] == "not_critical" and "Noise" in seen["perturb"]["done"]
    assert seen["widen"]["units"] == "5" and seen["widen"]["loss"] == seen["perturb"]["loss"]
    assert seen["permute"]["loss"] == seen["widen"]["loss"]
    assert seen["permute"]["counts"] == seen["widen"]["counts"]
    assert float(seen["escape"]["loss"]) < float(seen["permute"]["loss"])
    assert seen["toy"]["kind"] == "saddle" and seen["toy"]["lowest"] == "\u22122"
    assert float(seen["toyEscape"]["loss"].replace("\u2212", "-")) < 1e-9
    assert seen["toyEnd"]["kind"] == "minimum" and "except one" in seen["toyEnd"]["words"]
    assert seen["moons"]["kind"] == "not_critical" and seen["moons"]["step"] == "0"
    assert 0.69 < float(seen["plateau"]["loss"]) < 0.7, seen["plateau"]
    assert seen["equal"]["kind"] == "saddle", seen["equal"]
    assert float(seen["batches"]["loss"]) < float(seen["moons"]["loss"])
    assert seen["rate"] == "10" and seen["diverged"]["train"] == "Train"
    assert "not finite" in seen["diverged"]["words"] and seen["diverged"]["loss"] == "infinity"


CLICKS = """
const byId = (id) => document.getElementById(id), { uniform } = numerics.random(SEED);
const pick = (list) => list[Math.floor(uniform() * list.length)];
const usable = (id) => byId(id).getClientRects().length && !byId(id).disabled;
const pickId = (list) => pick(list.filter(usable));
const actions = ["train", "train", "one", "escape", "widen", "permute", "perturb", "restart"];
const set = (box, value, event) => {
  box.value = value;
  box.dispatchEvent(new Event(event));
};
const spoken = () => [...document.querySelectorAll("[aria-label], [aria-valuetext]")]
  .map((box) => `${box.ariaLabel} ${box.ariaValueText}`).join(" ") + document.body.innerText;
(async () => {
  const wrong = [];
  byId("all").open = true;
  set(byId("data"), "toy", "change");
  for (let k = 0; k < N_CLICKS; k++) {
    const kind = uniform();
    let did = "wait";
    if (kind < 0.65) byId((did = pickId(actions))).click();
    else if (kind < 0.75) {
      did = pickId(k < N_CLICKS / 2 ? ["method"] : ["data", "units", "decay", "method"]);
      set(byId(did), pick([...byId(did).options]).value, "change");
    } else if (kind < 0.9) {
      did = pickId(["rate", "rate", "w1", "w2", "plane"]);
      if (did !== "plane") set(byId(did), pick([-2.5, 2.5, -3 + 5.5 * uniform()]), "input");
    } else if (kind < 0.95) {
      const r = byId((did = "plane")).getBoundingClientRect();
      const at = { clientX: r.left + r.width * uniform(), clientY: r.top + r.height * uniform() };
      byId("plane").dispatchEvent(new PointerEvent("pointerdown", at));
    }
    for (let wait = 0; wait < 3; wait++) await new Promise((done) => requestAnimationFrame(done));
    const found = spoken().match(/.{0,40}(NaN|Infinity|undefined)/s);
    if (found) wrong.push([k, did, found[0]]);
  }
  report(wrong);
})();
"""


@needs_chromium
@pytest.mark.nightly
def test_two_thousand_random_clicks_in_the_playground_raise_no_error(page, rng):
    seed = f"const SEED = {rng.integers(2**31)}, N_CLICKS = 2000;"
    assert run_in_browser(page, seed + CLICKS) == []


def test_the_playground_is_one_file_that_loads_nothing(page):
    text = page.read_text()
    assert not re.search(
        r"""https?:|url\(|@import|<(script|link|img|iframe)[^>]+(src|href)""", text
    )
    assert (EXAMPLES / "playground.js").read_text() in text
    assert page.stat().st_size < 60_000
    words = re.findall(r"`([A-Z][a-z ]+): ", text)
    named = {word.lower().replace(" ", "_") for word in words}
    assert named >= KINDS, named
