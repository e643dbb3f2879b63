import { NOTHING, change, chosen, compareMaps, fromHash, matches, mergeTables, ordered, pairUp, readIndex, same, show, subtract, toHash, varying } from "./compare.js";
import { darkened } from "./shades.js";
// The gallery's page: finds runs and lays two of them side by side. Text enters through textContent only; nothing is asked of the network.
const root = document.documentElement, data = JSON.parse(document.getElementById("wb-index").textContent);
const all = readIndex(data), byId = new Map(all.map(r => [r.id, r])), PAGE = 48;
let s = fromHash(location.hash);

function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (v == null || v === false) continue;
    if (k === "text") el.textContent = v;
    else if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (k in el && k !== "list") el[k] = v;
    else el.setAttribute(k, v);
  }
  el.append(...children.flat().filter(c => c != null && c !== false));
  return el;
}
const cut = (text, most = 80) => text.length > most ? text.slice(0, most - 1) + "…" : text;
const spaced = v => show(v) === "" ? "empty" : show(v);
const day = r => r.started.replace("T", " ").slice(0, 16);
const lasted = n => typeof n !== "number" ? "" : n < 120 ? `${n} s` : `${(n / 60).toFixed(1)} min`;
const pageOf = r => r.page ? `${r.path}/report.html` : `${r.path}/`;
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

// --- state: the address holds it ----------------------------------------------------------------------------------------
function set(changes, { keep = false, push = false } = {}) {
  Object.assign(s, keep ? {} : { page: 1 }, changes);
  const address = "#" + toHash(s);
  if (push) history.pushState(null, "", address); else history.replaceState(null, "", address);
  draw();
}
const follow = () => { s = fromHash(location.hash); fill(); draw(); };
addEventListener("popstate", follow); addEventListener("hashchange", follow);

// --- controls: made once ------------------------------------------------------------------------------------------------
const option = (value, text = value) => h("option", { value, text });
const field = (label, control, beside, wide) => { control.id = `wb-${label.toLowerCase()}`; return h("div", { className: wide ? "field wide" : "field" }, h("label", { htmlFor: control.id, text: label }), beside ? h("span", { className: "both" }, control, beside) : control); };
const counted = (of, text = v => v) => { const n = new Map(); for (const r of all) for (const v of of(r)) n.set(v, (n.get(v) ?? 0) + 1);
  return [...n].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true })).map(([v, k]) => option(v, `${cut(text(v), 40)} (${k})`)); };
