/* A click or an arrow key chooses a dot, and a table has the rows that change its prediction most. */
(() => {
  "use strict";
  const short = (x) => (x !== 0 && (Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3) ? x.toExponential() : String(x));
  function choice(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const svg = figure.querySelector("svg"), dots = [...svg.querySelectorAll(".dot")];
    const words = figure.querySelector("[aria-live]");
    const place = new Map(data.rows.map((row, i) => [row, i]));
    const at = dots.map((dot) => [Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))]);
    const order = [...at.keys()].sort((i, j) => at[i][0] - at[j][0] || at[j][1] - at[i][1]);
    let chosen = data.chosen;
    const cell = (line, text, look) => {
      const made = line.insertCell();
      made.textContent = typeof text === "number" ? short(text) : text;
      made.className = look || (typeof text === "number" ? "number" : "");
    };
    function choose(i) {
      chosen = i;
      for (const dot of dots) dot.classList.remove("up", "down", "now");
      dots[i].classList.add("now");
      const sentence = document.createElement("p"), frame = document.createElement("div");
      sentence.textContent = `${dots[i].textContent}. ${data.sentence}`;
      const table = document.createElement("table"), head = table.createTHead().insertRow();
      for (const name of data.header) head.appendChild(document.createElement("th")).textContent = name;
      const body = table.createTBody();
      data.others[i].forEach((row, k) => {
        const line = body.insertRow(), up = data.effects[i][k] > 0, look = up ? "up" : "down";
        cell(line, data.cells[row][0]);
        cell(line, (up ? "▲ " : "▼ ") + short(Math.abs(data.effects[i][k])), look);
        for (const value of data.cells[row].slice(1)) cell(line, value);
        if (place.has(row)) dots[place.get(row)].classList.add(look);
      });
      frame.className = "wide";
      frame.appendChild(table);
      words.replaceChildren(sentence, frame);
      figure.dataset.chosen = i;
    }
    svg.addEventListener("click", (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(dots[0].getScreenCTM().inverse());
      const far = at.map(([x, y]) => (x - point.x) ** 2 + (y - point.y) ** 2);
      choose(far.indexOf(Math.min(...far)));
    });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -10, ArrowUp: 10 }[event.key];
      if (!step) return;
      choose(order[Math.max(0, Math.min(dots.length - 1, order.indexOf(chosen) + step))]);
      event.preventDefault();
    });
    choose(chosen);
  }
  document.querySelectorAll(".choice").forEach(choice);
})();
