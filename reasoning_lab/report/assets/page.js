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

async function readData() {
  const text = atob(byId("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
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

function ladder(rows) {
  const stages = [...new Set(rows.map((row) => row.stage))];
  const groups = Map.groupBy
    ? Map.groupBy(rows, (row) => row.line)
    : rows.reduce((m, row) => m.set(row.line, [...(m.get(row.line) || []), row]), new Map());
  const lines = [...groups].map(([label, selected]) => ({
    label,
    points: selected.map((row) => [stages.indexOf(row.stage), 100 * row.mean, 100 * row.low, 100 * row.high]),
  }));
  chart(byId("ladder"), lines, stages, "pass@1 in percent with 95% intervals");
}

// The ablation: for each variant a line with its name above and its interval around zero.
function variants(changes) {
  const holder = byId("variants");
  if (!changes.length) { holder.hidden = true; return; }
  const w = Math.min(760, Math.max(320, holder.clientWidth));
  const [line, side, bottom] = [42, 14, 26];
  const ends = changes.flatMap((change) => [100 * change.low, 100 * change.high, 0]);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  if (high === low) { low -= 1; high += 1; }
  const x = (value) => side + ((value - low) / (high - low)) * (w - 2 * side);
  const h = changes.length * line + bottom;
  const svg = svgElement("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "ablation" });
  for (const at of ticks(low, high)) {
    const style = Math.abs(at) < 1e-9 ? { stroke: "currentColor" } : { class: "grid" };
    svg.append(svgElement("line", { ...style, x1: x(at), x2: x(at), y1: 0, y2: h - bottom }));
    svg.append(svgElement("text", { x: x(at), y: h - 8, "text-anchor": "middle" }, formatNumber(at)));
  }
  const benchmarks = [...new Set(changes.map((change) => change.benchmark))];
  changes.forEach((change, number) => {
    const colour = COLOURS[benchmarks.indexOf(change.benchmark) % COLOURS.length];
    const y = number * line + 30;
    const on = benchmarks.length > 1 ? ` on ${change.benchmark}` : "";
    const mean = `${change.mean < 0 ? "−" : "+"}${Math.abs(100 * change.mean).toFixed(1)}`;
    const text = `${change.variant}${on}: ${mean} (p ${change.p})`;
    svg.append(svgElement("text", { x: side, y: y - 12 }, text));
    const [from, to] = [x(100 * change.low), x(100 * change.high)];
    svg.append(svgElement("line", { x1: from, x2: to, y1: y, y2: y, stroke: colour, "stroke-width": 2 }));
    svg.append(svgElement("circle", { cx: x(100 * change.mean), cy: y, r: 4, fill: colour }));
  });
  const subject = `last policy against ${changes[0].baseline}`;
  const unit = "percentage points of pass@1, 95% intervals, corrected p";
  holder.append(svg, element("figcaption", {}, `${subject}: ${unit}.`));
}

function training(curves) {
  const select = byId("metric");
  const metrics = [...new Set(curves.map((curve) => curve.metric))];
  if (!metrics.length) { byId("training").hidden = true; return; }
  for (const metric of metrics) select.append(element("option", { value: metric }, metric));
  const draw = () => {
    const selected = curves.filter((curve) => curve.metric === select.value);
    chart(byId("curves"), selected, null, `${select.value} by step`);
  };
  select.addEventListener("change", draw);
  draw();
}

function card(rollout) {
  const node = element("article", { "data-verdict": rollout.verdict });
  const header = element("header");
  header.append(element("b", { class: rollout.verdict }, rollout.verdict));
  header.append(` · ${rollout.stage} · ${rollout.benchmark} · ${rollout.family} · ${rollout.tokens} tokens`);
  node.append(header, typeset(rollout.prompt), element("h3", {}, "completion"), typeset(rollout.text));
  node.append(element("h3", {}, "answer and gold"));
  node.append(typeset(`${rollout.answer === null ? "(none)" : rollout.answer}  |  ${rollout.gold}`));
  return node;
}

function browser(data) {
  const form = byId("filter");
  if (!data.rollouts.length) { byId("rollouts").hidden = true; return; }
  const keys = ["variant", "seed", "stage", "benchmark", "verdict", "family"];
  const rollouts = data.rollouts.map(([source, prompt, text, answer, verdict, tokens]) => ({
    ...data.sources[source], ...data.prompts[prompt], text, answer, verdict, tokens,
  }));
  const choices = keys.map((key) => {
    const values = [...new Set(rollouts.map((rollout) => String(rollout[key])))].sort();
    const select = element("select", { id: `filter-${key}`, name: key });
    select.append(element("option", { value: "" }, "all"));
    for (const value of values) select.append(element("option", { value }, value));
    const label = element("label", {}, `${key} `);
    label.append(select);
    if (values.length > 1) form.append(label);
    return select;
  });
  const search = element("input", { id: "filter-text", type: "search" });
  const label = element("label", {}, "text ");
  label.append(search);
  form.append(label);
  form.addEventListener("submit", (event) => event.preventDefault());
  let [matching, count] = [rollouts, 0];
  const more = () => {
    byId("shown").append(...matching.slice(count, count + PAGE).map(card));
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
    more();
  };
  form.addEventListener("input", filter);
  byId("more").addEventListener("click", more);
  filter();
}

readData().then((data) => {
  ladder(data.ladder);
  variants(data.variants);
  training(data.curves);
  browser(data);
  document.body.dataset.ready = "yes";
});