const pick = (key, first, options) => h("select", { onchange: e => set({ [key]: e.target.value }) }, option("", first), options);
let typing;
const search = h("input", { type: "search", placeholder: "words in titles, parameters, results", autocomplete: "off", spellcheck: false, "aria-keyshortcuts": "/", oninput: e => { clearTimeout(typing); const q = e.target.value; typing = setTimeout(() => set({ q }), 60); } });
const report = pick("report", "all reports", counted(r => [r.report])), model = pick("model", "all models", counted(r => r.models)), status = pick("status", "any", counted(r => [r.status]));
const from = h("input", { type: "date", onchange: e => set({ from: e.target.value }) }), to = h("input", { type: "date", onchange: e => set({ to: e.target.value }) });
const more = h("select", { title: "a parameter or a result", onchange: e => { const name = e.target.value; e.target.value = ""; if (name) { set({ params: [...s.params, [name, ""]] }); filters.querySelector("span:last-of-type input")?.focus(); } } });
const sort = h("select", { onchange: e => set({ sort: e.target.value }) }), turn = h("button", { type: "button", onclick: () => set({ down: !s.down }) });
const views = ["cards", "table"].map(v => h("button", { type: "button", text: v[0].toUpperCase() + v.slice(1), onclick: () => set({ view: v }, { keep: true }) }));
const filters = h("div", { className: "filters" }), said = h("p", { className: "said", role: "status" }), list = h("div", { className: "list" }), pager = h("nav", { className: "pager", "aria-label": "Pages" });
const reset = h("button", { type: "button", text: "Clear all", onclick: () => { set({ ...structuredClone(NOTHING), view: s.view, pick: s.pick }); fill(); search.focus(); } });
const theme = h("button", { type: "button", className: "theme", text: "Theme: auto", onclick: () => {
  const next = { undefined: "dark", dark: "light", light: undefined }[root.dataset.theme];
  if (next) root.dataset.theme = next; else delete root.dataset.theme;
  theme.textContent = `Theme: ${next ?? "auto"}`; restyle();
} });
const swept = data.sweeps.length ? h("details", { className: "sweeps" }, h("summary", { text: plural(data.sweeps.length, "sweep") }), h("ul", {}, data.sweeps.map(w => h("li", {}, h("a", { href: "./" + w.path, text: w.name }))))) : null;
const broken = data.broken.length ? h("p", { className: "error", text: `Left out, because the record cannot be read: ${data.broken.join(", ")}` }) : null;
const browse = h("main", {}, broken, swept,
  h("form", { role: "search", "aria-label": "Runs", onsubmit: e => e.preventDefault() },
    h("div", { className: "controls" }, field("Search", search, null, true), field("Report", report), field("Model", model), field("Status", status), field("From", from), field("To", to),
      field("Filter", more), field("Sort", sort, turn), h("span", { className: "both", role: "group", "aria-label": "View" }, views)), filters),
  h("div", { className: "head" }, said, reset), list, pager);
const compare = h("main", { hidden: true, tabIndex: -1 }), bar = h("section", { className: "bar", "aria-label": "Chosen to compare", hidden: true });
const heading = h("h1", { text: "Gallery of runs" });
document.body.append(h("header", {}, heading, theme), browse, compare, bar);

function fill() {                                                        // the controls say what the state says
  Object.assign(search, { value: s.q }); for (const [el, v] of [[report, s.report], [model, s.model], [status, s.status], [from, s.from], [to, s.to]]) el.value = v;
}
const group = (label, names, prefix) => names.length ? [h("optgroup", { label }, names.map(n => option(prefix + n, cut(n, 50))))] : [];
function choices(scope) {                                                // what can be filtered and sorted by, within the chosen report
  const params = [...varying(scope, "params").keys()], results = [...varying(scope, "results").keys()].slice(0, 60);
  const names = params.join("\n") + "\n\n" + results.join("\n");
  if (choices.made !== names) {
    choices.made = names;
    more.replaceChildren(option("", "parameter or result…"), ...group("Parameters", params, ""), ...group("Results", results.filter(r => !params.includes(r)), ""));
    sort.replaceChildren(option("started", "date"), option("report"), option("seconds", "duration"), option("status"), ...group("Parameters", params, "p:"), ...group("Results", results, "r:"));
  }
  if (![...sort.querySelectorAll("option")].some(o => o.value === s.sort)) sort.append(option(s.sort, s.sort.replace(/^[pr]:/, "")));
  sort.value = s.sort; turn.textContent = s.down ? "↓" : "↑"; turn.setAttribute("aria-label", s.down ? "Descending; turn around" : "Ascending; turn around");
}
function drawFilters(scope) {
  const key = JSON.stringify([s.params.map(p => p[0]), s.report]);
  if (drawFilters.made === key) { [...filters.querySelectorAll("input")].forEach((el, i) => { if (el !== document.activeElement) el.value = s.params[i][1]; }); return; }
  drawFilters.made = key;
  const values = new Map([...varying(scope, "params"), ...varying(scope, "results")]);
  filters.replaceChildren(...s.params.map(([name, want], i) => {
    const known = [...values.get(name)?.keys() ?? []].filter(v => v && v.length < 80).slice(0, 60), id = `wb-values-${i}`;
    const input = h("input", { value: want, placeholder: "word, =exact, >3, 1..4", autocomplete: "off", list: id, "aria-label": name, oninput: e => { const params = s.params.map(p => [...p]); params[i][1] = e.target.value; set({ params }); } });
    return h("span", { className: "filter" }, h("label", {}, h("b", { text: cut(name, 40) }), " ", input), h("datalist", { id }, known.map(v => option(v))),
      h("button", { type: "button", text: "×", "aria-label": `Remove the filter on ${name}`, onclick: () => set({ params: s.params.filter((_, k) => k !== i) }) }));
  }));
}

