"use strict";
// The live page: it asks the server that it came from, every two seconds while it is seen.
const EVERY_MS = 2000;
const STORE = "store";
const MAX_LINES = 20;        // Of a figure.
const shown = new Set();     // Ids of the runs that are shown.
const known = new Set();     // Ids of the runs that were there to be chosen.
const chosenMetric = new Map();  // Name of a stage to the metric that is drawn.
const curveOf = new Map();   // Run, node and metric to what the server said, with its version.
const drawn = {};            // What each part of the page shows, as text.
let rolloutsShown = "";      // Run, node and version of the rollouts that are shown.

async function ask(path, query = {}) {
  const response = await fetch(`/api/${path}?${new URLSearchParams(query)}`);
  if (response.status === 500) throw new Error(await response.json());
  return response.json();
}

// Calls draw if the content is not what the part shows already.
function redraw(part, content, draw) {
  const text = JSON.stringify(content);
  if (drawn[part] === text) return;
  drawn[part] = text;
  draw();
}

function clock(seconds) {
  const s = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

const rate = (value) => (value >= 10 ? Math.round(value).toLocaleString("en") : value.toPrecision(2));
const title = (run) => run.title || run.variant || run.id;
const nameOf = (run) => (run.id === STORE ? run.title
  : `${title(run)}${run.title?.includes("seed=") ? "" : ` (seed ${run.seed})`}`);

function choice(overview) {
  const table = element("table");
  const runs = overview.artifacts
    ? [...overview.runs, { id: STORE, title: "the store", state: "" }] : overview.runs;
  const focused = document.activeElement?.value;
  for (const run of runs) {
    const line = element("tr", { "data-state": run.state });
    const label = element("label");
    const box = element("input", { type: "checkbox", value: run.id });
    box.checked = shown.has(run.id);
    box.onchange = () => { box.checked ? shown.add(run.id) : shown.delete(run.id); refresh(); };
    label.append(box, ` ${nameOf(run)}`);
    const when = run.started ? new Date(run.started * 1000).toLocaleString("en-GB") : "";
    const progress = run.id === STORE ? `${overview.artifacts} artifacts` : `${run.finished} of ${run.nodes} stages`;
    for (const content of [label, run.state, progress, when, run.failure ?? ""]) {
      const cell = element("td", { class: "name" });
      cell.append(content);
      line.append(cell);
    }
    table.append(line);
  }
  const older = overview.older ? [element("p", { class: "dim" }, `${overview.older} older runs are not listed.`)] : [];
  byId("choice").replaceChildren(table, ...older);
  table.querySelector(`[value="${CSS.escape(focused ?? "")}"]`)?.focus();
}

function meter(node) {
  if (!node.progress) return "";
  const box = element("span");
  const { part, unit, done, total } = node.progress;
  box.append(element("progress", { value: done, max: Math.max(total, 1) }));
  box.append(` ${part ? `${part}: ` : ""}${unit} ${done.toLocaleString("en")} of ${total.toLocaleString("en")}`);
  return box;
}

function speed(node) {
  const progress = node.progress;
  if (node.state !== "running" || !progress) return "";
  if (progress.tokens_per_s) return `${rate(progress.tokens_per_s)} tokens/s`;
  return progress.units_per_s ? `${rate(progress.units_per_s)} ${progress.unit}s/s` : "";
}

function left(node) {
  if (node.state !== "running") return node.wall_s == null ? "" : `took ${clock(node.wall_s)}`;
  const stage = node.stage_progress;
  if (!stage || stage.left_s == null) return node.progress ? "time left not known yet" : "";
  const all = clock(stage.left_s + stage.later_s);
  const ofRun = !stage.later_unknown ? `, ${all} of the run`
    : stage.later_s ? `, at least ${all} of the run` : "";
  return `${clock(stage.left_s)} left${ofRun}`;
}

function result(node) {
  const { n, train_tokens: tokens } = node.results ?? {};
  const score = node.results?.["pass@1"];
  if (score != null) return `pass@1 ${(100 * score).toFixed(1)}% of ${n} problems`;
  return tokens == null ? "" : `${tokens.toLocaleString("en")} tokens trained`;
}

function graphs(runs) {
  const columns = [
    ["stage", (node) => node.name],
    ["state", (node) => element("span", { class: "state" }, node.state)],
    ["progress", meter], ["speed", speed], ["time", left], ["result", result],
    ["fingerprint", (node) => node.fingerprint],
  ];
  const parts = runs.flatMap((run) => {
    const box = element("div", { class: "scroll" });
    const filled = columns.filter(([, content]) => run.nodes.some(content));
    box.append(graph(run.nodes, filled));
    const failure = run.failure ? [element("p", { class: "wrong" }, run.failure)] : [];
    return [element("h3", {}, `${nameOf(run)}${run.state ? `: ${run.state}` : ""}`), ...failure, box];
  });
  byId("graphs").replaceChildren(...parts);
}

// One figure for each stage, with a line for each run that has it.
async function curves(runs) {
  const stages = new Map();
  for (const run of runs) {
    for (const node of run.nodes.filter((one) => one.versions.curves)) {
      const name = run.id === STORE ? node.stage : node.name;
      stages.set(name, [...(stages.get(name) ?? []), [run, node]]);
    }
  }
  const figures = [];
  for (const [name, all] of stages) {
    const members = all.slice(-MAX_LINES);
    const metric = chosenMetric.get(name) ?? "";
    const answers = await Promise.all(members.map(([run, node]) => curve(run, node, metric)));
    const lines = answers.map((answer, i) => ({
      label: members.length > 1 ? lineName(members[i]) : name, points: answer.points,
      metric: answer.metric, metrics: answer.metrics,
    })).filter((line) => line.metric);
    const heading = all.length > MAX_LINES ? `${name}: ${MAX_LINES} of ${all.length} curves` : name;
    const metrics = [...new Set(lines.flatMap((line) => line.metrics))];
    if (lines.length) figures.push({ name, lines, heading, metrics });
  }
  byId("training").hidden = !figures.length;
  // The choice of a metric stays as it is while its curve grows.
  redraw("figures", figures.map(({ heading, metrics }) => [heading, metrics]), () => {
    byId("curves").replaceChildren(...figures.map(figure));
    for (const { name } of figures) delete drawn[`curve of ${name}`];
  });
  for (const { name, lines } of figures) {
    const { metric } = lines[0];
    const same = lines.filter((line) => line.metric === metric);
    redraw(`curve of ${name}`, same, () => stageCurves(name, metric, same));
  }
}

const lineName = ([run, node]) => (run.id === STORE ? node.fingerprint : nameOf(run));

async function curve(run, node, metric) {
  const key = JSON.stringify([run.id, node.fingerprint, metric]);
  const known = curveOf.get(key);
  if (known?.version === node.versions.curves) return known.answer;
  const query = { run: run.id, node: node.fingerprint, metric };
  const answer = (await ask("curve", query)) ?? { metrics: [], metric: "", points: [] };
  curveOf.set(key, { version: node.versions.curves, answer });
  return answer;
}

function figure({ name, lines, heading, metrics }) {
  const choose = (metric) => { chosenMetric.set(name, metric); refresh(); };
  return stageFigure(name, heading, metrics, lines[0].metric, choose);
}

async function rollouts(runs) {
  const select = byId("node");
  const nodes = runs.flatMap((run) => run.nodes.filter((node) => node.versions.rollouts)
    .map((node) => ({ run, node, key: JSON.stringify([run.id, node.fingerprint]) })));
  const rank = ({ node }) => (node.state === "running" ? 0 : 1);
  nodes.reverse().sort((one, other) => rank(one) - rank(other));
  byId("rolloutset").hidden = !nodes.length;
  redraw("sources", nodes.map(({ key, node }) => [key, node.state]), () => {
    const before = select.value;
    select.replaceChildren(...nodes.map(({ run, node, key }) => {
      const of = runs.length > 1 ? `, ${nameOf(run)}` : "";
      const which = run.id === STORE ? ` ${node.fingerprint}` : "";
      return element("option", { value: key }, `${node.name}${which}${of} (${node.state})`);
    }));
    if (nodes.some(({ key }) => key === before) && select.dataset.chosen) select.value = before;
  });
  const source = nodes.find(({ key }) => key === select.value);
  if (!source) return;
  const { run, node, key } = source;
  const version = `${key} ${node.versions.rollouts}`;
  const isOther = !rolloutsShown.startsWith(`${key} `);
  if (version === rolloutsShown || (!isOther && !byId("follow").checked)) return;
  const answer = await ask("rollouts", { run: run.id, node: node.fingerprint });
  if (!answer) return;
  rolloutsShown = version;
  for (const rollout of answer.rollouts) {
    const measures = Object.entries(rollout.measures)
      .map(([name, value]) => `${name} ${formatNumber(value)}`);
    rollout.group = rollout.prompt;
    rollout.labels = [rollout.table, rollout.family, ...measures].filter((text) => text);
  }
  rolloutBrowser(answer.rollouts, ["table", "verdict", "domain", "family"]);
}

function ledgers(runs) {
  const several = runs.length > 1;
  const rows = runs.flatMap((run) => run.nodes.flatMap((node) =>
    node.ledger.map((cells) => [...(several ? [nameOf(run)] : []), node.name, ...cells])));
  byId("dropped").hidden = !rows.length;
  const columns = [...(several ? ["run"] : []), "stage", ...document.body.dataset.ledger.split("|")];
  redraw("ledgers", [columns, rows], () =>
    byId("ledger").replaceChildren(textTable(columns, rows, ["in", "out"])));
}

function emptiness(overview) {
  const isEmpty = !overview.runs.length && !overview.artifacts;
  byId("empty").hidden = !isEmpty;
  byId("empty").textContent = `No run has written anything into ${overview.folder} yet. `
    + "This page shows one as soon as it starts: reasoning-lab experiment=smoke";
  byId("runs").hidden = isEmpty;
}

async function update() {
  const overview = await ask("overview");
  // What starts later is shown as well, such as the next run of a sweep.
  overview.shown.filter((id) => !known.has(id)).forEach((id) => shown.add(id));
  [STORE, ...overview.runs.map((run) => run.id)].forEach((id) => known.add(id));
  emptiness(overview);
  redraw("runs", [overview, [...shown]], () => choice(overview));
  const listed = [...overview.runs.map((run) => run.id), STORE].filter((id) => shown.has(id));
  const runs = (await Promise.all(listed.map((run) => ask("run", { run })))).filter((run) => run);
  byId("stages").hidden = !runs.length;
  redraw("graphs", runs, () => graphs(runs));
  ledgers(runs);
  await curves(runs);
  await rollouts(runs);
  return overview.folder;
}

let timer = 0;
async function refresh() {
  clearTimeout(timer);
  try {
    if (!document.hidden) {
      const folder = await update();
      byId("status").textContent = `${folder}, as of ${new Date().toLocaleTimeString("en-GB")}`;
    }
  } catch (error) {
    // Of a server that is gone, a browser gives a TypeError.
    byId("status").textContent = error instanceof TypeError
      ? "The server has ended; start reasoning-lab watch again." : `${error}`;
  }
  document.body.dataset.ready = "yes";
  clearTimeout(timer);
  timer = setTimeout(refresh, EVERY_MS);
}

byId("node").onchange = (event) => { event.target.dataset.chosen = "yes"; refresh(); };
byId("source").onsubmit = (event) => event.preventDefault();
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
