"use strict";
// Colours of Okabe and Ito, which colour-blind readers can distinguish on light and dark backgrounds.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];
const PAGE = 20;
const SVG = "http://www.w3.org/2000/svg";
const MATH = /\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\[([\s\S]+?)\\\]|\\\(([\s\S]+?)\\\)|(\\boxed\{(?:[^{}]|\{[^{}]*\})*\})/g;
const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, text = null) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

function svgElement(name, attributes, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

// Text with its mathematics typeset; a model's output is never parsed as HTML.
function typeset(text) {
  const box = element("div", { class: "text" });
  let last = 0;
  for (const match of text.matchAll(MATH)) {
    box.append(text.slice(last, match.index));
    const tex = match.slice(1).find((part) => part !== undefined);
    const span = element("span");
    try {
      temml.render(tex, span, { throwOnError: true, maxExpand: 100 });
      span.title = match[0];
    } catch {
      span.textContent = match[0];
    }
    box.append(span);
    last = match.index + match[0].length;
  }
  box.append(text.slice(last));
  return box;
}

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 4 || 1));
  const width = [1, 2, 5, 10].map((f) => f * step).find((w) => (high - low) / w <= 6);
  const values = [];
  for (let at = Math.ceil(low / width) * width; at <= high + 1e-9; at += width) values.push(at);
  return values;
}

const formatNumber = (value) => String(Number(value.toPrecision(6)));