// --- the runs -----------------------------------------------------------------------------------------------------------
function ticked(r) {
  const box = h("input", { type: "checkbox", checked: s.pick.includes(r.id), onchange: () => choose(r) });
  return h("label", { className: "tick" }, box, h("span", { text: "Compare" }), h("span", { className: "hidden", text: ` ${r.title}, ${day(r)}` }));
}
function choose(r) {                                                     // a third one takes the place of the first
  const on = !s.pick.includes(r.id);
  s.pick = on ? [...s.pick, r.id].slice(-2) : s.pick.filter(id => id !== r.id);
  history.replaceState(null, "", "#" + toHash(s)); drawBar();
  for (const el of list.querySelectorAll("[data-run]")) { const now = s.pick.includes(el.dataset.run); el.classList.toggle("picked", now); el.querySelector("input[type=checkbox]").checked = now; }
}
const chip = (name, value, kind) => h("div", { className: `chip ${kind}` }, h("dt", { text: cut(name, 40) }), h("dd", { text: cut(spaced(value), 60), title: show(value).length > 60 ? cut(show(value), 300) : null }));
const depth = k => k.split(" · ").length;
const numbery = r => [...r.results].filter(([, v]) => typeof v === "number").sort(([a], [b]) => depth(a) - depth(b));
const tidy = v => typeof v === "number" ? +v.toPrecision(4) : v;
const opened = r => h("a", { href: "./" + pageOf(r), text: r.title });
const told = r => r.status === "done" ? null : h("span", { className: "status", text: r.status });
function card(r, mixed) {
  const first = [...r.params].filter(([k]) => r.given.has(k)), rest = [...r.params].filter(([k]) => !r.given.has(k) && mixed.get(r.report).has(k));
  const thumb = r.thumb ? h("img", { src: `./${data.site}/thumbs/${r.id}.${r.thumb}`, alt: r.alt, loading: "lazy", decoding: "async", width: 320, height: 200 }) : h("span", { className: "none", text: r.error || "no picture" });
  return h("li", { className: s.pick.includes(r.id) ? "card picked" : "card", "data-run": r.id }, h("div", { className: "thumb" }, thumb), h("h2", {}, opened(r)),
    h("p", { className: "meta" }, told(r), [r.report, day(r), lasted(r.seconds)].filter(Boolean).join(" · ")),
    r.error && r.thumb ? h("p", { className: "error", text: cut(r.error, 140) }) : null,
    h("dl", {}, [...first, ...rest].slice(0, 5).map(([k, v]) => chip(k, v, "param")), numbery(r).slice(0, 3).map(([k, v]) => chip(k, tidy(v), "result"))), ticked(r));
}
function table(rows, found) {
  const params = [...varying(found, "params").keys()].slice(0, 8), results = [...varying(found, "results")].filter(([k]) => found.some(r => typeof r.results.get(k) === "number")).map(([k]) => k).slice(0, 8);
  const columns = [["report", "run", r => [opened(r), told(r)]], ["started", "date", r => day(r)], ["seconds", "s", r => show(r.seconds ?? "")],
    ...params.map(k => ["p:" + k, k, r => r.params.has(k) ? cut(spaced(r.params.get(k)), 60) : "", true]), ...results.map(k => ["r:" + k, k, r => r.results.has(k) ? show(tidy(r.results.get(k))) : ""])];
  const by = ([key, name]) => h("th", { scope: "col", "aria-sort": s.sort === key ? (s.down ? "descending" : "ascending") : null },
    h("button", { type: "button", onclick: () => set(s.sort === key ? { down: !s.down } : { sort: key, down: key !== "report" && !key.startsWith("p:") }), text: cut(name, 32) + (s.sort === key ? (s.down ? " ↓" : " ↑") : ""), title: name.length > 32 ? name : null }));
  return h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Runs as a table" }, h("table", {}, h("thead", {}, h("tr", {}, h("td", { text: "" }), columns.map(by))),
    h("tbody", {}, rows.map(r => h("tr", { "data-run": r.id, className: s.pick.includes(r.id) ? "picked" : "" }, h("td", {}, ticked(r)), columns.map(([, , cell], i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, cell(r))))))));
}
function drawList() {
  const scope = s.report ? all.filter(r => r.report === s.report) : all;
  choices(scope); drawFilters(scope);
  const found = ordered(chosen(all, s), s), pages = Math.max(1, Math.ceil(found.length / PAGE)); s.page = Math.min(s.page, pages);
  const rows = found.slice((s.page - 1) * PAGE, s.page * PAGE), mixed = new Map([...new Set(rows.map(r => r.report))].map(name => [name, varying(all.filter(r => r.report === name), "params")]));
  said.textContent = all.length === 0 ? `There are no finished runs in ${data.folder}.` : found.length === all.length ? plural(all.length, "run") : `${found.length} of ${plural(all.length, "run")}`;
  reset.hidden = toHash({ ...s, pick: [], diff: [], page: 1, view: "cards" }) === "";
  views.forEach(b => b.setAttribute("aria-pressed", b.textContent.toLowerCase() === s.view));
  list.replaceChildren(!rows.length ? h("p", { className: "nothing", text: all.length ? "No run has all of this. Take a filter away, or search for fewer words." : "Run a report first: workbench report tour." })
    : s.view === "table" ? table(rows, found) : h("ul", { className: "cards", "aria-label": "Runs" }, rows.map(r => card(r, mixed))));
  const step = (text, n, ok) => h("button", { type: "button", text, disabled: !ok, onclick: () => { set({ page: n }, { keep: true }); list.querySelector("a")?.focus(); scrollTo(0, 0); } });
  pager.hidden = pages === 1; pager.replaceChildren(step("Earlier", s.page - 1, s.page > 1), h("span", { text: `page ${s.page} of ${pages}` }), step("Later", s.page + 1, s.page < pages));
}
function drawBar() {
  const runs = s.pick.map(id => byId.get(id)).filter(Boolean);
  bar.hidden = !runs.length || s.diff.length > 0;
  bar.replaceChildren(h("ol", {}, runs.map((r, i) => h("li", {}, h("b", { text: "AB"[i] }), ` ${cut(r.title, 40)}, ${day(r)} `, h("button", { type: "button", text: "×", "aria-label": `Leave out ${r.title}, ${day(r)}`, onclick: () => choose(r) })))),
    h("button", { type: "button", className: "main", text: runs.length === 2 ? "Compare these two" : "Choose one more", disabled: runs.length !== 2, onclick: () => set({ diff: [...s.pick] }, { keep: true, push: true }) }));
}

