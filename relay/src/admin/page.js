"use strict";
// Asks the relay once a second for what is new and draws it. All text of the relay's callers goes through textContent.

const EVERY_MS = 1000, PATIENCE_MS = 4000;
const CONDITIONS = {
  STORE_FULL: "The log's disk is full. Reads go on, writes are refused, nobody is declared gone.",
  LOG_UNREACHABLE: "The log does not answer, or too late. Reads go on, writes are refused.",
  EXPIRY_HELD: "Nobody is declared gone: the relay has just started, stood still, or cannot read its log.",
  MASS_LOSS: "Very many members fell silent at once. They are kept as suspect for two awake leases.",
  LEASES_STRETCHED: "The relay is late to its own looks and grants longer awake leases meanwhile.",
};
// Each card: its title, its unit, the curve from sample to sample, the note below. `hot`: any of it is worth a look.
const CARDS = [
  ["wakes", "Wakes", "/s", rate("wakes"), (s) => `${short(s.now.beats)} beats in all`],
  ["pushes", "Pushes", "/s", rate("pushes"), (s) => `${short(s.now.queue)} waiting for the log`],
  ["pulls", "Pulls", "/s", rate("pulls"), (s) => `${bytes(s.now.chunk_bytes)} sent in all`],
  ["rows", "Rows sent", "/s", rate("rows_sent"), (s) => `${short(s.now.rows_changed)} changed, ${short(s.now.rows_sent)} sent in all`],
  ["joins", "Joins", "/s", rate("joins"), (s) => `${short(s.now.joins)} in all`],
  ["ends", "Ends", "/s", rate("left", "expired", "evicted"), (s) => `${short(s.now.expired)} of silence in all`],
  ["backlog", "Backlog age", "", mean("backlog_ms", "backlogs"), () => "of the oldest change in a pull", ms],
  ["append", "Log append", "", (a, b) => mean("append_us", "appends")(a, b) / 1000, (s) => `${short(s.now.appends)} frames in all`, ms],
  ["state", "State", "", level("memory_bytes"), (s) => `${short(s.now.rows)} rows, ${short(s.now.dead_rows)} dead`, bytes],
  ["refusals", "Refusals", "/s", rate("refusals"), (s) => `${short(s.now.refusals)} in all`, short, true],
  ["false-deaths", "False deaths", "in all", level("false_deaths"), () => "declared gone, and heard of again", short, true],
  ["watchers", "Watchers", "", level("watchers"), (s) => `${short(s.now.inbox)} messages wait for their nodes`],
];

const $ = (id) => document.getElementById(id);
let names = [], samples = [], next = 0, relay = "", answered = 0, state = null;

function figure(sample, name) { return sample.figures[names.indexOf(name)]; }
function grown(a, b, name) { return Math.max(0, figure(b, name) - figure(a, name)); }
function rate(...of) { return (a, b) => of.reduce((sum, name) => sum + grown(a, b, name), 0) * 1000 / Math.max(1, b.at - a.at); }
function mean(sum, count) { return (a, b) => grown(a, b, count) ? grown(a, b, sum) / grown(a, b, count) : 0; }
function level(name) { return (_, b) => figure(b, name); }

