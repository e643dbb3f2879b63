// ExplainChat: questions about one decision of a model, each answer with the method it comes from and its numbers.
import { h, OURS, soon, watchTheme } from "./dom.js";

const NAMES = { why: "why", why_not: "why not", what_if: "what if", similar: "similar", "": "asks back" };

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta"), turns = () => get("turns");
  let gone = false, drawn = [], waiting = -1, first = true;

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-explain", "aria-label": "Explanations in conversation" }), heading = h("div", { className: "wb-heading" });
  const asked = h("blockquote", { className: "wb-prompt" }), decision = h("p", { className: "wb-decision" });
  const lane = h("ol", { className: "wb-lane", role: "log", "aria-live": "polite", "aria-label": "Questions and answers; arrow keys move between them", tabIndex: 0, ...OURS });
  const field = h("input", { type: "text", "aria-label": "Your question", placeholder: "Why does it say that?", ...OURS, onkeydown: e => { e.stopPropagation(); if (e.key === "Enter" && !e.isComposing) { e.preventDefault(); ask(field.value); } } }), send = h("button", { text: "Ask", onclick: () => ask(field.value) }), state = h("span", { className: "wb-note", role: "status" });
  const starts = h("div", { className: "wb-row wb-starts", role: "group", "aria-label": "Questions to begin with" });
  const form = h("div", { className: "wb-row wb-ask", role: "group", "aria-label": "Ask a question" }, field, send, state);
  root.append(heading, asked, decision, lane, starts, form); el.append(root);

  // --- one question and its answer -----------------------------------------------------------------------------------
  const cell = v => typeof v === "number" ? h("td", { className: "n", text: String(v) }) : h("td", { text: v });
  function numbers(t, open) {
    const table = h("table", {}, h("tr", {}, ...t.header.map(text => h("th", { text, scope: "col" }))), ...t.rows.map(r => h("tr", {}, ...r.map(cell))));
    return h("details", { open }, h("summary", { text: `${t.rows.length} rows of numbers` }), h("div", { className: "wb-scroll" }, table));
  }
  function entry(t, i) {
    const last = i === turns().length - 1, route = h("span", { className: `wb-route ${t.route ? "" : "back"}`, text: NAMES[t.route], title: t.route ? `understood as a ${NAMES[t.route]} question` : "not understood: asked back" });
    return h("li", { tabIndex: -1, "data-i": i, "data-route": t.route }, h("p", { className: "wb-question" }, h("span", { className: "wb-who", text: "You: " }), t.question), h("p", { className: "wb-answer" }, route, " ", t.text), ...(t.source ? [h("p", { className: "wb-note wb-source", text: `source: ${t.source}` })] : []), ...(t.rows.length ? [numbers(t, last)] : []));
  }
  const same = (a, b) => a && b && a.question === b.question && a.text === b.text;
  function drawLane() {
    const now = turns(); let keep = 0; while (keep < drawn.length && keep < now.length && same(drawn[keep], now[keep])) keep++;
    while (lane.children.length > keep) lane.lastElementChild.remove();
    for (let i = keep; i < now.length; i++) { for (const d of lane.querySelectorAll("details")) d.open = false; lane.append(entry(now[i], i)); }
    drawn = now.slice(); if (waiting >= 0 && now.length > waiting) { waiting = -1; field.value = ""; }
    if (keep < now.length && !first) lane.scrollTop = lane.scrollHeight; first = false;
  }
  function draw() {
    const m = meta(), live = m.live; root.dataset.live = String(!!live); heading.textContent = m.title ?? ""; asked.textContent = get("prompt"); decision.textContent = m.decision ?? "";
    drawLane(); form.hidden = starts.hidden = !live; send.disabled = waiting >= 0; state.textContent = waiting >= 0 ? "computing…" : "";
    const id = JSON.stringify(m.starts); if (starts.is !== id) { starts.is = id; starts.replaceChildren(...(m.starts ?? []).map(text => h("button", { text, onclick: () => ask(text) }))); }
  }

  // --- hands ---------------------------------------------------------------------------------------------------------
  function ask(text) {
    if (!text.trim() || waiting >= 0 || !meta().live) return;
    waiting = turns().length; model.send({ kind: "ask", text }); draw();
  }
  lane.addEventListener("keydown", e => {
    const all = [...lane.children], i = all.indexOf(document.activeElement.closest("li")), to = { ArrowDown: Math.min(i + 1, all.length - 1), ArrowUp: Math.max(i - 1, 0), Home: 0, End: all.length - 1 }[e.key];
    if (to == null || !all.length) return;
    e.preventDefault(); e.stopPropagation(); all[to].focus();
  });
  const refresh = soon(() => { if (!gone) draw(); }), heard = "change:meta change:turns change:prompt"; model.on(heard, refresh);
  const paint = dark => { root.dataset.theme = dark ? "dark" : "light"; }, theme = watchTheme(root, paint);
  paint(theme.dark); draw();
  return () => { gone = true; theme.stop(); model.off(heard, refresh); };
}
