/* Charts of a report: lines with bands and ticks, to pan and zoom on both axes, and dots of which one
   is chosen; buttons that copy a call. Nothing is loaded. */
"use strict";
(function () {
  const NS = "http://www.w3.org/2000/svg";
  const el = (name, attributes, parent, text) => {
    const e = document.createElementNS(NS, name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    if (text !== undefined) e.textContent = text;
    if (parent) parent.appendChild(e);
    return e;
  };
  /* A scale maps a value to a coordinate in which the axis is even, and back. */
  const SCALES = {
    linear: () => ({ to: (x) => x, from: (u) => u }),
    log: () => ({ to: (x) => Math.log10(Math.max(x, 1e-300)), from: (u) => Math.pow(10, u) }),
    asinh: (w) => ({
      to: (x) => Math.asinh(x / w) / Math.LN10,
      from: (u) => Math.sinh(u * Math.LN10) * w,
    }),
  };
  const short = (x) => {
    if (x === 0) return "0";
    const size = Math.abs(x);
    const rounded = +x.toPrecision(6); // 3 * 2e-4 is 6.000000000000001e-4
    if (size >= 1e5 || size < 1e-3) return rounded.toExponential().replace("e+", "e");
    return String(rounded);
  };
  const evenTicks = (low, high, n) => {
    const raw = (high - low) / n;
    const unit = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 5, 10].find((k) => k * unit >= raw) * unit;
    const ticks = [];
    for (let k = Math.ceil(low / step); k * step <= high * (1 + 1e-12) + 1e-300 && ticks.length < 40; k++)
      ticks.push(k * step);
    return ticks;
  };
  const ticksOf = (kind, scale, low, high, n) => {
    if (kind === "linear") return evenTicks(low, high, n).map((x) => [x, short(x)]);
    const powers = [];
    for (let k = -40; k <= 40; k++) powers.push(Math.pow(10, k));
    const wanted = kind === "log" ? powers : [...powers.map((x) => -x), 0, ...powers];
    let inside = wanted.filter((x) => scale.to(x) >= low && scale.to(x) <= high);
    if (kind === "asinh") inside = inside.filter((x) => x === 0 || Math.abs(scale.to(x)) > 0.3);
    for (const steps of [[1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]])
      if (kind === "log" && inside.length < 3)
        inside = powers.flatMap((p) => steps.map((k) => k * p)).filter((x) => scale.to(x) >= low && scale.to(x) <= high);
    if (inside.length < 2) return evenTicks(low, high, n).map((u) => [scale.from(u), short(+scale.from(u).toPrecision(3))]);
    const every = Math.ceil(inside.length / n);
    return inside.filter((_, i) => i % every === 0).map((x) => [x, short(x)]);
  };

  /* Draw grid, labels and frame of a view; px and py map coordinates in which the axes are even. */
  const pixels = (view, size) => ({
    px: (u) => size.l + ((u - view.x0) / (view.x1 - view.x0)) * size.w,
    py: (w) => size.t + size.h - ((w - view.y0) / (view.y1 - view.y0)) * size.h,
  });
  function sized(box, svg) {
    const W = Math.max(280, box.clientWidth), H = Math.max(240, Math.min(420, 0.62 * W));
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
    svg.setAttribute("width", W);
    svg.setAttribute("height", H);
    svg.replaceChildren();
    return { l: 56, t: 24, w: W - 66, h: H - 66, W, H };
  }
  function axes(svg, v, scales, view, size, clip) {
    const { px, py } = pixels(view, size);
    const frame = { x: size.l, y: size.t, width: size.w, height: size.h };
    el("rect", frame, el("clipPath", { id: clip }, el("defs", {}, svg)));
    for (const [x, text] of ticksOf(v.x, scales.x, view.x0, view.x1, size.W / 80)) {
      const at = px(scales.x.to(x));
      el("line", { x1: at, x2: at, y1: size.t, y2: size.t + size.h, class: x === 0 ? "zero" : "grid" }, svg);
      el("text", { x: at, y: size.t + size.h + 16, "text-anchor": "middle" }, svg, text);
    }
    for (const [y, text] of ticksOf(v.y, scales.y, view.y0, view.y1, size.H / 50)) {
      const at = py(scales.y.to(y));
      el("line", { x1: size.l, x2: size.l + size.w, y1: at, y2: at, class: "grid" }, svg);
      el("text", { x: size.l - 6, y: at + 4, "text-anchor": "end" }, svg, text);
    }
    el("rect", { ...frame, class: "frame" }, svg);
    const fitted = (text, room) => (text.length * 6.7 > room ? text.slice(0, Math.floor(room / 6.7) - 1) + "\u2026" : text);
    const middle = { x: size.l + size.w / 2, y: size.H - 4, "text-anchor": "middle", class: "name" };
    el("text", middle, svg, fitted(v.xlabel, size.w + 20));
    el("text", { x: size.l, y: size.t - 8, class: "name" }, svg, fitted(v.ylabel, size.w));
  }

  function chart(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const svg = el("svg", { role: "img", tabindex: "0" });
    svg.setAttribute("aria-label", data.label);
    box.insertBefore(svg, box.firstChild);
    const bar = document.createElement("div");
    bar.className = "bar";
    if (!data.still || data.views.length > 1) box.insertBefore(bar, svg.nextSibling);
    const clip = "clip" + Math.random().toString(36).slice(2);
    let which = 0, view, scales, size;

    const whole = () => {
      const v = data.views[which];
      scales = { x: SCALES[v.x](v.width), y: SCALES[v.y](1) };
      const xs = [], ys = [];
      for (const line of v.lines) {
        for (const x of line.x) xs.push(scales.x.to(x));
        const reached = data.still ? line.y.concat(line.low || [], line.high || []) : line.y;
        for (const y of reached) if (y !== null && (v.y !== "log" || y > 0)) ys.push(scales.y.to(y));
      }
      let [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [Math.min(...ys), Math.max(...ys)];
      if (v.floor !== undefined && v.floor !== null) y0 = Math.max(y0, scales.y.to(v.floor));
      if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
      if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
      const mx = 0.02 * (x1 - x0), my = 0.05 * (y1 - y0);
      return { x0: x0 - mx, x1: x1 + mx, y0: y0 - my, y1: y1 + my };
    };

    function draw() {
      const v = data.views[which];
      size = sized(box, svg);
      const { px, py } = pixels(view, size);
      axes(svg, v, scales, view, size, clip);
      const inner = el("g", { "clip-path": `url(#${clip})` }, svg);
      const low = view.y0 - 2 * (view.y1 - view.y0);
      const point = (x, y) => {
        const w = y === null || (v.y === "log" && !(y > 0)) ? low : Math.max(low, scales.y.to(y));
        return `${px(scales.x.to(x)).toFixed(2)},${py(w).toFixed(2)}`;
      };
      v.lines.forEach((line, i) => {
        if (line.low) {
          const up = line.x.map((x, k) => point(x, line.high[k]));
          const down = line.x.map((x, k) => point(x, line.low[k])).reverse();
          el("polygon", { points: up.concat(down).join(" "), class: `band c${i}` }, inner);
        }
        el("polyline", { points: line.x.map((x, k) => point(x, line.y[k])).join(" "), class: `line c${i}` }, inner);
        if (line.dots)
          line.x.forEach((x, k) => {
            const [cx, cy] = point(x, line.y[k]).split(",");
            el("circle", { cx, cy, r: 2.5, class: `dot c${i}` }, inner);
          });
      });
      for (const x of v.ticks || []) {
        const at = px(scales.x.to(x));
        el("line", { x1: at, x2: at, y1: size.t + size.h - 12, y2: size.t + size.h, class: x < 0 ? "tick below" : "tick" }, inner);
      }
      box.dataset.view = [view.x0, view.x1, view.y0, view.y1].map((x) => x.toPrecision(6)).join(" ");
      box.dataset.ready = "yes";
    }
    /* Zoom by a factor about a point given as shares of the frame; 1 leaves an axis alone. */
    function zoom(fx, fy, ax = 0.5, ay = 0.5) {
      const cx = view.x0 + ax * (view.x1 - view.x0), cy = view.y0 + ay * (view.y1 - view.y0);
      view = {
        x0: cx + (view.x0 - cx) * fx, x1: cx + (view.x1 - cx) * fx,
        y0: cy + (view.y0 - cy) * fy, y1: cy + (view.y1 - cy) * fy,
      };
      draw();
    }
    function pan(dx, dy) {
      const x = dx * (view.x1 - view.x0), y = dy * (view.y1 - view.y0);
      view = { x0: view.x0 + x, x1: view.x1 + x, y0: view.y0 + y, y1: view.y1 + y };
      draw();
    }
    const reset = () => { view = whole(); draw(); };
    const button = (text, title, act) => {
      const b = document.createElement("button");
      b.type = "button";
      b.textContent = text;
      b.title = b.ariaLabel = title;
      b.addEventListener("click", act);
      bar.appendChild(b);
      return b;
    };
    if (!data.still) {
      button("x +", "zoom in along x", () => zoom(0.6, 1));
      button("x \u2212", "zoom out along x", () => zoom(1 / 0.6, 1));
      button("y +", "zoom in along y", () => zoom(1, 0.6));
      button("y \u2212", "zoom out along y", () => zoom(1, 1 / 0.6));
      button("\u2190", "left", () => pan(-0.2, 0));
      button("\u2192", "right", () => pan(0.2, 0));
      button("\u2191", "up", () => pan(0, 0.2));
      button("\u2193", "down", () => pan(0, -0.2));
      button("reset", "show all", reset);
    }
    if (data.views.length > 1) {
      const toggle = button(data.views[1].name, "other axis", () => {
        which = (which + 1) % data.views.length;
        toggle.textContent = data.views[(which + 1) % data.views.length].name;
        reset();
      });
    }
    if (!data.still) {
      svg.addEventListener("wheel", (event) => {
        event.preventDefault();
        const r = svg.getBoundingClientRect(), f = event.deltaY > 0 ? 1.2 : 1 / 1.2;
        const ax = (event.clientX - r.left - size.l) / size.w, ay = 1 - (event.clientY - r.top - size.t) / size.h;
        zoom(event.shiftKey ? 1 : f, event.ctrlKey || event.shiftKey ? f : 1, ax, ay);
      }, { passive: false });
      let held = null;
      svg.addEventListener("pointerdown", (event) => {
        held = [event.clientX, event.clientY];
        svg.setPointerCapture(event.pointerId);
      });
      svg.addEventListener("pointermove", (event) => {
        if (!held) return;
        const [x, y] = held;
        held = [event.clientX, event.clientY];
        pan((x - event.clientX) / size.w, (event.clientY - y) / size.h);
      });
      for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });
      svg.addEventListener("dblclick", reset);
      svg.addEventListener("keydown", (event) => {
        const keys = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
        if (event.key === "+" || event.key === "-") zoom(...(event.key === "+" ? [0.8, 0.8] : [1.25, 1.25]));
        else if (keys[event.key]) pan(...keys[event.key]);
        else return;
        event.preventDefault();
      });
    }
    reset();
    window.addEventListener("resize", draw);
  }

  /* Dots; a click or an arrow key chooses one, and a table has the rows that belong to it. */
  function scatter(box) {
    const data = JSON.parse(box.querySelector("script").textContent), v = data.scatter, n = v.x.length;
    const svg = el("svg", { role: v.others ? "application" : "img", tabindex: "0" });
    svg.setAttribute("aria-label", data.label + (v.others ? " Arrow keys choose a dot." : ""));
    box.insertBefore(svg, box.firstChild);
    const said = document.createElement("div");
    said.setAttribute("aria-live", "polite");
    if (v.others) box.appendChild(said);
    const linear = SCALES.linear(), scales = { x: linear, y: linear };
    const ys = v.y.concat(v.low || [], v.high || []).filter((y) => y !== null), all = ys.concat(v.diagonal ? v.x : []);
    const padded = (low, high) => [low - 0.04 * (high - low || 1), high + 0.04 * (high - low || 1)];
    const [x0, x1] = padded(Math.min(...v.x), Math.max(...v.x)), [y0, y1] = padded(Math.min(...all), Math.max(...all));
    const view = { x0, x1, y0, y1 }, order = [...v.x.keys()].sort((i, j) => v.x[i] - v.x[j] || v.y[i] - v.y[j]);
    const clip = "clip" + Math.random().toString(36).slice(2), where = new Map(v.names.map((name, i) => [name, i]));
    let chosen = v.chosen || 0, at;

    function draw() {
      const size = sized(box, svg), { px, py } = pixels(view, size);
      axes(svg, { x: "linear", y: "linear", ...v.axes }, scales, view, size, clip);
      const inner = el("g", { "clip-path": `url(#${clip})` }, svg);
      if (v.diagonal) el("line", { x1: px(x0), y1: py(x0), x2: px(x1), y2: py(x1), class: "diagonal" }, inner);
      at = v.x.map((x, i) => [px(x), py(v.y[i])]);
      if (v.low)
        for (let i = 0; i < n; i++)
          el("line", { x1: at[i][0], x2: at[i][0], y1: py(v.low[i] ?? y0), y2: py(v.high[i] ?? y1), class: n > 40 ? "interval" : "interval few" }, inner);
      at.forEach(([cx, cy], i) => {
        el("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: 2.6, class: v.out && v.out[i] ? "spot out" : "spot" }, inner);
      });
      if (!v.others) return;
      v.others[chosen].forEach((row, k) => {
        const i = where.get(row);
        if (i !== undefined) el("circle", { cx: at[i][0], cy: at[i][1], r: 4.5, class: v.effects[chosen][k] > 0 ? "spot up" : "spot down" }, inner);
      });
      el("circle", { cx: at[chosen][0], cy: at[chosen][1], r: 7, class: "ring" }, inner);
    }
    const cell = (line, tag, text, look) => {
      const c = document.createElement(tag);
      c.textContent = text;
      if (look) c.className = look;
      line.appendChild(c);
    };
    function show() {
      const p = document.createElement("p"), frame = document.createElement("div"), table = document.createElement("table");
      p.textContent = `Row ${v.names[chosen]}: ${v.about[chosen]}. ${v.change}`;
      frame.className = "wide";
      const head = table.createTHead().insertRow();
      for (const name of v.columns) cell(head, "th", name);
      const body = table.createTBody();
      v.others[chosen].forEach((row, k) => {
        const line = body.insertRow(), effect = v.effects[chosen][k], up = effect > 0;
        cell(line, "td", String(row));
        cell(line, "td", (up ? "\u25b2 up " : "\u25bc down ") + short(Math.abs(effect)), up ? "mark up" : "mark down");
        for (const x of v.rows[row]) cell(line, "td", typeof x === "number" ? short(x) : String(x), "number");
      });
      frame.appendChild(table);
      said.replaceChildren(p, frame);
      box.dataset.chosen = v.names[chosen];
    }
    const choose = (i) => { chosen = i; draw(); show(); };
    if (v.others) {
      svg.addEventListener("click", (event) => {
        const r = svg.getBoundingClientRect(), x = event.clientX - r.left, y = event.clientY - r.top;
        const far = at.map(([cx, cy]) => (cx - x) ** 2 + (cy - y) ** 2);
        choose(far.indexOf(Math.min(...far)));
      });
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -10, ArrowUp: 10 }[event.key];
        if (!step) return;
        choose(order[Math.max(0, Math.min(n - 1, order.indexOf(chosen) + step))]);
        event.preventDefault();
      });
      show();
    }
    draw();
    box.dataset.ready = "yes";
    window.addEventListener("resize", draw);
  }

  function copy(button) {
    button.addEventListener("click", () => {
      const done = () => {
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      };
      const select = () => {
        const area = document.createElement("textarea");
        area.value = button.dataset.code;
        document.body.appendChild(area);
        area.select();
        if (document.execCommand("copy")) done();
        area.remove();
        button.focus();
      };
      if (navigator.clipboard) navigator.clipboard.writeText(button.dataset.code).then(done, select);
      else select();
    });
  }
  document.querySelectorAll(".chart:not(.scatter)").forEach(chart);
  document.querySelectorAll(".scatter").forEach(scatter);
  document.querySelectorAll(".copy").forEach(copy);
})();