// --- two runs: their data are scripts, since a page from a file may not read files ---------------------------------------
const waiting = new Map(), loaded = new Map();
globalThis.workbenchRun = (id, packed) => waiting.get(id)?.(packed);
function script(src) { return new Promise((done, fail) => document.head.append(h("script", { src, onload: done, onerror: () => fail(new Error(src)) }))); }
async function details(id) {
  if (!loaded.has(id)) {
    const packed = new Promise(done => waiting.set(id, done));
    await script(`./${data.site}/runs/${id}.js`);
    const bytes = Uint8Array.from(atob(await packed), c => c.charCodeAt(0));
    loaded.set(id, await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json());
  }
  return loaded.get(id);
}
const flat = (value, path = "") => value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length ? Object.entries(value).flatMap(([k, v]) => flat(v, path ? `${path} · ${k}` : k)) : [[path, value]];
const ELSEWHERE = ["parameters", "given", "data", "title", "line", "format", "report", "models"];
function provenance({ record, failure }) {
  const rows = flat(Object.fromEntries(Object.entries(record).filter(([k]) => !ELSEWHERE.includes(k)))).filter(([, v]) => v !== null);
  for (const m of record.models ?? []) rows.push([`model · ${m.name}`, m.hash ?? ""]);
  if (failure) rows.push(["failed in", failure.heading ?? ""], ["error", failure.error ?? ""]);
  return new Map(rows);
}
const cell = (v, has) => h("td", { className: has ? "" : "missing", title: typeof v === "number" ? String(v) : null }, has ? (typeof v === "number" ? String(+v.toPrecision(7)) : cut(spaced(v), 2000)) : "not there");
const moved = c => h("td", { className: "change", text: c?.text ?? "" });
const MOST = 400;
function mapTable(rows, names) {
  const line = r => h("tr", { className: r.differs ? "differs" : "" }, h("th", { scope: "row", text: cut(r.name, 120) }), cell(r.a, r.has[0]), cell(r.b, r.has[1]), moved(r.change));
  const part = rows => h("div", { className: "scroll" }, h("table", { className: "diff" }, h("thead", {}, h("tr", {}, ["", "A", "B", "B − A"].map(t => h("th", { scope: "col", text: t })))), h("tbody", {}, rows.slice(0, MOST).map(line))),
    rows.length > MOST ? h("p", { className: "note", text: `${rows.length - MOST} more are in result.json of each run.` }) : null);
  const differ = rows.filter(r => r.differs), alike = rows.filter(r => !r.differs);
  return [differ.length ? part(differ) : h("p", { className: "note", text: rows.length ? `All ${names} are the same.` : `There are no ${names}.` }),
    alike.length ? h("details", {}, h("summary", { text: `${alike.length} the same` }), part(alike)) : null];
}
const brief = v => /^-?\d*\.?\d+(e[-+]?\d+)?$/.test(v) && v.length > 10 ? String(+(+v).toPrecision(7)) : v;
function merged(m) {
  const one = (c, key) => key || c.a === undefined || c.b === undefined || !c.differs ? h(key ? "th" : "td", key ? { scope: "row", text: c.a ?? c.b ?? "" } : { text: c.a ?? c.b ?? "" })
    : h("td", { className: "differs" }, h("span", { className: "was", text: brief(c.a), title: c.a }), " → ", h("span", { text: brief(c.b), title: c.b }), c.change?.text ? h("small", { text: c.change.text }) : null);
  const rows = m.rows.slice(0, 120);
  return h("div", { className: "scroll" }, h("table", { className: "merged" }, h("thead", {}, h("tr", {}, h("td", {}), m.columns.map((c, k) => h("th", { scope: "col" }, c, m.only[k] && h("small", { text: `${m.only[k].toUpperCase()} only` }))))),
    h("tbody", {}, rows.map(r => h("tr", { className: r.only ? "only" : "" }, h("td", { className: "side", text: r.only === "a" ? "A only" : r.only === "b" ? "B only" : "" }), r.cells.map((c, k) => one(c, k < m.keys)))))),
    m.rows.length > rows.length ? h("p", { className: "note", text: `The first ${rows.length} of ${m.rows.length} rows.` }) : null);
}
const plain = t => t ? h("div", { className: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, t.columns.map(c => h("th", { scope: "col", text: c })))), h("tbody", {}, t.rows.slice(0, 120).map(r => h("tr", {}, r.map(v => h("td", { text: v }))))))) : h("p", { className: "note", text: "not there" });
function tablePair([a, b]) {
  const t = a ?? b, m = a && b ? mergeTables(a, b) : null, title = [t.heading, t.title].filter(Boolean).join(": ") || "Table";
  const about = !a ? "only in B" : !b ? "only in A" : !m ? "other columns" : m.changed ? `${plural(m.changed, "row")} of ${m.rows.length} differ${m.changed === 1 ? "s" : ""}` : "the same";
  return h("details", { open: !m || m.changed > 0 }, h("summary", {}, h("b", { text: title }), ` ${about}`), m ? merged(m) : h("div", { className: "pair" }, [a, b].map((x, i) => h("div", {}, h("b", { className: "side", text: "AB"[i] }), plain(x)))));
}

