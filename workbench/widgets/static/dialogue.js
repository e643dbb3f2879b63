// DialogueSimulator: who said what, who was given what, what was believed and by which measure; branches, a person's seat, and doors to the other rooms.
import { bytes, luminance, number, shorten, ticks } from "./core.js";
import { OURS, asker, choice, h, sharp, soon, tokenSpan, watchTheme } from "./dom.js";
import { palette, pointAt, rgb } from "./matrix.js";
import { byWeight, cardsAbout, clock, lanes, listOf, nearestRun, roundMarks, stretches, wordsOf } from "./talk.js";

const HEIGHT = 170, ROW = 28, SPANS = 160, LEFT = 40, TOP = 8, BOTTOM = 20, SIGNS = "●■▲◆", DASHES = { closed_form: [], model_logit: [6, 3], verbal_report: [2, 3], human_report: [8, 2, 2, 2] }, SHAPES = { closed_form: 0, model_logit: 1, verbal_report: 2, human_report: 3 };
const TOOLS = [["attention", "attention"], ["patch", "patch this turn"], ["features", "features"]], SEEN = "run branch turn eyes panel status said".split(" ").map(t => "change:" + t).join(" ");
const short = v => number(v).replace(/^(-?)0\./, "$1.").replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace("-", "−"), said = v => v == null ? "no value" : short(v);

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta"), put = values => { for (const [k, v] of Object.entries(values)) model.set(k, v); model.save_changes(); };
  let gone = false, dark, inks, css, hover = null, editing = -1, talk = null, talkIs = "", moved = false, drawnCards = "", lead = "", ticking;
  const ask = (kind, more = {}) => model.send({ kind, ...more }), button = (text, go, more = {}) => h("button", { text, onclick: go, ...more });

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-dialogue", "aria-label": "Dialogue simulator" }), heading = h("div", { className: "wb-heading" }), say = h("ul", { className: "wb-say", "aria-label": "How to read this" });
  const trouble = h("div", { className: "wb-note wb-trouble", role: "alert" }), status = h("span", { className: "wb-note", role: "status" });
  const which = h("input", { ...OURS, type: "number", min: 0, "aria-label": "run", onchange: () => openRun(Math.round(+which.value) || 0) }), runName = h("span", { className: "wb-note" });
  const eyes = choice(model, "eyes", "eyes", [], "Show what one role was given, and nothing else"), panel = choice(model, "panel", "belief", []);
  panel.el.querySelector("select").onchange = e => put({ panel: +e.target.value });
  const go = button("Play on", () => ask("play")), one = button("One message", () => ask("play", { one: true })), halt = button("Stop", () => ask("stop"));
  const cards = h("div", { ...OURS, className: "wb-cards", tabIndex: 0, role: "list", "aria-label": "Messages; arrow keys go from turn to turn" }), known = h("div", { className: "wb-known" });
  const charts = h("div", { ...OURS, className: "wb-plots", tabIndex: 0, role: "application", "aria-roledescription": "belief chart", "aria-label": "Beliefs by messages said; left and right arrows go from turn to turn, up and down from run to run" });
  const legend = h("div", { className: "wb-row wb-note" }), readout = h("div", { className: "wb-readout" }), gap = h("div"), tree = h("div"), asks = h("div", { className: "wb-row" }), strip = h("div"), trial = h("details", { className: "wb-more", ontoggle: () => drawTrial() }, h("summary", { text: "The trial" })), files = h("div", { className: "wb-row" }), chair = h("div", { className: "wb-row" }), shelf = h("div"), seat = h("div", { className: "wb-seat" });
  const room = h("div", {}, h("div", { className: "wb-row" }, h("label", { className: "wb-field" }, h("span", { text: "run" }), which), runName, eyes.el, panel.el, go, one, halt, status),
    h("div", { className: "wb-panes" }, h("div", { className: "wb-stage" }, known, cards, strip), h("div", { className: "wb-side" }, charts, legend, readout, asks, gap, tree)), trial, chair, files, shelf);
  root.append(heading, say, trouble, room, seat); el.append(root);

  // --- data ----------------------------------------------------------------------------------------------------------
  const refresh = soon(() => gone || drawAll());
  const store = asker(model, key => key[0] === "file" ? save(key) : refresh(), (m, view) => m.code === "json" ? { said: JSON.parse(new TextDecoder().decode(bytes(view))) } : { name: m.name, bytes: bytes(view) }), need = (...key) => store.get(key.map(String));
  let beliefs = [];
  const lines = () => talk?.lines.slice(1) ?? [], n = () => lines().length, at = () => hover ?? (get("turn") < 0 || get("turn") > n() ? n() : get("turn")), chosen = () => beliefs[get("panel")];
  const roleOf = name => meta().roles.find(r => r.name === name) ?? { name, side: "left", look: 0 };
  function openRun(i) { put({ run: Math.max(0, Math.min(meta().runs.length - 1, i)), branch: "main" }); }
  function step(t) { moved = true; hover = null; put({ turn: Math.max(0, t) >= n() ? -1 : Math.max(0, t) }); refresh(); }
  const own = () => (talk?.series ?? []).filter(s => s.role === chosen()?.role && s.measure === chosen()?.measure);

  const reads = () => need("words", get("run"), get("branch"), get("panel"))?.said, readOf = turn => reads()?.messages.find(m => m.turn === turn), per = v => v == null ? "" : `, ${v > 0 ? "+" : ""}${said(v)}`;

  // --- cards ---------------------------------------------------------------------------------------------------------
  const chips = belief => Object.entries(belief ?? {}).map(([s, v]) => h("span", { className: `wb-chip wb-${s}`, text: `${wordsOf(s)} ${said(v)}`, title: `${wordsOf(s)}: ${meta().sources[s]}` }));
  const leaf = a => h("div", { className: "wb-leaf" }, h("span", { className: "wb-note", text: `asked on the side, ${a.role}: ${a.ask}` }), h("span", { text: a.text }), ...chips(a.belief));
  const told = m => Object.entries(m ?? {}).map(([k, v]) => `${k} ${typeof v === "number" ? short(v) : v}`).join(", ");
  function card(x, open) {
    const role = get("eyes"), see = role && talk.eyes[role], r = roleOf(x.role), t = x.turn + 1, now = get("turn") < 0 ? n() : get("turn"), props = { "data-t": t, "aria-current": String(t === at()) };
    if (x.turn < 0) return h("div", { role: "listitem", className: "wb-card wb-first", ...props }, h("span", { className: "wb-note", text: "before the first message" }), ...(role ? remembered(see, 0) : x.answers.map(leaf)));
    if (see && see.heard[x.turn] == null) return h("div", { role: "listitem", className: `wb-card wb-hidden ${r.side}`, "data-look": r.look % 4, ...props }, h("span", { className: "wb-note", text: `message ${x.turn}: ${role} does not hear it` }));
    const mine = x.role === role, head = h("div", { className: "wb-who" }, h("b", { text: `${SIGNS[r.look % 4]} ${x.role}` }), h("span", { className: "wb-note", text: `message ${x.turn}${x.edited ? " · edited" : !role && x.model ? ` · ${x.model}` : ""}${!role && x.to.length < meta().roles.length - 1 ? ` · heard by ${x.to.join(", ") || "nobody"}` : ""}` }));
    const body = h("div", { className: "wb-said", text: x.text }), parts = [head, body]; if (see && see.heard[x.turn] > now) { head.lastChild.textContent += " · later than this turn"; }
    if (told(x.meaning)) parts.push(h("div", { className: "wb-note", text: `means ${told(x.meaning)}` }));
    if (x.note != null && (!role || mine)) parts.push(h("div", { className: "wb-note", text: `${role ? "own note" : `a note that only ${x.role} sees`}: ${shorten(x.note, 300)}` }));
    if (!role && Object.keys(x.belief).length) parts.push(h("div", {}, ...chips(x.belief)));
    if (!role && room_ >= 0 && readOf(x.turn)) parts.push(...tinted(readOf(x.turn))); else if (open && x.tokens) parts.push(h("div", { className: "wb-tokens", role: "listbox", "aria-label": "Tokens of this message" }, ...x.tokens.slice(0, 80).map((w, i) => tokenSpan(i, [w, 0]))));
    if (!role) { parts.push(...x.answers.map(leaf)); if (editing === x.turn) parts.push(editor(x)); else parts.push(tools(x, open)); } else parts.push(...remembered(see, t));
    return h("div", { role: "listitem", className: `wb-card ${r.side}${see && see.heard[x.turn] > now ? " wb-later" : ""}`, "data-look": r.look % 4, ...props }, ...parts);
  }
  let room_ = 0;                                           // tokens that may still be built
  function tinted(m) {                                     // the tokens as the listener read them, tinted by what each changed; one scale for the whole branch
    const w = reads(), plain = `Belief of ${w.role} if asked here, ${wordsOf(w.source)}: ${said(m.belief[0])} before, ${said(m.belief.at(-1))} after`, note = h("div", { className: "wb-note", "aria-live": "polite", text: plain });
    const words = i => i < 0 ? plain : `after ${m.tokens[i].trim()}: ${said(m.belief[i + 1])} if asked here (${wordsOf(w.source)})${m.log_odds[i + 1] == null ? "" : ` · log odds ${said(m.log_odds[i + 1])}`} · this token${per(m.moved[i]).slice(1)} · probability of all answers ${said(m.mass[i + 1])}`;
    const spans = m.tokens.slice(0, 80).map((t, i) => { const s = tokenSpan(i, [t, 0]), c = inks.two[Math.round(127.5 + 127.5 * (m.moved[i] ?? 0) / (w.most || 1))]; s.style.background = rgb(c); s.style.color = luminance(c) > .5 ? "#000" : "#fff"; s.title = words(i); return s; }); let at_ = -1;
    const show = i => { at_ = i; note.textContent = words(i); spans.forEach((s, k) => s.setAttribute("aria-selected", String(k === i))); };
    return [h("div", { ...OURS, className: "wb-tokens wb-read", role: "listbox", tabIndex: 0, title: w.how, "aria-label": `Tokens as ${w.role} read them, tinted by the change of its belief; arrow keys go from token to token`, onpointerover: e => show(spans.indexOf(e.target)), onpointerleave: () => show(-1), onblur: () => show(-1), onfocus: () => at_ < 0 && show(0),
      onkeydown: e => { const d = { ArrowLeft: -1, ArrowRight: 1 }[e.key]; if (d) { show(Math.max(0, Math.min(spans.length - 1, at_ + d))); e.preventDefault(); e.stopPropagation(); } } }, ...spans), note];
  }
  const remembered = (see, t) => see.asked.filter(a => a[0] === t).map(a => h("div", { className: "wb-leaf wb-note", text: `remembers being asked: ${a[1]}` }));
  function tools(x, open) {                                // three doors and the edit, each disabled with its reason
    const key = { tabIndex: open ? 0 : -1 }; if (!meta().live) return h("div", {});
    return h("div", { className: "wb-tools" }, ...TOOLS.map(([kind, words], i) => { const why = x.inside[i] == null ? null : talk.whys[x.inside[i]]; return button(words, () => { put({ turn: x.turn + 1 }); ask(kind, { turn: x.turn }); }, { ...key, disabled: !!why, title: why ?? `Opens message ${x.turn} below` }); }), button("edit", () => { editing = x.turn; put({ turn: x.turn + 1 }); drawAll(true); cards.querySelector("textarea")?.focus(); }, key));
  }
  function fields(form, values) {                          // what programs read of a message: choices where they are known
    const out = Object.entries({ ...Object.fromEntries(Object.keys(values).map(k => [k, []])), ...form }).map(([k, list]) => {
      const now = values[k], all = [...new Set([...(now === undefined ? [""] : [String(now)]), ...list.map(String)])], free = list.every(v => typeof v === "number"), id = `d${Math.random().toString(36).slice(2, 8)}`;
      const input = free ? h("input", { ...OURS, type: "text", value: now ?? "", size: 6, list: id, "data-k": k, "aria-label": k }) : h("select", { ...OURS, "data-k": k, "aria-label": k }, ...all.map(v => h("option", { value: v, text: v })));
      return h("label", { className: "wb-field" }, h("span", { text: k }), input, ...(free ? [h("datalist", { id }, ...list.map(v => h("option", { value: v })))] : []));
    });
    return [out, () => Object.fromEntries(out.map(l => l.querySelector("[data-k]")).filter(i => i.value !== "").map(i => [i.dataset.k, i.value]))];
  }
  function editor(x) {
    const area = h("textarea", { ...OURS, rows: 3, value: x.text, "aria-label": `Message ${x.turn}, edited` }), [inputs, read] = fields(meta().forms[x.role] ?? {}, x.meaning ?? {}), plain = Object.keys(x.meaning ?? {}).length || inputs.length;
    const send = () => { editing = -1; ask("edit", { turn: x.turn, role: x.role, text: area.value, ...(plain ? { meaning: read() } : {}) }); drawAll(true); }, stop = () => { editing = -1; drawAll(true); cards.focus(); };
    return h("div", { className: "wb-editor", onkeydown: e => { e.stopPropagation(); if (e.key === "Escape") stop(); } }, area, ...(inputs.length ? [h("div", { className: "wb-row" }, h("span", { className: "wb-note", text: "means" }), ...inputs)] : []), h("div", { className: "wb-row" }, button("Play on from here", send), button("Cancel", stop), h("span", { className: "wb-note", text: "a new branch, with the same random numbers" })));
  }
  function drawCards(again) {
    if (!talk) return cards.replaceChildren(h("p", { className: "wb-note", text: need("talk", get("run"), get("branch"))?.missing ?? "…" }));
    const now = get("turn") < 0 ? n() : Math.min(n(), get("turn")), all = talk.lines, [from, to] = cardsAbout(all.length, now), w = reads(), id = JSON.stringify([talkIs, from, to, now, get("eyes"), editing, meta().live, !!w, get("panel")]);
    if (id !== drawnCards || again) {
      const focused = cards.contains(document.activeElement) && document.activeElement !== cards; if (focused && editing >= 0 && drawnCards && !again) return; drawnCards = id;
      const shown = all.slice(from, to), made = []; room_ = SPANS;      // the open card and those about it first
      for (const x of [...shown].sort((a, b) => Math.abs(a.turn + 1 - now) - Math.abs(b.turn + 1 - now))) { room_ -= Math.min(80, readOf(x.turn)?.tokens.length ?? 0); made[shown.indexOf(x)] = card(x, x.turn + 1 === now); }
      const skip = (k, text, t) => k > 0 ? [button(`${k} ${text} message${k > 1 ? "s" : ""}`, () => step(t), { className: "wb-skip" })] : [];
      cards.replaceChildren(...skip(from, "earlier", from), ...made, ...skip(all.length - to, "later", to),
        h("p", { className: "wb-note", text: talk.failure ? `It could not go on: ${talk.failure}` : talk.ended ? "" : `${talk.planned - n()} more to come; ${talk.next} speaks next` }));
      if (!all.length) cards.append(h("p", { className: "wb-note", text: "Nothing was said yet." })); if (focused) cards.focus({ preventScroll: true });
      const mine = cards.querySelector(`[data-t="${now}"]`); if (mine) cards.scrollTop += mine.getBoundingClientRect().top - cards.getBoundingClientRect().top - Math.max(20, (cards.clientHeight - mine.offsetHeight) / 2);
    }
    for (const c of cards.querySelectorAll("[data-t]")) { c.setAttribute("aria-current", String(+c.dataset.t === now)); c.classList.toggle("wb-hover", hover != null && +c.dataset.t === hover); }
    const role = get("eyes"), see = role && talk.eyes[role];
    known.replaceChildren(h("div", { className: "wb-note", text: role ? `What ${role} was given after ${now} message${now === 1 ? "" : "s"}. Beliefs, seeds and other roles' notes are in nobody's view.` : "All fields; a role sees a field only where it is named." }),
      h("dl", { className: "wb-facts" }, ...talk.fields.map(f => { const on = !role || (see.fields[f.name] != null && see.fields[f.name] <= now), who = Object.entries(f.seen).map(([r, k]) => k ? `${r} after ${k}` : r).join(", ") || "nobody"; return h("div", { className: on ? "" : "wb-shut" }, h("dt", { text: f.name }), h("dd", { text: on ? shorten(f.value, 120) : see.fields[f.name] != null ? `hidden until ${see.fields[f.name]} were said` : "hidden" }), ...(role ? [] : [h("span", { className: "wb-note", text: who })])); })));
  }

  // --- charts --------------------------------------------------------------------------------------------------------
  let drawn = [], built = "";
  const X = (W, t, last) => LEFT + (W - LEFT - 10) * t / Math.max(1, last), lastTurn = () => Math.max(1, talk?.planned ?? 0, n(), ...(chosen()?.parts ?? []).map(p => (p.sources[0]?.n.length ?? 1) - 1));
  const figure = (title, paint, kind, part) => { const canvas = h("canvas", { role: "img" }); drawn.push({ canvas, paint, kind, part }); return h("figure", {}, h("figcaption", { className: "wb-note", text: title }), canvas); };
  function frame(canvas, W, low, high, tall = HEIGHT) {
    const g = sharp(canvas, W, tall), y = v => TOP + (tall - TOP - BOTTOM) * (1 - (v - low) / (high - low || 1)), last = lastTurn();
    g.font = `11px ${css.font}`; g.textBaseline = "middle"; g.textAlign = "right"; g.strokeStyle = css.soft; g.fillStyle = css.soft; g.lineWidth = 1;
    for (const v of roundMarks(low, high, tall > 100 ? 4 : 2)) { g.globalAlpha = .22; g.beginPath(); g.moveTo(LEFT, y(v)); g.lineTo(W - 10, y(v)); g.stroke(); g.globalAlpha = 1; g.fillText(short(v), LEFT - 5, y(v)); }
    g.textBaseline = "alphabetic"; g.textAlign = "center"; for (const t of ticks(0, last + 1, Math.max(2, Math.floor(W / 45)))) g.fillText(t, X(W, t, last), tall - 6);
    return [g, y, t => X(W, t, last)];
  }
  function cursor(g, x, tall) { g.strokeStyle = css.soft; g.globalAlpha = .7; g.lineWidth = 1; g.beginPath(); g.moveTo(x(at()), TOP); g.lineTo(x(at()), tall - BOTTOM); g.stroke(); g.globalAlpha = 1; }
  function band(g, x, y, low, high) { for (const [a, b] of stretches(low)) { g.beginPath(); for (let i = a; i <= b; i++) g.lineTo(x(i), y(low[i])); for (let i = b; i >= a; i--) g.lineTo(x(i), y(high[i])); if (a === b) g.rect(x(a) - 3, y(high[a]), 6, y(low[a]) - y(high[a])); g.fill(); } }
  function trace(g, x, y, values) { for (const [a, b] of stretches(values)) { g.beginPath(); for (let i = a; i <= b; i++) g.lineTo(x(i), y(values[i])); if (a === b) g.lineTo(x(a) + .1, y(values[a])); g.stroke(); } }
  function dot(g, kind, x, y, r = 3) { g.beginPath(); if (kind === 0) g.arc(x, y, r, 0, 7); else if (kind === 1) g.rect(x - r, y - r, 2 * r, 2 * r); else if (kind === 2) { g.moveTo(x, y - r); g.lineTo(x + r, y + r); g.lineTo(x - r, y + r); } else { g.moveTo(x, y - r); g.lineTo(x + r, y); g.lineTo(x, y + r); g.lineTo(x - r, y); } g.fill(); }
  const leads = p => { const all = p.parts.flatMap(x => x.sources.map(s => s.source)); return all.includes(lead) ? lead : all[0]; };   // the source whose bands and runs are drawn; others are medians
  const holds = part => part.runs.includes(get("run")) || part.label === meta().runs[get("run")]?.condition;
  function ribbon(canvas, W, p, part) {
    const [g, y, x] = frame(canvas, W, p.low, p.high), many = part.runs.length > 1;
    for (const s of part.sources) {
      g.fillStyle = g.strokeStyle = inks[SHAPES[s.source]];
      if (many && s.source === leads(p)) { g.globalAlpha = .13; g.lineWidth = 1; s.values.forEach(row => trace(g, x, y, row)); g.globalAlpha = .14; band(g, x, y, s.quantiles[0], s.quantiles[4]); g.globalAlpha = .22; band(g, x, y, s.quantiles[1], s.quantiles[3]); g.globalAlpha = 1; }
      g.setLineDash(DASHES[s.source]); g.lineWidth = 1.6; trace(g, x, y, s.quantiles[2]); g.setLineDash([]);
      const mine = part.runs.indexOf(get("run")); if (mine >= 0 && get("branch") !== "main") { g.strokeStyle = css.soft; g.lineWidth = 1.5; trace(g, x, y, s.values[mine]); }
    }
    if (holds(part)) for (const s of own()) {
      const row = listOf(s.values, n() + 1); g.strokeStyle = g.fillStyle = css.ink; g.lineWidth = 2.2; g.setLineDash(DASHES[s.source]); trace(g, x, y, row); g.setLineDash([]); row.forEach((v, t) => { if (v != null && (n() < 60 || t === at())) dot(g, SHAPES[s.source], x(t), y(v), t === at() ? 4.5 : 2.6); });
    }
    const w = reads(); if (w && w.measure === p.measure && holds(part)) { g.strokeStyle = inks[1]; g.lineWidth = 1; for (const m of w.messages) { g.beginPath(); m.belief.forEach((v, k) => g.lineTo(x(m.turn + k / m.tokens.length), y(v))); g.stroke(); } }
    cursor(g, x, HEIGHT); canvas.setAttribute("aria-label", `${p.role}: ${p.ask}${part.label ? `, ${part.label}` : ""}. ${report()}`);
  }
  function bars(canvas, W, values, tall, label, shared) {  // one signed bar a turn
    const far = Math.max(1e-9, ...values.map(v => Math.abs(v ?? 0))), flat = far <= 1e-9, [g, y, x] = frame(canvas, W, flat ? -1 : -far * 1.1, flat ? 1 : far * 1.1, tall), w = Math.max(2, Math.min(14, (x(1) - x(0)) * .6));
    if (shared != null) { g.fillStyle = css.soft; g.globalAlpha = .12; g.fillRect(x(0) - w / 2, TOP, x(shared) - x(0) + w, tall - TOP - BOTTOM); g.globalAlpha = 1; g.textAlign = "left"; g.textBaseline = "top"; g.fillText(shared ? "the same events" : "", x(0), TOP + 1); }
    values.forEach((v, t) => { if (v == null || t <= (shared ?? -1)) return; g.fillStyle = v < 0 ? rgb(inks.two[40]) : rgb(inks.two[220]); g.fillRect(x(t) - w / 2, Math.min(y(0), y(v)), w, Math.max(1, Math.abs(y(v) - y(0)))); });
    cursor(g, x, tall); canvas.setAttribute("aria-label", label);
  }
  function apart(canvas, W, c) {                           // one condition minus another, with its band
    const all = [0, ...c.low, ...c.high, ...c.values].filter(v => v != null), low = Math.min(...all), high = Math.max(...all), pad = .06 * (high - low || 1), [g, y, x] = frame(canvas, W, low - pad, high + pad, 120);
    g.strokeStyle = css.soft; g.beginPath(); g.moveTo(x(0), y(0)); g.lineTo(x(c.values.length - 1), y(0)); g.stroke(); g.fillStyle = g.strokeStyle = inks[SHAPES[c.source]]; g.globalAlpha = .2; band(g, x, y, c.low, c.high); g.globalAlpha = 1; g.lineWidth = 2; trace(g, x, y, c.values); c.values.forEach((v, t) => v != null && dot(g, SHAPES[c.source], x(t), y(v), 2.6));
    cursor(g, x, 120); canvas.setAttribute("aria-label", `${c.of} minus ${c.minus}: ${c.values.map((v, t) => v == null ? "" : `${t}: ${ranged(c, t)}`).filter(Boolean).slice(0, 40).join(", ")}`);
  }
  const ranged = (c, t) => c.values[t] == null ? "no value" : `${said(c.values[t])} [${said(c.low[t])}, ${said(c.high[t])}]`, gaps = p => (p?.gaps ?? []).filter(c => c.source === leads(p)).slice(0, 6);
  function branchTree(canvas, W, rows) {                   // x as in the chart above: a branch leaves its parent where it was edited
    const tall = ROW * rows.length + 4, g = sharp(canvas, W, tall), last = lastTurn(), x = t => X(W, t, last), y = i => ROW * i + 22, open = get("branch");
    rows.forEach((b, i) => { g.strokeStyle = g.fillStyle = b.branch === open ? css.accent : css.soft; g.lineWidth = b.branch === open ? 3 : 1.5; g.beginPath(); if (b.up != null) { g.moveTo(x(b.at), y(b.up)); g.lineTo(x(b.at), y(i)); } else g.moveTo(x(0), y(i)); g.lineTo(x(b.said), y(i)); g.stroke(); if (b.up != null) dot(g, 0, x(b.at + 1), y(i), 4); dot(g, 1, x(b.said), y(i), 2.5); });
    g.globalAlpha = .4; cursor(g, x, tall + BOTTOM); canvas.setAttribute("aria-label", `${rows.length} branches; the open one: ${open}`);
    for (const [i, b] of canvas.parentElement.querySelectorAll("button").entries()) { const left = Math.min(x(rows[i].at ?? 0), W - 150); b.style.top = `${ROW * i}px`; b.style.left = `${left}px`; b.style.maxWidth = `${W - left}px`; }
  }
  function build() {
    const p = chosen(), d = talk?.difference, key = need("weights", get("run"), get("branch"), get("panel"), p?.parts[0]?.sources[0]?.source ?? "")?.said, rows = d?.rows.filter(r => r.role === p?.role && r.measure === p?.measure) ?? [], id = JSON.stringify([talkIs, get("panel"), p?.parts.map(x => [x.label, x.runs.length, x.sources.map(s => s.source)]), !!key, !!reads(), meta().live, get("status").state, dark]); if (built === id) return; built = id; drawn = [];
    charts.replaceChildren(...(p ? [h("div", { className: "wb-note", text: `${p.role}: ${p.ask}` }), ...p.parts.map(part => figure(`${part.label || ""}${part.runs.length > 1 ? `${part.label ? ": " : ""}${part.runs.length} runs, median, middle 50 and 90 %` : ""}`, (c, W) => ribbon(c, W, p, part), "belief", part)), ...gaps(p).map(c => figure(`${c.of} minus ${c.minus}, ${wordsOf(c.source)}; band: ${c.interval}, n ${Math.max(...c.n)}`, (canvas, W) => apart(canvas, W, c), "gap"))] : [h("p", { className: "wb-note", text: "No beliefs were reported: give the scenario a measure, or agents that return beliefs." })]));
    const used = p ? [...new Set([...p.parts.flatMap(x => x.sources.map(s => s.source)), ...own().map(s => s.source)])] : [];
    const many = p?.parts.some(x => x.runs.length > 1), choose = many && used.length > 1;
    legend.replaceChildren(...used.map(s => h(choose ? "button" : "span", { className: "wb-field", ...(choose ? { "aria-pressed": String(s === leads(p)), title: "Show the spread of runs of this source", onclick: () => { lead = s; built = ""; drawCharts(); legend.querySelector("[aria-pressed=true]")?.focus(); } } : {}) }, h("canvas", { className: "wb-key", "data-s": s, "aria-hidden": "true" }), h("span", { text: `${wordsOf(s)}: ${meta().sources[s]}` }))), ...(many ? [h("span", { text: `thick: the open run${choose ? `; bands and faint runs: ${wordsOf(leads(p))}, of the others the median` : ""}; a click on a faint line opens that run` })] : []));
    gap.replaceChildren(...(d ? [h("h4", { text: `What the edit changed: this branch minus ${d.of}` }), h("p", { className: "wb-note", text: `Messages 0 to ${d.shared - 1} are the same events in both, so nothing can differ there. `.slice(d.shared ? 0 : 999) + (d.streams ? "After the edit each agent drew from the same random streams." : "After the edit the random streams differ.") }), ...rows.map(r => figure(wordsOf(r.source), (c, W) => bars(c, W, r.values, 110, `Difference in ${wordsOf(r.source)} by messages said: ${r.values.map((v, t) => v == null ? "" : `${t}: ${said(v)}`).filter(Boolean).slice(0, 40).join(", ")}`, d.shared))), ...(rows.length ? [] : [h("p", { className: "wb-note", text: "No belief of this panel on both sides." })])] : []));
    const all = lanes(talk?.branches ?? []), [from, to] = cardsAbout(all.length, all.findIndex(x => x.branch === get("branch")), 24), rows_ = all.slice(from, to).map(x => ({ ...x, up: x.up == null || x.up < from ? null : x.up - from }));
    tree.replaceChildren(...(all.length > 1 ? [h("h4", { text: `Branches${all.length > 24 ? `, ${rows_.length} of ${all.length}` : ""}` }), h("div", { className: "wb-tree", role: "tree", "aria-label": "Branches; arrow keys go from one to the next, Enter opens it", onkeydown: e => { const list = [...tree.querySelectorAll("button")], to = list[list.indexOf(e.target) + ({ ArrowUp: -1, ArrowDown: 1 }[e.key] ?? NaN)]; if (to) { to.focus(); e.preventDefault(); } if (e.key.startsWith("Arrow")) e.stopPropagation(); } },
      (c => { drawn.push({ canvas: c, paint: (c, W) => branchTree(c, W, rows_), kind: "tree", rows: rows_ }); return c; })(h("canvas", { role: "img" })), ...rows_.map(x => { const on = x.branch === get("branch"); return button(x.at == null ? "as it was held" : `message ${x.at} reads: ${shorten(x.text, 40)}`, () => put({ branch: x.branch }), { ...OURS, className: "wb-twig", role: "treeitem", "aria-level": x.depth + 1, "aria-selected": String(on), tabIndex: on ? 0 : -1 }); }))] : []));
    const told_ = byWeight(key ?? []), found = told_.filter(r => Math.abs(r.change) > 1e-9), still = told_.length - found.length, top = Math.abs(found[0]?.change) || 1, blind = key ? key.length - told_.length : 0;
    strip.replaceChildren(...(key ? [h("h4", { text: "Which turns mattered" }), h("p", { className: "wb-note", text: `Change of the last belief of ${p.role} due to each message, against silence in its place and the same random streams${still ? `; ${still} changed nothing` : ""}${blind ? `; ${blind} could not be told` : ""}.` }), h("ol", { className: "wb-strip" }, ...found.slice(0, 8).map(r => { const bar = h("span", { className: "wb-weight" }); bar.style.width = `${Math.max(1, 90 * Math.abs(r.change) / top)}px`; bar.style.background = rgb(inks.two[r.change < 0 ? 40 : 220]);
      return h("li", {}, button(`message ${r.turn}, ${r.role}: ${r.change > 0 ? "+" : ""}${said(r.change)}`, () => step(r.turn + 1)), bar); }))] : []));
    const why = meta().inside?.includes(p?.role) ? null : `${p?.role} has no weights here, so nothing can be read between two words`, live = p && meta().live && n();
    asks.replaceChildren(...(live && !key ? [button("Which turns mattered?", () => ask("weigh"), { title: "Silences each message in a copy and plays on" })] : []), ...(live && !reads() ? [button("Which words moved it?", () => ask("words"), { disabled: !!why, title: why ?? "Asks after every token of each message, beside the dialogue" })] : []), ...(reads() ? [h("p", { className: "wb-note", text: `Tokens are tinted by the change with each of them: blue down, orange up, the strongest ${said(reads().most)}. ${reads().how}` })] : []));
  }
  function report() {                                      // the line under the charts
    const t = at(), p = chosen(), out = [`after ${t} message${t === 1 ? "" : "s"}`]; if (!p) return out[0];
    for (const s of own()) out.push(`${wordsOf(s.source)} ${said(s.values[t])} (${meta().sources[s.source]})`);
    for (const part of p.parts.filter(holds)) for (const s of part.sources) if (s.n[t] > 1) { const q = s.quantiles.map(r => r[t]); out.push(`${s.n[t]} runs, ${wordsOf(s.source)}: median ${said(q[2])}, half ${said(q[1])} to ${said(q[3])}, nine tenths ${said(q[0])} to ${said(q[4])}`); }
    for (const c of gaps(p)) out.push(`${c.of} minus ${c.minus}: ${ranged(c, t)}, ${c.n[t]} ${c.paired ? "pairs" : "runs or more on each side"}`);
    const d = talk?.difference; if (d) for (const r of d.rows) if (r.role === p.role && r.measure === p.measure) out.push(`${wordsOf(r.source)} minus ${d.of}: ${t <= d.shared ? "0, the same events" : said(r.values[t])}`);
    return out.join(" · ");
  }
  function drawCharts() {
    build(); for (const { canvas, paint } of drawn) paint(canvas, Math.max(200, canvas.parentElement.clientWidth || 300));
    for (const c of legend.querySelectorAll(".wb-key")) { const g = sharp(c, 30, 10), s = c.dataset.s; g.strokeStyle = g.fillStyle = inks[SHAPES[s]]; g.lineWidth = 1.8; g.setLineDash(DASHES[s]); g.beginPath(); g.moveTo(0, 5); g.lineTo(30, 5); g.stroke(); g.setLineDash([]); dot(g, SHAPES[s], 15, 5); }
    readout.setAttribute("aria-live", moved ? "polite" : "off"); readout.textContent = report();
  }

  // --- the trial -----------------------------------------------------------------------------------------------------
  function forest(canvas, W, f) {
    const rows = f.rows.filter(r => r.estimate != null), tall = 26 + 20 * rows.length, g = sharp(canvas, W, tall), left = Math.min(W * .38, 220), right = Math.min(215, W * .4), v = [0, ...rows.flatMap(r => [r.low, r.high])].filter(x => x != null), low = Math.min(...v), high = Math.max(...v), x = t => left + 8 + (W - left - right - 16) * (t - low) / (high - low || 1);
    g.font = `11px ${css.font}`; g.textBaseline = "middle"; g.strokeStyle = css.soft; g.globalAlpha = .6; g.beginPath(); g.moveTo(x(0), 2); g.lineTo(x(0), tall - 18); g.stroke(); g.globalAlpha = 1; g.fillStyle = css.soft; g.textAlign = "center"; for (const t of roundMarks(low, high, 4)) g.fillText(short(t), x(t), tall - 8);
    rows.forEach((r, i) => { const y = 12 + 20 * i; g.fillStyle = css.ink; g.textAlign = "right"; g.fillText(shorten(r.label, Math.floor(left / 6)), left, y); g.strokeStyle = g.fillStyle = inks[0]; g.lineWidth = 2; g.beginPath(); g.moveTo(x(r.low), y); g.lineTo(x(r.high), y); g.stroke(); dot(g, 1, x(r.estimate), y, 4); g.fillStyle = css.ink; g.textAlign = "left"; g.fillText(words(r), W - right, y); });
    canvas.setAttribute("aria-label", `${f.name}: ${rows.map(r => `${r.label} ${words(r)}`).join("; ")}`);
  }
  const words = r => `${said(r.estimate)} [${said(r.low)}, ${said(r.high)}]${r.p == null ? "" : r.p < .001 ? " p < .001" : ` p ${r.p.toFixed(3)}`}`;
  function drawTrial() {
    const d = meta().trial; trial.hidden = !d; if (!d || !trial.open) return;
    const id = JSON.stringify(d) + dark + trial.clientWidth; if (trial.is === id) return; trial.is = id; const many = 30, made = d.forests.map(f => [f, h("canvas", { role: "img" })]);
    trial.replaceChildren(trial.firstChild, h("p", { className: "wb-plan", text: d.plan }), ...made.flatMap(([f, c]) => [h("h4", { text: f.name }), c]), h("p", { className: "wb-note", text: `${d.design === "None" ? "" : d.design} ${d.rows.length > many ? `The first ${many} of ${d.of} rows; frame() has all.` : ""}` }),
      h("div", { className: "wb-scroll" }, h("table", {}, h("tr", {}, ...d.columns.map(text => h("th", { text, scope: "col" }))), ...d.rows.slice(0, many).map(r => h("tr", {}, ...r.map(text => h("td", { text })))))));
    for (const [f, c] of made) forest(c, Math.max(260, trial.clientWidth - 10), f);
  }

  // --- a person's seat -------------------------------------------------------------------------------------------------
  let seatIs = "";
  function drawSeat() {
    const s = get("seat"), on = !!s.role && !s.done, id = JSON.stringify(s); root.dataset.seated = String(on); room.hidden = on; say.hidden = on; seat.hidden = !s.role; if (seatIs === id) return; seatIs = id; clearInterval(ticking);
    if (!on) return seat.replaceChildren(...(s.done ? [h("p", { className: "wb-note", role: "status", text: s.text })] : []));
    const leave = button("Leave; delete what I said", () => ask("leave"));
    if (!s.given) { const start = button("Begin", () => ask("consent", { given: true }), { disabled: true }), tick = h("input", { type: "checkbox", onchange: () => { start.disabled = !tick.checked; } }); return seat.replaceChildren(h("h4", { text: `You would be: ${s.role}` }), h("p", { text: s.consent }), h("label", { className: "wb-field" }, tick, h("span", { text: "I have read this and agree" })), h("div", { className: "wb-row" }, start, button("No, leave", () => ask("leave")))); }
    if (!s.heard) return seat.replaceChildren(h("p", { className: "wb-note", role: "status", text: s.trouble ?? "The others are speaking…" }), leave);
    const answer = s.waiting === "answer", area = h("textarea", { ...OURS, rows: 3, "aria-label": answer ? "Your answer" : "Your message" }), group = `o${Math.random().toString(36).slice(2, 8)}`, sure = h("input", { ...OURS, type: "number", min: 0, max: 100, "aria-label": "how likely, in per cent" }), [inputs, read] = fields(s.form ?? {}, {});
    const time = h("b", { role: "timer", "aria-label": "time of this turn" }), late = h("span", { className: "wb-trouble", role: "alert" }), pick = s.options.map(o => h("label", { className: "wb-field" }, h("input", { type: "radio", name: group, value: o }), h("span", { text: o }))), text = () => s.options.length ? pick.map(l => l.firstChild).find(i => i.checked)?.value ?? "" : area.value;
    const send = () => ask("answer", { text: text(), value: sure.value === "" ? null : +sure.value / 100, meaning: answer ? {} : read() }); area.addEventListener("keydown", e => { e.stopPropagation(); if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) send(); });
    seat.replaceChildren(h("h4", { text: `You are: ${s.role}` }), ...(Object.keys(s.fields).length ? [h("dl", { className: "wb-facts" }, ...Object.entries(s.fields).map(([k, v]) => h("div", {}, h("dt", { text: k }), h("dd", { text: v }))))] : []), h("div", { className: "wb-talked", role: "log", "aria-label": "What you heard" }, ...s.heard.slice(-30).map(x => h("div", { className: `wb-card ${x.mine ? "right" : "left"}`, "data-look": x.mine ? 1 : 0 }, h("b", { text: x.mine ? "you" : x.role }), h("div", { className: "wb-said", text: x.asked ? `${x.asked} ${x.text}` : x.text })))),
      h("p", { className: "wb-ask", role: "status", text: answer ? s.ask : `Your turn${s.phase ? ` (${s.phase})` : ""}${Object.keys(s.limits).length ? `: ${told(s.limits)}` : ""}` }), ...(s.options.length ? [h("div", { className: "wb-row", role: "radiogroup", "aria-label": s.ask }, ...pick)] : [area]), ...(answer ? [h("label", { className: "wb-field" }, h("span", { text: "how likely, 0 to 100 % (you may leave it out)" }), sure)] : inputs.length ? [h("div", { className: "wb-row" }, h("span", { className: "wb-note", text: "what the program reads of it" }), ...inputs)] : []), h("div", { className: "wb-row" }, button("Send", send), leave, h("span", { className: "wb-field" }, h("span", { text: "time of this turn" }), time), late), h("p", { className: "wb-note", text: s.limit ? s.rule : "There is no limit. The time you took is kept with what you say." }));
    const began = Math.min(Date.now(), 1000 * s.since), tick = () => { const t = Math.max(0, (Date.now() - began) / 1000), over = s.limit && t > s.limit; time.textContent = s.limit ? `${clock(t)} of ${clock(s.limit)}` : clock(t); time.classList.toggle("wb-trouble", !!over); if (over && late.textContent === "") { late.textContent = "The time is over."; if (s.late === "send" && text().trim()) send(); } };
    clearInterval(ticking); ticking = setInterval(tick, 500); tick(); seat.querySelector("textarea, input[type=radio]")?.focus({ preventScroll: true });
  }

  // --- all of it -----------------------------------------------------------------------------------------------------
  function save(key) { const got = store.get(key); if (!got?.bytes) { if (got?.missing) { trouble.hidden = false; trouble.textContent = got.missing; } return; } const link = h("a", { href: URL.createObjectURL(new Blob([got.bytes])), download: got.name }); link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 4000); }
  function fetchFile(f) { const key = ["file", f]; if (store.get(key)?.bytes) save(key); }
  async function adopt() {
    const id = get("child"); if (!id || !model.widget_manager || shelf.is === id) return; shelf.is = id;
    const view = await model.widget_manager.create_view(await model.widget_manager.get_model(id.replace("IPY_MODEL_", "")), {}); if (!gone && shelf.is === id) { shelf.replaceChildren(view.el); shelf.scrollIntoView({ block: "nearest" }); }
  }
  function drawBar() {
    const m = meta(), i = get("run"), r = m.runs[i], s = get("status"), running = s.state === "running";
    heading.textContent = m.title; const words_ = JSON.stringify(m.say); if (say.is !== words_) { say.is = words_; say.replaceChildren(...m.say.map(text => h("li", { text }))); }
    which.max = m.runs.length - 1; if (document.activeElement !== which) which.value = i; which.parentElement.hidden = runName.hidden = m.runs.length < 2; runName.textContent = `of ${m.runs.length}${r?.condition ? ` · ${r.condition}` : ""}${r && r.name !== String(i) ? ` · ${r.name}` : ""}`;
    eyes.fill([["", "everything"], ...m.roles.map(x => [x.name, x.name])]); panel.fill(beliefs.map((p, k) => [k, `${p.role}: ${p.measure || "own messages"}`])); panel.el.hidden = beliefs.length < 2;
    go.hidden = one.hidden = !m.live || running || !talk || talk.ended && !talk.failure; halt.hidden = !running; status.textContent = s.text ?? ""; trouble.textContent = get("said") || (s.state === "error" ? s.text : ""); trouble.hidden = !trouble.textContent;
    const id = JSON.stringify([m.live, m.seats, m.runs.length]); if (chair.is === id) return; chair.is = id;
    const role = h("select", { "aria-label": "a role to take" }, ...(m.seats ?? []).map(x => h("option", { value: x, text: x }))); chair.replaceChildren(...(m.live && m.seats?.length ? [h("label", { className: "wb-field" }, h("span", { text: "Take part as" }), role), button("Sit down", () => ask("sit", { role: role.value }))] : []));
    files.replaceChildren(h("span", { className: "wb-note", text: "Save all runs:" }), button("dialogues.jsonl", () => fetchFile("jsonl")), button("convokit.zip", () => fetchFile("convokit")));
  }
  function drawAll(again) {
    drawSeat(); if (meta().seated) { heading.textContent = meta().title; trouble.textContent = get("said"); trouble.hidden = !get("said"); return; }
    const got = need("talk", get("run"), get("branch")), b = need("beliefs"); if (b?.said) beliefs = b.said; const id = `${get("run")}|${get("branch")}|${get("version")}`;
    if (got?.said && talkIs !== id) { talk = got.said; talkIs = id; } else if (got?.missing) { talk = null; talkIs = id; }
    drawBar(); drawCards(again); drawCharts(); drawTrial();
  }
  const again = soon(() => { if (!gone && !meta().seated) { drawCards(); drawCharts(); } }), put_ = t => { if (t !== hover) { hover = t; again(); } };
  const turnAt = e => { const W = e.target.clientWidth, [x, y] = pointAt(e.target, e, W), last = lastTurn(); return [Math.max(0, Math.min(n(), Math.round((x - LEFT) / (W - LEFT - 10) * last))), (x - LEFT) / (W - LEFT - 10) * last, y]; }, plot = e => drawn.find(d => d.canvas === e.target);
  root.addEventListener("pointermove", e => { const p = plot(e), c = e.target.closest?.("[data-t]"); put_(p ? turnAt(e)[0] : c && cards.contains(c) ? +c.dataset.t : null); });
  root.addEventListener("pointerleave", () => put_(null));
  root.addEventListener("click", e => {
    const p = plot(e), c = e.target.closest?.("[data-t]");
    if (p?.kind === "tree") { const r = p.rows[Math.floor(turnAt(e)[2] / ROW)]; if (r) put({ branch: r.branch }); }
    else if (p) { const [t, x, y] = turnAt(e), q = chosen(), scale = (q?.high - q?.low || 1) / (HEIGHT - TOP - BOTTOM), v = q?.low + (HEIGHT - BOTTOM - y) * scale;
      if (p.kind === "belief") for (const s of p.part.sources.filter(s => s.source === leads(q))) { const i = nearestRun(s.values, x, v, 5 * scale); if (i >= 0 && p.part.runs.length > 1 && p.part.runs[i] !== get("run")) { put({ run: p.part.runs[i], branch: "main" }); step(t); return; } }
      step(t); } else if (c && cards.contains(c) && !e.target.closest("button, textarea, input, select")) step(+c.dataset.t);
  });
  function keys(e) {
    if (e.target.closest("textarea, input, select")) return;
    const t = get("turn") < 0 ? n() : get("turn"), list = e.currentTarget === cards, to = { ArrowLeft: t - 1, ArrowRight: t + 1, Home: 0, End: n(), PageUp: t - 10, PageDown: t + 10, ...(list ? { ArrowUp: t - 1, ArrowDown: t + 1 } : {}) }[e.key];
    if (to !== undefined) step(to); else if (!list && (e.key === "ArrowUp" || e.key === "ArrowDown")) openRun(get("run") + (e.key === "ArrowUp" ? -1 : 1)); else return;
    e.preventDefault(); e.stopPropagation();
  }
  cards.addEventListener("keydown", keys); charts.addEventListener("keydown", keys);
  const paintWith = d => { dark = d; const p = palette(root, d); css = p.css; inks = [p.inks.locks[0], p.inks.locks[1], p.inks.locks[2], p.inks.one].map((r, i) => rgb(r[d ? 190 : i === 3 ? 150 : 230])); inks.two = p.inks.two; };
  const theme = watchTheme(root, d => { if (d !== dark || !css.known) { paintWith(d); drawAll(true); } }), renewed = () => { store.forget(get("version")); refresh(); };
  model.accepts = v => v.run == null || v.run < meta().runs.length;
  model.on(SEEN + " change:meta change:seat", refresh); model.on("change:version", renewed); model.on("change:child", adopt);
  const fit = new ResizeObserver(soon(() => { if (gone || meta().seated) return; theme.look(); drawCharts(); drawTrial(); })); fit.observe(root);
  store.forget(get("version")); paintWith(theme.dark); drawAll(); adopt();
  return () => { gone = true; clearInterval(ticking); fit.disconnect(); theme.stop(); store.stop(); model.off(SEEN + " change:meta change:seat", refresh); model.off("change:version", renewed); model.off("change:child", adopt); };
}
