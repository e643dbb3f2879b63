// Predict: an answer is chosen before the measurement is seen.
import { h, OURS, soon, watchTheme } from "./dom.js";

export function render({ model, el }) {
  const get = k => model.get(k), meta = () => get("meta"), group = `wb-predict-${Math.random().toString(36).slice(2)}`;
  let gone = false, draft = get("answer");

  // --- the page ------------------------------------------------------------------------------------------------------
  const root = h("section", { className: "wb wb-predict", "aria-label": "Prediction" }), field = h("fieldset", {}), said = h("p", { className: "wb-said", role: "status" });
  const send = h("button", { text: "This is my prediction", onclick: () => { model.set("answer", draft); model.save_changes(); draw(); } });
  field.append(h("legend", { text: meta().question }));
  const inputs = meta().options.map(text => h("input", { type: "radio", name: group, value: text, onchange: () => { draft = text; draw(); }, ...OURS }));
  const shown = h("output", { className: "wb-number" });
  if (inputs.length) field.append(...inputs.map((input, i) => h("label", {}, input, h("span", { text: meta().options[i] }))));
  else {
    const { low, high } = meta(), slide = h("input", { type: "range", min: low, max: high, step: (high - low) / 100, "aria-label": "Your number", oninput: () => { draft = Number(slide.value); draw(); }, ...OURS });
    slide.value = draft ?? (low + high) / 2; inputs.push(slide);
    field.append(h("div", { className: "wb-row" }, slide, shown));
  }
  root.append(field, h("div", { className: "wb-row" }, send, said)); el.append(root);

  // --- what is said --------------------------------------------------------------------------------------------------
  const number = v => Number(v).toPrecision(3).replace(/\.?0+$/, "");
  function draw() {
    const m = meta(), answer = get("answer"), open = !m.measured;
    root.dataset.revealed = String(!open);
    for (const i of inputs) { i.disabled = !open; if (i.type === "radio") { i.checked = i.value === draft; i.parentElement.dataset.right = String(i.value === m.right); } }
    if (inputs[0].type === "range") shown.textContent = draft == null ? "move it" : `${number(draft)}${m.unit ? " " + m.unit : ""}`;
    send.hidden = !open; send.disabled = draft == null || draft === answer;
    said.textContent = m.measured || (answer == null ? "" : draft === answer ? "Noted. The next cell measures it." : "Changed, not noted yet.");
  }
  const refresh = soon(() => { if (!gone) { if (get("answer") != null) draft = get("answer"); draw(); } }), heard = "change:meta change:answer"; model.on(heard, refresh);
  const paint = dark => { root.dataset.theme = dark ? "dark" : "light"; }, theme = watchTheme(root, paint);
  paint(theme.dark); draw();
  return () => { gone = true; theme.stop(); model.off(heard, refresh); };
}
