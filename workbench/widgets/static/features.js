// FeatureBrowser: a list of any length that is searched, one feature as a whole, and what it does to a text of one's own.
import { displayToken, bytes, number, shader, shorten } from "./core.js";
import { OURS, asker, choice, h, later, sharp, soon, watchTheme } from "./dom.js";
import { colourBar, nextTokens, palette, rgb } from "./matrix.js";
import { bandOf, chosenRows, groups, inSight, logPlace, percent, runs, scrollTo, shareBelow, warning } from "./record.js";

const ROW = 26, LOGITS = 8, LINKS = 6, SEEN = "feature query sort descending show pins text underline prompt strength steer_mode new_tokens sampled seed per_group found said".split(" ");
const COLUMNS = { feature: "#", label: "label", density: "density", max: "max", score: "score", match: "in B" };
const brief = v => v == null ? "–" : number(v).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""), rate = v => v == null ? "–" : v === 0 ? "0" : v < .001 ? v.toExponential(0) : percent(v).replace(" ", "");
const light = c => { const [r, g, b] = c.map(v => (v / 255 + .055) ** 2.4 / 1.055 ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };   // relative luminance: black and white contrast alike with .18
const quoted = t => `"${displayToken(t)}"`;

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta"), live = () => meta().live;
  const put = values => { for (const [k, v] of Object.entries(values)) model.set(k, v); model.save_changes(); };
  const uid = `f${Math.random().toString(36).slice(2, 8)}`; let gone = false, hover = null, dark, inks, css;

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-features", "aria-label": "Feature browser" }), heading = h("div", { className: "wb-heading" }), about = h("div", { className: "wb-note" }), trouble = h("div", { className: "wb-note wb-trouble", role: "alert" });
  const box = h("input", { type: "search", "aria-label": "Search features", spellcheck: false, autocomplete: "off" }), hint = h("div", { className: "wb-note", id: `${uid}-hint` }), refused = h("div", { className: "wb-note wb-trouble", role: "alert" }), count = h("span", { className: "wb-note wb-count", role: "status" });
  const show = choice(model, "show", "show", [["all", "all features"], ["pinned", "pinned"]]), heads = h("div", { role: "row", className: "wb-cells wb-head", "aria-rowindex": 1 });
  const sheet = h("div", { className: "wb-sheet", role: "presentation" }), scroller = h("div", { className: "wb-scroller", role: "rowgroup" }, sheet), grid = h("div", { ...OURS, className: "wb-list", role: "grid", tabIndex: 0, "aria-label": "Features", "aria-describedby": `${uid}-hint` }, h("div", { role: "rowgroup" }, heads), scroller);
  const detail = h("div", { className: "wb-detail" }), readout = h("div", { className: "wb-readout", role: "status", "aria-live": "polite" }), shelf = h("div");
  const tries = h("div", { className: "wb-tries" }), left = h("div", { className: "wb-pane wb-left" }, h("div", { className: "wb-row" }, box, show.el), refused, h("div", {}, count), grid, hint), right = h("article", { className: "wb-pane wb-right", "aria-label": "The open feature" }, detail, tries);
  root.append(heading, about, trouble, h("div", { className: "wb-panes" }, left, right), shelf); el.append(root);

  // --- data ----------------------------------------------------------------------------------------------------------
  const refresh = soon(() => gone || drawAll()), opened = (m, view) => m.code === "json" ? { said: JSON.parse(new TextDecoder().decode(bytes(view))) } : { name: m.name, bytes: bytes(view) };
  const store = asker(model, key => { if (key[0] === "file") save(key); else refresh(); }, opened), ask = (...key) => store.get(key.map(String));
  const F = () => get("feature"), record = () => ask("record", F());

  // --- the list ------------------------------------------------------------------------------------------------------
  let order = { is: "" }, wanted = null, seenList = "", seenPlace = "";
  const still = () => !!get("found").page;                 // a page without a kernel: all its rows are here
  function own() {                                         // rows of such a page, filtered and sorted right here
    const rows = ask("rows", 0, 0)?.said; if (!rows) return null;
    const id = JSON.stringify([box.value, get("sort"), get("descending"), get("show"), get("pins")]); if (order.is !== id) order = { is: id, at: chosenRows(rows, box.value, get("sort"), get("descending")).filter(i => get("show") === "all" || get("pins").includes(rows.feature[i])) };
    return { rows, at: order.at };
  }
  const size = () => still() ? own()?.at.length ?? 0 : get("found").count ?? 0;
  function rowAt(i) {
    const per = meta().page, rows = still() ? own()?.rows : ask("rows", get("found").id, Math.floor(i / per))?.said, j = still() ? own()?.at[i] : i % per;
    return rows && j < rows.feature.length ? Object.fromEntries(Object.entries(rows).map(([k, v]) => [k, v[j]])) : null;
  }
  const place = () => wanted ?? (still() ? own()?.at.findIndex(j => own().rows.feature[j] === F()) ?? -1 : get("found").at ?? -1);
  function drawHeads() {
    const sorts = ["feature", "label", "density", "max", "score", ...(meta().sorts.includes("match") ? ["match"] : [])], id = JSON.stringify([sorts, get("sort"), get("descending")]); if (heads.is === id) return; heads.is = id;
    grid.dataset.match = sorts.includes("match"); grid.setAttribute("aria-colcount", sorts.length + 1);
    heads.replaceChildren(h("span", { role: "columnheader", "aria-label": "pinned" }), ...sorts.map(k => {
      const on = get("sort") === k; return h("span", { role: "columnheader", "aria-sort": on ? (get("descending") ? "descending" : "ascending") : "none" }, h("button", { tabIndex: -1, text: `${COLUMNS[k]}${on ? (get("descending") ? " ↓" : " ↑") : ""}`, title: k === "match" ? "Largest cosine with a feature of the second dictionary" : `Sort by ${k}`, onclick: () => put(on ? { descending: !get("descending") } : { sort: k, descending: !["feature", "label"].includes(k) }) }));
    }));
  }
  function rowOf(i) {
    const r = rowAt(i), at = i === place(), cell = (name, props = {}) => h("span", { role: "gridcell", className: `wb-${name}`, ...props }), pinned = r && get("pins").includes(r.feature);
    const el = h("div", { role: "row", id: `${uid}-${i}`, className: "wb-cells", "aria-rowindex": i + 2, "aria-selected": String(at), onclick: e => { grid.focus({ preventScroll: true }); if (r && e.target.classList.contains("wb-star")) pin(r.feature); else open(i); } }); el.style.top = `${i * ROW}px`;
    if (!r) { el.append(cell("star"), cell("id", { text: "…" })); return el; }
    const density = cell("density", { text: rate(r.density) }), words = r.tokens.map(displayToken).join(" "); density.style.setProperty("--share", logPlace(r.density) ?? 0);
    el.append(cell("star", { text: pinned ? "★" : "☆", "aria-label": pinned ? "pinned" : "not pinned", title: pinned ? "Unpin" : "Pin" }), cell("id", { text: r.feature }), cell(r.label ? "label" : "label wb-bare", { text: r.label || words || "never fired", title: r.label ? `${r.label}\nfires most at ${words}` : `No description. Fires most at ${words || "nothing: it is dead"}` }), density,
      cell("max", { text: r.density === 0 ? "–" : brief(r.max) }), cell("score", { text: r.score == null ? "–" : r.score.toFixed(2), title: r.score == null ? "Never scored" : "" }), ...("match" in r ? [cell("score", { text: r.match.toFixed(2) })] : []));
    return el;
  }
  function drawList() {
    const n = size(), found = get("found"), at = place(), ready = `${found.id} ${order.is} ${n}`, tall = scroller.clientHeight || 400;
    sheet.style.height = `${Math.max(1, n) * ROW}px`; scroller.style.setProperty("--tall", `${Math.max(2, n) * ROW + 2}px`);
    if (seenList !== ready) { seenList = ready; seenPlace = ""; scroller.scrollTop = 0; }
    if (seenPlace !== `${at}` && at >= 0) { seenPlace = `${at}`; scroller.scrollTop = scrollTo(at, scroller.scrollTop, tall, ROW); }
    const [from, to] = inSight(scroller.scrollTop, tall, ROW, n);
    sheet.replaceChildren(...(n ? Array.from({ length: to - from }, (_, i) => rowOf(from + i)) : [h("div", { className: "wb-note wb-empty", role: "presentation", text: get("show") === "pinned" ? "Nothing is pinned: press p on a feature." : "No feature fits." })]));
    grid.setAttribute("aria-rowcount", n + 1); if (at >= from && at < to) grid.setAttribute("aria-activedescendant", `${uid}-${at}`); else grid.removeAttribute("aria-activedescendant");
    count.textContent = still() ? `${n} of the ${found.count} features of this page` : `${n.toLocaleString("en")} of ${found.of.toLocaleString("en")} features${found.seconds > .02 ? `, ${found.seconds < 1 ? `${Math.round(1000 * found.seconds)} ms` : `${found.seconds.toFixed(1)} s`}` : ""}`;
    refused.textContent = found.refused ?? "";
    if (wanted != null && rowAt(wanted)) { const f = rowAt(wanted).feature; if (f !== F()) settle(f); else if ((get("found").at ?? -1) === wanted || still()) wanted = null; }
  }
  const settle = (() => { let t; return f => { clearTimeout(t); t = setTimeout(() => gone || put({ feature: f }), still() ? 0 : 60); }; })();
  function open(i) { if (i < 0 || i >= size()) return; wanted = i; drawList(); }
  function pin(f = F()) { const had = get("pins"); put({ pins: had.includes(f) ? had.filter(x => x !== f) : [...had, f] }); }
  scroller.addEventListener("scroll", soon(() => gone || drawList()));
  grid.addEventListener("keydown", e => {
    const at = place(), per = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 1), to = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), PageDown: at + per, PageUp: at - per, Home: 0, End: size() - 1 }[e.key];
    if (to !== undefined) open(Math.max(0, Math.min(size() - 1, to)));
    else if (e.key === "p" || e.key === " ") pin();
    else if (e.key === "Enter") { right.tabIndex = -1; right.focus(); right.scrollIntoView({ block: "nearest" }); }
    else if (e.key === "/") box.focus();
    else return;
    e.preventDefault();
  });
  const search = later(() => { if (gone) return; if (still()) return drawList(); model.send({ kind: "search", text: box.value }); }, 120);
  box.addEventListener("input", search); box.addEventListener("keydown", e => { if (e.key === "ArrowDown" || e.key === "Enter") { grid.focus(); e.preventDefault(); } if (e.key === "Escape") { box.value = ""; search(); } });

  // --- colours: one scale for a feature, from 0 to its largest activation ----------------------------------------------------
  const theme = watchTheme(root, d => { if (d !== dark || !css.known) { paintWith(d); drawAll(true); } });
  function paintWith(d) { dark = d; ({ inks, css } = palette(root, d)); }
  const tone = (value, top, ramp = inks.one) => { const c = ramp[shader(null, top, "linear", false)(Math.min(top, Math.abs(value)))]; return [rgb(c), light(c) > .18 ? "#000" : "#fff"]; };
  function token(text, i, { value = null, top = 0, kind = 0, peak = false, under = null, ramp } = {}) {   // the one way a token is shown, tinted
    const t = h("bdi", { className: `wb-token${kind === 1 ? " special" : ""}${peak ? " peak" : ""}`, text: displayToken(text) });
    if (value && top > 0) [t.style.background, t.style.color] = tone(value, top, value < 0 ? inks.locks[1] : ramp);
    if (value !== null) { t.dataset.v = value; t.dataset.t = text; t.dataset.i = i; }
    if (under) { t.style.borderBottom = `${Math.max(1, Math.round(4 * Math.min(1, Math.abs(under.value) / under.top)))}px solid ${rgb(inks.two[under.value < 0 ? 30 : 225])}`; t.dataset.u = under.value; }
    return t;
  }
  const quiet = texts => h("bdi", { className: "wb-run", text: texts.map(displayToken).join("\u2009") });

  // --- one feature -----------------------------------------------------------------------------------------------------
  const spread = h("canvas", { role: "img", className: "wb-spread" }), histogram = h("canvas", { role: "img", className: "wb-histogram" }), legend = h("canvas", { role: "img", "aria-hidden": "true" });
  const unfolded = new Set(); let drawn = "";
  const part = (title, ...content) => h("section", { className: "wb-part" }, h("h4", { text: title }), ...content), because = (r, k, say) => h("p", { className: "wb-note", text: `${say}: ${r.why[k] ?? "not computed"}.`.replace("..", ".") });
  function drawDetail() {
    const got = record(), r = got?.said, id = JSON.stringify([F(), get("version"), get("per_group"), get("pins").includes(F()), dark, [...unfolded], !!r, got?.missing, [...unfolded].map(k => !!ask("context", F(), k.split(" ")[0]))]);
    if (drawn === id) return; drawn = id;
    if (!r) return detail.replaceChildren(h("h3", { text: `Feature ${F()}` }), h("p", { className: "wb-note", role: "status", text: got?.missing ?? "…" }));
    const had = document.activeElement?.closest?.(".wb-context")?.dataset.k, warn = warning(r), pinned = get("pins").includes(F()), labels = r.labels ?? [];
    detail.replaceChildren(h("div", { className: "wb-row" }, h("h3", { text: `Feature ${r.feature}` }), h("button", { className: "wb-pinned", text: pinned ? "★ pinned" : "☆ pin", "aria-pressed": String(pinned), onclick: () => pin() }), ...(warn ? [h("span", { className: `wb-badge wb-${warn[0]}`, text: warn[0] }), h("span", { className: "wb-note", text: warn[1] })] : [])),
      labels.length ? h("ul", { className: "wb-labels" }, ...labels.map(labelLine)) : h("p", { className: "wb-note", text: "No description yet." }),
      h("div", { className: "wb-columns" }, part("How often, how strongly", spread, ...(r.histogram ? [histogram] : [because(r, "histogram", "No histogram")])), part("What it writes", logits(r))),
      part("Where it fires", contexts(r)), h("div", { className: "wb-columns" }, links("Nearest directions", r, "neighbours", ([f, c, l]) => [f, `cosine ${c.toFixed(2)}`, l]), links("Firing together", r, "together", ([f, n, j, l]) => [f, `${n.toLocaleString("en")}×, Jaccard ${j.toFixed(2)}`, l])));
    drawSpread(r); drawHistogram(); if (r.max > 0) colourBar(legend, inks.one, 96);
    if (had) detail.querySelector(`.wb-context[data-k="${CSS.escape(had)}"]`)?.focus({ preventScroll: true });
  }
  function labelLine(l) {
    const kind = l.kind ? ` (${l.kind})` : "", range = l.low != null && l.high != null ? ` [${l.low.toFixed(2)}, ${l.high.toFixed(2)}]` : "";
    return h("li", {}, h("span", { text: l.text }), h("span", { className: "wb-note", text: `${kind} ${l.score == null ? "never scored" : `score ${l.score.toFixed(2)}${range}`}` }));
  }
  function drawSpread(r) {                                 // density among the densities of all features
    const W = Math.max(180, Math.min(420, spread.parentElement?.clientWidth || 300)), g = sharp(spread, W, 46), { counts, dead } = meta().spread, top = Math.max(1, ...counts), x = t => 6 + t * (W - 12), at = logPlace(r.density);
    g.fillStyle = dark ? "#4a4a4a" : "#cfcfcf"; counts.forEach((c, i) => { const tall = c ? 2 + 20 * Math.sqrt(c / top) : 0; g.fillRect(x(i / counts.length) + .5, 28 - tall, (W - 12) / counts.length - 1, tall); });
    g.strokeStyle = css.soft; g.lineWidth = 1; g.beginPath(); g.moveTo(6, 28.5); g.lineTo(W - 6, 28.5); g.stroke(); g.fillStyle = css.soft; g.font = `10px ${css.font}`; g.textBaseline = "top"; g.textAlign = "center";
    [-6, -5, -4, -3, -2, -1, 0].forEach((p, i) => { g.textAlign = i === 0 ? "left" : i === 6 ? "right" : "center"; g.fillText(["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "1 %", "10 %", "100 %"][i], i === 0 ? 0 : i === 6 ? W : x(i / 6), 32); });
    if (at !== null) { g.fillStyle = css.accent; g.beginPath(); g.moveTo(x(at), 28); g.lineTo(x(at) - 5, 18); g.lineTo(x(at) + 5, 18); g.fill(); g.fillRect(x(at) - .75, 4, 1.5, 24); }
    spread.setAttribute("aria-label", `${r.density == null ? `Density not known: ${r.why.density ?? "not computed"}` : `Density ${percent(r.density)}: fires at ${r.fired.toLocaleString("en")} of ${r.n.toLocaleString("en")} tokens`}; grey, the densities of all features, ${dead.toLocaleString("en")} of which never fired`);
    spread.title = spread.getAttribute("aria-label");
  }
  function drawHistogram() {
    const r = record()?.said; if (!r?.histogram || !histogram.isConnected) return;
    const { edges, counts } = r.histogram, W = Math.max(180, Math.min(420, histogram.parentElement.clientWidth)), H = 112, g = sharp(histogram, W, H), low = Math.min(0, edges[0]), high = edges.at(-1), base = H - 30, x = v => 6 + (v - low) / (high - low || 1) * (W - 12), top = Math.log10(1 + Math.max(...counts)) || 1, bands = r.bands ?? [];
    bands.slice(0, -1).forEach((a, i) => { if (i % 2) return; g.fillStyle = dark ? "#2c2c2c" : "#efefef"; g.fillRect(x(a), 4, Math.max(.5, x(bands[i + 1]) - x(a)), base - 4); });
    g.fillStyle = rgb(inks.one[dark ? 170 : 150]); counts.forEach((c, i) => { if (c) { const tall = Math.max(2, (base - 8) * Math.log10(1 + c) / top); g.fillRect(x(edges[i]), base - tall, Math.max(1, x(edges[i + 1]) - x(edges[i]) - .5), tall); } });
    g.fillStyle = css.soft; g.font = `10px ${css.font}`; g.textBaseline = "top"; g.textAlign = "left"; g.fillText(brief(low), 2, base + 3); g.textAlign = "right"; g.fillText(`largest ${brief(r.max)}`, W - 2, base + 3); g.textAlign = "center"; if (W > 240) g.fillText(`${r.fired.toLocaleString("en")} activations, log scale; stripes: groups of equal size`, W / 2, base + 16);
    if (hover?.value > 0) { const at = x(Math.min(high, hover.value)); g.strokeStyle = css.accent; g.lineWidth = 2; g.beginPath(); g.moveTo(at, 2); g.lineTo(at, base); g.stroke(); }
    histogram.setAttribute("aria-label", `Histogram of ${r.fired} activations above 0, log counts, from ${brief(edges[0])} to ${brief(high)}; mean ${brief(r.mean)}${bands.length ? `; ${bands.length - 1} quantile groups, the middle at ${brief(bands[bands.length >> 1])}` : ""}`);
  }
  function logits(r) {
    const table = (rows, title, why, hue) => { if (!rows) return because(r, why, title); const top = Math.max(...rows.map(x => Math.abs(x[2])), 1e-9);
      return h("table", {}, h("caption", { className: "wb-note", text: title }), ...rows.slice(0, LOGITS).map(([t, , v]) => { const td = h("td", { className: "n wb-effect", text: `${v < 0 ? "−" : "+"}${Math.abs(v).toFixed(2)}` }); td.style.setProperty("--share", Math.abs(v) / top); td.style.setProperty("--hue", rgb(inks.two[hue])); return h("tr", {}, h("td", {}, h("bdi", { className: "wb-token", text: shorten(displayToken(t), 16) })), td); })); };
    return h("div", { className: "wb-logits" }, table(r.positive, "raises", "positive", 200), table(r.negative, "lowers", "negative", 55));
  }
  const nameOfBand = (v, r) => { const b = bandOf(v, r.bands); return b ? `, group ${b} of ${r.bands.length - 1}` : ""; };
  function contexts(r) {
    if (!r.examples) return because(r, "examples", "No contexts");
    const made = groups(r.examples, (r.bands?.length ?? 1) - 1, get("per_group")), each = h("select", { "aria-label": "contexts of each group", onchange: () => put({ per_group: +each.value }) }, ...[1, 2, 3, 5, 10, 50].map(v => h("option", { value: v, text: v === 50 ? "all" : v }))); each.value = get("per_group");
    const scale = r.max > 0 || r.below ? [h("span", { className: "wb-field" }, h("span", { text: "0" }), legend, h("span", { text: `${brief(r.max)}, the largest${r.below ? `; orange: below 0, as at ${r.below.toLocaleString("en")} tokens` : ""}` }))] : [];
    const list = h("div", { ...OURS, className: "wb-contexts", role: "list", "aria-label": "Contexts, strongest group first" }, ...made.flatMap(([name, some, all, b]) => [h("div", { className: "wb-group", role: "presentation", text: b === -1 ? `silent: ${all} drawn at random where it does not fire` : `${name}${b > 0 && r.bands ? ` · ${brief(r.bands[b - 1])} to ${brief(r.bands[b])}` : ""}${all > some.length ? ` · ${some.length} of ${all}` : ""}` }), ...some.map(e => contextRow(e, r))]));
    const first = list.querySelector(".wb-context"); if (first) first.tabIndex = 0;
    list.addEventListener("keydown", e => {
      const rows = [...list.querySelectorAll(".wb-context")], at = rows.indexOf(e.target), to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[e.key];
      if (at < 0) return;
      if (to !== undefined) { const next = rows[Math.max(0, Math.min(rows.length - 1, to))]; rows[at].tabIndex = -1; next.tabIndex = 0; next.focus(); } else if (e.key === "Enter" || e.key === " ") unfold(rows[at]); else return;
      e.preventDefault();
    });
    return h("div", {}, h("div", { className: "wb-row" }, ...scale, h("label", { className: "wb-field" }, h("span", { text: "of each group" }), each)), readout, list, ...(made.length ? [] : [because(r, "examples", "No contexts")]));
  }
  const unfold = row => { const k = row.dataset.k; if (unfolded.has(k)) unfolded.delete(k); else unfolded.add(k); drawDetail(); };
  function contextRow(e, r) {
    const k = `${e.context} ${e.pos}`, on = unfolded.has(k), row = h("div", { className: "wb-context", role: "listitem", tabIndex: -1, "data-k": k, "data-c": e.context, "aria-expanded": String(on) }), whole = on && ask("context", F(), e.context), w = whole?.said, from = e.pos - e.at;
    const value = i => w?.activations ? w.activations[i] : e.activations[i - from] ?? null;
    const text = w ? h("span", { className: "wb-text" }, ...w.tokens.map((t, i) => token(t, i, { value: value(i), top: r.max, kind: +w.special.includes(i), peak: i === e.pos })))
      : h("span", { className: "wb-text" }, ...runs(e.tokens, e.activations, e.special, e.at).map(x => x.lone ? token(x.texts[0], from + x.from, { value: x.value, top: r.max, kind: +x.special, peak: x.peak }) : quiet(x.texts)));
    row.append(h("span", { className: "wb-value", text: e.activation > 0 ? brief(e.activation) : "0" }), text, ...(e.similar > 1 ? [h("span", { className: "wb-note", text: `×${e.similar} similar` })] : []));
    if (on) row.append(h("span", { className: "wb-row wb-more" }, h("span", { className: "wb-note", text: `context ${e.context}, token ${e.pos}.${whole === null ? " …" : whole?.missing ? ` ${whole.missing}` : w?.why ? ` ${w.why}` : ""}` }), ...(live() && model.widget_manager && !meta().able.attention ? [h("button", { text: "attention", title: "Opens an attention explorer on this context below", onclick: ev => { ev.stopPropagation(); model.send({ kind: "attention", context: e.context, at: e.pos }); } })] : [])));
    row.addEventListener("click", ev => { if (!ev.target.closest("button")) unfold(row); }); row.addEventListener("focus", () => point({ value: e.activation, text: e.tokens[e.at] }));
    return row;
  }
  function links(title, r, k, of) {
    const rows = r[k]; if (!rows) return part(title, because(r, k, "Not known"));
    return part(title, rows.length ? h("ul", { className: "wb-links" }, ...rows.slice(0, LINKS).map(x => { const [f, said, label] = of(x); return h("li", {}, h("button", { text: f, title: `Open feature ${f}`, onclick: () => put({ feature: f }) }), ` ${said}${label ? ` · ${shorten(label, 40)}` : ""}`); })) : h("p", { className: "wb-note", text: "None." }));
  }
  const tellHover = later(() => gone || put({ hovered: hover?.at ?? [] }), 90);
  function point(to) {                                     // a token is pointed at: a line in the histogram, a sentence below it
    hover = to; const r = record()?.said; if (!r) return;
    if (to) readout.textContent = `${quoted(to.text)} ${to.value > 0 ? brief(to.value) : "0"}${to.value > 0 && r.max > 0 ? `, ${(to.value / r.max).toFixed(2)} of the largest${nameOfBand(to.value, r)}${r.histogram ? `, above ${percent(shareBelow(to.value, r.histogram))} of its activations` : ""}` : ": silent here"}${to.under != null ? `; without the feature its loss ${to.under >= 0 ? "rises" : "falls"} by ${number(Math.abs(to.under))} nats` : ""}`;
    else readout.textContent = r.max > 0 ? "Point at a token; click a context to unfold it. Arrow keys and Enter do the same." : "";
    drawHistogram(); tellHover();
  }
  right.addEventListener("mouseover", e => { const t = e.target.closest?.("[data-v]"), c = t?.closest(".wb-context"); if (t && !t.closest(".wb-steered")) point({ value: +t.dataset.v, text: t.dataset.t, under: t.dataset.u == null ? null : +t.dataset.u, at: [c ? +c.dataset.c : -1, +t.dataset.i] }); else if (hover?.at) point(null); });

  // --- a text of one's own -------------------------------------------------------------------------------------------------
  const area = h("textarea", { rows: 2, "aria-label": "A text of your own", placeholder: "Type a text and press Enter" }), go = h("button", { text: "Read", onclick: () => put({ text: area.value }) }), removedBox = h("input", { type: "checkbox", onchange: () => put({ underline: removedBox.checked ? "removed" : "" }) }), tested = h("div", { className: "wb-tested" });
  const enter = (box_, act) => box_.addEventListener("keydown", e => { if (e.key === "Enter" && !e.shiftKey) { e.preventDefault(); act(); } });
  enter(area, () => put({ text: area.value }));
  const held = () => `This page has no kernel and shows only what was tried before it was saved.`, alone = key => live() ? meta().able[key] : null;
  const testNote = h("p", { className: "wb-note" }), testForm = h("div", { className: "wb-row" }, area, go, h("label", { className: "wb-field" }, removedBox, h("span", { text: "underline what its removal does" }))), testPart = h("details", { className: "wb-try", open: true }, h("summary", { text: "Test my text" }), testNote, testForm, tested);
  function drawTest() {
    const able = alone("read"), text = get("text"), under = get("underline"), r = record()?.said; testForm.hidden = !live() || !!able; testNote.textContent = able ?? (live() ? "" : held()); testNote.hidden = !testNote.textContent;
    if (document.activeElement !== area && area.value !== text) area.value = text; removedBox.checked = !!under; removedBox.disabled = !!meta().able.steer;
    if (!text.trim() || able || !r) return tested.replaceChildren();
    const got = ask("text", F(), text), moved = under && !meta().able.steer ? ask("removed", F(), text) : null, x = got?.said?.activations[F()], loss = moved?.said, id = JSON.stringify([F(), text, !!x, !!loss, moved?.missing, dark, get("version")]); if (tested.is === id) return; tested.is = id;
    if (!x) return tested.replaceChildren(h("p", { className: "wb-note", role: "status", text: got?.missing ?? "reading…" }));
    const top = Math.max(...x), far = loss ? Math.max(...loss.map(v => Math.abs(v ?? 0))) : 0;
    tested.replaceChildren(h("div", { className: "wb-tokens", role: "group", "aria-label": `Activations of feature ${F()} on your text` }, ...got.said.tokens.map(([t, kind], i) => token(t, i, { value: x[i], top: r.max || top, kind, under: loss && loss[i] != null && far > 0 && Math.abs(loss[i]) > far / 50 ? { value: loss[i], top: far } : null }))),
      h("p", { className: "wb-note", text: `${top > 0 ? `Largest here ${brief(top)}${r.max > 0 ? `, ${(top / r.max).toFixed(2)} of the largest in the store${top > r.max * 1.001 ? " (beyond the end of the scale)" : ""}` : ""}, at ${quoted(got.said.tokens[x.indexOf(top)][0])}.` : "Silent on this text."}${loss ? (far > 0 ? ` Underlined: how the loss of each token changes when the feature is set to 0 and the error stays, up to ${number(far)} nats; orange rises, blue falls.` : " Without the feature no token's loss changes.") : moved?.missing ? ` Not underlined: ${moved.missing}` : ""}` }));
  }

  // --- steering --------------------------------------------------------------------------------------------------------------
  const prompt = h("textarea", { rows: 2, "aria-label": "Prompt to steer", placeholder: "Type a prompt and press Enter" }), slider = h("input", { ...OURS, type: "range", min: meta().steered[0], max: meta().steered[1], step: .25, "aria-label": "Strength in units of the largest activation", list: `${uid}-ticks` }), amount = h("output", { className: "wb-amount" });
  const ticks = h("datalist", { id: `${uid}-ticks` }, h("option", { value: 0 }), h("option", { value: 1 }));
  const how = choice(model, "steer_mode", "how", [["add", "add to it"], ["clamp", "set it"]]), sampled = h("input", { type: "checkbox", onchange: () => put({ sampled: sampled.checked }) }), seed = h("input", { type: "number", step: 1, "aria-label": "seed", onchange: () => put({ seed: Math.round(+seed.value) || 0 }) }), many = h("input", { type: "number", min: 1, max: 200, "aria-label": "new tokens", onchange: () => put({ new_tokens: Math.max(1, Math.min(200, Math.round(+many.value) || 20)) }) });
  const steerNote = h("p", { className: "wb-note" }), words = h("p", { className: "wb-note wb-words" }), steered = h("div", { className: "wb-steered" }), twin = h("input", { "aria-label": "Corrupted twin of the prompt", placeholder: "twin of the prompt, one thing changed" }), patchRow = h("div", { className: "wb-row" });
  const setStrength = later(() => gone || put({ strength: +slider.value }), 160);
  slider.addEventListener("input", () => { if (Math.abs(slider.value) < .13) slider.value = 0; sayAmount(); setStrength(); }); enter(prompt, () => put({ prompt: prompt.value })); prompt.addEventListener("change", () => put({ prompt: prompt.value }));
  const steerForm = h("div", {}, h("div", { className: "wb-row" }, prompt, h("button", { text: "Steer", onclick: () => put({ prompt: prompt.value, strength: +slider.value }) })), h("div", { className: "wb-row" }, h("label", { className: "wb-field wb-slide" }, h("span", { text: "strength" }), slider, amount), ticks, how.el, h("label", { className: "wb-field" }, h("span", { text: "new tokens" }), many), h("label", { className: "wb-field" }, sampled, h("span", { text: "sample, seed" })), seed)), steerPart = h("details", { className: "wb-try", open: true }, h("summary", { text: "Steer" }), steerNote, steerForm, words, steered, patchRow);
  function sayAmount() {
    const r = record()?.said, s = +slider.value, raw = r?.max > 0 ? ` = ${brief(s * r.max)}` : ""; amount.textContent = `${s > 0 ? "+" : s < 0 ? "−" : ""}${Math.abs(s)} × largest${raw}`;
    words.textContent = how.el.querySelector("select").value === "add" ? `${Math.abs(s)} × the largest activation ${s < 0 ? "is taken from" : "is added to"} the feature at every position, along its decoder row. Other features and what the dictionary does not explain stay as they are.` : `The feature is set to ${s} × its largest activation at every position. Other features and what the dictionary does not explain stay as they are.`;
  }
  function drawSteer() {
    const able = alone("steer") ?? (meta().able.steer && !live() ? meta().able.steer : null), text = get("prompt"); steerForm.hidden = !live() || !!able; steerNote.textContent = able ?? (live() ? "" : held()); steerNote.hidden = !steerNote.textContent;
    if (document.activeElement !== prompt && prompt.value !== text) prompt.value = text; if (document.activeElement !== slider) slider.value = get("strength"); how.read(); sampled.checked = get("sampled"); seed.value = get("seed"); seed.disabled = !get("sampled"); many.value = get("new_tokens"); sayAmount(); words.hidden = !!able || !text.trim();
    drawPatch();
    if (!text.trim() || able) { steered.is = ""; return steered.replaceChildren(); }
    const got = ask("steer", F(), get("strength"), get("steer_mode"), get("new_tokens"), get("seed"), get("sampled"), text), d = got?.said, id = JSON.stringify([F(), text, get("strength"), get("steer_mode"), get("new_tokens"), get("seed"), get("sampled"), dark, !!d, got?.missing]); if (steered.is === id) return; steered.is = id; steered.classList.toggle("wb-old", !got);
    if (!d) { if (got?.missing || !steered.children.length) steered.replaceChildren(h("p", { className: "wb-note", role: got?.missing ? "alert" : "status", text: got?.missing ?? "asking the model…" })); return; }
    const far = Math.max(...d.kl, 1e-9), mean = d.kl.reduce((a, v) => a + v, 0) / d.kl.length, side = (title, list) => h("div", { className: "wb-side" }, h("h5", { text: title }), h("div", { className: "wb-tokens" }, ...list.map(([t, kind], i) => { const s = token(t, i, { kind: 0 }); if (i >= d.same) s.classList.add("apart"); return s; }), ...(list.length ? [] : [h("span", { className: "wb-note", text: "it ends here" })])));
    steered.replaceChildren(h("div", { className: "wb-columns" }, side("baseline", d.baseline), side(`steered, ${amount.textContent}`, d.steered)),
      h("p", { className: "wb-note", text: `${get("sampled") ? `Both sampled with seed ${get("seed")}` : "Both take the most likely token each time"}; ${d.same >= Math.max(d.baseline.length, d.steered.length) ? "the same throughout" : d.same ? `the same for ${d.same} token${d.same > 1 ? "s" : ""}` : "different from the first token on"}.` }),
      h("div", { className: "wb-tokens", role: "group", "aria-label": "KL divergence at each token of the prompt" }, ...d.prompt.map(([t, kind], i) => { const s = token(t, i, { value: d.kl[i], top: far, kind, ramp: inks.locks[1] }); s.title = `KL ${number(d.kl[i])} nats`; return s; })),
      h("p", { className: "wb-note", text: `Tinted by KL(baseline ‖ steered) of what comes after each token of the prompt: 0 to ${number(far)} nats, mean ${number(mean)}, at the last token ${number(d.kl.at(-1))}.` }), nextTokens("What comes next", ["token", "baseline", "steered"], d.next));
  }
  function drawPatch() {
    const id = JSON.stringify([live(), meta().able.patch, meta().pairs, !!model.widget_manager]); if (patchRow.is === id) return; patchRow.is = id; if (!live() || meta().able.patch || !model.widget_manager) return patchRow.replaceChildren();
    patchRow.replaceChildren(...(meta().pairs ? [h("button", { text: "Patch this feature", title: "Opens a patching grid of the given pairs below", onclick: () => model.send({ kind: "patch" }) })] : []), twin, h("button", { text: "Patch it into the prompt", title: "The feature takes its value of the twin at each position; opens a patching grid below", onclick: () => { put({ prompt: prompt.value }); model.send({ kind: "patch", prompt: prompt.value, corrupt: twin.value }); } }));
  }

  // --- the second dictionary, and the direction as a file -----------------------------------------------------------------------
  const beside = h("details", { className: "wb-try", open: true }), exportPart = h("details", { className: "wb-try", ontoggle: () => drawExport() }, h("summary", { text: "Export the direction" })), exported = h("div"); exportPart.append(exported);
  function drawBeside() {
    beside.hidden = !meta().compares; if (beside.hidden) return;
    const why = meta().able.match, got = why ? null : ask("match", F()), m = got?.said, best = m?.cosine?.[0]?.[0] ?? m?.correlation?.[0]?.[0], card = meta().cards && best != null ? ask("other", best) : null, id = JSON.stringify([F(), !!m, !!card, dark, got?.missing, get("version")]); if (beside.is === id) return; beside.is = id;
    const list = (title, rows, reason) => h("div", {}, h("h5", { text: title }), rows ? h("ol", { className: "wb-links" }, ...rows.map(([f, v]) => h("li", { text: `B ${f}: ${v.toFixed(3)}` }))) : h("p", { className: "wb-note", text: `Not known: ${reason}` }));
    const c = card?.said, top = c && [...(c.examples ?? [])].filter(e => e.band === 0).slice(0, 3);
    beside.replaceChildren(h("summary", { text: "Its nearest in B" }), h("p", { className: "wb-note", text: `B is ${meta().beside}` }), ...(!m ? [h("p", { className: "wb-note", role: "status", text: why ?? got?.missing ?? "matching…" })] : [h("div", { className: "wb-columns" }, list("by cosine of decoder rows", m.cosine, m.why.cosine), list(`by correlation of activations${m.n ? `, ${m.n.toLocaleString("en")} tokens` : ""}`, m.correlation, m.why.correlation))]),
      ...(c ? [h("h5", { text: `Feature ${c.feature} of B` }), h("p", { className: "wb-note", text: `${c.labels?.[0]?.text ?? "No description"} · density ${c.density == null ? "not known" : percent(c.density)} · largest ${brief(c.max)}` }), h("div", { className: "wb-card" }, ...top.map(e => h("div", { className: "wb-context wb-plain" }, h("span", { className: "wb-value", text: brief(e.activation) }), h("span", { className: "wb-text" }, ...runs(e.tokens, e.activations, e.special, e.at).map(x => x.lone ? token(x.texts[0], x.from, { value: x.value, top: c.max, kind: +x.special, peak: x.peak }) : quiet(x.texts)))))), ...(c.positive ? [h("p", { className: "wb-note", text: `raises ${c.positive.slice(0, 6).map(x => displayToken(x[0])).join(" ")}` })] : [])] : []));
  }
  function save(key) {                                     // a file that was asked for has come
    const got = store.get(key); if (!got?.bytes) return;
    const link = h("a", { href: URL.createObjectURL(new Blob([got.bytes])), download: got.name }); link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 4000);
  }
  function copy(text, button) {
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1200); }, mark = () => { const range = document.createRange(); range.selectNodeContents(button.previousSibling); const s = getSelection(); s.removeAllRanges(); s.addRange(range); if (document.execCommand?.("copy")) done(); };
    try { navigator.clipboard ? navigator.clipboard.writeText(text).then(done, mark) : mark(); } catch { mark(); }
  }
  function drawExport() {
    const why = meta().able.direction; if (!exportPart.open) return;
    const got = why ? null : ask("direction", F()), d = got?.said, id = JSON.stringify([F(), d, why, got?.missing]); if (exported.is === id) return; exported.is = id;
    const line = text => { const button = h("button", { text: "Copy", onclick: () => copy(text, button) }); return h("div", { className: "wb-line" }, h("code", { text }), button); }, fetched = f => { const key = ["file", String(F()), f]; if (store.get(key)?.bytes) save(key); };
    exported.replaceChildren(...(!d ? [h("p", { className: "wb-note", text: why ?? got?.missing ?? "…" })] : [h("div", { className: "wb-row" }, ...meta().files.map(f => h("button", { text: `feature_${F()}.${f}`, onclick: () => fetched(f) })), h("span", { className: "wb-note", text: `length ${brief(d.norm)}` })), line(d.snippet), line(d.line)]));
  }

  // --- all of it -------------------------------------------------------------------------------------------------------------------
  async function adopt() {                                 // an explorer or a grid that was asked for, a widget of its own
    const id = get("child"); if (!id || !model.widget_manager || shelf.is === id) return; shelf.is = id;
    const view = await model.widget_manager.create_view(await model.widget_manager.get_model(id.replace("IPY_MODEL_", "")), {}); if (!gone && shelf.is === id) { shelf.replaceChildren(view.el); shelf.scrollIntoView({ block: "nearest" }); }
  }
  let open_ = null;
  function drawAll(again) {
    const m = meta(); if (again) drawn = tested.is = steered.is = beside.is = ""; if (open_ !== F()) { open_ = F(); unfolded.clear(); hover = null; readout.textContent = "Point at a token; click a context to unfold it. Arrow keys and Enter do the same."; }
    heading.textContent = m.title; about.textContent = still() ? `This page holds ${m.held.length} of ${m.of.toLocaleString("en")} features: ${get("pins").length ? "the pinned ones" : "the one that was open"}. Open the notebook with a kernel for the others.` : m.tokens ? `${m.of.toLocaleString("en")} features over ${m.tokens.toLocaleString("en")} tokens${m.contexts ? ` in ${m.contexts.toLocaleString("en")} contexts` : ""}` : "";
    trouble.textContent = get("said"); trouble.hidden = !get("said"); box.placeholder = still() ? "words" : "words  /regex/  density<1e-3  tok:\"Paris\""; box.setAttribute("aria-invalid", String(!!get("found").refused)); box.setAttribute("aria-describedby", `${uid}-hint`);
    if (!still() && document.activeElement !== box && !get("found").refused && box.value !== get("query")) box.value = get("query");
    hint.textContent = "Arrow keys move, p pins, / searches."; show.fill([["all", still() ? "all of this page" : "all features"], ["pinned", `pinned (${get("pins").length})`]]);
    drawHeads(); drawList(); drawDetail(); drawTest(); drawSteer(); drawBeside(); drawExport();
  }
  tries.append(beside, testPart, steerPart, exportPart);
  model.accepts = v => !(v.feature != null && !(live() || meta().held.includes(v.feature)));
  const changed = SEEN.map(t => "change:" + t).join(" ") + " change:meta", renewed = () => { store.forget(get("version")); drawn = ""; refresh(); }, moved = () => { if (still() || rowAt(place())?.feature !== F()) wanted = null; };
  model.on("change:feature", moved); model.on(changed, refresh); model.on("change:version", renewed); model.on("change:child", adopt);
  const fit = new ResizeObserver(soon(() => { if (gone) return; theme.look(); const r = record()?.said; drawList(); if (r) { drawSpread(r); drawHistogram(); } })); fit.observe(root);
  store.forget(get("version")); paintWith(theme.dark); drawAll(); adopt();
  return () => { gone = true; fit.disconnect(); theme.stop(); store.stop(); model.off("change:feature", moved); model.off(changed, refresh); model.off("change:version", renewed); model.off("change:child", adopt); };
}
