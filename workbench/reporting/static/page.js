// Brings a report page to life: theme and code switches, table of contents, plotly figures, widgets. No outside request.
import { darkened } from "./shades.js";
const root = document.documentElement;
const data = JSON.parse(document.getElementById("wb-data").textContent);
const unpack = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

// --- switches -------------------------------------------------------------------------------------------------------
const codeButton = document.getElementById("wb-code"), themeButton = document.getElementById("wb-theme");
if (!document.querySelector(".wb-code")) codeButton.hidden = true;
codeButton.onclick = () => {
  const shown = root.dataset.code !== "shown";
  root.dataset.code = shown ? "shown" : "";
  codeButton.setAttribute("aria-pressed", shown);
  codeButton.textContent = shown ? "Hide code" : "Show code";
};
const system = matchMedia("(prefers-color-scheme: dark)");
let paper = null;                                                      // width of the sheet in pixels while the page is being printed
const isDark = () => !paper && (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
themeButton.onclick = () => {
  const next = { undefined: "dark", dark: "light", light: undefined }[root.dataset.theme];
  if (next) root.dataset.theme = next; else delete root.dataset.theme;
  themeButton.textContent = `Theme: ${next ?? "auto"}`;
  restyle();
};
system.addEventListener("change", () => restyle());

for (const box of document.querySelectorAll("[data-alt]")) for (const img of box.querySelectorAll("img:not([alt])")) img.alt = box.dataset.alt;   // an output's own HTML is never parsed as text

// --- table of contents: mark the part in view -------------------------------------------------------------------------
const links = new Map([...document.querySelectorAll("nav a")].map(a => [decodeURIComponent(a.hash.slice(1)), a]));
const heads = [...links.keys()].map(id => document.getElementById(id)).filter(Boolean);
function mark() {
  const current = heads.filter(h => h.getBoundingClientRect().top < innerHeight / 3).at(-1) ?? heads[0];
  for (const [id, a] of links) id === current?.id ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
}
addEventListener("scroll", mark, { passive: true });
mark();
if (innerWidth < 992) document.querySelector("nav details")?.removeAttribute("open");

// --- figures ----------------------------------------------------------------------------------------------------------
const colour = name => {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
};
function template() {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--soft"), linecolor: colour("--line"), tickcolor: colour("--line"), automargin: true };
  return { layout: {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12.5 },
    colorway: ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"],
    xaxis: axis, yaxis: axis, hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    margin: { t: 52, r: 16, b: 44, l: 48 }, legend: { bgcolor: "rgba(0,0,0,0)" }, title: { font: { size: 15 }, x: 0, xref: "paper", xanchor: "left" },
  } };
}
const figures = [...document.querySelectorAll(".wb-figure")];
function drawn(el) {
  const { data: traces, layout } = data.figures[+el.dataset.figure];
  const { width, ...rest } = structuredClone(layout);                  // the page sets the width
  if (paper) { rest.width = paper; rest.height = el.offsetHeight; }
  rest.template = template();
  const copies = structuredClone(traces);
  return [isDark() ? copies.map(t => darkened(t, colour("--panel"))) : copies, rest, { responsive: !paper, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] }];
}
function restyle() { if (globalThis.Plotly) return Promise.all(figures.map(el => Plotly.react(el, ...drawn(el)))); }
// Paper is narrower than most windows, and light: figures are drawn again for it, at once, since a print dialog does not wait.
const SHEET = 680;
let screenTheme;
addEventListener("beforeprint", () => {
  if (paper) return;
  screenTheme = root.dataset.theme; paper = SHEET; root.dataset.theme = "light";
  restyle();
});
addEventListener("afterprint", () => {
  paper = null;
  if (screenTheme) root.dataset.theme = screenTheme; else delete root.dataset.theme;
  restyle();
});
async function drawFigures() {
  if (!figures.length) return;
  const packed = new Blob([unpack(document.getElementById("wb-plotly").textContent)]);
  const source = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  const script = document.createElement("script");
  script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  await new Promise((done, fail) => { script.onload = done; script.onerror = fail; document.head.append(script); });
  for (const el of figures) await Plotly.newPlot(el, ...drawn(el));
}

// --- widgets: the saved state stands in for a kernel ------------------------------------------------------------------
const models = new Map();
function model(id) {
  if (models.has(id)) return models.get(id);
  const { state, buffers } = data.models[id], listeners = new Map();
  for (const { path, data: bytes } of buffers) {
    const holder = path.slice(0, -1).reduce((o, k) => o[k], state);
    holder[path.at(-1)] = new DataView(unpack(bytes).buffer);
  }
  const names = text => text.split(/\s+/).filter(Boolean);
  const tell = (name, ...args) => { for (const f of [...listeners.get(name) ?? []]) f(...args); };
  const made = {
    get: key => state[key],
    set(key, value) {
      for (const [k, v] of Object.entries(typeof key === "string" ? { [key]: value } : key)) if (state[k] !== v) { state[k] = v; tell(`change:${k}`, made, v); tell("change", made); }
    },
    save_changes() {}, send() {},
    on(text, f) { for (const n of names(text)) listeners.set(n, [...listeners.get(n) ?? [], f]); },
    off(text, f) { for (const n of text ? names(text) : [...listeners.keys()]) listeners.set(n, f ? (listeners.get(n) ?? []).filter(g => g !== f) : []); },
    widget_manager: { get_model: async ref => model(ref.replace("IPY_MODEL_", "")) },
  };
  models.set(id, made);
  return made;
}
const modules = new Map(), styled = new Set();
function module(key) {
  if (!modules.has(key)) modules.set(key, import(URL.createObjectURL(new Blob([data.code[key]], { type: "text/javascript" }))));
  return modules.get(key);
}
const started = new Set();
async function drawWidget(el) {
  const m = model(el.dataset.model), css = m.get("_css");
  if (css && !styled.has(css)) { styled.add(css); document.head.append(Object.assign(document.createElement("style"), { textContent: data.code[css] })); }
  const loaded = await module(m.get("_esm"));
  let widget = loaded.default ?? loaded;
  if (typeof widget === "function") widget = await widget();
  const experimental = { invoke: async () => { throw new Error("This page has no kernel."); } };
  if (!started.has(el.dataset.model)) { started.add(el.dataset.model); await widget.initialize?.({ model: m, experimental }); }
  await widget.render?.({ model: m, el, experimental });
}
async function drawWidgets() { for (const el of document.querySelectorAll(".wb-widget")) await drawWidget(el); }

await Promise.all([drawFigures(), drawWidgets()]);
root.dataset.ready = "true";