// --- pictures of both -----------------------------------------------------------------------------------------------------
let plots = [], shared = [];
const colour = name => { const probe = document.body.appendChild(h("i")); probe.style.color = `var(${name})`; const value = getComputedStyle(probe).color; probe.remove(); return value; };
function layoutOf(figure) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--soft"), linecolor: colour("--line"), tickcolor: colour("--line"), automargin: true }, { width, ...rest } = structuredClone(figure.layout ?? {});
  return { ...rest, height: Math.min(rest.height ?? 340, 700), template: { layout: { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 }, xaxis: axis, yaxis: axis,
    colorway: ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"], hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--ink") } }, margin: { t: 52, r: 12, b: 44, l: 48 }, title: { font: { size: 14 }, x: 0, xref: "paper", xanchor: "left" } } } };
}
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const tracesOf = figure => structuredClone(figure.data ?? []).map(t => isDark() ? darkened(t, colour("--panel")) : t);
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
const restyle = () => { for (const p of plots) if (p.drawn) Plotly.react(p.el, tracesOf(p.figure), layoutOf(p.figure), CONFIG); if (oneScale) for (const [p, q] of shared) share(p, q); };
function place(figure, label, side) {
  const el = h("div", { className: "plot", role: "img", "aria-label": `${side}: ${label}` });
  el.style.minHeight = Math.min(figure.layout?.height ?? 340, 700) + "px";
  const p = { el, figure }; plots.push(p);
  return p;
}
const line = a => a && (a.type === "linear" || a.type === "log") && !a.tickvals && !a.scaleanchor;
function share(p, q) {                                                   // the two figures of a pair on one scale: axes of numbers, colours of heatmaps
  const fa = p.el._fullLayout, fb = q.el._fullLayout, axes = {};
  for (const name of Object.keys(fa).filter(k => /^[xy]axis\d*$/.test(k))) {
    const a = fa[name], b = fb[name];
    if (p.heats || !line(a) || !line(b) || a.type !== b.type) continue;
    const all = [...a.range, ...b.range], low = Math.min(...all), high = Math.max(...all);
    axes[name + ".range"] = a.range[0] > a.range[1] ? [high, low] : [low, high];
  }
  const scale = (x, y) => x.type === "heatmap" && y.type === "heatmap" && [Math.min(x.zmin, y.zmin), Math.max(x.zmax, y.zmax)];
  const ranges = p.el._fullData.map((t, i) => q.el._fullData[i] && scale(t, q.el._fullData[i]));
  for (const one of [p, q]) {
    if (Object.keys(axes).length) Plotly.relayout(one.el, { ...axes });
    ranges.forEach((r, i) => { if (r && r.every(Number.isFinite)) Plotly.restyle(one.el, { zmin: r[0], zmax: r[1], zauto: false, zmid: null }, [i]); });
  }
}
async function plot(p) {
  await Plotly.newPlot(p.el, tracesOf(p.figure), layoutOf(p.figure), CONFIG);
  p.drawn = true; p.heats = p.el._fullData.some(t => t.type === "heatmap");
}
let oneScale = true;
function picturePair([a, b], runs) {
  const t = a ?? b, label = t.alt || t.heading || "Picture", both = a?.kind === "plotly" && b?.kind === "plotly", made = [];
  const one = (x, i) => h("figure", {}, h("figcaption", {}, h("b", { className: "side", text: "AB"[i] }), ` ${x ? x.alt || x.heading : ""}`), !x ? h("p", { className: "note", text: "not there" })
    : x.kind === "plotly" ? (made[i] = place(x.figure, x.alt, "AB"[i])).el : x.kind === "image" ? h("img", { src: x.src, alt: `${"AB"[i]}: ${x.alt}` })
    : h("p", { className: "note" }, "A widget. It is alive on ", h("a", { href: "./" + pageOf(runs[i]), text: "the page of the run" }), "."));
  const view = h("div", { className: "pair" }, one(a, 0), one(b, 1));
  const gap = both && same([a.figure.data[0]?.x, a.figure.data[0]?.y], [b.figure.data[0]?.x, b.figure.data[0]?.y]) ? subtract(a.figure, b.figure) : null;
  const most = gap ? Math.max(...gap.flat().map(v => Math.abs(v ?? 0))) : 0;
  if (gap && most > 0) {
    const { z, zmin, zmax, zmid, zauto, coloraxis, customdata, hovertemplate, text, texttemplate, ...keep } = a.figure.data[0], { title, annotations, ...layout } = a.figure.layout ?? {};
    const third = place({ data: [{ ...keep, z: gap, zmin: -most, zmax: most, colorscale: [[0, "#2166ac"], [.5, "#f7f7f7"], [1, "#b2182b"]], reversescale: false, showscale: true }], layout: { ...layout, margin: { ...layout.margin, t: 16 } } }, label, "B − A");
    made.push(third); view.append(h("figure", { className: "gap" }, h("figcaption", {}, h("b", { className: "side", text: "B − A" }), ` largest ${+most.toPrecision(3)}`), third.el));
  }
  const alike = a && b && same(a.figure ?? a.src, b.figure ?? b.src) && a.kind !== "widget";
  return { view: h("div", { className: "picture" }, h("h3", { text: t.heading || label }), alike ? h("p", { className: "note", text: "The same in both runs." }) : null, view), made, both };
}
async function drawPlots(pairs) {
  if (!pairs.some(p => p.made.length)) return;
  if (!globalThis.Plotly) await script(`./${data.site}/${data.plotly}`);
  for (const { made, both } of pairs) { for (const p of made) if (p?.el.isConnected) await plot(p); if (both && oneScale && made[0]?.drawn && made[1]?.drawn) { shared.push([made[0], made[1]]); share(made[0], made[1]); } }
}

