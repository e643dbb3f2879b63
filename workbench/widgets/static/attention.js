// AttentionExplorer: all heads at a glance, one of them in full, the text it reads, and what happens when it is changed.
import { displayToken, hit, inside, largest, luminance, number, pool, shader, shorten, ticks, zoom } from "./core.js";
import { combine, rowFacts, topP, withoutSink } from "./patterns.js";
import { OURS, asker, choice, h, later, picture, sharp, soon, tokenSpan, watchTheme } from "./dom.js";
import { arrow, beyond, cellInk, colourBar, columnLabels, cross, drawing, nextTokens, palette, pointAt, rgb, rowLabels, smallMap, whole } from "./matrix.js";

const VIEW = "stack which weighting layer head heads combine scale normalise top top_p hide_sink sort layer_zero side locked step".split(" ");
const STRIP = 256, COMPARE = 3;

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta");
  const put = values => { for (const [k, v] of Object.entries(values)) model.set(k, v); model.save_changes(); };
  const stack = () => meta().stacks.find(s => s.name === get("stack")), shown = () => stack().tokens[get("which")];
  const signed = () => get("which") === "difference" || (get("combine") !== "rollout" && meta().weightings.find(w => w[0] === get("weighting"))[2]);
  const name = ([l, i]) => `L${stack().layer_labels[l]}.H${stack().head_labels[i]}`, quoted = t => `"${displayToken(t[0])}"`;
  let box = null, boxed = "", exact = null, moved = false, gone = false;

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-attention", "aria-label": "Attention explorer" });
  const overview = h("canvas", { ...OURS, tabIndex: 0, role: "application", "aria-roledescription": "grid of heads", className: "wb-overview" }), plot = h("canvas", { ...OURS, tabIndex: 0, role: "application", "aria-roledescription": "attention matrix", className: "wb-plot" });
  const readout = h("div", { className: "wb-readout", role: "status", "aria-live": "polite" }), caption = h("div", { className: "wb-note" });
  const legend = h("canvas"), legendText = h("span", { className: "wb-note" }), heading = h("div", { className: "wb-heading" });
  const strips = h("div"), arcs = document.createElementNS("http://www.w3.org/2000/svg", "svg"), table = h("table"), largestOf = h("details", { ontoggle: () => fillTable() }, h("summary", { text: "Largest entries as a table" }), table);
  const controls = {
    stack: choice(model, "stack", "attention", meta().stacks.map(s => [s.name, s.label])), which: choice(model, "which", "show", meta().which),
    weighting: choice(model, "weighting", "weight", meta().weightings, "What a cell says: how much is looked at, how much is moved, or what that does to the answer"),
    combine: choice(model, "combine", "heads", [["one", "one head"], ["mean", "mean"], ["max", "max"], ["product", "product"], ["rollout", "rollout up to here"]], "Over the chosen heads; over the layer when only one is chosen"),
    sort: choice(model, "sort", "badge", [["index", "none"], ...meta().badges], "Written under each head; heads of a layer are sorted by it"),
    scale: choice(model, "scale", "colour", [["sqrt", "√ scale"], ["rank", "rank scale"], ["linear", "linear"]]), normalise: choice(model, "normalise", "ends at", [["head", "this view"], ["all", "all heads"]]),
    layer_zero: choice(model, "layer_zero", "layer 0", [["bottom", "at the bottom"], ["top", "on top"]]), side: choice(model, "side", "a token", [["query", "looks at"], ["key", "is looked at by"]]),
  };
  const sink = h("input", { type: "checkbox", onchange: () => put({ hide_sink: sink.checked }) }), topp = h("input", { type: "range", min: 5, max: 100, step: 5, oninput: () => put({ top_p: topp.value / 100 }) }), toppText = h("span");
  const stepper = h("span", { className: "wb-field" }, h("span", { text: "generated" }), h("button", { text: "◀", title: "One token less", onclick: () => walk(-1) }), h("button", { text: "▶", title: "One token more", onclick: () => walk(1) }));
  const edits = h("div", { className: "wb-edits" });
  const more = h("details", {}, h("summary", { text: "View" }), h("div", { className: "wb-row" }, ...["scale", "normalise", "layer_zero"].map(k => controls[k].el), h("label", { className: "wb-field" }, sink, h("span", { text: "hide first token" })),
    h("label", { className: "wb-field" }, h("span", { text: "top-p" }), topp, toppText), h("button", { text: "Whole matrix", onclick: () => { box = null; drawPlot(); } })));
  root.append(heading, h("div", { className: "wb-row" }, ...["stack", "which", "weighting", "combine", "sort", "side"].map(k => controls[k].el), stepper), more,
    h("div", { className: "wb-panes" }, h("div", { className: "wb-pane wb-side" }, overview, arcs, strips, edits), h("div", { className: "wb-pane wb-main" }, caption, plot, h("div", { className: "wb-row" }, legend, legendText), readout, largestOf)));
  el.append(root);

  // --- data ----------------------------------------------------------------------------------------------------------
  const refresh = soon(() => gone || drawAll()), store = asker(model, refresh);
  const key = layer => [get("stack"), get("which"), get("combine") === "rollout" ? "rollout" : get("weighting"), layer];
  const thumbs = () => store.get([get("stack"), get("which"), get("weighting"), "all"]);
  const chosen = () => get("combine") === "rollout" ? [[get("layer"), 0]] : get("combine") === "one" ? [[get("layer"), get("head")]]
    : get("heads").length > 1 ? get("heads") : Array.from({ length: stack().heads }, (_, i) => [get("layer"), i]);
  let cached = {};
  function matrix() {                                      // {m, rows, cols, top, tri} of what is shown, null while it is on its way, or {missing}
    const pairs = chosen(), chunks = pairs.map(([l]) => store.get(key(l))), bad = chunks.find(c => c?.missing);
    if (bad || chunks.includes(null)) return bad ?? null;
    const id = JSON.stringify([key(0), pairs, get("combine"), get("hide_sink"), get("top_p"), get("normalise"), get("top"), get("version")]);
    if (cached.id === id && cached.from === chunks[0]) return cached;
    const { rows, cols, tri } = chunks[0]; let m = combine(pairs.map(([, i], n) => chunks[n].head(i)), get("combine"));
    if (get("hide_sink")) m = withoutSink(m, rows, cols, shares());
    if (get("top_p") < 1) m = topP(m, rows, cols, get("top_p"));
    const all = get("normalise") === "all" && thumbs()?.scale;
    return cached = { id, from: chunks[0], m, rows, cols, tri, top: get("top") || (all ? Math.max(...all) : largest(m)), picture: null };
  }
  const shares = () => get("which") !== "difference" && get("weighting") === "pattern";
  const shade = () => { const d = cached; return d.shade?.how === get("scale") ? d.shade : (d.shade = Object.assign(shader(d.m, d.top, get("scale"), signed()), { how: get("scale") })); };
  const exists = (q, k) => cached.m && q >= 0 && k >= 0 && q < cached.rows && k < cached.cols && !(cached.tri && k > q);
  const rowOf = i => cached.m.subarray(i * cached.cols, (i + 1) * cached.cols), colOf = i => Float32Array.from({ length: cached.rows }, (_, q) => cached.m[q * cached.cols + i]);

  // --- colours -------------------------------------------------------------------------------------------------------
  let dark, inks, css;
  const theme = watchTheme(root, d => { if (d !== dark || !css.known) { paintWith(d); drawAll(); } });
  function paintWith(d) {
    dark = d; ({ inks, css } = palette(root, d)); cached.picture = null;
  }
  const colours = () => signed() ? inks.two : inks.one, tone = () => `${dark}${get("scale")}`;

  // --- all heads -----------------------------------------------------------------------------------------------------
  let grid = {};
  const order = l => { const n = stack().heads, b = thumbs()?.badges?.[get("sort")]?.[l], all = Array.from({ length: n }, (_, i) => i); return b ? all.sort((x, y) => (b[y] ?? -1) - (b[x] ?? -1) || x - y) : all; };
  function drawOverview() {
    const { layers, heads } = stack(), size = Math.max(16, Math.min(64, Math.floor((Math.max(240, root.clientWidth) * (root.clientWidth < 760 ? .96 : .42) - 24) / heads) - 4)), pitch = size + 4, line = size > 30 ? 16 : 8;
    grid = { size, pitch, line, left: 24, top: 4 };
    const g = sharp(overview, 24 + heads * pitch, 8 + layers * (pitch + line)), t = thumbs();
    const of = get("sort"), top = t?.scale && Math.max(...t.scale);
    if (t?.scale && t.art?.id !== tone() + get("normalise")) {
      t.art = Array.from({ length: layers * heads }, (_, i) => { const m = t.head(i), s = shader(m, get("normalise") === "all" ? top : largest(m), get("scale"), t.signed); return drawing(m, t.cols, t.rows, t.tri, s, t.signed ? inks.two : inks.one); });
      t.art.id = tone() + get("normalise");
    }
    g.font = `10px ${css.font}`; g.textBaseline = "middle"; g.imageSmoothingEnabled = false;
    for (let row = 0; row < layers; row++) {
      const l = get("layer_zero") === "bottom" ? layers - 1 - row : row, y = 4 + row * (pitch + line);
      g.fillStyle = css.soft; g.fillText("L" + stack().layer_labels[l], 0, y + size / 2);
      order(l).forEach((i, col) => {
        const x = 24 + col * pitch, b = t?.badges?.[of]?.[l]?.[i];
        g.fillStyle = css.ground; g.fillRect(x, y, size, size);
        if (t?.art) g.drawImage(t.art[l * heads + i], x, y, size, size);
        if (b != null) { g.fillStyle = css.accent; g.fillRect(x, y + size + 1, size * Math.min(1, b / (t.badge_top[of] || 1)), 3); }
        if (line > 8) { g.fillStyle = css.soft; g.fillText("H" + stack().head_labels[i] + (b == null ? "" : size > 40 ? " " + b.toFixed(2).replace(/^0/, "") : ""), x, y + size + 10); }
        const at = get("heads").findIndex(([a, c]) => a === l && c === i), focus = l === get("layer") && i === get("head");
        if (at >= 0 || focus) { g.strokeStyle = focus ? css.accent : css.ink; g.lineWidth = focus ? 3 : 1.5; g.strokeRect(x - 1, y - 1, size + 2, size + 2); }
        if (cursor && cursor[0] === l && cursor[1] === i) { g.setLineDash([4, 3]); g.strokeStyle = css.ink; g.lineWidth = 2; g.strokeRect(x - 3, y - 3, size + 6, size + 6); g.setLineDash([]); }
      });
    }
    overview.setAttribute("aria-label", `${layers} layers of ${heads} heads; ${name([get("layer"), get("head")])} is open. Arrow keys move; space begins a set of heads, then arrows move freely and space adds or removes a head; Enter opens one head.`);
  }
  function headAt(e) {
    const r = overview.getBoundingClientRect(), z = r.width / overview.clientWidth || 1, { layers, heads } = stack();
    const col = Math.floor((e.clientX - r.left) / z - grid.left) / grid.pitch | 0, row = Math.floor(((e.clientY - r.top) / z - grid.top) / (grid.pitch + grid.line));
    if (e.clientX - r.left < grid.left || row < 0 || row >= layers || col < 0 || col >= heads) return null;
    const l = get("layer_zero") === "bottom" ? layers - 1 - row : row;
    return [l, order(l)[col]];
  }
  function openHead([l, i], add) {
    const had = get("heads"), at = had.findIndex(([a, b]) => a === l && b === i);
    if (!add) return put({ layer: l, head: i, heads: [[l, i]] });
    const next = at < 0 ? [...had, [l, i]] : had.length > 1 ? had.filter((_, n) => n !== at) : had;
    put({ heads: next, layer: next.at(-1)[0], head: next.at(-1)[1] });
  }
  overview.addEventListener("click", e => { const at = headAt(e); if (at) openHead(at, e.shiftKey); });
  overview.addEventListener("mousemove", e => { const at = headAt(e), b = at && thumbs()?.badges; overview.title = at ? name(at) + (b ? meta().badges.map(([k, label]) => b[k] ? `\n${label}: ${b[k][at[0]][at[1]]?.toFixed(2) ?? "not defined"}` : "").join("") : "") : ""; });
  let cursor = null;                                       // while a set is put together by keyboard: where one is, apart from what is open
  overview.addEventListener("keydown", e => {
    const { layers, heads } = stack(), at = cursor ?? [get("layer"), get("head")], up = get("layer_zero") === "bottom" ? 1 : -1;
    const go = arrow(e);
    if (go) {
      const l = Math.max(0, Math.min(layers - 1, at[0] - up * go[0])), next = [l, order(l)[Math.max(0, Math.min(heads - 1, order(at[0]).indexOf(at[1]) + go[1]))]];
      if (cursor) { cursor = next; drawOverview(); } else openHead(next);
    } else if (e.key === " ") { if (cursor) openHead(cursor, true); else { cursor = at; openHead(at); } drawOverview(); }
    else if (e.key === "Enter") { cursor = null; openHead(at); }
    else if (e.key === "Escape") { cursor = null; drawOverview(); }
    else return;
    e.preventDefault(); say(cursor);
  });

  // --- one matrix ----------------------------------------------------------------------------------------------------
  let area = {};
  function drawPlot() {
    const d = matrix(), W = Math.max(240, Math.min(660, plot.parentElement.clientWidth)), tokens = shown();
    caption.textContent = d?.missing ?? (d ? describe() : "…");
    if (!d?.m) { cached = {}; sharp(plot, W, 120); return; }
    if (boxed !== `${d.rows} ${d.cols} ${get("stack")}`) { box = null; boxed = `${d.rows} ${d.cols} ${get("stack")}`; }
    box ??= [0, 0, d.cols, d.rows];
    const measure = plot.getContext("2d"); measure.setTransform(1, 0, 0, 1, 0, 0); measure.font = `11px ${css.font}`;
    const wide = list => 8 + 6.3 * (1 + String(list.length).length + list.reduce((n, t) => Math.max(n, Math.min(12, t[0].length)), 1)), left = wide(tokens.query), under = wide(tokens.key);
    const w0 = W - left - 4, cell = Math.min(w0 / (box[2] - box[0]), 520 / (box[3] - box[1]), 34), w = cell * (box[2] - box[0]), hh = cell * (box[3] - box[1]);
    area = { x: left, y: 4, w, h: hh, cell, W, H: hh + under + 8 };
    const s = shade(), paint = colours(), r = devicePixelRatio || 1, pw = Math.round(w * r), ph = Math.round(hh * r);
    area.id = JSON.stringify([d.id, box, dark, get("scale"), pw]);
    if (d.picture?.id !== area.id) {
      if (box[2] - box[0] > pw || box[3] - box[1] > ph) { const small = pool(d.m, d.rows, d.cols, box, pw, ph); d.picture = { id: area.id, art: picture(pw, ph, i => { const q = box[1] + Math.floor(i / pw) / ph * (box[3] - box[1]), k = box[0] + i % pw / pw * (box[2] - box[0]); return d.tri && k >= q + 1 ? null : cellInk(small[i], s, paint); }), from: [0, 0, pw, ph] }; }
      else { const art = d.full?.is === tone() ? d.full : (d.full = Object.assign(drawing(d.m, d.cols, d.rows, d.tri, s, paint), { is: tone() })); d.picture = { id: area.id, art, from: [box[0], box[1], box[2] - box[0], box[3] - box[1]] }; }
    }
    drawLegend(); overlay();
  }
  function overlay() {
    const d = cached; if (!d.m) return;
    const g = sharp(plot, area.W, area.H), { x, y, w, h: hh, cell } = area, tokens = shown(), X = k => x + (k - box[0]) * cell, Y = q => y + (q - box[1]) * cell;
    g.fillStyle = css.ground; g.fillRect(x, y, w, hh); g.imageSmoothingEnabled = false; g.drawImage(d.picture.art, ...d.picture.from, x, y, w, hh);
    g.save(); g.beginPath(); g.rect(x, y, w, hh); g.clip();
    if (cell > 7) marks(g, d, X, Y);
    if (get("step")) { g.fillStyle = css.ground; g.globalAlpha = .8; g.fillRect(x, Y(get("step")), w, hh); g.globalAlpha = 1; }
    get("locked").forEach((i, n) => { g.strokeStyle = rgb(inks.locks[n][dark ? 200 : 230]); g.lineWidth = 2; get("side") === "query" ? g.strokeRect(x, Y(i), w, Math.max(2, cell)) : g.strokeRect(X(i), y, Math.max(2, cell), hh); });
    const [q, k] = get("hovered");
    if (q != null) { g.strokeStyle = css.accent; g.lineWidth = 1; g.globalAlpha = .75; g.strokeRect(x, Y(q), w, Math.max(1, cell)); g.strokeRect(X(k), y, Math.max(1, cell), hh); g.globalAlpha = 1; g.lineWidth = 2; g.strokeRect(X(k) - 1, Y(q) - 1, cell + 2, cell + 2); }
    g.restore();
    g.font = `${Math.min(12, Math.max(9, cell - 1))}px ${css.font}`; g.textBaseline = "middle";
    const label = (list, i) => `${shorten(displayToken(list[i]?.[0] ?? ""), 12)} ${i}`, most = Math.floor(520 / 10);
    const each = (from, to) => cell >= 9 ? ticks(Math.ceil(from - .001), to, 1e9) : ticks(Math.ceil(from), to, most / 3);
    rowLabels(g, area, box, each(box[1], box[3]), i => label(tokens.query, i), q, css);
    columnLabels(g, area, box, each(box[0], box[2]), i => label(tokens.key, i), k, css);
    if (box[2] - box[0] < d.cols - .5 || box[3] - box[1] < d.rows - .5) smallMap(g, area, box, d.rows, d.cols, (w, h) => d.mini?.is === tone() ? d.mini : (d.mini = Object.assign(whole(d.m, d.rows, d.cols, w, h, d.tri, shade(), colours()), { is: tone() })), css);
  }
  function marks(g, d, X, Y) {                             // a value that is none: x; one past the end of the scale: + or -
    for (let q = Math.max(0, Math.floor(box[1])); q < Math.min(d.rows, box[3]); q++) for (let k = Math.max(0, Math.floor(box[0])); k < Math.min(d.cols, box[2]); k++) {
      const v = d.m[q * d.cols + k], c = area.cell; if (!exists(q, k)) continue;
      if (v !== v) cross(g, X(k), Y(q), c, c, css.ground);
      else if (Math.abs(v) > d.top * 1.001) beyond(g, X(k) + c / 2, Y(q) + c / 2, v, colours());
    }
  }
  function drawLegend() {
    const two = signed(), top = number(cached.top); colourBar(legend, colours());
    const unit = get("combine") === "rollout" ? "share of the input" : meta().weightings.find(w => w[0] === get("weighting"))[3];
    legendText.textContent = !cached.top ? `everything here is 0 (${unit})` : `${two ? "−" + top : "0"} … ${top} ${unit} · ${{ sqrt: "√", rank: "rank", linear: "linear" }[get("scale")]} colours, scale of ${get("normalise") === "all" ? "all heads" : "this view"}${get("hide_sink") ? ` · first token hidden${shares() ? ", rows renormalised" : ""}` : ""}${get("top_p") < 1 ? ` · top ${Math.round(get("top_p") * 100)} % of each row` : ""}`;
  }
  const describe = () => { const p = chosen(), c = get("combine"), what = c === "rollout" ? `rollout from the input to layer ${get("layer")}` : c === "one" ? name(p[0]) : `${c} of ${p.length} heads: ${p.slice(0, 6).map(name).join(", ")}${p.length > 6 ? " …" : ""}`; return `${what} · rows are queries, columns keys · ${meta().which.find(w => w[0] === get("which"))[1]}`; };
  function facts() {
    const [q, k] = get("hovered"), d = cached, t = shown();
    if (q == null || !d.m) return "Point at a cell or a token; click keeps it. Arrow keys move, Enter keeps, + and − zoom, [ and ] change the head.";
    if (!exists(q, k)) return `query ${q} ${quoted(t.query[q] ?? [""])} cannot see key ${k} ${quoted(t.key[k] ?? [""])}: it comes later`;
    const v = d.m[q * d.cols + k];
    if (v !== v) return `query ${q} ${quoted(t.query[q])} ← key ${k} ${quoted(t.key[k])}: not a number (not computed, or only one side has this token)`;
    const f = rowFacts(d.m, d.rows, d.cols, q, k), known = exact?.at === `${d.id} ${q} ${k}`;
    return `${get("combine") === "one" ? name(chosen()[0]) : get("combine")}  query ${q} ${quoted(t.query[q])} ← key ${k} ${quoted(t.key[k])}  ${known ? "=" : "≈"} ${number(known ? exact.value : v)}  rank ${f.rank}/${f.of}  row entropy ${f.entropy.toFixed(2)} nats`;
  }
  const askExact = later(() => { const [q, k] = get("hovered"); if (meta().live && q != null && exists(q, k) && get("combine") === "one" && !get("hide_sink") && get("top_p") === 1) model.send({ kind: "exact", version: get("version"), key: key(get("layer")), head: get("head"), at: `${cached.id} ${q} ${k}`, query: q, source: k }); }, 150);
  const heard = msg => { if (msg.kind === "exact" && msg.version === get("version")) { exact = msg; readout.textContent = facts(); } };
  model.on("msg:custom", heard);
  const saveHover = later(() => model.save_changes(), 80);
  function point(q, k, quiet) {
    const d = cached; if (!d.m) return;
    const next = q == null ? [] : [Math.max(0, Math.min(d.rows - 1, q)), Math.max(0, Math.min(d.cols - 1, k))];
    readout.setAttribute("aria-live", quiet ? "off" : "polite");
    if (next.join() !== get("hovered").join()) { model.set("hovered", next); saveHover(); }
  }
  function follow() { const [q, k] = get("hovered"); if (q != null && cached.m && (q < box[1] || q + 1 > box[3] || k < box[0] || k + 1 > box[2])) { const w = box[2] - box[0], hh = box[3] - box[1]; box = inside([k + .5 - w / 2, q + .5 - hh / 2, k + .5 + w / 2, q + .5 + hh / 2], cached.rows, cached.cols); drawPlot(); } }
  const drawHover = soon(() => { if (gone) return; follow(); overlay(); tint(); readout.textContent = facts(); askExact(); });
  const cellAt = e => pointAt(plot, e, area.W);
  plot.addEventListener("pointermove", e => {
    const [x, y] = cellAt(e);
    if (drag) { const dx = (x - drag.x) / area.cell, dy = (y - drag.y) / area.cell; if (moved ||= Math.hypot(dx, dy) * area.cell > 4) { box = inside([drag.box[0] - dx, drag.box[1] - dy, drag.box[2] - dx, drag.box[3] - dy], cached.rows, cached.cols); drawPlot(); } return; }
    const at = cached.m && hit(x, y, area, box); at ? point(...at, true) : point(null, null, true);
  });
  let drag = null;
  plot.addEventListener("pointerdown", e => { const [x, y] = cellAt(e); moved = false; if (cached.m && (box[2] - box[0] < cached.cols || box[3] - box[1] < cached.rows)) { drag = { x, y, box }; plot.setPointerCapture(e.pointerId); } });
  plot.addEventListener("pointerup", () => { drag = null; });
  plot.addEventListener("pointerleave", () => point(null, null, true));
  plot.addEventListener("click", e => { const [x, y] = cellAt(e), at = !moved && cached.m && hit(x, y, area, box); if (at) { point(...at); keepCell(at); lock(at[get("side") === "query" ? 0 : 1], e.shiftKey); } });
  plot.addEventListener("wheel", e => { const at = cached.m && (e.ctrlKey || e.metaKey || box[2] - box[0] < cached.cols) && hit(...cellAt(e), area, box); if (at) { e.preventDefault(); box = zoom(box, cached.rows, cached.cols, e.deltaY < 0 ? .8 : 1.25, at); drawPlot(); } }, { passive: false });
  plot.addEventListener("keydown", e => {
    const [q = -1, k = 0] = get("hovered"), go = arrow(e, e.shiftKey ? 10 : 1), heads = stack().heads, here = cached.m;
    if (go && here) q < 0 ? point(cached.rows - 1, 0) : point(q + go[0], k + go[1]);
    else if (e.key === "Enter" || e.key === " ") { if (q >= 0) { keepCell([q, k]); lock(get("side") === "query" ? q : k, e.shiftKey); } }
    else if (e.key === "Escape") { keptCell = null; put({ locked: [] }); point(null, null); }
    else if ("+=-".includes(e.key) && here) { box = zoom(box, cached.rows, cached.cols, e.key === "-" ? 1.25 : .8, q < 0 ? [cached.rows - 1, 0] : [q, k]); drawPlot(); }
    else if (e.key === "0") { box = null; drawPlot(); }
    else if ("[]".includes(e.key)) openHead([get("layer"), (get("head") + (e.key === "]" ? 1 : heads - 1)) % heads]);
    else if ("{}".includes(e.key)) openHead([(get("layer") + (e.key === "}" ? 1 : stack().layers - 1)) % stack().layers, get("head")]);
    else if (e.key === "s") put({ side: get("side") === "query" ? "key" : "query", locked: [] });
    else return;
    e.preventDefault();
  });
  const say = at => { readout.setAttribute("aria-live", "polite"); readout.textContent = at ? `${name(at)}, set of ${get("heads").length}: ${get("heads").map(name).join(", ")}` : `${describe()}. ${facts()}`; };

  // --- the text ------------------------------------------------------------------------------------------------------
  let rows = [];
  function lock(i, add) {
    const had = get("locked"), at = had.indexOf(i);
    put({ locked: at >= 0 ? (add || had.length === 1 ? had.filter(x => x !== i) : [i]) : add ? [...had, i].slice(-COMPARE) : [i] });
  }
  function walk(by) { const n = shown().query.length, made = Math.min(n, meta().generated), at = get("step") || n, next = Math.max(made, Math.min(n, at + by)); put({ step: next === n ? 0 : next, side: "query", locked: [next - 1] }); }
  const partner = (axis, i) => { const [q, k] = get("hovered"); return axis === "query" ? [i, k != null && exists(i, k) ? k : bestIn(i, "query")] : [q != null && exists(q, i) ? q : bestIn(i, "key"), i]; };
  const bestIn = (i, axis) => { const v = axis === "query" ? rowOf(i) : colOf(i); let best = 0, top = -1; v.forEach((x, j) => { if (Math.abs(x) > top && (axis === "query" ? exists(i, j) : exists(j, i))) { top = Math.abs(x); best = j; } }); return best; };
  function drawStrips() {
    const t = shown(), same = t.key === t.query || JSON.stringify(t.key) === JSON.stringify(t.query), lists = same ? [["both", t.query]] : [["query", t.query], ["key", t.key]];
    const id = JSON.stringify([lists, get("step")]); if (rows.id === id) return;
    const made = lists.map(([axis, list]) => {
      const body = h("div", { ...OURS, className: "wb-tokens", tabIndex: 0, role: "listbox", "aria-multiselectable": "true", "aria-label": { both: "Text", query: "Text that looks", key: "Text that is looked at" }[axis] }), row = { axis, list, body, start: 0, spans: [] };
      const axisOf = () => axis === "both" ? get("side") : axis;
      row.page = start => { row.start = Math.max(0, Math.min(start, list.length - STRIP)); row.spans = list.slice(row.start, row.start + STRIP).map((tok, n) => tokenSpan(row.start + n, tok)); body.replaceChildren(...row.spans); if (get("step") && axis !== "key") row.spans.forEach((s, n) => s.classList.toggle("later", row.start + n >= get("step"))); tint(); };
      const index = e => { const s = e.target.closest?.("[data-i]"); return s ? +s.getAttribute("data-i") : null; };
      body.addEventListener("pointermove", e => { const i = index(e); if (i != null && cached.m) { row.over = i; point(...partner(axisOf(), i), true); } });
      body.addEventListener("pointerleave", () => { row.over = null; point(null, null, true); });
      body.addEventListener("click", e => { const i = index(e); if (i == null) return; if (axis !== "both" && get("side") !== axis) put({ side: axis, locked: [] }); lock(i, e.shiftKey); });
      body.addEventListener("keydown", e => {
        const at = get("hovered")[axisOf() === "query" ? 0 : 1] ?? -1, by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (by) { const i = Math.max(0, Math.min(list.length - 1, at + by)); if (i < row.start || i >= row.start + STRIP) row.page(i - STRIP / 2); row.over = i; point(axisOf() === "query" ? i : bestIn(i, "key"), axisOf() === "query" ? bestIn(i, "query") : i); }
        else if (e.key === "Enter" || e.key === " ") { if (at >= 0) lock(at, e.shiftKey); } else if (e.key === "Escape") put({ locked: [] }); else return;
        e.preventDefault();
      });
      row.nav = list.length > STRIP ? h("div", { className: "wb-row" }, h("button", { text: "◀ earlier", onclick: () => row.page(row.start - STRIP / 2) }), h("button", { text: "later ▶", onclick: () => row.page(row.start + STRIP / 2) }), h("span", { className: "wb-note" })) : null;
      return row;
    });
    rows = Object.assign(made, { id }); strips.replaceChildren(...made.flatMap(r => [...(same ? [] : [h("div", { className: "wb-note", text: r.axis === "query" ? "looks" : "is looked at" })]), ...(r.nav ? [r.nav] : []), r.body]));
    made.forEach(r => r.page(0));
  }
  let revealed = "";
  function reveal() { const is = JSON.stringify([get("locked"), get("which")]); if (is === revealed) return; revealed = is; const i = get("locked").at(-1); for (const r of rows) if (i != null && (r.axis === "both" || r.axis === get("side")) && (i < r.start || i >= r.start + STRIP)) r.page(i - STRIP / 2); }
  function tint() {                                        // the text in the colours of what is kept, else of what is pointed at
    if (!cached.m) return;
    const side = get("side"), locks = get("locked"), [q, k] = get("hovered"), paint = colours(), s = shade(), faint = v => Math.abs(s(v) - (signed() ? 128 : 0)) > 12;   // a tint that nobody would see costs as much as one that is seen
    const from = locks.length ? locks : q == null ? [] : [side === "query" ? q : k], values = from.map(i => side === "query" ? (i < cached.rows ? rowOf(i) : []) : i < cached.cols ? colOf(i) : []);
    for (const row of rows) {
      const source = row.axis === "both" || row.axis === side, target = row.axis !== side;
      row.spans.forEach((span, n) => {
        const i = row.start + n, mine = target ? values.map((v, j) => [v[i] ?? 0, j]).filter(([v]) => faint(v)) : [], inks_ = mine.map(([v, j]) => (locks.length > 1 ? inks.locks[j] : paint)[s(v)]);
        const want = !inks_.length ? "" : locks.length < 2 ? rgb(inks_[0]) : `bottom / 100% 40% no-repeat linear-gradient(${inks_.map((c, j) => `${rgb(c)} ${100 * j / inks_.length}% ${100 * (j + 1) / inks_.length}%`)})`;
        if (span.tinted !== want) { span.tinted = want; span.style[locks.length > 1 ? "background" : "backgroundColor"] = want; if (!want) span.style.background = ""; span.style.color = !want || locks.length > 1 ? "" : luminance(inks_[0]) > .55 ? "#000" : "#fff"; }
        const on = source && from.includes(i) ? "true" : "false"; if (span.getAttribute("aria-selected") !== on) span.setAttribute("aria-selected", on);
      });
      if (row.nav) row.nav.lastChild.textContent = `tokens ${row.start} to ${row.start + row.spans.length - 1} of ${row.list.length}`;
    }
    drawArcs(locks, values[0]);
  }
  function drawArcs(locks, values) {                       // lines only for one kept token, only for the top of its mass
    const list = shown().query, n = list.length, on = locks.length === 1 && rows.length === 1 && n <= 40 && values?.length, id = on ? JSON.stringify([locks, cached.id, get("side"), dark]) : "";
    if (arcs.is === id) return; arcs.is = id; arcs.replaceChildren(); arcs.style.display = on ? "" : "none"; if (!on) return;
    const W = Math.max(260, strips.clientWidth - 4), gap = W / n, x = i => (i + .5) * gap, make = (tag, a, text) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const [k, v] of Object.entries(a)) e.setAttribute(k, v); if (text) e.textContent = text; arcs.append(e); };
    const kept = topP(Float32Array.from(values), 1, values.length, get("top_p") < 1 ? get("top_p") : .7), top = largest(kept) || 1, i = locks[0];
    for (const [k, v] of Object.entries({ width: W, height: 92, role: "img", "aria-label": `Arcs from token ${i} to the tokens that hold ${get("top_p") < 1 ? Math.round(get("top_p") * 100) : 70} % of its weight` })) arcs.setAttribute(k, v);
    kept.forEach((v, j) => { if (!v && j !== i) return; const up = 10 + 55 * Math.abs(j - i) / n; if (v) make("path", { d: j === i ? `M${x(j) - 5} 72q5-14 10 0` : `M${x(i)} 72C${x(i)} ${72 - up} ${x(j)} ${72 - up} ${x(j)} 72`, fill: "none", stroke: v < 0 ? css.accent : rgb(inks.one[dark ? 190 : 210]), "stroke-width": 1 + 5 * Math.abs(v) / top, "stroke-opacity": .75 });
      make("text", { x: x(j), y: 86, "text-anchor": "middle", "font-size": 11, fill: j === i ? css.accent : "currentColor" }, shorten(displayToken(list[j][0]), Math.max(5, Math.floor(gap / 6)))); });
  }

  // --- changing ------------------------------------------------------------------------------------------------------
  const same = (a, b) => ["stack", "layer", "head", "query", "key"].every(k => (a[k] ?? null) === (b[k] ?? null));
  function change(factor, what) {
    const [q, k] = get("hovered"), at = get("locked")[0], place = what === "entry" ? (keptCell?.stack === get("stack") ? { query: keptCell.query, key: keptCell.key } : q == null ? null : { query: q, key: k }) : what === "token" ? (at == null ? null : get("side") === "query" ? { query: at } : { key: at }) : {};
    if (!place) { say(); readout.textContent = "Keep a token first: click it in the text or in the matrix."; return; }
    const made = (what === "heads" && get("combine") !== "rollout" ? get("heads") : [[get("layer"), get("head")]]).map(([layer, head]) => ({ stack: get("stack"), layer, head, ...place, factor }));
    put({ edits: [...get("edits").filter(e => !made.some(m => same(e, m))), ...made] });
  }
  let keptCell = null, target = "heads";
  const keepCell = ([q, k]) => { keptCell = exists(q, k) ? { stack: get("stack"), query: q, key: k } : null; };
  const editText = e => `${meta().stacks.length > 1 && e.stack ? e.stack + " " : ""}${name([e.layer, e.head])}${e.query != null ? ` query ${e.query}` : ""}${e.key != null ? ` key ${e.key}` : ""} ×${e.factor}`;
  function drawEdits() {
    const live = meta().editable, list = get("edits"), given = meta().changes ?? [], out = get("outputs"), id = JSON.stringify([live, list, given, out, target]); if (edits.is === id) return; edits.is = id;
    const some = list.length + given.length; if (!live && !some) return edits.replaceChildren();
    const pick = h("select", { title: "What is multiplied", disabled: !live, onchange: () => { target = pick.value; } }, ...[["heads", "chosen heads"], ["token", "kept token's entries"], ["entry", "clicked entry"]].map(([value, text]) => h("option", { value, text }))); pick.value = target;
    edits.replaceChildren(h("div", { className: "wb-row" }, h("strong", { text: "Change" }), pick, ...[[0, "knock out"], [.5, "× 0.5"], [2, "× 2"], [-1, "× −1"]].map(([f, text]) => h("button", { text, disabled: !live, onclick: () => change(f, target) })), ...given.map(text => h("span", { className: "wb-token special", text })), ...list.map((e, n) => h("button", { className: "wb-edit", text: editText(e) + (live ? " ✕" : ""), title: "Undo this change", disabled: !live, onclick: () => put({ edits: list.filter((_, j) => j !== n) }) }))),
      ...(live ? [] : [h("p", { className: "wb-note", text: "Changing needs a kernel: this page shows the changes as they were." })]),
      ...(out.error ? [h("p", { className: "wb-note", role: "alert", text: out.error })] : out.rows ? [nextTokens(out.title, ["next token", "original", ...(some ? ["changed"] : [])], out.rows.map(([tok, a, b]) => some ? [tok, a, b] : [tok, a]))] : []));
  }
  function fillTable() {
    if (!largestOf.open || !cached.m) return;
    const d = cached, t = shown(), top = [...d.m.keys()].filter(i => d.m[i] && d.m[i] === d.m[i]).sort((a, b) => Math.abs(d.m[b]) - Math.abs(d.m[a])).slice(0, 12);
    table.replaceChildren(h("tr", {}, ...["query", "key", "value"].map(text => h("th", { text, scope: "col" }))), ...top.map(i => { const q = Math.floor(i / d.cols), k = i % d.cols; return h("tr", {}, h("td", { text: `${q} ${displayToken(t.query[q][0])}` }), h("td", { text: `${k} ${displayToken(t.key[k][0])}` }), h("td", { className: "n", text: number(d.m[i]) })); }));
  }

  // --- all of it -----------------------------------------------------------------------------------------------------
  function drawControls() {
    controls.stack.fill(meta().stacks.map(s => [s.name, s.label])); controls.which.fill(meta().which); for (const c of Object.values(controls)) c.read();
    controls.stack.el.hidden = meta().stacks.length < 2; controls.which.el.hidden = meta().which.length < 2; controls.weighting.el.hidden = meta().weightings.length < 2; stepper.hidden = !meta().generated; controls.combine.el.querySelector("[value=rollout]").disabled = !stack().rollout;
    sink.checked = get("hide_sink"); topp.value = get("top_p") * 100; toppText.textContent = get("top_p") < 1 ? Math.round(get("top_p") * 100) + " %" : "off"; heading.textContent = meta().title;
  }
  function tidy() {                                        // what was kept on another side or text may not exist on this one
    const n = shown()[get("side")].length, [q, k] = get("hovered"), t = shown();
    if (get("locked").some(i => i >= n)) put({ locked: get("locked").filter(i => i < n) });
    if (q != null && (q >= t.query.length || k >= t.key.length)) put({ hovered: [] });
  }
  model.accepts = v => { const { layers, heads } = stack(), n = shown()[v.side ?? get("side")].length; return !(v.layer >= layers || v.head >= heads || v.heads?.some(([l, i]) => l >= layers || i >= heads) || v.locked?.some(i => i >= n)); };
  function drawAll() { tidy(); drawControls(); drawOverview(); drawPlot(); drawStrips(); reveal(); tint(); readout.textContent = facts(); drawEdits(); fillTable(); }
  const changed = VIEW.map(t => "change:" + t).join(" "), renewed = () => { store.forget(get("version")); rows = []; exact = null; refresh(); askExact(); };
  model.on(changed, refresh); model.on("change:hovered", drawHover); model.on("change:outputs change:edits", drawEdits); model.on("change:version", renewed);
  const fit = new ResizeObserver(soon(() => { if (!gone) { theme.look(); drawOverview(); drawPlot(); } })); fit.observe(root);
  store.forget(get("version")); paintWith(theme.dark); drawAll();
  return () => { gone = true; fit.disconnect(); theme.stop(); store.stop(); model.off(changed, refresh); model.off("change:hovered", drawHover); model.off("change:outputs change:edits", drawEdits); model.off("change:version", renewed); model.off("msg:custom", heard); };
}
