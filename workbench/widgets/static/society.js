// SocietyView: values of many agents over many steps as cells, and how many of them lie where at some of the steps.
import { bytes, number, open, shorten, ticks } from "./core.js";
import { OURS, asker, choice, h, picture, sharp, soon, watchTheme } from "./dom.js";
import { cellInk, colourBar, palette, pointAt, rgb, rowLabels } from "./matrix.js";
import { evenly, levelOf, rowOrder } from "./crowd.js";

const LEFT = 46, TOP = 6, BOTTOM = 22, TALL = 360, RIDGES = 7, DYES = [[47, 111, 176], [201, 119, 43], [63, 127, 53], [138, 63, 134], [138, 148, 160], [176, 65, 62], [91, 140, 140], [160, 140, 40]];

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta"), put = values => { for (const [k, v] of Object.entries(values)) model.set(k, v); model.save_changes(); };
  let gone = false, dark, inks, css, hover = null, moved = false, cells = null, spread = null, order = [], image = null, imageIs = "";
  const root = h("section", { className: "wb wb-society", "aria-label": "Many agents over time" }), heading = h("div", { className: "wb-heading" }), say = h("p", { className: "wb-note" }), trouble = h("div", { className: "wb-note wb-trouble", role: "alert" });
  const seed = h("select", { "aria-label": "seed", onchange: () => put({ seed: +seed.value }) }), by = choice(model, "order", "rows", []), colour = choice(model, "colour", "colour", []), seedField = h("label", { className: "wb-field" }, h("span", { text: "seed" }), seed);
  const map = h("canvas", { role: "img" }), hills = h("canvas", { role: "img" }), legend = h("div", { className: "wb-row wb-note" }), readout = h("div", { className: "wb-readout" });
  const stage = h("div", { ...OURS, className: "wb-map", tabIndex: 0, role: "application", "aria-roledescription": "agents by steps", "aria-label": "Agents by steps; left and right arrows go from step to step, up and down from row to row" }, map);
  root.append(heading, say, trouble, h("div", { className: "wb-row" }, seedField, by.el, colour.el), h("div", { className: "wb-crowd" }, h("figure", {}, h("figcaption", { className: "wb-note" }), stage), h("figure", {}, h("figcaption", { className: "wb-note" }), hills)), legend, readout); el.append(root);
  const [mapSays, hillsSay] = root.querySelectorAll("figcaption"), refresh = soon(() => gone || draw());
  const store = asker(model, refresh, (m, view) => m.code === "json" ? { said: JSON.parse(new TextDecoder().decode(bytes(view))) } : open(m, view));

  // --- what there is -------------------------------------------------------------------------------------------------
  const N = () => cells.rows, S = () => cells.cols, here = () => Math.min(S() - 1, get("step") < 0 ? S() - 1 : get("step")), at = () => hover ?? [order.indexOf(get("agent")), here()];
  const shareAt = (row, col) => cells.share[order[row] * S() + col], real = t => { const v = spread.low + t * (spread.high - spread.low); return spread.log ? 10 ** v : v; }, told = v => v == null || v !== v ? "no value" : number(v).replace("-", "−");
  const labelAt = (row, col) => cells.labels && meta().labels[cells.labels[order[row] * S() + col]];
  function load() {
    const got = store.get(["cells", String(get("seed"))]), more = store.get(["spread", String(get("seed"))]); trouble.textContent = got?.missing ?? more?.missing ?? get("said") ?? ""; trouble.hidden = !trouble.textContent;
    if (!got?.head || !more?.said) return false; if (cells?.from !== got) { cells = { from: got, rows: got.rows, cols: got.cols, share: got.head(0), labels: got.heads > 1 ? got.head(1) : null }; imageIs = ""; }
    spread = more.said; order = rowOrder(cells, spread.ranks ? "given" : get("order")); return true;
  }

  // --- cells ---------------------------------------------------------------------------------------------------------
  const wide = canvas => Math.max(220, canvas.parentElement.clientWidth || 300), size = () => Math.max(2, Math.min(16, TALL / N()));
  const ink = (row, col) => get("colour") === "label" && cells.labels ? DYES[cells.labels[order[row] * S() + col] % DYES.length] : cellInk(shareAt(row, col), t => levelOf(t), inks.one);
  function drawMap() {
    const W = wide(map), tall = Math.min(TALL, size() * N()), g = sharp(map, W, tall + TOP + BOTTOM), w = W - LEFT - 6, id = JSON.stringify([get("seed"), get("order"), get("colour"), dark, get("version")]), [row, col] = at();
    if (imageIs !== id) { image = picture(S(), N(), i => ink(Math.floor(i / S()), i % S())); imageIs = id; }
    g.imageSmoothingEnabled = false; g.drawImage(image, LEFT, TOP, w, tall); const cw = w / S(), ch = tall / N(); g.font = `11px ${css.font}`;
    rowLabels(g, { x: LEFT, y: TOP, w, h: tall }, [0, 0, S(), N()], ticks(0, N(), Math.max(2, Math.floor(tall / 16))), i => shorten(String(spread.agents[order[i]]), 6), row, css);
    g.textAlign = "center"; g.textBaseline = "top"; for (const i of ticks(0, S(), Math.max(2, Math.floor(w / 40)))) { g.fillStyle = i === col ? css.accent : css.soft; g.fillText(spread.steps[i], LEFT + (i + .5) * cw, TOP + tall + 5); }
    g.strokeStyle = css.accent; g.lineWidth = 2; g.strokeRect(LEFT + here() * cw, TOP, Math.max(2, cw), tall); if (row >= 0) { g.lineWidth = 1.5; g.strokeRect(LEFT, TOP + row * ch, w, Math.max(2, ch)); }
    mapSays.textContent = `${N()} ${spread.ranks ? "ranks, lowest first: each column is sorted by itself, and a row is no person" : "agents"}, ${S()} steps${spread.every > 1 ? `, one of every ${spread.every}` : ""}`; map.setAttribute("aria-label", `${mapSays.textContent}. ${report()}`);
  }

  // --- ridges --------------------------------------------------------------------------------------------------------
  function drawHills() {
    const W = wide(hills), shown = [...new Set([...evenly(S(), RIDGES), here()])].sort((a, b) => a - b), each = Math.max(30, TALL / (shown.length + .6)), tall = each * (shown.length + .5), g = sharp(hills, W, tall + BOTTOM), w = W - LEFT - 8, bins = spread.counts[0].length, most = Math.max(1, ...shown.flatMap(i => spread.counts[i])), x = t => LEFT + t * w, [row] = at();
    g.font = `11px ${css.font}`; for (const [k, i] of shown.entries()) {
      const base = (k + 1.4) * each, up = v => base - Math.sqrt(v / most) * each * 1.1, on = i === here(); g.fillStyle = g.strokeStyle = on ? css.accent : rgb(inks.locks[0][dark ? 170 : 220]); g.lineWidth = on ? 2 : 1; g.beginPath(); g.moveTo(LEFT, base);
      spread.counts[i].forEach((v, b) => { g.lineTo(x(b / bins), up(v)); g.lineTo(x((b + 1) / bins), up(v)); }); g.lineTo(LEFT + w, base); g.globalAlpha = on ? .35 : .25; g.fill(); g.globalAlpha = 1; g.stroke();
      g.textAlign = "right"; g.textBaseline = "alphabetic"; g.fillStyle = on ? css.accent : css.soft; g.fillText(spread.steps[i], LEFT - 6, base); if (row >= 0) { const t = shareAt(row, i); if (t === t) { g.fillStyle = css.ink; g.beginPath(); g.arc(x(t), base, 3, 0, 7); g.fill(); } }
    }
    g.fillStyle = css.soft; g.textBaseline = "top"; for (const t of [0, .5, 1]) { g.textAlign = t === 0 ? "left" : t === 1 ? "right" : "center"; g.fillText(told(real(t)), x(t), tall + 5); }
    for (const [name, v] of Object.entries(spread.marks)) { g.strokeStyle = css.ink; g.setLineDash([4, 3]); g.lineWidth = 1; g.beginPath(); g.moveTo(x(v), 0); g.lineTo(x(v), tall); g.stroke(); g.setLineDash([]); g.fillStyle = css.ink; g.textAlign = v > .6 ? "right" : "left"; g.fillText(name, x(v) + (v > .6 ? -4 : 4), 2); }
    hillsSay.textContent = `Agents in each of ${bins} bins, counted, at ${shown.length} steps${spread.log ? ", logarithmic" : ""}; heights are square roots, the tallest ${most} agents`; hills.steps = shown; hills.each = each; hills.setAttribute("aria-label", `${hillsSay.textContent}. Step ${spread.steps[here()]}: ${spread.counts[here()].join(", ")}`);
  }
  function report() {                                      // the line below
    const [row, col] = at(), out = [`step ${spread.steps[col]}`], q = spread.quantiles[col];
    if (row >= 0) { const l = labelAt(row, col); out.push(`${spread.ranks ? `rank ${row + 1} of ${N()}` : `agent ${spread.agents[order[row]]}, row ${row + 1} of ${N()}`}: ≈ ${told(real(shareAt(row, col)))}${l ? `, ${l}` : ""}`); }
    out.push(`median ${told(q[2])}, half ${told(q[1])} to ${told(q[3])}, all ${told(q[0])} to ${told(q[4])}`); if (spread.shares) out.push(Object.entries(spread.shares).filter(([, v]) => v[col]).map(([k, v]) => `${k} ${Math.round(100 * v[col])} %`).join(", "));
    return out.join(" · ");
  }
  function drawLegend() {
    const id = JSON.stringify([get("colour"), get("seed"), dark]); if (legend.is === id) return; legend.is = id; const kinds = get("colour") === "label";
    if (kinds) return legend.replaceChildren(...meta().labels.map((text, i) => { const key = h("span", { className: "wb-kind", "aria-hidden": "true" }); key.style.background = rgb(DYES[i % DYES.length]); return h("span", { className: "wb-field" }, key, h("span", { text })); }));
    const bar = h("canvas", { "aria-hidden": "true" }); legend.replaceChildren(h("span", { text: told(real(0)) }), bar, h("span", { text: `${told(real(1))} · ${meta().what}${spread.log ? ", logarithmic" : ""}` })); colourBar(bar, inks.one);
  }
  function draw() {
    const m = meta(); heading.textContent = m.title; say.textContent = m.say; const many = m.seeds.length > 1; seedField.hidden = !many; if (seed.options.length !== m.seeds.length) seed.replaceChildren(...m.seeds.map((text, value) => h("option", { value, text }))); seed.value = get("seed");
    by.fill(m.orders); by.el.hidden = m.orders.length < 2; colour.fill(m.colours); colour.el.hidden = m.colours.length < 2; if (!load()) return;
    drawMap(); drawHills(); drawLegend(); readout.setAttribute("aria-live", moved ? "polite" : "off"); readout.textContent = report();
  }

  // --- hands ---------------------------------------------------------------------------------------------------------
  const cellAt = e => { const W = map.clientWidth, [x, y] = pointAt(map, e, W), w = W - LEFT - 6, tall = Math.min(TALL, size() * N()), col = Math.floor((x - LEFT) / w * S()), row = Math.floor((y - TOP) / tall * N()); return col < 0 || col >= S() || row < 0 || row >= N() ? null : [row, col]; };
  const light = p => { if (JSON.stringify(p) !== JSON.stringify(hover)) { hover = p; refresh(); } };
  map.addEventListener("pointermove", e => cells && light(cellAt(e))); map.addEventListener("pointerleave", () => light(null));
  map.addEventListener("click", e => { const p = cells && cellAt(e); if (p) { moved = true; put({ step: p[1], agent: order[p[0]] }); } });
  hills.addEventListener("click", e => { const k = cells && Math.round((pointAt(hills, e, hills.clientWidth)[1] / hills.each) - 1); if (hills.steps?.[k] != null) put({ step: hills.steps[k] }); });
  stage.addEventListener("keydown", e => {
    if (!cells) return; const row = order.indexOf(get("agent")), s = here(), to = { ArrowLeft: { step: s - 1 }, ArrowRight: { step: s + 1 }, Home: { step: 0 }, End: { step: S() - 1 }, ArrowUp: { row: row < 0 ? 0 : row - 1 }, ArrowDown: { row: row + 1 }, Escape: { row: -1 } }[e.key]; if (!to) return;
    moved = true; hover = null; put(to.row == null ? { step: Math.max(0, Math.min(S() - 1, to.step)) } : { agent: to.row < 0 && e.key === "Escape" ? -1 : order[Math.max(0, Math.min(N() - 1, to.row))] }); e.preventDefault(); e.stopPropagation();
  });
  const paintWith = d => { dark = d; const p = palette(root, d); css = p.css; inks = p.inks; imageIs = legend.is = ""; }, theme = watchTheme(root, d => { if (d !== dark || !css.known) { paintWith(d); draw(); } }), renewed = () => { store.forget(get("version")); cells = null; refresh(); };
  const SEEN = "change:step change:agent change:order change:colour change:seed change:meta"; model.accepts = v => v.step == null || !cells || v.step < S(); model.on(SEEN, refresh); model.on("change:version", renewed);
  const fit = new ResizeObserver(soon(() => { if (!gone && cells) { theme.look(); drawMap(); drawHills(); } })); fit.observe(root); store.forget(get("version")); paintWith(theme.dark); draw();
  return () => { gone = true; fit.disconnect(); theme.stop(); store.stop(); model.off(SEEN, refresh); model.off("change:version", renewed); };
}