// --- the comparison -------------------------------------------------------------------------------------------------------
const section = (id, title, ...inside) => h("section", { "aria-labelledby": id }, h("h2", { id, text: title }), ...inside);
const back = () => set({ diff: [] }, { keep: true, push: true });
function top(runs) {
  const one = (r, i) => h("div", { className: "one" }, h("b", { className: "side", text: "AB"[i] }), h("div", {}, h("a", { href: "./" + pageOf(r), text: r.title }), h("p", { className: "meta" }, told(r), [r.report, day(r), lasted(r.seconds)].filter(Boolean).join(" · "))));
  return [h("div", { className: "head" }, h("button", { type: "button", text: "← All runs", onclick: back }), h("button", { type: "button", text: "Swap A and B", onclick: () => set({ diff: [...s.diff].reverse(), pick: [...s.pick].reverse() }, { keep: true }) })),
    h("div", { className: "pair ones" }, runs.map(one)), runs[0].report !== runs[1].report ? h("p", { className: "note", role: "note", text: "These are runs of two different reports: what bears the same name is compared." }) : null];
}
function pagesBeside(runs) {
  const holder = h("div", { className: "pair pages" });
  return [h("button", { type: "button", text: "Show both pages here", onclick: e => { e.target.remove(); holder.append(...runs.map((r, i) => h("iframe", { src: "./" + pageOf(r), title: `${"AB"[i]}: ${r.title}`, sandbox: "allow-scripts" }))); } }), holder];
}
let drawing = 0;
async function drawDiff() {
  const mine = ++drawing, runs = s.diff.map(id => byId.get(id)); plots = []; shared = []; compare.dataset.state = "loading";
  if (runs.some(r => !r)) { compare.replaceChildren(h("p", { className: "note", text: "One of these runs is not in this gallery any more." }), h("button", { type: "button", text: "← All runs", onclick: back })); return; }
  compare.replaceChildren(...top(runs).filter(Boolean), h("p", { className: "note", role: "status", text: "Reading both runs…" })); compare.focus({ preventScroll: true }); scrollTo(0, 0);
  let both;
  try { both = await Promise.all(s.diff.map(details)); }
  catch { if (mine === drawing) compare.lastChild.textContent = "The data of these runs cannot be read. Build the gallery again: workbench gallery."; return; }
  if (mine !== drawing) return;
  const [a, b] = both, pairs = pairUp(a.pictures, b.pictures).map(p => picturePair(p, runs)), tables = pairUp(a.tables, b.tables, t => `${t.heading}\n${t.title}`);
  const parameters = compareMaps(...both.map(d => new Map(Object.entries(d.record.parameters ?? {})))), from = compareMaps(provenance(a), provenance(b)), results = compareMaps(new Map(a.result), new Map(b.result));
  const scales = h("label", { className: "tick" }, h("input", { type: "checkbox", checked: oneScale, onchange: e => { oneScale = e.target.checked; drawDiff(); } }), h("span", { text: "Both on one scale" }));
  const n = rows => rows.filter(r => r.differs).length;
  compare.replaceChildren(...top(runs).filter(Boolean), section("d-parameters", `Parameters: ${n(parameters)} differ`, mapTable(parameters, "parameters")), section("d-results", `Results: ${n(results)} differ`, mapTable(results, "results")),
    section("d-tables", "Tables", tables.length ? tables.map(tablePair) : h("p", { className: "note", text: "There are no tables." })),
    section("d-pictures", "Pictures", pairs.some(p => p.both) ? scales : null, pairs.length ? pairs.map(p => p.view) : h("p", { className: "note", text: "There are no pictures." })),
    section("d-provenance", `Provenance: ${n(from)} differ`, mapTable(from, "entries")), section("d-pages", "Pages", pagesBeside(runs)));
  try { await drawPlots(pairs); } finally { if (mine === drawing) compare.dataset.state = "ready"; }
}

