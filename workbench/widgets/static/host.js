// A page without a kernel: the model that a widget sees, answered from what is in the page.
async function unpack(text) {
  const u8 = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), c => c.charCodeAt(0));  // the first is much faster, where it exists
  return new Response(new Blob([u8]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
const linked = globalThis.workbenchLinks ??= {};
function pageModel({ state, chunks, link, shared }) {
  const heard = {}, tell = (name, ...args) => { for (const f of [...heard[name] ?? []]) f(...args); };
  let fresh = {};
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const model = {
    get: k => state[k],
    set(k, v) { if (same(state[k], v)) return; state[k] = v; if (shared.includes(k)) fresh[k] = v; tell("change:" + k, model, v); },
    save_changes() {                                      // what is selected here is selected wherever it can be shown
      const news = fresh; fresh = {};
      if (!link || !Object.keys(news).length) return;
      for (const other of linked[link]) if (other !== model && (other.accepts?.(news) ?? true)) other.take(news);
    },
    take(news) { for (const [k, v] of Object.entries(news)) model.set(k, v); fresh = {}; },
    widget_manager: null,
    on(names, f) { for (const n of names.split(" ")) (heard[n] ??= []).push(f); },
    off(names, f) { for (const n of names.split(" ")) heard[n] = (heard[n] ?? []).filter(g => f && g !== f); },
    async send(msg) {
      if (msg.kind !== "chunk") return;
      const found = chunks[msg.key.join("|")], missing = "This page does not hold it; open the notebook with a kernel to see it.";
      if (!found) return setTimeout(() => tell("msg:custom", { ...msg, missing }, []));
      tell("msg:custom", { ...msg, ...found.meta }, [new DataView(await unpack(found.data))]);
    },
  };
  if (link) (linked[link] ??= []).push(model);
  return model;
}
function mount(id, render) {
  const el = document.getElementById(id), data = document.getElementById(id + "-data");
  if (!el || !data || el.dataset.alive) return;
  el.dataset.alive = "yes";
  const model = pageModel(JSON.parse(data.textContent)), stage = document.createElement("div"), before = [...el.childNodes];
  el.append(stage);
  try { render({ model, el: stage }); for (const node of before) node.remove(); }
  catch (error) { stage.remove(); console.error(error); } // what was in the page stays
}
