"use strict";
{
  const table = document.getElementById("candidates"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells], names = heads.map((head) => head.textContent);
  const kinds = heads.map((head) => head.dataset.kind);
  const candidates = [...body.rows].map((row) => {
    const cells = [...row.cells];
    return {
      row,
      texts: cells.map((cell) => cell.textContent),
      words: cells.map((cell) => cell.textContent.toLowerCase()),
      keys: cells.map((cell) => (cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key))),
    };
  });
  const choices = names.flatMap((_, column) => (kinds[column] === "choice" ? [column] : []));
  const figures = names.flatMap((_, column) =>
    kinds[column] === "figure" && candidates.some((candidate) => isFinite(candidate.keys[column])) ? [column] : []);
  const state = names.lastIndexOf("state"), accuracy = (column) => names[column].endsWith("(%)");
  const known = (name) => figures.find((column) => names[column] === name);

  // What is made here is text, never markup: names come from others.
  const make = (tag, properties = {}, ...inner) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inner);
    return element;
  };
  const draw = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(text);
    return element;
  };
  const choose = (label, options, chosen, change) => {
    const select = make("select", {}, ...options.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = chosen;
    select.addEventListener("change", change);
    return [make("label", {}, make("span", { className: "soft small", textContent: label }), select), select];
  };
  const values = (column) => {
    const found = new Map(candidates.map((candidate) => [candidate.texts[column], candidate.keys[column]]));
    return [...found].sort((a, b) => (a[1] < b[1] ? -1 : 1)).map(([text]) => text);
  };

  // The table: words anywhere, a value for each choice, and a column to sort by.
  const bar = document.getElementById("filter"), status = make("span", { className: "soft small" });
  status.setAttribute("role", "status");
  const input = make("input", { type: "search", placeholder: "Search, e.g.: batch relu" });
  input.setAttribute("aria-label", "Search the candidates");
  const filters = [...choices, state].map((column) => {
    const [label, select] = choose(names[column], [["", "all"], ...values(column).map((text) => [`=${text}`, text])], "",
      () => filter());
    return { column, label, select };
  });
  const reset = make("button", { type: "button", textContent: "Show all" });
  reset.addEventListener("click", () => {
    input.value = "";
    for (const { select } of filters) select.value = "";
    filter();
  });
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const asked = filters.filter(({ select }) => select.value);
    let shown = 0;
    for (const candidate of candidates) {
      candidate.shown = words.every((word) => candidate.words.some((text) => text.startsWith(word)))
        && asked.every(({ column, select }) => `=${candidate.texts[column]}` === select.value);
      candidate.row.hidden = !candidate.shown;
      shown += candidate.shown;
    }
    status.textContent = `${shown.toLocaleString("en")} of ${candidates.length.toLocaleString("en")}`;
    explore();
  };
  const sort = (column) => {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const x = a.keys[column], y = b.keys[column];
      if (x === Infinity || y === Infinity) return (x === Infinity) - (y === Infinity); // without a value: always last
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    };
    body.append(...candidates.sort(compare).map((candidate) => candidate.row));
  };
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  input.addEventListener("input", () => filter());
  bar.append(input, ...filters.map(({ label }) => label), reset, status);

  // A scatter plot of two columns: nearest point under the pointer explained, a click leads to its row.
  const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a", "#b5a600"];
  const HEIGHT = 400, LEFT = 62, RIGHT = 14, TOP = 12, BOTTOM = 46;
  const spell = (value) => {
    for (const [factor, unit] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]])
      if (Math.abs(value) >= factor) return `${Number((value / factor).toPrecision(4))}${unit}`;
    return String(Number(value.toPrecision(6)));
  };
  const scaled = (column, candidate) => candidate.keys[column] * (accuracy(column) ? 100 : 1);
  const axis = (found, from, to) => {
    let low = Math.min(...found), high = Math.max(...found);
    const log = low > 0 && high > 20 * low;
    const map = log ? Math.log10 : Number;
    const marks = [];
    if (low === high) {
      marks.push(low);
    } else if (log) {
      const factors = high > 1e3 * low ? [1] : [1, 2, 5];
      for (let power = Math.floor(map(low)); power <= map(high); power++)
        marks.push(...factors.map((factor) => factor * 10 ** power));
    } else {
      const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
      for (let mark = Math.ceil(low / step - 1); mark <= high / step + 1; mark++) marks.push(mark * step);
    }
    const spare = 0.04 * (map(high) - map(low)) || 0.5;
    const [first, last] = [map(low) - spare, map(high) + spare];
    const place = (value) => from + ((map(value) - first) / (last - first)) * (to - from);
    return { place, marks: marks.filter((mark) => map(mark) >= first && map(mark) <= last) };
  };
  const scatter = (box, x, y, colour, shown, labelled = false) => {
    box.replaceChildren();
    const WIDTH = Math.min(640, box.clientWidth || 640); // so that letters keep their size on a narrow screen
    const points = shown.filter((one) => isFinite(one.keys[x]) && isFinite(one.keys[y]));
    if (!points.length) return void box.append(make("p", { className: "soft", textContent: "No candidate that is shown has both figures." }));
    const across = axis(points.map((one) => scaled(x, one)), LEFT, WIDTH - RIGHT);
    const up = axis(points.map((one) => scaled(y, one)), HEIGHT - BOTTOM, TOP);
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    svg.setAttribute("aria-label", `${names[y]} against ${names[x]} of ${points.length} candidates; the table has the figures`);
    for (const mark of across.marks) {
      const at = across.place(mark);
      svg.append(draw("line", { x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM, class: "grid" }));
      svg.append(draw("text", { x: at, y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, spell(mark)));
    }
    for (const mark of up.marks) {
      const at = up.place(mark);
      svg.append(draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at, class: "grid" }));
      svg.append(draw("text", { x: LEFT - 7, y: at + 4, "text-anchor": "end" }, spell(mark)));
    }
    svg.append(draw("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle", class: "name" }, names[x]));
    svg.append(draw("text", { transform: `translate(15 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle", class: "name" }, names[y]));
    const groups = colour === undefined ? [""] : values(colour);
    const paint = (one) => PALETTE[(colour === undefined ? 0 : groups.indexOf(one.texts[colour])) % PALETTE.length];
    const placed = points.map((one) => ({ one, x: across.place(scaled(x, one)), y: up.place(scaled(y, one)) }));
    const cut = (one) => one.texts[state] !== "complete";
    for (const point of [...placed].sort((a, b) => cut(b.one) - cut(a.one)))
      svg.append(draw("circle", { cx: point.x, cy: point.y, r: 4, fill: cut(point.one) ? "none" : paint(point.one), stroke: paint(point.one), class: cut(point.one) ? "cut" : "" }));
    if (labelled) {
      const best = Math.min(...placed.map((point) => point.y));
      for (const point of placed.filter((one) => one.y === best)) svg.append(draw("circle", { cx: point.x, cy: point.y, r: 6, class: "best" }));
      const spots = new Map();
      for (const point of placed) {
        const spot = `${point.x} ${point.y}`;
        spots.set(spot, { point, ranks: [...(spots.get(spot)?.ranks ?? []), point.one.texts[0]] });
      }
      for (const { point, ranks } of spots.values()) {
        const left = point.x > WIDTH - RIGHT - 60;
        svg.append(draw("text", { x: point.x + (left ? -9 : 9), y: point.y - 7, "text-anchor": left ? "end" : "start" }, ranks.join(", ")));
      }
    }
    if (!accuracy(x) && accuracy(y) && x !== known("proxy epochs")) {
      const front = [];
      for (const point of placed.filter(({ one }) => !cut(one)).sort((a, b) => a.x - b.x || a.y - b.y))
        if (!front.length || point.y < front.at(-1).y) front.push(point);
      const path = front.map((point, i) => (i ? `H${point.x}V${point.y}` : `M${point.x} ${point.y}`)).join("");
      svg.append(draw("path", { d: path, class: "front" }));
    }
    const ring = draw("circle", { r: 7, class: "ring", visibility: "hidden" }), tip = make("div", { className: "tip", hidden: true });
    svg.append(ring);
    const nearest = (event) => {
      const frame = svg.getBoundingClientRect(), unit = WIDTH / frame.width;
      const at = { x: (event.clientX - frame.left) * unit, y: (event.clientY - frame.top) * unit };
      const far = (point) => Math.hypot(point.x - at.x, point.y - at.y);
      const best = placed.reduce((a, b) => (far(b) < far(a) ? b : a));
      return far(best) < 24 * unit ? best : undefined;
    };
    const tell = (event) => {
      const point = nearest(event);
      tip.hidden = !point;
      ring.setAttribute("visibility", point ? "visible" : "hidden");
      if (!point) return;
      ring.setAttribute("cx", point.x);
      ring.setAttribute("cy", point.y);
      const { texts } = point.one, twins = placed.filter((other) => other.x === point.x && other.y === point.y).length - 1;
      const config = choices.map((column) => `${names[column]} ${texts[column]}`).join(", ");
      tip.replaceChildren(
        make("b", { textContent: `rank ${texts[0]}: ${config}` }),
        ...[...new Set([y, x])].map((column) => make("div", { textContent: `${names[column]}: ${texts[column]}` })),
        ...(cut(point.one) ? [make("div", { textContent: texts[state] === "pruned" ? "cut early" : texts[state] })] : []),
        ...(twins ? [make("div", { textContent: `and ${twins} more at the same place` })] : []),
      );
      const right = point.x > WIDTH / 2, below = point.y < HEIGHT / 2;
      tip.style.inset = `${below ? `${(100 * (point.y + 10)) / HEIGHT}%` : "auto"} ${right ? `${100 - (100 * (point.x - 10)) / WIDTH}%` : "auto"} ${below ? "auto" : `${100 - (100 * (point.y - 10)) / HEIGHT}%`} ${right ? "auto" : `${(100 * (point.x + 10)) / WIDTH}%`}`;
    };
    svg.addEventListener("pointermove", tell);
    svg.addEventListener("pointerdown", tell);
    svg.addEventListener("pointerleave", () => {
      tip.hidden = true;
      ring.setAttribute("visibility", "hidden");
    });
    svg.addEventListener("click", (event) => {
      const point = nearest(event);
      if (!point) return;
      for (const { row } of candidates) row.classList.toggle("picked", row === point.one.row);
      point.one.row.hidden = false;
      const pane = table.parentElement;
      pane.scrollTop = point.one.row.offsetTop - pane.clientHeight / 2;
    });
    box.append(make("div", { className: "plot" }, svg, tip));
    if (colour !== undefined)
      box.append(make("div", { className: "legend" }, ...groups.map((text, i) => {
        const dot = make("i");
        dot.style.background = PALETTE[i % PALETTE.length];
        return make("span", {}, dot, text);
      })));
  };

  const proxy = known("proxy accuracy (%)"), whole = known("whole-data accuracy (%)");
  const trust = document.getElementById("trust-plot");
  if (proxy !== undefined && whole !== undefined) {
    scatter(trust, proxy, whole, undefined, candidates, true);
    trust.previousElementSibling.hidden = true; // the drawing for those who run no scripts
  }
  const controls = document.getElementById("explore"), plot = document.getElementById("explore-plot");
  const columns = figures.map((column) => [String(column), names[column]]);
  const [xLabel, xSelect] = choose("across", columns, String(known("multiply-adds") ?? figures[0]), () => explore());
  const [yLabel, ySelect] = choose("up", columns, String(proxy ?? figures[0]), () => explore());
  const [colourLabel, colourSelect] = choose("colour", choices.map((column) => [String(column), names[column]]),
    String(names.indexOf(controls.dataset.colour)), () => explore());
  const explore = () => scatter(plot, Number(xSelect.value), Number(ySelect.value),
    colourSelect.value ? Number(colourSelect.value) : undefined, candidates.filter((candidate) => candidate.shown));
  controls.append(xLabel, yLabel, colourLabel);
  document.getElementById("explore-note").hidden = false;
  filter();
}
