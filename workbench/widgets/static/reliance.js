// RelianceQuiz: decide, see what the model says and why, decide again; and how often it was followed where it was wrong.
import { h, OURS, soon, watchTheme } from "./dom.js";

const WORDS = 5;                                          // of an explanation by words, how many are marked
const ROWS = [["human_only", "you alone"], ["model_only", "model alone"], ["team", "you with the model"], ["over_reliance", "followed it where it was wrong"], ["under_reliance", "did not follow it where it was right"]];
const NAMES = { none: "no explanation", feature: "by words", example: "by examples", all: "all" };

export function scores(items, answers) {                  // rows as workbench.theory.reliance.scores has them; answers: [first, final] of the first items
  const rows = answers.filter(a => a[1]).map(([first, final], i) => ({ kind: items[i].kind, right: items[i].right, human: first === items[i].truth, team: final === items[i].truth, follows: final === items[i].model }));
  const share = (some, f) => some.length ? some.filter(f).length / some.length : null, out = {};
  for (const kind of ["none", "feature", "example", "all"]) {
    const g = rows.filter(r => kind === "all" || r.kind === kind); if (!g.length) continue;
    out[kind] = { n: g.length, n_model_wrong: g.filter(r => !r.right).length, human_only: share(g, r => r.human), model_only: share(g, r => r.right), team: share(g, r => r.team), over_reliance: share(g.filter(r => !r.right), r => r.follows), under_reliance: share(g.filter(r => r.right), r => !r.follows) };
  }
  return out;
}
export function marked(words) {                           // 1 for the words of largest weight that speak for the answer, -1 against, 0 for the others
  const order = words.map((_, i) => i).sort((a, b) => Math.abs(words[b][1]) - Math.abs(words[a][1])).slice(0, WORDS), top = new Set(order);
  return words.map(([, w], i) => top.has(i) ? Math.sign(w) : 0);
}
const signed = v => `${v < 0 ? "−" : "+"}${Math.abs(v).toFixed(2)}`, percent = v => v == null ? "–" : `${Math.round(100 * v)}%`;

