// Parts that touch the document, shared by every widget. Text enters a page through textContent and nowhere else.
import { displayToken, luminance, open } from "./core.js";

export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (v == null) continue;
    if (k === "text") el.textContent = v;
    else if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (k in el && k !== "list") el[k] = v;
    else el.setAttribute(k, v);
  }
  el.append(...children);
  return el;
}

export function watchTheme(el, changed) {                 // dark when the text is light: true in JupyterLab, VS Code and plain pages alike
  const read = () => luminance((getComputedStyle(el).color.match(/[\d.]+/g) ?? [0, 0, 0]).slice(0, 3).map(Number)) > .5;
  const query = matchMedia("(prefers-color-scheme: dark)"), look = () => requestAnimationFrame(() => changed(read()));
  const seen = new MutationObserver(look), what = { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light", "data-theme", "data-vscode-theme-kind"] };
  seen.observe(document.body, what); seen.observe(document.documentElement, what); query.addEventListener("change", look);
  return { dark: read(), look, stop() { seen.disconnect(); query.removeEventListener("change", look); } };
}

export const OURS = { "data-lm-suppress-shortcuts": "true" };   // keys pressed on such an element are not JupyterLab's
export function sharp(canvas, w, height) {                // a canvas of w x height CSS pixels at the screen's own resolution
  const r = devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * r) || canvas.height !== Math.round(height * r)) { canvas.width = Math.round(w * r); canvas.height = Math.round(height * r); }
  canvas.style.width = w + "px"; canvas.style.height = height + "px";
  const g = canvas.getContext("2d"); g.setTransform(r, 0, 0, r, 0, 0); g.clearRect(0, 0, w, height);
  return g;
}

export function picture(w, height, paint) {               // pixels as something drawImage takes; paint(i) -> [r, g, b] or null for clear
  const c = document.createElement("canvas"); c.width = w; c.height = height;
  const g = c.getContext("2d"), image = g.createImageData(w, height), d = image.data;
  for (let i = 0; i < w * height; i++) { const p = paint(i); if (p) { d[4 * i] = p[0]; d[4 * i + 1] = p[1]; d[4 * i + 2] = p[2]; d[4 * i + 3] = 255; } }
  g.putImageData(image, 0, 0);
  return c;
}

export function choice(model, trait, label, options, title) {   // a native select bound to a trait
  const el = h("select", { title, name: trait, "aria-label": label, onchange: () => { model.set(trait, el.value); model.save_changes(); } });
  const fill = list => { el.replaceChildren(...list.map(([value, text]) => h("option", { value, text }))); el.value = model.get(trait); };
  fill(options);
  return { el: h("label", { className: "wb-field" }, h("span", { text: label }), el), fill, read() { el.value = model.get(trait); } };
}

export const KINDS = ["", "special", "made", "only-a", "only-b", "differs"];
export const KIND_WORDS = ["", "special token", "generated", "only in A", "only in B", "not the same in A and B"];
export function tokenSpan(i, [text, kind]) {              // the one way a token is shown; a bdi keeps right-to-left text in its place
  const word = KIND_WORDS[kind];
  return h("bdi", { className: `wb-token ${KINDS[kind]}`, text: displayToken(text), title: `${i}${word ? " · " + word : ""}`, role: "option", "aria-selected": "false", "data-i": i });
}

export function soon(fn) {                                // at most once a frame
  let waiting = 0;
  return () => { waiting ||= requestAnimationFrame(() => { waiting = 0; fn(); }); };
}
export function later(fn, ms) { let t; return () => { clearTimeout(t); t = setTimeout(fn, ms); }; }

// Data that is asked for: `store.get(key)` is a chunk, null while it is on its way, or {missing: why}. What is stale is shown until the new one has come.
export function asker(model, arrived, read = open) {     // read(meta, bytes) -> what get gives
  let known = new Map(), old = new Set(), version = 0;
  const take = (msg, buffers) => {
    if (msg.kind !== "chunk" || msg.version !== version) return;
    known.set(msg.key.join("|"), msg.missing ? msg : read(msg, buffers[0])); old.delete(msg.key.join("|")); arrived(msg.key);
  };
  model.on("msg:custom", take);
  return {
    get(key) { const id = key.join("|"), ask = !known.has(id); if (ask) known.set(id, null); if (ask || old.delete(id)) model.send({ kind: "chunk", key, version }); return known.get(id); },
    stale() { old = new Set([...known.keys()].filter(id => known.get(id))); },
    forget(v) { known = new Map(); old = new Set(); version = v; },
    stop() { model.off("msg:custom", take); },
  };
}
