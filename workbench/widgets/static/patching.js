// PatchingGrid: what each cell does to the answer when it is changed, how sure that is, what it can reach, and one click further what the model then says.
import { displayToken, number, pool, shader, shorten, ticks } from "./core.js";
import { OURS, asker, choice, h, later, picture, sharp, soon, watchTheme } from "./dom.js";
import { arrow, beyond, colourBar, columnLabels, cross, drawing, nextTokens, palette, pointAt, rgb, rowLabels } from "./matrix.js";
import { KNOWN, NOWHERE, PENDING, PREVIEW, UNDEFINED, anchors, cellOf, cellsIn, facetLayout, isIn, lineOf, ordered, reaches, scaleEnd, sizeOf } from "./cells.js";

const SEEN = "metric which prompt shade ends top scale hatch cone layer_zero region pins".split(" "), MANY = 40;
const SHORT = v => number(v).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""), SIGNED = v => (v > 0 ? "+" : v < 0 ? "−" : "") + number(Math.abs(v));

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta");
  const put = values => { for (const [k, v] of Object.entries(values)) model.set(k, v); model.save_changes(); };
  const R = () => meta().layers.length, C = () => meta().columns.length, metric = () => meta().metrics.find(m => m.name === get("metric")) ?? meta().metrics[0];
  const rowAt = r => get("layer_zero") === "top" ? R() - 1 - r : r;         // the row that is drawn r-th from below
  const running = () => ["preview", "running"].includes(get("status").state), apart = () => get("which") === "difference";
  let gone = false, box = null, pulling = null, drag = null;

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-patching", "aria-label": "Patching grid" }), heading = h("div", { className: "wb-heading" }), said = h("div", { className: "wb-note" });
  const bar = h("progress", { max: 1, "aria-label": "How much is computed" }), progress = h("span", { className: "wb-note" }), stopper = h("button", { onclick: () => model.send({ kind: get("status").state === "stopped" ? "continue" : "stop" }) }), statusRow = h("div", { className: "wb-row wb-status" }, bar, progress, stopper);
  const plot = h("canvas", { ...OURS, tabIndex: 0, role: "application", "aria-roledescription": "patch grid", className: "wb-plot" }), legend = h("canvas", { className: "wb-scale", role: "img" }), looks = h("div", { className: "wb-row wb-looks" });
  const readout = h("div", { className: "wb-readout", role: "status", "aria-live": "polite" }), side = h("aside", { className: "wb-pane wb-side", "aria-label": "The selected cells" }), pinned = h("div", { className: "wb-pins" }), shelf = h("div");
  const table = h("table"), largestOf = h("details", { ontoggle: () => fillTable() }, h("summary", { text: "Largest cells as a table" }), table);
  const prompts = () => [["-1", meta().n > 1 ? `mean of ${meta().n}` : "the one"], ...Array.from({ length: Math.min(200, meta().n) }, (_, i) => [String(i), `prompt ${i}`])];
  const controls = {
    metric: choice(model, "metric", "metric", meta().metrics.map(m => [m.name, m.label])), which: choice(model, "which", "show", [["A", "A"], ["B", "B"], ["difference", "A − B"]]),
    shade: choice(model, "shade", "colour", [["change", "change from the patched run"], ["value", "value itself"]]), ends: choice(model, "ends", "ends at", [["anchors", "both runs"], ["view", "largest cell"]], "Where the colour scale ends"), scale: choice(model, "scale", "steps", [["linear", "linear"], ["sqrt", "√ scale"]]), layer_zero: choice(model, "layer_zero", "layer 0", [["bottom", "at the bottom"], ["top", "on top"]]),
  };
  const who = h("select", { "aria-label": "prompts", onchange: () => put({ prompt: +who.value }) }), whoField = h("label", { className: "wb-field" }, h("span", { text: "prompts" }), who);
  const tick = (trait, text) => { const box_ = h("input", { type: "checkbox", onchange: () => put({ [trait]: box_.checked }) }); return { el: h("label", { className: "wb-field" }, box_, h("span", { text })), read() { box_.checked = get(trait); } }; };
  const hatch = tick("hatch", "hatch what may be 0"), cone = tick("cone", "show what a cell can reach");
  root.append(heading, said, statusRow, h("div", { className: "wb-row" }, controls.metric.el, controls.which.el, whoField, hatch.el, cone.el), h("details", {}, h("summary", { text: "View" }), h("div", { className: "wb-row" }, ...["shade", "ends", "scale", "layer_zero"].map(k => controls[k].el))),
    h("div", { className: "wb-panes" }, h("div", { className: "wb-pane wb-main" }, plot, legend, looks, readout, pinned, largestOf), side), shelf);
  el.append(root);

  // --- data ----------------------------------------------------------------------------------------------------------
  const refresh = soon(() => gone || drawAll()), store = asker(model, refresh);
  const key = (what, p = get("prompt")) => [get("which"), metric().name, what, p < 0 ? "all" : p];
  let cached = {};
  function data() {                                        // {x, state, low, high, n: one array per facet, top}, null while it is on its way, or {missing}
    const whole = get("prompt") < 0 && (meta().n > 1 || meta().n_b > 1), sure = whole && !running(), plain = get("shade") === "change" || metric().constant || apart();
    const asked = [plain ? "change" : "value", "state", ...(sure ? ["low", "high"] : []), ...(whole ? ["n"] : [])].map(what => store.get(key(what))), bad = asked.find(c => c?.missing);
    if (bad || asked.slice(0, 2).includes(null)) return bad ?? null;
    const id = JSON.stringify([key(0), get("shade"), get("ends"), get("top")]);
    if (cached.id === id && cached.from.every((c, i) => c === asked[i]) && cached.from.length === asked.length) return cached;
    const facets = c => c && Array.from({ length: c.heads }, (_, i) => c.head(i)), x = facets(asked[0]), state = facets(asked[1]), [low, high] = sure ? asked.slice(2, 4).map(facets) : [], n = whole ? facets(asked.at(-1)) : null;
    if (get("shade") === "value" && metric().constant && !apart()) for (const m of x) for (let i = 0; i < m.length; i++) m[i] += metric().base;
    const every = x.flatMap(m => [...m]), move = get("shade") === "change" || apart() ? 0 : Math.abs(metric().base ?? 0);
    return cached = { id, from: asked, x, state, low, high, n, top: apart() ? get("top") || every.reduce((a, v) => Math.abs(v) > a ? Math.abs(v) : a, 0) || 1 : scaleEnd(metric(), every, get("ends"), get("top")) + (get("ends") === "anchors" && !get("top") ? move : 0), seen: new Set(state.flatMap(m => [...m])), art: null };
  }
  const at = (f, r, c) => r * C() + c, shift = () => get("shade") === "value" && !apart() ? metric().base ?? 0 : 0;   // what turns a drawn number into a change
  const doubtful = (f, i) => get("hatch") && cached.low?.[f] && cached.high?.[f] && cached.low[f][i] <= 0 && cached.high[f][i] >= 0;

  // --- names ---------------------------------------------------------------------------------------------------------
  const tokenAt = c => { const p = get("prompt"), own = p >= 0 && get("which") !== "B" && meta().prompts[p]; return own ? [own[0][c], own[1] && own[1][c] !== own[0][c] ? own[1][c] : null, 1] : meta().columns[c]; };
  const columnText = (c, most = 12) => { const [text, , many] = tokenAt(c), numbered = meta().axis === "pos" && /^-?\d+$/.test(meta().places[c]); return `${shorten(meta().axis === "pos" ? displayToken(text) : text, most)}${many > 1 ? ` +${many - 1}` : ""}${numbered ? " " + meta().places[c] : ""}`; };
  const columnLong = c => { const [text, under, many] = tokenAt(c), one = meta().axis === "pos"; return `${one ? meta().places[c] + ' "' : ""}${one ? displayToken(text) : text}${one ? '"' : ""}${many > 1 ? ` and ${many - 1} other words` : ""}${under != null ? ` (corrupted "${displayToken(under)}")` : ""}`; };
  const nameOf = region => {
    const [f, a, b, c, d] = ordered(region), L = meta().layers, span = (x, y) => x === y ? `${x}` : `${x} to ${y}`, all = b === 0 && d === C() - 1 && C() > 1;
    return `${meta().facets[f].label} · layer${a === c ? "" : "s"} ${span(L[a], L[c])} · ${all ? `all ${C()} columns` : b === d ? columnLong(b) : `${columnText(b)} to ${columnText(d)}`}`;
  };

  // --- colours -------------------------------------------------------------------------------------------------------
  let dark, inks, css, patterns = {};
  const theme = watchTheme(root, d => { if (d !== dark || !css.known) { paintWith(d); drawAll(); } });
  function stripes(colour, gap, back, width) {             // a tile of diagonal lines
    const r = devicePixelRatio || 1, c = h("canvas", { width: gap * r, height: gap * r }), g = c.getContext("2d"); g.scale(r, r); g.strokeStyle = colour; g.lineWidth = width;
    g.beginPath(); for (const o of [-gap, 0, gap]) { if (back) { g.moveTo(o, 0); g.lineTo(o + gap, gap); } else { g.moveTo(o, gap); g.lineTo(o + gap, 0); } } g.stroke(); return c;
  }
  function paintWith(d) { dark = d; ({ inks, css } = palette(root, d)); patterns = { pending: stripes(d ? "#666" : "#aaa", 8, false, 1.4), doubt: stripes(d ? "rgba(255,255,255,.3)" : "rgba(0,0,0,.28)", 6, true, .9) }; cached.art = null; }
  const fillWith = (g, tile, path) => { const r = devicePixelRatio || 1, p = g.createPattern(tile, "repeat"); p.setTransform(new DOMMatrix().scale(1 / r)); g.fillStyle = p; g.fill(path); };

  // --- the grid ------------------------------------------------------------------------------------------------------
  let layout = facetLayout(600, 1, 1, 1), size = {};
  const cw = () => layout.boxes[0].w / (box[1] - box[0]), X = (f, c) => layout.boxes[f].x + (c - box[0]) * cw(), Y = (f, r) => layout.boxes[f].y + layout.boxes[f].h - (rowAt(r) + 1) * layout.ch;
  const firstColumn = () => Math.max(0, Math.floor(box[0])), lastColumn = () => Math.min(C(), Math.ceil(box[1]));
  function drawPlot() {
    const d = data(), W = Math.max(240, plot.parentElement.clientWidth - 4), F = meta().facets.length;
    box ??= [0, C()]; if (box[1] > C()) box = [0, C()];
    layout = facetLayout(W, F, R(), C(), { left: 34 });
    const g0 = plot.getContext("2d"); g0.setTransform(1, 0, 0, 1, 0, 0); g0.font = `11px ${css.font}`;
    const shown = Array.from({ length: lastColumn() - firstColumn() }, (_, i) => firstColumn() + i), widest = f => shown.reduce((n, c) => Math.max(n, g0.measureText(f(c)).width), 0), under = c => { const t = tokenAt(c)[1]; return t == null ? "" : shorten(displayToken(t), 12); };
    const upright = widest(c => columnText(c)) < cw() - 4 && widest(under) < cw() - 4, first = upright ? 15 : widest(c => columnText(c)) + 6, second = shown.some(c => tokenAt(c)[1] != null) ? (upright ? 14 : widest(under) + 8) : 0;
    size = { W, H: layout.bottom + 8 + first + second, upright, first, under };
    if (!d?.x) { cached = {}; const g = sharp(plot, W, size.H); g.fillStyle = css.soft; g.font = `12px ${css.font}`; g.fillText(d?.missing ?? "…", layout.boxes[0].x, layout.boxes[0].y + 16); return; }
    const id = JSON.stringify([d.id, W, box, dark, get("scale"), get("hatch"), get("layer_zero"), devicePixelRatio]);
    if (d.art?.id !== id) d.art = Object.assign(h("canvas"), { id }), paint(d.art, d);
    drawLegend(d); overlay();
  }
  function paint(canvas, d) {                              // everything that does not move with the cursor
    const g = sharp(canvas, size.W, size.H), s = shader(null, d.top, get("scale"), true), w = cw(), hh = layout.ch, wide = box[1] - box[0], c0 = firstColumn(), c1 = lastColumn();
    layout.boxes.forEach((b, f) => {
      const m = new Float32Array(R() * C()); for (let r = 0; r < R(); r++) m.set(d.x[f].subarray(r * C(), (r + 1) * C()), (R() - 1 - rowAt(r)) * C());   // top row first
      const fine = w >= 1 / (devicePixelRatio || 1), pw = Math.round(b.w), art = fine ? picture(C(), R(), i => m[i] !== m[i] ? null : inks.two[s(m[i])]) : drawing(pool(m, R(), C(), [box[0], 0, box[1], R()], pw, R()), pw, R(), false, s, inks.two);
      g.fillStyle = css.ground; g.fillRect(b.x, b.y, b.w, b.h); g.imageSmoothingEnabled = false; fine ? g.drawImage(art, box[0], 0, wide, R(), b.x, b.y, b.w, b.h) : g.drawImage(art, b.x, b.y, b.w, b.h);
      const pending = new Path2D(), doubt = new Path2D(); g.save(); g.beginPath(); g.rect(b.x, b.y, b.w, b.h); g.clip(); g.font = `${Math.min(12, hh)}px ${css.font}`;
      for (let r = 0; r < R(); r++) for (let c = c0; c < c1; c++) {
        const i = at(f, r, c), v = d.x[f][i], k = d.state[f][i], x = X(f, c), y = Y(f, r);
        if (k === PENDING) pending.rect(x, y, w, hh);
        else if (k === UNDEFINED) { if (w >= 4 && hh >= 4) cross(g, x, y, w, hh, css.ground); else { g.fillStyle = "#d0f"; g.fillRect(x, y, w, hh); } }
        else if (k === KNOWN || k === NOWHERE) { g.fillStyle = k === NOWHERE ? css.ground : css.paper; g.fillRect(x, y, w, hh); if (k === KNOWN && w >= 3) { g.fillStyle = css.soft; g.fillRect(x + w / 2 - 1, y + hh / 2 - 1, 2, 2); } }
        else {
          if (k === PREVIEW && w >= 4) { g.fillStyle = css.paper; g.beginPath(); g.moveTo(x, y); g.lineTo(x + Math.min(w, 9), y); g.lineTo(x, y + Math.min(hh, 9)); g.fill(); }
          if (doubtful(f, i)) doubt.rect(x, y, w, hh);
          if (Math.abs(v) > d.top * 1.001 && w >= 6) beyond(g, x + w / 2, y + hh / 2, v, inks.two);
        }
      }
      fillWith(g, patterns.pending, pending); fillWith(g, patterns.doubt, doubt); g.restore();
      g.strokeStyle = css.soft; g.globalAlpha = .4; g.lineWidth = 1; g.strokeRect(b.x - .5, b.y - .5, b.w + 1, b.h + 1); g.globalAlpha = 1;
    });
  }
  function reached(f, r, c, from) { const m = meta(), place = (row, col, g) => ({ name: m.facets[g].name, layer: m.layers[row], pos: m.axis === "pos" && m.numbered ? m.place_labels[col] : null, unit: m.axis === "pos" ? m.facets[g].unit : m.place_labels[col] }); return from.some(([g, a, b]) => reaches(place(a, b, g), place(r, c, f), m)); }
  let cones = {};
  function coneOf(region) {                                // per facet one byte a cell: 1 where the region reaches
    const id = region.join(); if (cones.id === id) return cones;
    const all = cellsIn(region), [, a, b] = ordered(region), from = all.length <= 40 ? all : all.filter(([, r, c]) => r === a || c === b).slice(0, 80);
    return cones = { id, in: meta().facets.map((_, f) => Uint8Array.from({ length: R() * C() }, (_, i) => +reached(f, Math.floor(i / C()), i % C(), from))) };
  }
  function overlay() {
    const d = cached; if (!d.x) return;
    const g = sharp(plot, size.W, size.H), w = cw(), hh = layout.ch, region = pulling ?? get("region"), [hf, hr, hc] = get("hovered"), shown = layout.boxes[0];
    g.drawImage(d.art, 0, 0, size.W, size.H);
    layout.boxes.forEach((b, f) => {
      g.save(); g.beginPath(); g.rect(b.x - 2, b.y - 2, b.w + 4, b.h + 4); g.clip();
      if (region.length && get("cone") && !(meta().axis === "pos" && !meta().numbered)) {
        const mask = coneOf(region).in[f]; g.fillStyle = css.page; g.globalAlpha = .62;
        for (let r = 0; r < R(); r++) for (let c = firstColumn(), from = -1; c <= lastColumn(); c++) { const out = c < lastColumn() && !mask[at(f, r, c)] && !isIn(region, f, r, c); if (out && from < 0) from = c; else if (!out && from >= 0) { g.fillRect(X(f, from), Y(f, r), (c - from) * w, hh); from = -1; } }
        g.globalAlpha = 1;
      }
      const frame = ([k, a, x, c, z], colour, width, dash = []) => { if (k !== f) return; const low = Math.max(rowAt(a), rowAt(c)); g.strokeStyle = colour; g.lineWidth = width; g.setLineDash(dash); g.strokeRect(X(f, x), b.y + b.h - (low + 1) * hh, (z - x + 1) * w, (c - a + 1) * hh); g.setLineDash([]); };
      get("pins").forEach(p => frame(ordered(p), css.ink, 1.5, [3, 2]));
      if (region.length) frame(ordered(region), css.accent, 2.5);
      if (hf === f) frame([f, hr, hc, hr, hc], css.ink, 1.5);
      g.restore();
      g.font = `${hf === f || region[0] === f ? "bold " : ""}12px ${css.font}`; g.fillStyle = css.ink; g.textAlign = "left"; g.textBaseline = "alphabetic"; g.fillText(meta().facets[f].label, b.x, b.y - 5, b.w + (layout.stacked ? 200 : 16));
      g.font = `11px ${css.font}`;
      if (layout.stacked || f === 0) rowLabels(g, b, [0, 0, 1, R()], hh >= 10 ? ticks(0, R(), 1e9) : ticks(0, R(), Math.max(2, b.h / 14)), i => "L" + meta().layers[rowAt(R() - 1 - i)], hf == null ? null : R() - 1 - rowAt(hr), css);
      if (layout.stacked && f < layout.boxes.length - 1) return;
      const lit = hc ?? null, cols = w >= 11 ? ticks(firstColumn(), lastColumn(), 1e9) : [...new Set([...ticks(firstColumn(), lastColumn(), b.w / 40), ...(w >= 3 ? ticks(firstColumn(), lastColumn(), 1e9).filter(c => tokenAt(c)[1] != null) : [])])].filter((c, i, all) => all.every((o, j) => j >= i || Math.abs(o - c) * w >= 10));
      for (let c = firstColumn(); c < lastColumn(); c++) if (tokenAt(c)[1] != null) { g.fillStyle = css.accent; g.fillRect(X(f, c) + .5, b.y + b.h + 2, Math.max(1.5, w - 1), 2.5); }
      columnLabels(g, b, [box[0], 0, box[1], 1], cols, c => columnText(c), lit, css, b.y + b.h + 7, size.upright);
      columnLabels(g, b, [box[0], 0, box[1], 1], cols.filter(c => tokenAt(c)[1] != null), size.under, null, { ...css, soft: css.accent }, b.y + b.h + 7 + size.first, size.upright);
    });
    const most = meta().columns.filter(c => c[1] != null).length;
    plot.setAttribute("aria-label", `${meta().facets.length} facets of ${R()} layers by ${C()} columns, ${most} columns differ between the twins. Arrow keys move, shift and arrows select a rectangle, space inspects, Enter pins, Escape clears, brackets change the facet, r and c take a whole row or column.`);
  }
  function drawLegend(d) {
    const wide = Math.min(340, size.W), g0 = sharp(legend, wide, 44), pad = 46, w = wide - 2 * pad, g = h("canvas"); colourBar(g, inks.two, Math.round(w)); g0.drawImage(g, pad, 14, w, 12);
    const s = get("scale") === "sqrt" ? v => Math.sign(v) * Math.sqrt(Math.abs(v)) : v => v, place = v => pad + w / 2 * (1 + s(Math.max(-1, Math.min(1, v / d.top))));
    g0.font = `11px ${css.font}`; g0.fillStyle = css.soft; g0.textBaseline = "middle"; g0.textAlign = "right"; g0.fillText("−" + SHORT(d.top), pad - 4, 20); g0.textAlign = "left"; g0.fillText("+" + SHORT(d.top), pad + w + 4, 20);
    const marks = anchors(metric(), get("shade"), apart()), inside = marks.filter(([v]) => Math.abs(v) <= d.top * 1.0001);
    inside.forEach(([v, name], i) => { const x = place(v), up = i % 2 && Math.abs(x - place(inside[0][0])) < 90; g0.strokeStyle = css.ink; g0.lineWidth = 2; g0.beginPath(); g0.moveTo(x, 11); g0.lineTo(x, 30); g0.stroke(); g0.textAlign = x < pad + 30 ? "left" : x > pad + w - 30 ? "right" : "center"; g0.fillStyle = css.ink; g0.fillText(`${name} ${SHORT(v + (get("shade") === "change" && !apart() ? metric().base ?? 0 : 0))}`, x, up ? 5 : 37); });
    legend.setAttribute("aria-label", `Colours from minus ${number(d.top)} to ${number(d.top)}; ${marks.map(([v, name]) => `${name} at ${number(v)}`).join(", ")}`);
    const found = [[PENDING, "not computed yet"], [PREVIEW, "preview, first order"], [UNDEFINED, "no number"], [KNOWN, "0 by construction"], [NOWHERE, "no such place"]].filter(([k]) => d.seen.has(k)), doubts = d.low && get("hatch"), far = d.x.some(m => m.some(v => Math.abs(v) > d.top * 1.001));
    const id = JSON.stringify([found, doubts, far, dark, meta().why, get("prompt") < 0]); if (looks.is === id) return; looks.is = id;
    const swatch = (text, title, draw) => { const c = h("canvas", { className: "wb-swatch" }), q = sharp(c, 16, 14); q.fillStyle = css.ground; q.fillRect(0, 0, 16, 14); draw(q); return h("span", { className: "wb-note wb-look", title }, c, text); }, all = new Path2D(); all.rect(0, 0, 16, 14);
    const draw = { [PENDING]: q => fillWith(q, patterns.pending, all), [PREVIEW]: q => { q.fillStyle = rgb(inks.two[190]); q.fillRect(0, 0, 16, 14); q.fillStyle = css.paper; q.beginPath(); q.moveTo(0, 0); q.lineTo(9, 0); q.lineTo(0, 9); q.fill(); }, [UNDEFINED]: q => cross(q, 0, 0, 16, 14, css.ground), [KNOWN]: q => { q.fillStyle = css.paper; q.fillRect(0, 0, 16, 14); q.fillStyle = css.soft; q.fillRect(7, 6, 2, 2); }, [NOWHERE]: () => 0 };
    looks.replaceChildren(...found.map(([k, text]) => swatch(text, meta().why[k], draw[k])), ...(doubts ? [swatch(`${Math.round(100 * meta().level)} % interval crosses 0`, "", q => { q.fillStyle = rgb(inks.two[170]); q.fillRect(0, 0, 16, 14); fillWith(q, patterns.doubt, all); })] : []), ...(get("prompt") < 0 && meta().columns.some(c => c[2] > 1) ? [h("span", { className: "wb-note", text: "+n: n other words in other prompts" })] : []), ...(far ? [swatch("past the end of the scale", "", q => { q.fillStyle = rgb(inks.two[255]); q.fillRect(0, 0, 16, 14); q.font = "12px sans-serif"; beyond(q, 8, 7, 1, inks.two); })] : []));
  }

  // --- what a cell says ----------------------------------------------------------------------------------------------
  function figures(f, r, c) {                              // "recovery 0.41 [0.30, 0.52], n 32", or why there is none
    const d = cached, i = at(f, r, c), k = d.state[f][i], v = d.x[f][i];
    if (k === PENDING || k === UNDEFINED || k === NOWHERE) return meta().why[k];
    const by = shift(), change = v - by, m = metric(), value = m.constant ? change + m.base : get("shade") === "value" ? v : null, two = !apart() && (value == null || Math.abs(m.base ?? 0) > 1e-9);
    const range = d.low && d.low[f][i] === d.low[f][i] ? ` [${number(d.low[f][i])}, ${number(d.high[f][i])}]${d.low[f][i] <= 0 && d.high[f][i] >= 0 ? ", may be 0" : ""}` : "";
    return `${m.label}${apart() ? " A − B" : ""} ${k === PREVIEW ? "≈ " : ""}${two ? `${value == null ? "" : number(value) + ", "}change ${SIGNED(change)}` : number(change)}${range}${d.n ? `, n ${d.n[f][i]}` : ""}${k === KNOWN ? ` (${meta().why[KNOWN]})` : k === PREVIEW ? " (preview)" : ""}`;
  }
  function facts() {
    const [f, r, c] = get("hovered"), d = cached;
    if (f == null || !d.x || f >= d.x.length || r >= R() || c >= C()) return "Point at a cell; click looks into it, drag patches several together. Arrow keys move, space inspects, Enter pins, [ and ] change the facet.";
    const own = `${meta().facets[f].name} L${meta().layers[r]} · ${columnLong(c)}  ${figures(f, r, c)}`, region = get("region");
    if (region.length !== 5 || !get("cone") || isIn(region, f, r, c) || meta().axis === "pos" && !meta().numbered) return own;
    const hit = coneOf(region).in[f][at(f, r, c)], same = sizeOf(region) === 1 && meta().layers[r] === meta().layers[region[1]] && c > region[2];
    return `${own}  · ${hit ? "can be reached from the selection" : same && meta().axis === "pos" ? "same layer, later token: not affected by the selection" : "out of the selection's reach"}`;
  }

  // --- hands ---------------------------------------------------------------------------------------------------------
  const saveHover = later(() => model.save_changes(), 80);
  function point(cell, quiet) { const next = cell ?? []; readout.setAttribute("aria-live", quiet ? "off" : "polite"); if (next.join() !== get("hovered").join()) { model.set("hovered", next); saveHover(); } }
  const hereOf = e => { if (!cached.x) return null; const found = cellOf(layout, ...pointAt(plot, e, size.W), R(), box); return found && [found[0], found[1] == null ? null : get("layer_zero") === "top" ? R() - 1 - found[1] : found[1], found[2]]; };
  const inside = cell => cell && cell[1] != null && cell[2] != null;
  const spread = ([f, r, c]) => r == null ? [f, 0, c, R() - 1, c] : c == null ? [f, r, 0, r, C() - 1] : [f, r, c, r, c];
  const choose = region => { pulling = null; put({ region }); };
  plot.addEventListener("pointermove", e => {
    const cell = hereOf(e);
    if (drag && inside(cell) && cell[0] === drag[0]) { if (pulling || cell[1] !== drag[1] || cell[2] !== drag[2]) pulling = [...drag, cell[1], cell[2]]; }
    point(inside(cell) ? cell : null, true); if (drag) overlay();
  });
  plot.addEventListener("pointerdown", e => { const cell = hereOf(e); if (inside(cell) && e.button === 0) { drag = cell; plot.setPointerCapture?.(e.pointerId); } });
  plot.addEventListener("pointerup", e => {
    const cell = hereOf(e), region = get("region"), from = drag; drag = null;
    if (pulling) return choose(pulling);
    if (!cell) return;
    if (e.shiftKey && region.length === 5 && inside(cell) && region[0] === cell[0]) return choose([...region.slice(0, 3), cell[1], cell[2]]);
    if (from || !inside(cell)) choose(spread(cell));
  });
  plot.addEventListener("pointercancel", () => { drag = pulling = null; overlay(); });
  plot.addEventListener("pointerleave", () => drag || point(null, true));
  plot.addEventListener("wheel", e => { const cell = hereOf(e); if (!inside(cell) || !(e.ctrlKey || e.metaKey)) return; e.preventDefault(); zoomColumns(e.deltaY < 0 ? .8 : 1.25, cell[2]); }, { passive: false });
  function zoomColumns(by, c) { const n = Math.min(C(), Math.max(Math.min(8, C()), (box[1] - box[0]) * by)), from = Math.max(0, Math.min(C() - n, c + .5 - (c + .5 - box[0]) / (box[1] - box[0]) * n)); box = [from, from + n]; drawPlot(); }
  const chooseSoon = later(() => { if (pulling && !drag) choose(pulling); }, 300);
  function start() { const region = get("region"); if (region.length === 5) return region.slice(0, 3); let best = [0, 0, 0], most = -1; cached.x.forEach((m, f) => m.forEach((v, i) => { if (Math.abs(v) > most) { most = Math.abs(v); best = [f, Math.floor(i / C()), i % C()]; } })); return best; }
  plot.addEventListener("keydown", e => {
    if (!cached.x) return;
    const go = arrow(e), fresh = get("hovered").length !== 3, [f, r, c] = fresh ? start() : get("hovered"), up = get("layer_zero") === "top" ? 1 : -1, F = meta().facets.length;
    if (go) {
      const next = fresh ? [f, r, c] : [f, Math.max(0, Math.min(R() - 1, r + up * go[0])), Math.max(0, Math.min(C() - 1, c + go[1]))];
      if (e.shiftKey) { pulling = [...(pulling?.[0] === f ? pulling.slice(0, 3) : [f, r, c]), next[1], next[2]]; chooseSoon(); }
      if (next[2] < box[0] || next[2] + 1 > box[1]) { const n = box[1] - box[0], from = Math.max(0, Math.min(C() - n, next[2] + .5 - n / 2)); box = [from, from + n]; drawPlot(); }
      point(next); overlay();
    } else if (e.key === " ") choose([f, r, c, r, c]);
    else if (e.key === "Enter") { const region = get("region"); if (region.length === 5 && isIn(region, f, r, c)) pin(region); else { choose([f, r, c, r, c]); pin([f, r, c, r, c]); } }
    else if (e.key === "Escape") { pulling = null; put({ region: [] }); point(null); }
    else if ("[]".includes(e.key)) point([(f + (e.key === "]" ? 1 : F - 1)) % F, r, c]);
    else if (e.key === "r") choose(spread([f, r, null]));
    else if (e.key === "c") choose(spread([f, null, c]));
    else if ("+=-".includes(e.key)) zoomColumns(e.key === "-" ? 1.25 : .8, c);
    else if (e.key === "0") { box = null; drawPlot(); }
    else return;
    e.preventDefault();
  });
  const pin = region => { const id = region.join(); if (!get("pins").some(p => p.join() === id)) put({ pins: [...get("pins"), region] }); };

  // --- the selection, looked into ------------------------------------------------------------------------------------
  const heldOf = region => { const id = ordered(region).join(), d = get("detail"); return d.id === id ? d : get("held")[id]; };
  function strip(changes, mean, range) {                   // one dot a prompt between the two runs
    const c = h("canvas", { className: "wb-strip", role: "img" }), marks = anchors(metric(), "change", apart()), W = 280, pad = 10, all = [...changes.filter(v => v === v), ...marks.map(m => m[0]), 0], lo = Math.min(...all), hi = Math.max(...all), x = v => pad + (W - 2 * pad) * (hi > lo ? (v - lo) / (hi - lo) : .5), g = sharp(c, W, 62);
    g.strokeStyle = css.soft; g.lineWidth = 1; g.beginPath(); g.moveTo(pad, 26); g.lineTo(W - pad, 26); g.stroke(); g.font = `11px ${css.font}`; g.textBaseline = "middle";
    marks.forEach(([v, name]) => { g.strokeStyle = css.ink; g.lineWidth = 2; g.beginPath(); g.moveTo(x(v), 12); g.lineTo(x(v), 40); g.stroke(); g.fillStyle = css.soft; g.textAlign = x(v) < 60 ? "left" : x(v) > W - 60 ? "right" : "center"; g.fillText(name, x(v), 6); });
    changes.forEach((v, i) => { if (v !== v) return; const own = i === get("prompt"); g.fillStyle = own ? css.accent : css.ink; g.globalAlpha = own ? 1 : Math.max(.2, Math.min(.7, 12 / changes.length)); g.beginPath(); g.arc(x(v), 26 + (i * 7 % 11 - 5), own ? 4.5 : 3, 0, 7); g.fill(); }); g.globalAlpha = 1;
    if (changes.length > 1 && mean === mean) { g.strokeStyle = css.accent; g.lineWidth = 2; g.beginPath(); if (range && range[0] === range[0]) { g.moveTo(x(range[0]), 47); g.lineTo(x(range[1]), 47); } g.moveTo(x(mean), 43); g.lineTo(x(mean), 51); g.stroke(); g.fillStyle = css.soft; g.textAlign = "center"; g.fillText("mean", Math.max(20, Math.min(W - 20, x(mean))), 57); }
    const there = changes.filter(v => v === v); c.setAttribute("aria-label", `${there.length} prompts, changes of ${metric().label} from ${number(Math.min(...there))} to ${number(Math.max(...there))}`);
    c.title = "One dot for each prompt; click shows that prompt alone";
    c.addEventListener("click", e => { const [px] = pointAt(c, e, W); let best = -1, far = 12; changes.forEach((v, i) => { if (Math.abs(x(v) - px) < far) { far = Math.abs(x(v) - px); best = i; } }); if (best >= 0 && meta().n > 1) put({ prompt: best === get("prompt") ? -1 : best }); });
    return c;
  }
  function changesOf(region, d) {                          // what each prompt says, from the kernel's answer or from the page
    if (d?.changes?.[metric().name] && get("which") === "A") return d.changes[metric().name].map(v => v ?? NaN);
    if (sizeOf(region) > 1 || running()) return null;
    const [f, r, c] = ordered(region), all = store.get(key("prompts", -1)), k = cached.state?.[f]?.[at(f, r, c)];
    if (k === PENDING || k === PREVIEW || k === NOWHERE) return null;
    return all && !all.missing ? Array.from({ length: all.heads }, (_, p) => all.value(p, f * R() + r, c)) : null;
  }
  function attention(region) {                             // where the clicked head looks, in both runs
    const m = meta(), [f, r, c] = ordered(region), unit = m.axis === "pos" ? m.facets[f].unit : m.place_labels[c]; if (sizeOf(region) > 1 || !m.heads || unit == null) return [];
    const chunk = store.get(["@attention", m.layers[r], unit, Math.max(0, get("prompt"))]); if (!chunk || chunk.missing) return [];
    return [h("div", { className: "wb-row" }, ...["clean", "corrupted"].slice(0, chunk.heads).map((name, i) => {
      const x = chunk.head(i), s = shader(x, 1, "sqrt", false), c_ = h("canvas", { role: "img", "aria-label": `attention of the head, ${name} prompt` }), g = sharp(c_, 128, 128); g.imageSmoothingEnabled = false; g.fillStyle = css.ground; g.fillRect(0, 0, 128, 128); g.drawImage(drawing(x, chunk.cols, chunk.rows, chunk.tri, s, inks.one), 0, 0, 128, 128);
      return h("figure", {}, c_, h("figcaption", { className: "wb-note", text: `attends, ${name}` })); }))];
  }
  function reachText(region) {
    const m = meta(), [f, r, c] = ordered(region), L = m.layers; if (sizeOf(region) > 1 || m.axis !== "pos" || !m.numbered) return null;
    const name = m.facets[f].name, place = m.place_labels[c], later_ = [...new Set(m.facets.map(x => x.name))].filter(to => reaches({ name, layer: L[r], pos: place }, { name: to, layer: L[r], pos: place }, m)), ahead = later_.filter(to => reaches({ name, layer: L[r], pos: place }, { name: to, layer: L[r], pos: place + 1 }, m));
    const word = list => list.join(", ");
    return `Reaches ${L[r] < m.depth - 1 ? `every layer above ${L[r]}${m.causal ? ` from position ${place} on` : ""}` : "only the output"}${later_.length ? `, and in layer ${L[r]} ${word(later_)}${ahead.length ? ` (${word(ahead)} also at later positions)` : " at this position"}` : ""}. ${m.causal ? "Same site and layer, later token: not affected." : ""}`;
  }
  function copy(text, button, code) {
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1200); }, mark = () => { const range = document.createRange(); range.selectNodeContents(code); const s = getSelection(); s.removeAllRanges(); s.addRange(range); if (document.execCommand?.("copy")) done(); };
    try { navigator.clipboard ? navigator.clipboard.writeText(text).then(done, mark) : mark(); } catch { mark(); }
  }
  function drawSide() {
    const region = get("region"), m = meta();
    if (region.length !== 5 || !cached.x) { side.is = ""; return side.replaceChildren(h("p", { className: "wb-note", text: `${m.explain} Click a cell to look into it, drag to patch several together, click a layer or a token for a whole row or column.` })); }
    const d = heldOf(region), one = sizeOf(region) === 1, [f, r, c] = ordered(region), changes = changesOf(region, d), attends = attention(region), p = get("prompt") < 0 ? Math.max(0, changes?.findIndex(v => v === v) ?? 0) : get("prompt"), rows = d?.tokens?.[p], range = d?.range?.[metric().name] ?? (one && cached.low ? [cached.low[f][at(f, r, c)], cached.high[f][at(f, r, c)]] : null);
    const known = changes?.filter(v => v === v) ?? [], mean = known.length ? known.reduce((a, v) => a + v, 0) / known.length : NaN;
    const figure = one ? figures(f, r, c) : known.length ? `${sizeOf(region)} cells together: ${metric().label} ${metric().constant ? number(mean + metric().base) : "change " + SIGNED(mean)}${range && range[0] === range[0] ? ` [${number(range[0])}, ${number(range[1])}]` : ""}, n ${known.length}` : `${sizeOf(region)} cells`;
    const id = JSON.stringify([region, d?.stamp, metric().name, get("which"), get("prompt"), changes, attends.length, dark, running(), figure]); if (side.is === id) return; side.is = id;
    const code = h("code", { text: lineOf(m, region) }), button = h("button", { text: "Copy", title: "Copy the line that runs this again", onclick: () => copy(code.textContent, button, code) });
    const sideName = m.noising ? "clean" : "corrupt", delta = row => row[4].patched == null || row[4][sideName] == null ? "" : SIGNED(row[4].patched - row[4][sideName]), doing = d?.error ?? (d || !m.editable ? null : one || running() ? "asking the model…" : "patching them together…");
    side.replaceChildren(h("h4", { text: nameOf(region) }), h("p", { className: "wb-figure", text: figure }),
      ...(doing ? [h("p", { className: "wb-note", role: d?.error ? "alert" : "status", text: doing })] : []), ...(!d && !m.editable && !one ? [h("p", { className: "wb-note", text: "Patching several cells together needs a kernel with the model." })] : []),
      ...(changes && changes.length > 1 ? [strip(changes, mean, range)] : []),
      ...(rows ? [nextTokens(m.n > 1 ? `What comes next, prompt ${p}${get("prompt") < 0 ? " (click a dot for another)" : ""}` : "What comes next", ["token", "clean", "corrupted", "patched", "Δ logit"], rows.map(row => [...row.slice(0, 4), delta(row)]), 24)] : []),
      ...attends, ...(d?.hook ? [h("p", { className: "wb-note" }, h("span", { text: "hook point " }), h("code", { text: d.hook }))] : []), ...(reachText(region) ? [h("p", { className: "wb-note", text: reachText(region) })] : []),
      ...(m.line ? [h("div", { className: "wb-line" }, code, button)] : []),
      h("div", { className: "wb-row" }, h("button", { text: "whole row", onclick: () => choose(spread([f, r, null])) }), h("button", { text: "whole column", onclick: () => choose(spread([f, null, c])) }), h("button", { text: "pin", onclick: () => pin(region) }), ...(m.live && m.editable && model.widget_manager ? [h("button", { text: "attention explorer", title: "Opens below, on this head or token; the two move together", onclick: () => model.send({ kind: "explorer" }) })] : []), h("button", { text: "clear", onclick: () => put({ region: [] }) })));
  }
  function drawPins() {
    const list = get("pins"), value = p => { const [f, a, b] = ordered(p), d = heldOf(p); if (sizeOf(p) === 1) return cached.x ? figures(f, a, b) : ""; const ch = d?.changes?.[metric().name]?.filter(v => v != null); return ch?.length ? `${metric().label} ${metric().constant ? number(ch.reduce((x, v) => x + v, 0) / ch.length + metric().base) : "change " + SIGNED(ch.reduce((x, v) => x + v, 0) / ch.length)}` : "open it to patch these cells together"; };
    const id = JSON.stringify([list, list.slice(0, MANY).map(value), metric().name]); if (pinned.is === id) return; pinned.is = id;
    pinned.replaceChildren(...(list.length ? [h("div", { className: "wb-note", text: `${list.length} pinned` }), ...list.slice(0, MANY).map((p, i) => h("div", { className: "wb-row" }, h("button", { className: "wb-pin", text: nameOf(p), onclick: () => choose(p) }), h("span", { className: "wb-note", text: value(p) }), h("button", { text: "✕", title: "Unpin", onclick: () => put({ pins: list.filter((_, j) => j !== i) }) })))] : []));
  }
  function fillTable() {
    const d = cached; if (!largestOf.open || !d.x) return;
    const all = d.x.flatMap((m, f) => [...m.keys()].filter(i => m[i] === m[i] && d.state[f][i] !== KNOWN).map(i => [f, Math.floor(i / C()), i % C(), m[i] - shift()])).sort((a, b) => Math.abs(b[3]) - Math.abs(a[3])).slice(0, 12);
    table.replaceChildren(h("tr", {}, ...["site", "layer", meta().axis === "pos" ? "position" : meta().unit, "what it says"].map(text => h("th", { text, scope: "col" }))), ...all.map(([f, r, c]) => h("tr", {}, h("td", { text: meta().facets[f].name }), h("td", { className: "n", text: meta().layers[r] }), h("td", { text: columnLong(c) }), h("td", { text: figures(f, r, c) }))));
  }

  // --- all of it -----------------------------------------------------------------------------------------------------
  function drawStatus() {
    const s = get("status"), live = meta().live && meta().editable, busy = running();
    statusRow.hidden = !s.state || s.state === "done" && !s.text; bar.hidden = !busy && s.state !== "stopped"; bar.value = s.share ?? 0; progress.textContent = `${s.text ?? ""}${busy && s.seconds_left != null ? `, about ${s.seconds_left < 1 ? "1 s" : s.seconds_left < 90 ? Math.round(s.seconds_left) + " s" : Math.round(s.seconds_left / 60) + " min"} left` : ""}`;
    stopper.hidden = !live || !busy && s.state !== "stopped"; stopper.textContent = s.state === "stopped" ? "Continue" : "Stop"; root.dataset.state = s.state ?? "done";
  }
  function drawControls() {
    const m = meta(); controls.metric.fill(m.metrics.map(x => [x.name, x.label])); for (const c of [...Object.values(controls), hatch, cone]) c.read();
    controls.metric.el.hidden = m.metrics.length < 2; controls.which.el.hidden = m.which.length < 2; whoField.hidden = m.n < 2; hatch.el.hidden = m.n < 2; cone.el.hidden = m.axis === "pos" && !m.numbered;
    const made = JSON.stringify(prompts()); if (who.is !== made) { who.is = made; who.replaceChildren(...prompts().map(([value, text]) => h("option", { value, text }))); } who.value = String(get("prompt"));
    heading.textContent = m.title; said.textContent = m.said;
  }
  async function adopt() {                                 // the linked explorer, a widget of its own
    const id = get("child"); if (!id || !model.widget_manager || shelf.is === id) return; shelf.is = id;
    const view = await model.widget_manager.create_view(await model.widget_manager.get_model(id.replace("IPY_MODEL_", "")), {}); if (!gone && shelf.is === id) shelf.replaceChildren(view.el);
  }
  function drawAll() { drawControls(); drawStatus(); drawPlot(); drawSide(); drawPins(); readout.textContent = facts(); fillTable(); }
  model.accepts = v => !(v.layer != null && !meta().layers.includes(v.layer));
  const changed = SEEN.map(t => "change:" + t).join(" ") + " change:detail change:held change:meta", renewed = () => { store.forget(get("version")); cached = {}; cones = {}; box = null; refresh(); };
  const drawHover = soon(() => { if (gone) return; overlay(); readout.textContent = facts(); }), statusChanged = soon(() => { if (!gone) drawStatus(); });
  const heard = msg => { if (msg.kind === "stale" && msg.version === get("version")) { store.stale(); refresh(); } };
  model.on(changed, refresh); model.on("change:hovered", drawHover); model.on("change:child", adopt); model.on("change:status", statusChanged); model.on("change:version", renewed); model.on("msg:custom", heard);
  const fit = new ResizeObserver(soon(() => { if (!gone) { theme.look(); drawPlot(); } })); fit.observe(root);
  store.forget(get("version")); paintWith(theme.dark); drawAll(); adopt();
  return () => { gone = true; fit.disconnect(); theme.stop(); store.stop(); model.off(changed, refresh); model.off("change:hovered", drawHover); model.off("change:child", adopt); model.off("change:status", statusChanged); model.off("change:version", renewed); model.off("msg:custom", heard); };
}
