// The page: sections of a document, and, on a board, the list of what can be seen and its renewal.

const state = { smoothing: 0, runs: false, off: new Set(), choices: {}, limits: {}, sort: {} };
let current = JSON.parse(document.getElementById("document").textContent);
const main = document.getElementById("main");

function draw() {
  hideTip();
  const place = scrollY;
  main.replaceChildren(html("h1", {}, current.title), html("p", { class: "sub" }, current.subtitle || ""));
  document.title = current.title;
  if (current.verdict) main.append(html("div", { class: `card verdict${current.winner ? " won" : ""}` }, current.verdict));
  for (const note of current.notes || []) main.append(html("div", { class: "note" }, note));
  if ((current.tiles || []).length) main.append(html("div", { class: "tiles" }, ...current.tiles.map(([label, value]) => html("div", { class: "tile" }, html("b", { title: value }, value), html("span", {}, label)))));
  for (const section of current.sections || []) main.append(card(section));
  main.append(html("footer", {}, current.footer || ""));
  scrollTo(0, place);
}

function card(section) {
  const buttons = html("div", { class: "buttons" }), body = html("div", {});
  const head = html("div", { class: "head" }, html("div", {}, html("h2", {}, section.title), html("p", { class: "text" }, section.text || "")), buttons);
  const whole = html("section", { class: "card", "data-kind": section.kind }, head, body);
  queueMicrotask(() => DRAWN[section.kind](section, body, buttons));
  return whole;
}

const DRAWN = {
  curves: drawCurves,
  forest: (section, body) => body.append(forest(section, body.clientWidth)),
  bars: (section, body) => body.append(bars(section, body.clientWidth)),
  front: (section, body) => body.append(front(section, body.clientWidth)),
  parallel: drawParallel,
  table: drawTable,
  commands: (section, body) => body.append(...section.items.map(([title, command]) => html("div", { class: "command" }, html("div", {}, html("span", {}, title), html("code", {}, command)), copyButton("Copy", () => command)))),
};

