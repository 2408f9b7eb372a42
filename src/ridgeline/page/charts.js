"use strict";
// Charts in SVG: lines with bands, dots with whiskers, a front, parallel coordinates, bars. Data is only ever text.

const COLOURS = 8;
const colour = (index) => `var(--c${index % COLOURS})`;
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shown(value, digits = 4) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(digits)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(digits)}k`;
  if (size > 0 && size < 1e-3) return value.toExponential(Math.min(digits - 1, 2));
  return `${+value.toPrecision(digits)}`;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) found.push(+tick.toPrecision(12));
  return found;
}

function logTicks(low, high) {
  const found = [];
  const factors = Math.log10(high / low) < 2.5 ? [1, 2, 5] : [1];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) found.push(...factors.map((factor) => factor * 10 ** power));
  const inside = found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  return inside.length >= 2 ? inside : [low, Math.sqrt(low * high), high];
}

function scale(values, from, to, log = false, pad = 0.05) {
  const usable = values.filter((value) => known(value) && (!log || value > 0)), take = log ? Math.log10 : (x) => x;
  let low = usable.length ? Math.min(...usable) : log ? 1 : 0, high = usable.length ? Math.max(...usable) : log ? 10 : 1;
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  const margin = (take(high) - take(low)) * pad, a = take(low) - margin, b = take(high) + margin;
  const place = (value) => from + ((take(value) - a) / (b - a)) * (to - from);
  place.invert = (position) => { const x = a + ((position - from) / (to - from)) * (b - a); return log ? 10 ** x : x; };
  place.ticks = (count) => (log ? logTicks(10 ** a, 10 ** b) : ticks(a, b, count));
  return place;
}

// ---------------------------------------------------------------------------------------------------------------- tip

const tip = document.getElementById("tip");
function showTip(event, title, rows) {
  tip.replaceChildren(html("b", {}, title));
  for (const [name, value, mark] of rows) {
    const swatch = mark ? html("i", { style: `background:${mark}` }) : null;
    tip.append(html("div", {}, html("span", {}, swatch, name), html("span", {}, value)));
  }
  tip.className = "on";
  const box = tip.getBoundingClientRect(), right = event.clientX + 16 + box.width > innerWidth;
  tip.style.left = `${Math.max(6, right ? event.clientX - box.width - 16 : event.clientX + 16)}px`;
  tip.style.top = `${Math.max(6, Math.min(event.clientY + 14, innerHeight - box.height - 8))}px`;
}
const hideTip = () => { tip.className = ""; };

// -------------------------------------------------------------------------------------------------------------- lines

function smooth(values, share) {
  const half = Math.round(values.length * share * 0.15);
  if (!half) return values;
  return values.map((value, place) => {
    if (!known(value)) return value;
    const reach = Math.min(half, place, values.length - 1 - place);
    const near = values.slice(place - reach, place + reach + 1).filter(known);
    return near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

function path(x, y, px, py) {
  let text = "", pen = false;
  for (let place = 0; place < x.length; place++) {
    if (!known(y[place])) { pen = false; continue; }
    text += `${pen ? "L" : "M"}${px(x[place]).toFixed(1)},${py(y[place]).toFixed(1)}`;
    pen = true;
  }
  return text;
}

function frame(width, height, px, py, margin, xLabel, yLabel) {
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  for (const tick of py.ticks(4)) {
    picture.append(svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: py(tick), y2: py(tick) }));
    picture.append(text(margin.left - 8, py(tick) + 4, shown(tick), "end"));
  }
  for (const tick of px.ticks(Math.max(2, Math.floor(width / 90)))) picture.append(text(px(tick), height - margin.bottom + 18, shown(tick), "middle"));
  picture.append(svg("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }));
  if (xLabel) picture.append(text(width - margin.right, height - 3, xLabel, "end", "label"));
  if (yLabel) picture.append(text(0, 11, yLabel, "start", "label"));
  return picture;
}

function text(x, y, content, anchor = "start", kind = "") {
  const node = svg("text", { x, y, "text-anchor": anchor, class: kind });
  node.textContent = content;
  return node;
}

function lineChart(panel, width, options) {
  const height = options.height || 250, margin = { left: 52, right: 8, top: 22, bottom: 40 };
  const series = panel.series.map((one, index) => ({ ...one, index: one.colour ?? index })).filter((one) => !options.off.has(one.name));
  for (const one of series) for (const part of ["mean", "low", "high"]) if (one[part]) one[part] = smooth(one[part], options.smoothing);
  const runs = options.runs ? series.flatMap((one) => (one.runs || []).map((run) => ({ index: one.index, x: one.x, run: smooth(run, options.smoothing) }))) : [];
  const all = series.flatMap((one) => [...one.mean, ...(one.low || []), ...(one.high || [])]).concat(runs.flatMap((one) => one.run));
  const px = scale(series.flatMap((one) => one.x), margin.left, width - margin.right, false, 0);
  const py = scale(all, height - margin.bottom, margin.top, panel.log || false);
  const picture = frame(width, height, px, py, margin, panel.x, panel.y);
  for (const one of series) {
    if (!one.low) continue;
    const whole = one.x.map((x, place) => [x, one.low[place], one.high[place]]).filter((row) => row.every(known));
    const upper = whole.map(([x, , high]) => `${px(x).toFixed(1)},${py(high).toFixed(1)}`), lower = whole.map(([x, low]) => `${px(x).toFixed(1)},${py(low).toFixed(1)}`).reverse();
    picture.append(svg("polygon", { points: [...upper, ...lower].join(" "), fill: colour(one.index), opacity: 0.16 }));
  }
  for (const one of runs) picture.append(svg("path", { d: path(one.x, one.run, px, py), fill: "none", stroke: colour(one.index), "stroke-width": 0.8, opacity: 0.45 }));
  for (const one of series) picture.append(svg("path", { d: path(one.x, one.mean, px, py), fill: "none", stroke: colour(one.index), "stroke-width": 2, "stroke-linejoin": "round" }));
  const cursor = svg("line", { class: "axis", y1: margin.top, y2: height - margin.bottom, visibility: "hidden" });
  const area = svg("rect", { x: margin.left, y: margin.top, width: Math.max(1, width - margin.left - margin.right), height: height - margin.top - margin.bottom, fill: "transparent" });
  area.addEventListener("mousemove", (event) => {
    const at = px.invert(((event.clientX - picture.getBoundingClientRect().left) / picture.getBoundingClientRect().width) * width);
    const rows = series.map((one) => {
      const place = one.x.reduce((best, x, index) => (Math.abs(x - at) < Math.abs(one.x[best] - at) ? index : best), 0);
      const band = one.low && known(one.low[place]) ? ` [${shown(one.low[place], 3)}, ${shown(one.high[place], 3)}]` : "";
      return [one.name, shown(one.mean[place]) + band, colour(one.index), one.mean[place]];
    });
    rows.sort((a, b) => (b[3] ?? -Infinity) - (a[3] ?? -Infinity));
    cursor.setAttribute("x1", px(at)); cursor.setAttribute("x2", px(at)); cursor.setAttribute("visibility", "visible");
    showTip(event, `${shown(at, 3)} ${panel.x || ""}`, rows);
  });
  area.addEventListener("mouseleave", () => { hideTip(); cursor.setAttribute("visibility", "hidden"); });
  picture.append(cursor, area);
  return picture;
}

// -------------------------------------------------------------------------------------------- dots, bars, front, axes

function forest(section, width) {
  const row = 30, top = 30, longest = Math.max(...section.rows.map((one) => one.name.length));
  const names = Math.min(7.4 * longest + 4, width * 0.3), gap = 40;
  const column = (width - names - gap * section.columns.length) / section.columns.length, height = top + row * section.rows.length + 26;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height });
  section.columns.forEach((title, place) => {
    const left = names + gap + place * (column + gap), px = scale(section.rows.flatMap((one) => one.values[place]), left, left + column);
    picture.append(text(left, 12, title, "start", "name"));
    for (const tick of px.ticks(3)) {
      picture.append(svg("line", { class: "grid", x1: px(tick), x2: px(tick), y1: top - 8, y2: height - 22 }), text(px(tick), height - 6, shown(tick), "middle"));
    }
    section.rows.forEach((one, index) => {
      const [estimate, low, high] = one.values[place], y = top + row * (index + 0.5), stroke = colour(one.colour ?? index);
      if (!known(estimate)) return;
      const mark = svg("g", {});
      if (known(low) && known(high)) mark.append(svg("line", { x1: px(low), x2: px(high), y1: y, y2: y, stroke, "stroke-width": 3, "stroke-linecap": "round", opacity: 0.45 }));
      mark.append(svg("circle", { cx: px(estimate), cy: y, r: 5, fill: stroke }), svg("rect", { x: left, y: y - row / 2, width: column, height: row, fill: "transparent" }));
      mark.addEventListener("mousemove", (event) => showTip(event, one.name, [[title, shown(estimate)], ["95% interval", `${shown(low)} to ${shown(high)}`]]));
      mark.addEventListener("mouseleave", hideTip);
      picture.append(mark);
    });
  });
  section.rows.forEach((one, index) => picture.append(text(0, top + row * (index + 0.5) + 4, clip(one.name, names), "start", "name")));
  return picture;
}

const clip = (name, width) => (name.length * 7 > width ? `${name.slice(0, Math.floor(width / 7) - 1)}…` : name);

function bars(section, width) {
  const row = 30, names = Math.min(200, width * 0.35), height = row * section.rows.length + 4;
  const top = Math.max(0.01, ...section.rows.map((one) => one.value)), picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height });
  section.rows.forEach((one, index) => {
    const y = row * index, size = Math.max(2, (width - names - 80) * Math.max(0, one.value) / top);
    picture.append(text(0, y + 20, clip(one.name, names), "start", "name"), svg("rect", { x: names, y: y + 8, width: size, height: 15, rx: 4, fill: colour(0) }));
    picture.append(text(names + size + 8, y + 20, one.text ?? shown(one.value, 2)));
  });
  return picture;
}

function front(section, width) {
  const height = 380, margin = { left: 56, right: 14, top: 24, bottom: 42 }, trials = section.trials.filter((one) => known(one.x) && known(one.y));
  const px = scale(trials.map((one) => one.x), margin.left, width - margin.right, section.log), py = scale(trials.map((one) => one.y), height - margin.bottom, margin.top);
  const picture = frame(width, height, px, py, margin, section.x, section.y);
  const edge = trials.filter((one) => one.front).sort((a, b) => a.x - b.x);
  const steps = edge.map((one, place) => (place ? `H${px(one.x).toFixed(1)}V${py(one.y).toFixed(1)}` : `M${px(one.x).toFixed(1)},${py(one.y).toFixed(1)}`));
  picture.append(svg("path", { d: steps.join(""), fill: "none", stroke: colour(1), "stroke-width": 1.5, opacity: 0.7 }));
  for (const one of [...trials.filter((trial) => !trial.front), ...edge]) {
    const fill = one.front ? colour(1) : one.faint ? "var(--faint)" : colour(0);
    const dot = svg("circle", { cx: px(one.x), cy: py(one.y), r: one.front ? 6 : 4, fill, opacity: one.front ? 1 : 0.55, stroke: "var(--card)", "stroke-width": 1.5, class: "trial" });
    dot.addEventListener("mousemove", (event) => showTip(event, one.name, one.rows));
    dot.addEventListener("mouseleave", hideTip);
    picture.append(dot);
  }
  return picture;
}

function shade(share) { // from faint to strong, of one colour: read as "more"
  return `color-mix(in oklab, var(--c1) ${Math.round(100 * share)}%, var(--c0))`;
}

function parallel(section, width, limits, redraw) {
  const height = 330, margin = { left: 30, right: 40, top: 34, bottom: 26 }, axes = section.dimensions;
  const at = (index) => margin.left + ((width - margin.left - margin.right) * index) / Math.max(1, axes.length - 1);
  const distinct = axes.map((axis, index) => [...new Set(section.trials.map((one) => one.values[index]).filter(known))]);
  const places = axes.map((axis, index) => scale(section.trials.map((one) => one.values[index]), height - margin.bottom, margin.top, axis.log, 0.02));
  const scores = section.trials.map((one) => one.score).filter(known), low = Math.min(...scores), high = Math.max(...scores);
  const inside = (one) => axes.every((axis, index) => !limits[index] || (known(one.values[index]) && places[index](one.values[index]) >= limits[index][0] && places[index](one.values[index]) <= limits[index][1]));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, style: "touch-action:none" });
  for (const one of [...section.trials].sort((a, b) => (a.score ?? -Infinity) - (b.score ?? -Infinity))) {
    const chosen = inside(one), share = known(one.score) && high > low ? (one.score - low) / (high - low) : 0;
    const points = one.values.map((value, index) => (known(value) ? `${at(index).toFixed(1)},${places[index](value).toFixed(1)}` : null)).filter(Boolean);
    const line = svg("polyline", { points: points.join(" "), fill: "none", stroke: chosen ? shade(share) : "var(--line)", "stroke-width": chosen ? 1.4 : 1, opacity: chosen ? 0.35 + 0.6 * share : 0.5, class: "trial" });
    line.addEventListener("mousemove", (event) => { line.setAttribute("stroke-width", 3.5); showTip(event, one.name, one.rows); });
    line.addEventListener("mouseleave", () => { line.setAttribute("stroke-width", 1.4); hideTip(); });
    picture.append(line);
  }
  axes.forEach((axis, index) => {
    const x = at(index), anchor = index === 0 ? "start" : index === axes.length - 1 ? "end" : "middle";
    picture.append(svg("line", { x1: x, x2: x, y1: margin.top, y2: height - margin.bottom, stroke: "var(--faint)" }));
    picture.append(text(index === 0 ? 0 : index === axes.length - 1 ? width : x, 14, clip(axis.name, (width / axes.length) * 1.1), anchor, "name"));
    const few = distinct[index].length <= 6;
    const marks = few && !axis.categories ? distinct[index].map((value) => [value, shown(value)]) : axis.categories ? axis.categories.map((name, place) => [place, name]) : places[index].ticks(4).map((tick) => [tick, shown(tick, 3)]);
    for (const [tick, name] of marks) picture.append(text(x + 6, places[index](tick) + 4, clip(String(name), 110)));
    if (limits[index]) picture.append(svg("rect", { class: "brush", x: x - 7, width: 14, y: limits[index][0], height: limits[index][1] - limits[index][0] }));
    const grip = svg("rect", { x: x - 11, y: margin.top, width: 22, height: height - margin.top - margin.bottom, fill: "transparent", style: "cursor:ns-resize", "data-axis": axis.name });
    grip.addEventListener("pointerdown", (down) => {
      const box = picture.getBoundingClientRect(), y = (event) => ((event.clientY - box.top) / box.height) * height, start = y(down);
      const move = (event) => { limits[index] = [Math.min(start, y(event)), Math.max(start, y(event))]; };
      const stop = (event) => { move(event); if (limits[index][1] - limits[index][0] < 4) limits[index] = null; removeEventListener("pointermove", move); removeEventListener("pointerup", stop); redraw(); };
      addEventListener("pointermove", move); addEventListener("pointerup", stop);
    });
    picture.append(grip);
  });
  return picture;
}
