"use strict";
// The report: its figures and rollouts, from the compressed data in the file.
async function readData() {
  const text = atob(byId("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
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
  if (!changes.length) return;
  const holder = byId("variants");
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
    svg.append(svgElement("text", { class: "variant", x: side, y: y - 12 }, text));
    const [from, to] = [x(100 * change.low), x(100 * change.high)];
    svg.append(svgElement("line", { x1: from, x2: to, y1: y, y2: y, stroke: colour, "stroke-width": 2 }));
    svg.append(svgElement("circle", { cx: x(100 * change.mean), cy: y, r: 4, fill: colour }));
  });
  const subject = `last policy against ${changes[0].baseline}`;
  const unit = "percentage points of pass@1, 95% intervals, corrected p";
  holder.append(svg, element("figcaption", {}, `${subject}: ${unit}.`));
  // A long name is narrowed rather than cut off.
  for (const text of svg.querySelectorAll(".variant")) {
    if (text.getComputedTextLength() <= w - 2 * side) continue;
    text.setAttribute("textLength", w - 2 * side);
    text.setAttribute("lengthAdjust", "spacingAndGlyphs");
  }
}

// Names a policy by those of the keys in which the policies differ, after those that always count.
function naming(policies, always, keys) {
  const differing = keys.filter((key) => new Set(policies.map((policy) => policy[key])).size > 1);
  return (policy) => [...always, ...differing]
    .map((key) => (key === "seed" ? `seed ${policy[key]}` : policy[key])).join(", ");
}

// A figure for each stage, with a line for each policy that it made.
function training(policies) {
  byId("training").hidden = !policies.length;
  const draws = [];
  for (const stage of new Set(policies.map((policy) => policy.stage))) {
    const members = policies.filter((policy) => policy.stage === stage);
    const name = naming(members, [], ["variant", "seed"]);
    const draw = (metric) => stageCurves(stage, metric, members
      .filter(({ metrics }) => metrics[metric])
      .map((policy) => ({ label: name(policy) || stage, points: policy.metrics[metric] })));
    const metrics = [...new Set(members.flatMap((policy) => Object.keys(policy.metrics)))];
    byId("curves").append(stageFigure(stage, stage, metrics, metrics[0], draw));
    draws.push(() => draw(metrics[0]));
  }
  // How wide a figure is follows from how many there are.
  draws.forEach((draw) => draw());
}

function browser(data) {
  const keys = ["variant", "seed", "stage", "benchmark", "verdict", "domain", "family"];
  const name = naming(data.sources, ["stage"], ["variant", "seed"]);
  const rollouts = data.rollouts.map(([source, problem, text, answer, verdict, tokens]) => {
    const [about, asked] = [data.sources[source], data.prompts[problem]];
    const labels = [name(about), about.benchmark, asked.family];
    const group = `${problem} ${about.benchmark}`;
    return { ...about, ...asked, group, text, answer, verdict, tokens, labels };
  });
  rolloutBrowser(rollouts, keys);
}

function artifacts(nodes) {
  const took = (node) => (node.wall_s === null ? "" : `${Math.round(node.wall_s)} s`);
  byId("graph").append(graph(nodes, [
    ["artifact", (node) => node.name], ["fingerprint", (node) => node.fingerprint], ["took", took],
  ]));
}

readData().then((data) => {
  ladder(data.ladder);
  variants(data.variants);
  training(data.curves);
  browser(data);
  artifacts(data.nodes);
  document.body.dataset.ready = "yes";
});