// One chart for ladder and curves: lines of {label, points: [x, y, low, high]}.
function chart(holder, lines, names, unit) {
  holder.replaceChildren();
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return;
  // As wide as the screen, so that text keeps its size on a phone.
  const w = Math.min(760, Math.max(320, holder.clientWidth));
  const [h, left, right, top, bottom] = [280, 56, 12, 10, names ? 34 : 28];
  const values = points.flatMap((p) => p.slice(1).filter((v) => v !== undefined));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (high === low) { low -= 0.5; high += 0.5; }
  const [first, lastX] = names
    ? [-0.4, names.length - 0.6]
    : [Math.min(...points.map((p) => p[0])), Math.max(...points.map((p) => p[0]), 1)];
  const x = (v) => left + ((v - first) / (lastX - first || 1)) * (w - left - right);
  const y = (v) => h - bottom - ((v - low) / (high - low)) * (h - top - bottom);
  const svg = svgElement("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": unit });
  for (const at of ticks(low, high)) {
    svg.append(svgElement("line", { class: "grid", x1: left, x2: w - right, y1: y(at), y2: y(at) }));
    svg.append(svgElement("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, formatNumber(at)));
  }
  const places = names ? names.map((_, i) => i) : ticks(first, lastX);
  for (const at of places) {
    const label = names ? names[at] : formatNumber(at);
    svg.append(svgElement("text", { x: x(at), y: h - 8, "text-anchor": "middle" }, label));
  }
  lines.forEach((line, number) => {
    const colour = COLOURS[number % COLOURS.length];
    const shift = names ? (number - (lines.length - 1) / 2) * 5 : 0;
    const path = line.points.map((p, i) => `${i ? "L" : "M"}${x(p[0]) + shift},${y(p[1])}`).join("");
    svg.append(svgElement("path", { d: path, fill: "none", stroke: colour, "stroke-width": 1.6 }));
    for (const [at, value, from, to] of line.points) {
      if (from === undefined) continue;
      const place = x(at) + shift;
      svg.append(svgElement("line", { x1: place, x2: place, y1: y(from), y2: y(to), stroke: colour }));
      svg.append(svgElement("circle", { cx: place, cy: y(value), r: 3, fill: colour }));
    }
  });
  const key = element("figcaption", {}, `${unit}. `);
  lines.forEach((line, number) => {
    const mark = element("span", {}, "■ ");
    mark.style.color = COLOURS[number % COLOURS.length];
    key.append(mark, `${line.label}  `);
  });
  holder.append(svg, key);
}

// A heading, a choice among metrics and an empty figure: the curves of one stage, on its own axis.
function stageFigure(stage, heading, metrics, chosen, choose) {
  const box = element("div", { "data-stage": stage });
  const label = element("label", {}, "curve ");
  const select = element("select");
  for (const metric of metrics) select.append(element("option", { value: metric }, metric));
  select.value = chosen;
  select.onchange = () => choose(select.value);
  label.append(select);
  box.append(element("h3", {}, heading), label, element("figure"));
  return box;
}

// Draws lines of {label, points} into the figure of a stage, which is on the page.
function stageCurves(stage, metric, lines) {
  const holder = document.querySelector(`[data-stage="${CSS.escape(stage)}"] figure`);
  chart(holder, lines, null, `${metric} by step of ${stage}`);
}

// Nodes in rows of a table, with arcs at the left from those that each is made from.
// columns: pairs of a name and a function from a node to what its cell holds.
function graph(nodes, columns) {
  const [row, bend, left] = [30, 7, 8];
  const places = new Map(nodes.map((node, place) => [node.fingerprint, place]));
  const arcs = nodes.flatMap((node, to) => node.inputs.filter((input) => places.has(input))
    .map((input) => [places.get(input), to]));
  const depth = Math.max(0, ...arcs.map(([from, to]) => Math.abs(to - from)));
  const [width, height] = [left + (bend * depth * 3) / 4, nodes.length * row];
  const svg = svgElement("svg", { class: "arcs", viewBox: `0 0 ${width} ${height}`, width, height,
    role: "img", "aria-label": "what each is made from" });
  for (const [from, to] of arcs) {
    const [y, end] = [(from + 0.5) * row, (to + 0.5) * row];
    const x = width - 2;
    const control = x - bend * Math.abs(to - from);
    const d = `M${x},${y} C${control},${y} ${control},${end} ${x},${end}`;
    svg.append(svgElement("path", { d, fill: "none", stroke: "currentColor", opacity: 0.5 }));
  }
  const table = element("table", { class: "graph" });
  const head = element("tr");
  head.append(element("th"), ...columns.map(([name]) => element("th", { class: "name" }, name)));
  table.append(head);
  nodes.forEach((node, number) => {
    const line = element("tr", node.state ? { "data-state": node.state } : {});
    if (number === 0) {
      const cell = element("td", { class: "origins", rowspan: nodes.length });
      cell.append(svg);
      line.append(cell);
    }
    for (const [, content] of columns) {
      const cell = element("td", { class: "name" });
      cell.append(content(node) ?? "");
      line.append(cell);
    }
    table.append(line);
  });
  return table;
}

// Rows of text as a table; columns of the names in numbers are at the right.
function textTable(columns, rows, numbers) {
  const table = element("table");
  const line = (tag, cells) => {
    const node = element("tr");
    node.append(...cells.map((cell, place) =>
      element(tag, numbers.includes(columns[place]) ? {} : { class: "name" }, cell)));
    return node;
  };
  table.append(line("th", columns), ...rows.map((row) => line("td", row)));
  return table;
}

// `compare` shows the rollouts of the same problem.
function card(rollout, compare) {
  const node = element("article", { "data-verdict": rollout.verdict });
  const header = element("header");
  header.append(element("b", { class: rollout.verdict }, rollout.verdict));
  header.append([...rollout.labels, `${rollout.tokens} tokens `].map((text) => ` · ${text}`).join(""));
  if (compare) {
    const button = element("button", { type: "button" }, "All rollouts of this problem");
    button.addEventListener("click", () => compare(rollout));
    header.append(button);
  }
  node.append(header, typeset(rollout.prompt), element("h3", {}, "completion"), typeset(rollout.text));
  node.append(element("h3", {}, "answer and gold"));
  node.append(typeset(`${rollout.answer === null ? "(none)" : rollout.answer}  |  ${rollout.gold}`));
  return node;
}

// Rollouts with a filter for each of the keys and for text; called again, it keeps what is chosen.
// Those of one `group` are shown beside each other.
function rolloutBrowser(rollouts, keys) {
  const form = byId("filter");
  const chosen = new Map([...form.elements].map((field) => [field.id, field.value]));
  form.replaceChildren();
  byId("rollouts").hidden = !rollouts.length;
  if (!rollouts.length) return;
  const choices = keys.map((key) => {
    const values = [...new Set(rollouts.map((rollout) => String(rollout[key])))].sort();
    const select = element("select", { id: `filter-${key}`, name: key });
    select.append(element("option", { value: "" }, "all"));
    for (const value of values) select.append(element("option", { value }, value));
    if (values.includes(chosen.get(select.id))) select.value = chosen.get(select.id);
    const label = element("label", {}, `${key} `);
    label.append(select);
    if (values.length > 1) form.append(label);
    return select;
  });
  const search = element("input", { id: "filter-text", type: "search" });
  search.value = chosen.get(search.id) ?? "";
  const label = element("label", {}, "text ");
  label.append(search);
  form.append(label);
  form.onsubmit = (event) => event.preventDefault();
  let [matching, count] = [rollouts, 0];
  const more = () => {
    const cards = matching.slice(count, count + PAGE).map((rollout) => card(rollout, compare));
    byId("shown").append(...cards);
    count = Math.min(count + PAGE, matching.length);
    byId("more").hidden = count >= matching.length;
    byId("count").textContent = `${matching.length} of ${rollouts.length} rollouts, ${count} shown`;
  };
  const filter = () => {
    const active = choices.filter((select) => select.value);
    const text = search.value.toLowerCase();
    matching = rollouts.filter((rollout) =>
      active.every((select) => String(rollout[select.name]) === select.value)
      && (!text || `${rollout.prompt}\n${rollout.text}`.toLowerCase().includes(text)));
    count = 0;
    byId("shown").replaceChildren();
    byId("all-problems").hidden = true;
    more();
  };
  // Rollouts lie in the order of policies, so a column follows another as policies did.
  const compare = ({ group }) => {
    const same = rollouts.filter((one) => one.group === group);
    const row = element("div", { class: "beside" });
    row.append(...same.map((rollout) => card(rollout, null)));
    byId("shown").replaceChildren(row);
    byId("more").hidden = true;
    byId("all-problems").hidden = false;
    byId("count").textContent = `${same.length} rollouts of one problem`;
  };
  byId("all-problems").onclick = filter;
  form.oninput = filter;
  byId("more").onclick = more;
  filter();
}