// --- draw, keys -----------------------------------------------------------------------------------------------------------
let shown = "";
function draw() {
  const two = s.diff.length === 2; browse.hidden = two; compare.hidden = !two; heading.textContent = two ? "Two runs side by side" : "Gallery of runs"; document.title = heading.textContent;
  drawBar();
  if (two) { if (shown !== s.diff.join()) { shown = s.diff.join(); drawDiff(); } }
  else { const returned = shown !== ""; shown = ""; drawing++; compare.replaceChildren(); drawList(); if (returned) (list.querySelector(".picked a") ?? search).focus(); }
}
addEventListener("keydown", e => {
  const typing = e.target.closest?.("input, select, textarea") && e.target.type !== "checkbox";
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === "/" && !typing && !browse.hidden) { e.preventDefault(); search.focus(); search.select(); return; }
  if (e.key === "Escape" && !compare.hidden) { back(); return; }
  const at = e.target.closest?.("[data-run]"); if (!at || typing) return;
  if (e.key === "c") { choose(byId.get(at.dataset.run)); return; }
  const cards = [...list.querySelectorAll("[data-run]")], i = cards.indexOf(at), wide = s.view === "table" ? 1 : cards.filter(c => c.offsetTop === cards[0].offsetTop).length;
  const next = { ArrowRight: i + 1, ArrowLeft: i - 1, ArrowDown: i + wide, ArrowUp: i - wide, Home: 0, End: cards.length - 1 }[e.key];
  if (next === undefined || !cards[next]) return;
  e.preventDefault(); cards[next].querySelector("a").focus();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
fill(); draw();
root.dataset.ready = "true";