function drawCurves(section, body) {
  const names = [...new Set(section.panels.flatMap((panel) => panel.series.map((one) => one.name)))];
  const bar = html("div", { class: "bar" }), legend = html("div", { class: "legend" }), panels = html("div", { class: `panels${section.wide || section.choose ? " one" : ""}` });
  const redraw = () => {
    let seen = section.panels;
    if (section.choose) seen = [section.panels.find((panel) => panel.title === state.choices[section.title]) || section.panels[0]];
    const boxes = seen.map((panel) => html("div", {}, section.choose || section.panels.length < 2 ? null : html("h3", {}, panel.title)));
    panels.replaceChildren(...boxes);  // all of them, so that each knows its width
    seen.forEach((panel, place) => {
      const height = section.wide || section.choose ? 320 : 250;
      boxes[place].append(lineChart(panel, boxes[place].clientWidth, { smoothing: section.smooth === false ? 0 : state.smoothing, runs: state.runs, off: state.off, height }));
    });
  };
  if (section.choose) {
    const select = html("select", { "aria-label": section.choose, onchange: (event) => { state.choices[section.title] = event.target.value; redraw(); } });
    for (const panel of section.panels) select.append(html("option", { selected: panel.title === state.choices[section.title] }, panel.title));
    bar.append(html("label", {}, section.choose, select));
  }
  if (section.smooth !== false) {
    const slider = html("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.smoothing, "aria-label": "smoothing", oninput: (event) => { state.smoothing = +event.target.value; redraw(); } });
    bar.append(html("label", {}, "smoothing", slider));
  }
  if (section.panels.some((panel) => panel.series.some((one) => (one.runs || []).length > 1))) {
    bar.append(html("label", {}, html("input", { type: "checkbox", checked: state.runs, onchange: (event) => { state.runs = event.target.checked; redraw(); } }), "single runs"));
  }
  if (names.length > 1 && !section.choose) {
    names.forEach((name) => {
      const index = section.panels.flatMap((panel) => panel.series.map((one, place) => [one.name, one.colour ?? place])).find(([one]) => one === name)[1];
      const button = html("button", { class: state.off.has(name) ? "off" : "", "aria-pressed": String(!state.off.has(name)), onclick: () => { state.off.has(name) ? state.off.delete(name) : state.off.add(name); button.className = state.off.has(name) ? "off" : ""; button.setAttribute("aria-pressed", String(!state.off.has(name))); redraw(); } }, html("i", { style: `background:${colour(index)}` }), name);
      legend.append(button);
    });
  }
  body.append(bar, legend, panels);
  redraw();
}

function drawParallel(section, body) {
  const limits = (state.limits[section.title] ??= {});
  const redraw = () => body.replaceChildren(parallel(section, body.clientWidth, limits, redraw));
  redraw();
}

function drawTable(section, body, buttons) {
  const numbers = section.columns.map((_, place) => section.rows.every((row) => row[place] === null || typeof row[place] === "number" || row[place] === ""));
  const cell = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : typeof value === "number" ? shown(value, 4) : value === null ? "–" : value);
  const rows = () => {
    const [place, sign] = state.sort[section.title] || [null, 1];
    const ordered = [...section.rows];
    if (place !== null) ordered.sort((a, b) => sign * (typeof a[place] === "number" && typeof b[place] === "number" ? a[place] - b[place] : String(a[place] ?? "").localeCompare(String(b[place] ?? ""), undefined, { numeric: true })));
    return ordered;
  };
  const redraw = () => body.replaceChildren(html("div", { class: "scroll" }, html("table", {},
    html("thead", {}, html("tr", {}, ...section.columns.map((title, place) => html("th", { class: numbers[place] ? "number" : "", onclick: () => { const [old, sign] = state.sort[section.title] || []; state.sort[section.title] = [place, old === place ? -sign : 1]; redraw(); } }, title)))),
    html("tbody", {}, ...rows().map((row) => html("tr", {}, ...row.map((value, place) => html("td", { class: numbers[place] ? "number" : "" }, String(cell(value))))))))));
  const plain = (separator) => [section.columns, ...rows()].map((row) => row.map((value) => value ?? "").join(separator));
  buttons.append(copyButton("Copy", () => plain("\t").join("\n")));
  buttons.append(copyButton("Markdown", () => { const lines = plain(" | ").map((line) => `| ${line} |`); lines.splice(1, 0, `|${section.columns.map(() => "---").join("|")}|`); return lines.join("\n"); }));
  redraw();
}

function copyButton(label, content) {
  const button = html("button", { onclick: async () => {
    const said = await copied(content()) ? "Copied" : "Not allowed";
    button.textContent = said;
    setTimeout(() => { button.textContent = label; }, 1200);
  } }, label);
  return button;
}

async function copied(content) {
  try { await navigator.clipboard.writeText(content); return true; } catch { /* a file has no clipboard in some browsers */ }
  const area = html("textarea", { style: "position:fixed;opacity:0" });
  area.value = content;
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  return worked;
}

// -------------------------------------------------------------------------------------------------------------- board

async function renew(board) {
  try {
    const list = await (await fetch("list.json")).json();
    const wanted = location.hash ? decodeURIComponent(location.hash.slice(1)) : list.entries[0]?.path ?? "";
    const nav = document.getElementById("runs");
    nav.hidden = false;
    nav.replaceChildren(html("h2", {}, "Ridgeline"), html("p", {}, list.directory), ...list.entries.map((entry) => html("button", { class: entry.path === wanted ? "on" : "", onclick: () => { location.hash = encodeURIComponent(entry.path); renewNow(); } }, entry.name, html("span", { class: entry.live ? "live" : "" }, entry.text))));
    const answer = await fetch(`page.json?path=${encodeURIComponent(wanted)}`);
    const next = await answer.text();
    if (next !== board.last && !document.querySelector("select:focus, input:active")) { board.last = next; current = JSON.parse(next); draw(); }
    board.failed = false;
  } catch (error) {
    if (!board.failed) { board.failed = true; main.prepend(html("div", { class: "note" }, "The board does not answer; it may have been stopped.")); }
  }
}

let renewNow = () => {};
if (current.live) {
  const board = { last: "", failed: false };
  renewNow = () => renew(board);
  renewNow();
  setInterval(renewNow, 1000 * current.live);
  addEventListener("hashchange", renewNow);
} else draw();
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
