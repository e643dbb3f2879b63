// TrainingRoom: what a dictionary in training would be if it were saved now, and the buttons to pause, go on, stop and keep.
import { number } from "./core.js";
import { h, sharp, soon, watchTheme } from "./dom.js";
import { palette, pointAt, rgb } from "./matrix.js";

const DASHES = [[], [5, 3], [2, 2], [7, 2, 2, 2]], HEIGHT = 150, LEFT = 46, TOP = 8, BOTTOM = 20;

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta"), steps = () => get("series").step ?? [], column = name => get("series")[name] ?? [];
  let gone = false, hover = -1, dark, css, inks, moved = false;
  const at = () => { const n = steps().length; return hover >= 0 && hover < n ? hover : get("cursor") >= 0 && get("cursor") < n ? get("cursor") : n - 1; };

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-training", "aria-label": "Training room" }), heading = h("div", { className: "wb-heading" }), facts = h("dl", { className: "wb-facts", "aria-label": "The vectors before training" });
  const bar = h("progress", { max: 1, "aria-label": "How far the training is" }), said = h("span", { className: "wb-note" }), state = h("span", { className: "wb-note", role: "status", "aria-live": "polite" });
  const ask = kind => model.send({ kind }), hold = h("button", { onclick: () => ask(get("status").state === "running" ? "pause" : "resume") }), keep = h("button", { text: "Stop and keep", title: "The dictionary as it stands becomes the result", onclick: () => ask("stop") });
  const charts = h("div", { className: "wb-charts", tabIndex: 0, role: "application", "aria-roledescription": "training history", "aria-label": "Charts of the training; left and right arrows move from report to report, End shows the newest" });
  const readout = h("div", { className: "wb-readout" }), table = h("table"), whole = h("details", { ontoggle: () => fill() }, h("summary", { text: "All reports as a table" }), h("div", { className: "wb-scroll" }, table));
  root.append(heading, facts, h("div", { className: "wb-row wb-status" }, bar, hold, keep, said, state), charts, readout, whole); el.append(root);

  // --- numbers -------------------------------------------------------------------------------------------------------
  const real = v => v != null && v === v;
  function ends(p) {                                       // as training_room.py has it
    const v = p.lines.flatMap(([name]) => column(name).filter(x => real(x) && (x > 0 || !p.log)));
    if (!v.length) return p.log ? [.1, 1] : [0, 1];
    const least = Math.min(...v), most = Math.max(...v), low = p.low != null ? Math.max(-1, Math.min(p.low, least)) : least, high = p.high ?? most;
    return p.log ? [low / 1.2, high * 1.2] : [low, p.high ?? (high > low ? low + 1.08 * (high - low) : low + 1)];
  }
  function marks(low, high, log) {                         // a few round numbers
    if (log) { const all = m => { const out = []; for (let e = Math.floor(Math.log10(low)); 10 ** e <= high; e++) for (const k of m) { const v = +(k * 10 ** e).toPrecision(3); if (v >= low && v <= high) out.push(v); } return out; }, tens = all([1]), some = tens.length > 2 ? tens : all([1, 3]); return some.length > 1 ? some.slice(-5) : [low * 1.2, high / 1.2]; }
    const raw = (high - low) / 3, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map(m => m * unit).find(s => s >= raw), out = [];
    for (let i = Math.ceil(low / step); i * step <= high + 1e-9; i++) out.push(i * step); return out;
  }
  const short = v => number(v).replace(/(\.\d*?)0+($|e)/, "$1$2").replace(/\.($|e)/, "$1"), told = v => real(v) ? number(v) : "no value";

  // --- charts --------------------------------------------------------------------------------------------------------
  let drawn = [];
  function build() {
    const id = JSON.stringify([meta().panels, Object.keys(get("density")).length > 0]); if (charts.is === id) return; charts.is = id;
    const chart = (title, legend, paint) => { const canvas = h("canvas", { role: "img" }); drawn.push({ canvas, paint, title }); return h("figure", {}, h("figcaption", { text: title }), canvas, ...(legend ? [legend] : [])); };
    drawn = []; const key = p => p.lines.length > 1 ? h("div", { className: "wb-row wb-note" }, ...p.lines.map(([, words], i) => { const c = h("canvas", { width: 24, height: 8, "data-i": i, className: "wb-key" }); return h("span", { className: "wb-field" }, c, h("span", { text: words })); })) : null;
    charts.replaceChildren(...meta().panels.filter(p => p.lines.length).map(p => chart(p.title, key(p), (c, W) => lines(c, W, p))), ...(get("density").counts ? [chart("how often features fire: share of vectors", null, bars)] : []));
  }
  const X = (W, step) => LEFT + (W - LEFT - 8) * step / Math.max(1, meta().steps);
  function frame(canvas, W, low, high, log, texts) {
    const g = sharp(canvas, W, HEIGHT), y = v => { const f = log ? Math.log : v => v; return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (f(v) - f(low)) / (f(high) - f(low))); };
    g.font = `11px ${css.font}`; g.textBaseline = "middle"; g.textAlign = "right"; g.strokeStyle = css.soft; g.lineWidth = 1;
    for (const v of texts) { g.globalAlpha = .22; g.beginPath(); g.moveTo(LEFT, y(v)); g.lineTo(W - 8, y(v)); g.stroke(); g.globalAlpha = 1; g.fillStyle = css.soft; g.fillText(short(v), LEFT - 5, y(v)); }
    return [g, y];
  }
  function lines(canvas, W, p) {
    const [low, high] = ends(p), [g, y] = frame(canvas, W, low, high, p.log, marks(low, high, p.log)), s = steps(), i = at();
    g.fillStyle = css.soft; g.textBaseline = "alphabetic"; g.textAlign = "left"; g.fillText("0", LEFT, HEIGHT - 5); g.textAlign = "right"; g.fillText(`step ${meta().steps}`, W - 8, HEIGHT - 5);
    g.save(); g.beginPath(); g.rect(LEFT, TOP - 2, W - LEFT - 6, HEIGHT - TOP - BOTTOM + 4); g.clip();
    p.lines.forEach(([name], k) => { g.strokeStyle = inks[k]; g.fillStyle = inks[k]; g.lineWidth = 1.8; g.setLineDash(DASHES[k]); g.beginPath(); let on = false; column(name).forEach((v, j) => { if (!real(v) || p.log && v <= 0) { on = false; return; } on ? g.lineTo(X(W, s[j]), y(v)) : g.moveTo(X(W, s[j]), y(v)); on = true; }); g.stroke(); g.setLineDash([]);
      if (i >= 0 && real(column(name)[i])) { g.beginPath(); g.arc(X(W, s[i]), y(column(name)[i]), 3, 0, 7); g.fill(); } });
    if (i >= 0) { g.strokeStyle = css.soft; g.globalAlpha = .5; g.beginPath(); g.moveTo(X(W, s[i]), TOP); g.lineTo(X(W, s[i]), HEIGHT - BOTTOM); g.stroke(); g.globalAlpha = 1; } g.restore();
    canvas.setAttribute("aria-label", `${p.title}: ${p.lines.map(([name, words]) => `${words} ${i < 0 ? "nothing yet" : told(column(name)[i])}`).join(", ")}`);
  }
  function bars(canvas, W) {
    const d = get("density"), most = Math.max(1, ...d.counts), [g, y] = frame(canvas, W, 0, most * 1.08, false, marks(0, most * 1.08, false).filter(Number.isInteger)), lo = d.edges[0], x = v => LEFT + (W - LEFT - 8) * (v - lo) / -lo;
    g.fillStyle = inks[0]; d.counts.forEach((n, j) => g.fillRect(x(d.edges[j]) + .5, y(n), x(d.edges[j + 1]) - x(d.edges[j]) - 1, y(0) - y(n)));
    g.fillStyle = css.soft; g.textBaseline = "alphabetic"; for (let v = lo; v <= 0; v++) { g.textAlign = v === lo ? "left" : v === 0 ? "right" : "center"; g.fillText(`${+(100 * 10 ** v).toPrecision(1)}%`, x(v), HEIGHT - 5); }
    g.textAlign = "left"; g.fillText(`${d.never} of ${d.features} never in ${d.n}`, LEFT + 4, TOP + 8);
    canvas.setAttribute("aria-label", `How often features fire on ${d.n} held-out vectors: ${d.never} of ${d.features} never, ${d.dense} on more than a tenth`);
  }

  // --- words ---------------------------------------------------------------------------------------------------------
  function report(i) {
    if (i < 0) return "No report yet.";
    return `step ${steps()[i]}${i === steps().length - 1 ? ", the newest" : ""} · ${meta().panels.filter(p => p.lines.length).map(p => `${p.key === "ev" ? "explained variance" : p.title}: ${p.lines.map(([name, words]) => `${told(column(name)[i])}${p.lines.length > 1 ? ` ${words}` : ""}`).join(", ")}`).join(" · ")}`;
  }
  function fill() {
    if (!whole.open) return; const names = meta().panels.flatMap(p => p.lines.map(([name, words]) => [name, p.lines.length > 1 ? `${p.key} ${words}` : p.title])), n = steps().length, id = `${n} ${names.length}`; if (table.is === id) return; table.is = id;
    const every = Math.max(1, Math.ceil(n / 200)), shown = steps().map((_, i) => i).filter(i => (n - 1 - i) % every === 0).reverse();
    table.replaceChildren(h("caption", { className: "wb-note", text: every > 1 ? `every ${every}th of ${n} reports` : `${n} reports, newest first` }), h("tr", {}, ...["step", ...names.map(n => n[1])].map(text => h("th", { text, scope: "col" }))), ...shown.map(i => h("tr", {}, h("td", { className: "n", text: steps()[i] }), ...names.map(([name]) => h("td", { className: "n", text: told(column(name)[i]) })))));
  }
  function drawStatus() {
    const s = get("status"), live = meta().live && !["done", "stopped", "error"].includes(s.state), left = s.seconds_left;
    root.dataset.state = s.state ?? ""; bar.hidden = !live; bar.value = s.share ?? 0; hold.hidden = keep.hidden = !live; keep.disabled = !steps().length; hold.textContent = { running: "Pause", ready: "Start" }[s.state] ?? "Resume";
    said.textContent = `${s.text ?? ""}${s.state === "running" && left != null ? `, about ${left < 1 ? "1 s" : left < 90 ? Math.round(left) + " s" : left < 5400 ? Math.round(left / 60) + " min" : (left / 3600).toFixed(1) + " h"} left` : ""}`;
    const spoken = { running: "training", paused: "paused", done: "finished", stopped: "stopped and kept", error: "failed", ready: "ready" }[s.state] ?? ""; if (state.is !== spoken) { state.is = spoken; state.textContent = live ? `· ${spoken}` : ""; }
    heading.textContent = meta().title ?? ""; const id = JSON.stringify(meta().stats); if (facts.is !== id) { facts.is = id; facts.replaceChildren(...(meta().stats ?? []).map(([name, v, words]) => h("div", { title: words }, h("dt", { text: name }), h("dd", { text: v == null ? "not known" : Number.isInteger(v) ? v.toLocaleString("en") : number(v) })))); }
  }
  function drawCharts() {
    build();
    for (const { canvas, paint } of drawn) paint(canvas, Math.max(200, canvas.parentElement.clientWidth));
    for (const c of root.querySelectorAll(".wb-key")) { const i = +c.dataset.i, g = sharp(c, 24, 8); g.strokeStyle = inks[i]; g.lineWidth = 1.8; g.setLineDash(DASHES[i]); g.beginPath(); g.moveTo(0, 4); g.lineTo(24, 4); g.stroke(); }
    readout.setAttribute("aria-live", moved ? "polite" : "off"); readout.textContent = report(at());
  }
  function drawAll() { drawStatus(); drawCharts(); fill(); }

  // --- hands ---------------------------------------------------------------------------------------------------------
  const refresh = soon(() => { if (!gone) drawAll(); }), again = soon(() => { if (!gone) drawCharts(); });
  const put = cursor => { model.set("cursor", cursor); model.save_changes(); again(); };
  const nearest = e => { const [x] = pointAt(e.target, e, e.target.clientWidth), want = (x - LEFT) / (e.target.clientWidth - LEFT - 8) * meta().steps; return steps().reduce((best, s, i) => Math.abs(s - want) < Math.abs(steps()[best] - want) ? i : best, 0); };
  const series = e => e.target.tagName === "CANVAS" && !e.target.className && e.target !== drawn.at(-1)?.canvas && steps().length;
  charts.addEventListener("pointermove", e => { const i = series(e) ? nearest(e) : -1; if (i !== hover) { hover = i; again(); } });
  charts.addEventListener("pointerleave", () => { hover = -1; again(); });
  charts.addEventListener("click", e => { if (series(e)) { moved = true; const i = nearest(e); put(i === steps().length - 1 ? -1 : i); } });
  charts.addEventListener("keydown", e => {
    const n = steps().length, i = at(), to = { ArrowLeft: Math.max(0, i - 1), ArrowRight: i + 1, Home: 0, End: -1, Escape: -1, PageUp: Math.max(0, i - 10), PageDown: i + 10 }[e.key]; if (to == null || !n) return;
    e.preventDefault(); e.stopPropagation(); moved = true; hover = -1; put(to >= n - 1 ? -1 : to);
  });
  const paintWith = d => { dark = d; const p = palette(root, d); css = p.css; inks = [p.inks.one[d ? 200 : 230], p.css.accent, d ? "rgb(154,209,127)" : "rgb(63,127,53)", p.inks.locks[2][d ? 200 : 230]].map(c => typeof c === "string" ? c : rgb(c)); };
  const theme = watchTheme(root, d => { if (d !== dark || !css.known) { paintWith(d); drawAll(); } });
  const heard = "change:meta change:series change:density change:status change:cursor"; model.on(heard, refresh);
  const fit = new ResizeObserver(soon(() => { if (!gone) { theme.look(); drawCharts(); } })); fit.observe(root);
  paintWith(theme.dark); drawAll();
  return () => { gone = true; fit.disconnect(); theme.stop(); model.off(heard, refresh); };
}