function short(n) {
  if (n === 0 || !isFinite(n)) return "0";
  if (n < 10 && n % 1) return n.toFixed(n < 1 ? 2 : 1);
  if (n < 10000) return String(Math.round(n));
  for (const [by, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (n >= by) return (n / by).toFixed(n < 10 * by ? 1 : 0) + unit;
}
function bytes(n) {
  for (const [by, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) if (n >= by) return (n / by).toFixed(n < 10 * by ? 1 : 0) + " " + unit;
  return Math.round(n) + " B";
}
function ms(n) {
  if (n < 1) return n.toFixed(2) + " ms";
  if (n < 1000) return n.toFixed(n < 10 ? 1 : 0) + " ms";
  return duration(n);
}
function duration(n) {
  const s = n / 1000;
  if (s < 10) return +s.toFixed(1) + " s";
  if (s < 120 && s !== 60) return Math.round(s) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  return s < 172800 ? (s / 3600).toFixed(1) + " h" : Math.round(s / 86400) + " days";
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
function drawn(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Milliseconds that a whole width stands for: what the relay remembers, and a minute at the least.
function span() { return Math.max(60000, samples.at(-1).at - samples[0].at); }
// The x of a sample; the newest is at the right.
function across(width) {
  const newest = samples.at(-1).at, whole = span();
  return (sample) => (width * (1 - (newest - sample.at) / whole)).toFixed(1);
}
function path(points) { return "M" + points.join("L"); }

function spark(values, height, hot) {
  const svg = drawn("svg", { viewBox: `0 0 300 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (values.length < 2) return svg;
  const top = Math.max(...values.map(([, value]) => value)), x = across(300);
  const line = values.map(([sample, value]) => `${x(sample)},${(height - 1.5 - (top ? value / top : 0) * (height - 5)).toFixed(1)}`);
  const under = path([`${x(values[0][0])},${height}`, ...line, `${x(values.at(-1)[0])},${height}`]) + "Z";
  svg.append(drawn("g", { class: hot && top ? "hot" : "" }, drawn("path", { class: "under", d: under }), drawn("path", { class: "curve", d: path(line) })));
  return svg;
}

// AWAKE, ASLEEP and SUSPECT on top of each other. The picture has the width of its place, so that its text is not squeezed.
function fleet() {
  const width = Math.max(280, $("fleet").clientWidth), height = width < 600 ? 150 : 190, base = height - 18;
  const states = ["asleep", "awake", "suspect"];
  const top = nice(Math.max(1, ...samples.map((it) => states.reduce((sum, name) => sum + figure(it, name), 0))));
  const x = across(width), y = (members) => (base - members / top * (base - 12)).toFixed(1);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "members by state in the last five minutes" });
  for (const share of [0, .5, 1]) {
    const at = y(top * share);
    svg.append(drawn("line", { class: "rule", x1: 0, x2: width, y1: at, y2: at }));
  }
  let below = samples.map(() => 0);
  for (const name of states) {
    const above = samples.map((it, nth) => below[nth] + figure(it, name));
    const edge = (of) => samples.map((it, nth) => `${x(it)},${y(of[nth])}`);
    if (samples.length > 1) svg.append(drawn("path", { class: name, d: path([...edge(above), ...edge(below).reverse()]) + "Z" }));
    below = above;
  }
  svg.append(drawn("text", { x: 0, y: y(top) - 3 }, short(top)));
  const step = span() > 150000 ? 60000 : 20000;
  for (let ago = 0; ago < span() - step / 4; ago += step) {
    const label = ago ? `${duration(ago)} ago` : "now";
    svg.append(drawn("text", { x: width * (1 - ago / span()), y: height - 3, "text-anchor": ago ? "middle" : "end" }, label));
  }
  $("fleet").replaceChildren(svg);
}
function nice(n) {
  const ten = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 4, 6, 8, 10].find((it) => it * ten >= n) * ten;
}

function cards() {
  if (!$("figures").childElementCount) {
    for (const [id, title] of CARDS) {
      $("figures").append(element("section", { className: "card figure", id: "figure-" + id }, element("h2", { textContent: title }),
        element("p", { className: "value" }), element("p", { className: "note" }), drawn("svg", {})));
    }
  }
  for (const [id, , unit, of, note, show = short, hot = false] of CARDS) {
    const card = $("figure-" + id), values = samples.slice(1).map((it, nth) => [it, of(samples[nth], it)]);
    // A rate is that of the last five seconds; what is a level is as of now.
    const last = values.slice(unit === "/s" || show === ms ? -5 : -1).map(([, value]) => value).filter((it) => it || show !== ms);
    const value = last.length ? last.reduce((a, b) => a + b) / last.length : 0;
    card.querySelector(".value").replaceChildren(show === ms && !value ? "–" : show(value), element("small", { textContent: unit }));
    card.querySelector(".note").textContent = note(state);
    card.title = `at most ${show(Math.max(0, ...values.map(([, it]) => it)))}${unit === "/s" ? " a second" : ""} in what is drawn`;
    card.querySelector("svg").replaceWith(spark(values, 34, hot));
  }
}

function groups() {
  const places = state.history.groups, all = new Set(state.groups.map((it) => it.namespace));
  $("groups-card").hidden = !state.groups.length;
  $("groups-note").textContent = state.groups_known > state.groups.length ? `the largest ${state.groups.length} of ${state.groups_known}` : "";
  $("groups").replaceChildren(...state.groups.map((it) => {
    const place = places.findIndex(([namespace, group]) => namespace === it.namespace && group === it.group);
    const curve = place < 0 ? "" : spark(samples.map((sample) => [sample, sample.groups[place]]), 20);
    const name = all.size > 1 ? [element("span", { className: "quiet", textContent: it.namespace + " / " }), it.group] : [it.group];
    const cells = [it.awake, it.asleep, it.suspect, Math.round(it.expected_alive), it.expired, it.back].map((n) => element("td", { className: "n", textContent: short(n) }));
    const row = element("tr", {}, element("td", {}, ...name), ...cells, element("td", {}, curve));
    row.dataset.group = `${it.namespace}/${it.group}`;
    return row;
  }));
}

function list(id, entries, bad = () => false) {
  const shown = entries.length ? entries : [["none", ""]];
  $(id).replaceChildren(...shown.flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: typeof value === "number" ? short(value) : value, className: bad(name, value) ? "bad" : "" })]));
}

function draw() {
  const { about, now, unmet, conditions, since_start: since } = state;
  $("serving").textContent = unmet.length ? "not serving: " + unmet.join("; ") : "serving";
  $("serving").className = "badge " + (unmet.length ? "bad" : "good");
  $("about").textContent = `relay ${about.relay}, version ${about.version}, up ${duration(about.uptime_ms)}, ${about.log} log` + (about.relays > 1 ? `, ${about.relays} relays` : "");
  $("conditions").hidden = !conditions.length;
  $("conditions").replaceChildren(...conditions.map((it) => element("p", { className: "notice" }, element("b", { textContent: it }), " " + (CONDITIONS[it] || ""))));
  for (const it of document.querySelectorAll("[data-now]")) it.textContent = short(now[it.dataset.now]);
  const members = now.awake + now.asleep + now.suspect, had = samples.some((it) => figure(it, "awake") + figure(it, "asleep") + figure(it, "suspect"));
  $("nobody").hidden = members > 0 || had;
  $("fleet").hidden = !$("nobody").hidden;
  if (samples.length && !$("fleet").hidden) fleet();
  if (samples.length) cards();
  groups();
  for (const kind of ["joins", "ends", "pushes"]) list(kind, Object.entries(since[kind]));
  list("refusals", Object.entries(since.refusals), (_, value) => value > 0);
  list("log", [["acknowledged", about.acknowledged], ["durability", about.durability], ["position", about.log_position], ["revision", about.revision],
    ["tells of ends back to", duration(about.floor_lag_ms)], ["stood still", duration(now.paused_ms)], ["awake leases", about.awake_lease_percent + " %"]]);
  $("floors-card").hidden = !state.floors.length;
  list("floors", state.floors.map((it) => [it.floor, it.below ? `${it.below} below ${it.minimum}` : `all have ${it.minimum}`]), (_, value) => value.includes("below"));
}

function take(told) {
  const { history, about } = told;
  // Another relay answers: its samples are others.
  if (about.relay !== relay || history.first !== next) samples = [];
  relay = about.relay;
  names = history.figures;
  samples = samples.concat(history.samples).slice(-history.length);
  next = history.first + history.samples.length;
  state = told;
}

function answers(it) {
  document.body.classList.toggle("lost", !it);
  $("lost").hidden = it;
  if (it) return;
  const since = answered ? `for ${duration(Date.now() - answered)}. What is below is as it was at ${new Date(answered).toLocaleTimeString()}.` : "yet.";
  $("lost").textContent = `The relay has not answered ${since}`;
  $("serving").textContent = "no answer";
  $("serving").className = "badge bad";
}

async function ask() {
  const answer = await fetch("state.json?from=" + next, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!answer.ok) throw new Error("HTTP " + answer.status);
  return answer.json();
}

async function look() {
  const told = await ask().catch(() => null);
  setTimeout(look, EVERY_MS);
  answers(told !== null);
  if (!told) return;
  answered = Date.now();
  take(told);
  draw();
}

addEventListener("resize", () => {
  const lost = document.body.classList.contains("lost");
  if (state) draw();
  if (lost) answers(false);
});
look();