export function render({ model, el }) {
  const get = k => model.get(k), items = () => get("meta").items, group = `wb-quiz-${Math.random().toString(36).slice(2)}`, guess = () => get("meta").asks === "model";
  let gone = false, seen = null;

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-reliance", "aria-label": "Reliance quiz", ...OURS }), heading = h("div", { className: "wb-heading", role: "heading", "aria-level": 3, tabIndex: -1 }), about = h("p", { className: "wb-note" });
  const stage = h("div", {}), said = h("div", { className: "wb-verdict", role: "status", tabIndex: -1 }), next = h("button", { text: "Next question", onclick: () => go(get("place") + 1) }), again = h("button", { text: "Begin again", onclick: () => { model.set("answers", []); go(0); } });
  root.append(heading, about, stage, said, h("div", { className: "wb-row" }, next, again)); el.append(root);

  // --- hands ---------------------------------------------------------------------------------------------------------
  function go(place) { model.set("place", place); model.save_changes(); draw(); heading.focus(); }
  function answer(text) {                                 // the first answer, then the final one; both are kept for good
    const all = get("answers").map(a => [...a]), i = get("place"), now = all[i];
    if (!now) all.push([text, guess() ? text : ""]); else if (!now[1]) now[1] = text; else return;
    model.set("answers", all); model.save_changes(); draw(); (all[i][1] ? said : stage.querySelector(".wb-says")).focus();
  }

  // --- one question --------------------------------------------------------------------------------------------------
  function choose(legend, item, chosen, label) {          // options as radio buttons; a choice counts once the button is pressed
    let draft = chosen; const send = h("button", { text: label, disabled: true, onclick: () => answer(draft) }), name = `${group}-${legend.length}`;
    const options = item.options.map(text => h("label", {}, h("input", { type: "radio", name, value: text, checked: text === chosen, onchange: () => { draft = text; send.disabled = false; } }), h("span", { text })));
    return h("fieldset", { disabled: !!chosen }, h("legend", { text: legend }), h("div", { className: "wb-options" }, ...options), ...(chosen ? [] : [send]));
  }
  function why(item) {
    if (item.kind === "feature") {
      const how = marked(item.words), top = item.words.map((w, i) => [...w, i]).filter(w => how[w[2]]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
      return [h("p", { text: "The words that counted most (underlined: for its answer, dashed: against it):" }), h("p", { className: "wb-words", "aria-hidden": "true" }, ...item.words.flatMap(([text], i) => [h("span", { text, className: how[i] > 0 ? "pro" : how[i] < 0 ? "con" : "" }), " "])), h("ol", {}, ...top.map(([text, w, i]) => h("li", { text: `“${text}”, word ${i + 1}: ${signed(w)}` })))];
    }
    if (item.kind === "example") return [h("p", { text: "Questions that look most alike to it, with their right answers:" }), h("ol", {}, ...item.examples.map(([text, right, close]) => h("li", { text: `${text} → ${right} (likeness ${close.toFixed(2)})` })))];
    return [h("p", { text: "It gives no explanation." })];
  }
  const says = item => h("div", { className: "wb-says", role: "group", tabIndex: -1, "aria-label": "What the model says" }, h("p", {}, "The model says ", h("strong", { text: item.model }), "."), ...why(item), ...(item.source ? [h("p", { className: "wb-note", text: item.source })] : []));
  function verdict(item, [first, final]) {
    const unsound = item.sound ? "" : " The explanation was not the model's own.";
    if (guess()) return `${first === item.model ? "Yes, it says" : "No, it says"} ${item.model}. ${item.right ? "That is right." : `That is wrong; right is ${item.truth}.`}${unsound}`;
    return `Right is ${item.truth}. You said ${first}, then ${final}: ${final === item.truth ? "right" : "wrong"}. The model was ${item.right ? "right" : "wrong"}.${unsound}`;
  }
  function question(i) {
    const item = items()[i], now = get("answers")[i], open = h("blockquote", { className: "wb-prompt", text: item.prompt });
    if (guess()) return [open, choose("What will the model say?", item, now?.[0], "This is my guess"), ...(now ? [says(item)] : [])];
    return [open, choose("1. What is your answer?", item, now?.[0], "This is my answer"), ...(now ? [says(item), choose("2. And now? Your final answer:", item, now[1], "This is my final answer")] : [])];
  }

  // --- the end -------------------------------------------------------------------------------------------------------
  function table() {
    if (guess()) {
      const hit = get("answers").map((a, i) => a[0] === items()[i].model), half = Math.floor(hit.length / 2), of = some => `${some.filter(Boolean).length} of ${some.length}`;
      return h("table", { className: "wb-scores" }, h("tr", {}, ...["foreseen", "first half", "second half", "where it is wrong"].map(text => h("th", { text, scope: "col" }))), h("tr", {}, ...[hit, hit.slice(0, half), hit.slice(half), hit.filter((_, i) => !items()[i].right)].map(some => h("td", { className: "n", text: of(some) }))));
    }
    const s = scores(items(), get("answers")), kinds = Object.keys(s);
    return h("table", { className: "wb-scores" }, h("tr", {}, h("th", { text: "explanation", scope: "col" }), h("th", { text: "questions", scope: "col" }), ...ROWS.map(([, text]) => h("th", { text, scope: "col" }))),
      ...kinds.map(k => h("tr", { "data-kind": k }, h("th", { text: NAMES[k], scope: "row" }), h("td", { className: "n", text: String(s[k].n) }), ...ROWS.map(([name]) => h("td", { className: "n", text: percent(s[k][name]), title: name })))));
  }
  function draw() {
    const place = get("place"), n = items().length, end = place >= n, now = get("answers")[place], done = end || !!now?.[1], id = JSON.stringify([place, now, n, end && get("answers")]);
    heading.textContent = end ? "Your scores" : `Question ${place + 1} of ${n}`; about.textContent = get("meta").about;
    if (id !== seen) stage.replaceChildren(...(end ? [h("div", { className: "wb-scroll" }, table()), h("p", { className: "wb-note", text: "Each share is of few questions: a difference between two rows may be chance." })] : question(place)));
    seen = id; said.hidden = end || !done; said.textContent = !end && done ? verdict(items()[place], now) : ""; next.hidden = end || !done; next.textContent = place + 1 === n ? "See the scores" : "Next question"; again.hidden = !end;
  }
  const refresh = soon(() => { if (!gone) draw(); }), heard = "change:meta change:answers change:place"; model.on(heard, refresh);
  const paint = dark => { root.dataset.theme = dark ? "dark" : "light"; }, theme = watchTheme(root, paint);
  paint(theme.dark); draw();
  return () => { gone = true; theme.stop(); model.off(heard, refresh); };
}
