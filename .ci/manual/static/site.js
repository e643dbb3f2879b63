// Theme, menu, navigation, contents and search of the documentation. Works from a file, without a network.
(() => {
  const root = document.documentElement, top = document.body.dataset.top, here = document.body.dataset.here, $ = id => document.getElementById(id);
  const keep = (key, value) => { try { value === undefined ? localStorage.removeItem(key) : localStorage.setItem(key, value); } catch { /* a page from a file may have no storage */ } };
  const made = (tag, more = {}, ...inner) => { const el = Object.assign(document.createElement(tag), more); el.append(...inner); return el; };

  // --- theme ----------------------------------------------------------------------------------------------------------
  const themeButton = $("wb-theme"), sayTheme = () => { themeButton.textContent = `Theme: ${root.dataset.theme ?? "auto"}`; themeButton.ariaLabel = themeButton.textContent; };
  themeButton.onclick = () => {
    const next = { undefined: "dark", dark: "light", light: undefined }[root.dataset.theme];
    if (next) root.dataset.theme = next; else delete root.dataset.theme;
    keep("wb-theme", next); sayTheme();
  };
  sayTheme();
  let screenTheme;
  addEventListener("beforeprint", () => { screenTheme = root.dataset.theme; root.dataset.theme = "light"; });
  addEventListener("afterprint", () => { if (screenTheme) root.dataset.theme = screenTheme; else delete root.dataset.theme; });

  // --- navigation: a fold is filled when it is opened -------------------------------------------------------------------
  for (const fold of document.querySelectorAll("#wb-nav details")) fold.addEventListener("toggle", () => {
    const list = fold.querySelector("ol");
    if (!fold.open || list.childElementCount) return;
    for (const [path, title] of window.wbNav?.[fold.dataset.folder] ?? []) list.append(made("li", {}, made("a", { href: top + path, textContent: title })));
  });
  const current = document.querySelector("#wb-nav [aria-current]"), nav = $("wb-nav");
  if (current && current.offsetTop > nav.clientHeight * .7) nav.scrollTop = current.offsetTop - nav.clientHeight / 3;
  const menu = $("wb-menu");
  function setMenu(open) { root.dataset.menu = open ? "open" : ""; menu.ariaExpanded = String(open); menu.textContent = open ? "Close" : "Menu"; if (open) (nav.querySelector("[aria-current]") ?? nav.querySelector("a"))?.focus(); }
  menu.onclick = () => setMenu(root.dataset.menu !== "open");
  addEventListener("keydown", e => { if (e.key === "Escape" && root.dataset.menu === "open") { setMenu(false); menu.focus(); } });
  nav.addEventListener("click", e => { if (e.target.closest("a")?.hash) setMenu(false); });

  // --- contents: mark the part in view ------------------------------------------------------------------------------------
  const links = new Map([...document.querySelectorAll(".aside a")].map(a => [decodeURIComponent(a.hash.slice(1)), a]));
  const heads = [...links.keys()].map(id => $(id)).filter(Boolean);
  if (heads.length) {
    const mark = () => {
      const now = heads.filter(h => h.getBoundingClientRect().top < innerHeight / 3).at(-1) ?? heads[0];
      for (const [id, a] of links) id === now.id ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
    };
    addEventListener("scroll", mark, { passive: true }); mark();
  }

  // --- code: copy ---------------------------------------------------------------------------------------------------------
  for (const pre of document.querySelectorAll("main .wb-code, main .wb-prose pre")) {
    const button = made("button", { type: "button", className: "copy", textContent: "Copy" }), frame = made("div", { className: "framed" });
    pre.replaceWith(frame); frame.append(pre, button);
    button.onclick = async () => {
      try { await navigator.clipboard.writeText(pre.textContent.trimEnd()); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(pre); button.textContent = "Selected"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
  }
  for (const box of document.querySelectorAll("[data-alt]")) for (const img of box.querySelectorAll("img:not([alt])")) img.alt = box.dataset.alt;
  for (const box of document.querySelectorAll(".wb-output, .wide, .sig, .wb-code, .stage")) if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;   // what scrolls can be reached with the keyboard

  // --- search ---------------------------------------------------------------------------------------------------------------
  let data = null, loading = null, shown = [], at = 0;
  const words = text => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const split = text => text.replace(/([\p{Ll}\p{N}])(\p{Lu})/gu, "$1 $2");                   // AttentionExplorer: attention, explorer
  function prepare({ pages, parts }) {
    for (const p of parts) {
      const [page, , , title, text] = p;
      p.low = title.toLowerCase(); p.head = new Set([...words(title), ...words(split(title))]); p.said = " " + text.toLowerCase(); p.home = words(pages[page][1] + " " + pages[page][2]);
    }
    return { pages, parts, known: new Set(parts.flatMap(p => [...p.head])) };
  }
  function load() {
    return loading ??= new Promise((done, fail) => {
      window.wbFound = async packed => {
        const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
        data = prepare(JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text())); done(data);
      };
      document.head.append(made("script", { src: top + "_static/search.js", onerror: () => { loading = null; fail(new Error("The file _static/search.js is missing.")); } }));
    });
  }
  const begins = (text, term) => { const i = text.search(new RegExp(`(?<![\\p{L}\\p{N}])${term.replace(/[^\p{L}\p{N}]/gu, "\\$&")}`, "u")); return i; };
  function points(p, term) {
    if (p.low === term) return 40;
    if (p.head.has(term)) return 16;
    let best = 0;
    for (const w of p.head) if (w.startsWith(term)) best = Math.max(best, 6 + 6 * term.length / w.length);
    if (!best && term.length > 3 && p.low.includes(term)) best = 4;
    if (best) return best;
    const i = p.said.includes(term) ? begins(p.said, term) : -1;
    if (i >= 0) { const n = p.said.split(term).length - 1; return 2 + Math.min(n, 4) * .5; }
    return p.home.some(w => w.startsWith(term)) ? 1 : 0;
  }
  const COMMON = new Set("a an and are as at be by do does for from how i in is it its of on or that the this to was what when where which who why with".split(" "));
  function score(p, terms, whole, all) {
    let sum = 0, met = 0, own = false;
    for (const t of terms) { const n = points(p, t); if (n) { met++; sum += n; own ||= n > 1; } else if (all) return 0; }
    if (!met || !own) return 0;                                                          // the page's title alone is no reason to show each of its parts
    if (p.low === whole) sum += 60; else if (p.low.replace(/_/g, " ") === whole.replace(/_/g, " ")) sum += 50; else if (terms.length > 1 && p.low.includes(whole)) sum += 12; else if (terms.length > 1 && p.said.includes(whole)) sum += /\w_\w/.test(whole) ? 45 : 5;   // a name as it is written, as that of a parameter
    if (p[1] === 2 && data.pages[p[0]][1].toLowerCase().endsWith("." + p.low)) sum += 8;       // a module that bears its name is its home
    if (p[1] === 2) { const value = /^[A-Z0-9_]+$/.test(p[3]); sum *= value ? .7 : /\./.test(p[3]) ? .9 : 1.05; } else if (p[1] === 0) sum *= 1.25;
    const note = data.pages[p[0]][3]; if (note === "reference" && p[1] !== 2) sum *= .8; else if (note && note !== "reference") sum *= 1.1;
    return sum * met / terms.length / (1 + p[3].length / 400);
  }
  function near(term) {                                                                  // a known word that one or two letters away
    let best = null, least = term.length > 6 ? 3 : 2;
    for (const w of data.known) {
      if (Math.abs(w.length - term.length) >= least || w[0] !== term[0]) continue;
      let row = Array.from({ length: w.length + 1 }, (_, i) => i);
      for (let i = 1; i <= term.length; i++) { const next = [i]; for (let j = 1; j <= w.length; j++) next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (term[i - 1] !== w[j - 1]))); row = next; }
      if (row[w.length] < least) { least = row[w.length]; best = w; }
    }
    return best;
  }
  function find(query) {
    const whole = query.trim().toLowerCase(); let terms = [...new Set(words(whole))], said = "";
    const telling = terms.filter(t => !COMMON.has(t)); if (telling.length) terms = telling;
    if (!terms.length) return { found: [], terms, said: "" };
    const ranked = all => data.parts.map(p => [score(p, terms, whole, all), p]).filter(r => r[0] > 0).sort((a, b) => b[0] - a[0]);
    let list = ranked(true);
    if (!list.length) {
      const instead = terms.map(t => data.parts.some(p => points(p, t)) ? t : near(t) ?? t);
      if (instead.join() !== terms.join()) { said = `Nothing has “${query.trim()}”; shown for “${instead.join(" ")}”. `; terms = instead; list = ranked(true); }
      if (!list.length && terms.length > 1) { said = "No part has all of these words; shown are those with some. "; list = ranked(false); }
    }
    const per = new Map(), found = [];
    for (const [, p] of list) { const n = per.get(p[0]) ?? 0; if (n < 4) { per.set(p[0], n + 1); found.push(p); } if (found.length === 40) break; }
    return { found, terms, said: said + (list.length ? `${list.length} found${list.length > found.length ? `, the first ${found.length} shown` : ""}` : "Nothing found.") };
  }
  function marked(text, terms) {
    const out = document.createDocumentFragment(), any = terms.map(t => t.replace(/[^\p{L}\p{N}]/gu, "\\$&")).join("|");
    for (const [i, bit] of text.split(new RegExp(`((?<![\\p{L}\\p{N}])(?:${any}))`, "giu")).entries()) out.append(i % 2 ? made("mark", { textContent: bit }) : bit);
    return out;
  }
  function snippet(text, terms) {
    const low = text.toLowerCase(), first = Math.min(...terms.map(t => { const i = begins(low, t); return i < 0 ? Infinity : i; }));
    const from = first === Infinity || first < 80 ? 0 : low.lastIndexOf(" ", first - 50) + 1;
    return (from ? "… " : "") + text.slice(from, from + 190) + (text.length > from + 190 ? " …" : "");
  }
  const dialog = made("dialog", { className: "search", ariaLabel: "Search" }), input = made("input", { type: "text", id: "wb-query", placeholder: "Search names, headings and prose", autocomplete: "off", spellcheck: false }),
    list = made("ol", { id: "wb-results" }), status = made("p", { className: "said" });
  for (const [k, v] of Object.entries({ role: "combobox", "aria-expanded": "true", "aria-controls": "wb-results", "aria-label": "Search", "aria-autocomplete": "list" })) input.setAttribute(k, v);
  list.setAttribute("role", "listbox"); list.setAttribute("aria-label", "Results"); status.setAttribute("role", "status");
  dialog.append(made("form", { method: "dialog", onsubmit: e => e.preventDefault() }, input, made("button", { type: "button", textContent: "Close", onclick: () => dialog.close() })), list, status);
  document.body.append(dialog);
  function choose(i) {
    at = Math.max(0, Math.min(i, list.children.length - 1));
    for (const [j, li] of [...list.children].entries()) li.setAttribute("aria-selected", String(j === at));
    const li = list.children[at];
    if (li) { input.setAttribute("aria-activedescendant", li.id); li.scrollIntoView({ block: "nearest" }); } else input.removeAttribute("aria-activedescendant");
  }
  function show() {
    if (!data) return;
    const { found, terms, said } = find(input.value);
    list.replaceChildren(...found.map((p, i) => {
      const [page, kind, anchor, title, text] = p, [path, pageTitle, folder, note] = data.pages[page], [sign, doc] = kind === 2 ? text.split("\t") : ["", text];
      const where = [folder, ...(kind === 0 ? [] : [pageTitle])].join(" › ") + (note ? ` · ${note}` : "");
      const a = made("a", { href: top + path + (anchor ? "#" + encodeURIComponent(anchor) : ""), tabIndex: -1 }, made("b", {}, marked(kind === 2 && sign ? sign.length < 100 ? sign : sign.slice(0, 90) + " …" : title, terms)), made("small", { textContent: where }), made("span", {}, marked(snippet(doc ?? "", terms), terms)));
      const li = made("li", { id: `wb-r${i}`, className: ["page", "heading", "name"][kind] }, a); li.setAttribute("role", "option"); li.onmousemove = () => { if (at !== i) choose(i); }; return li;
    }));
    status.textContent = input.value.trim() ? said : "Arrow keys choose, Enter opens, Escape closes."; choose(0); list.scrollTop = 0;
  }
  async function open() {
    if (!dialog.open) dialog.showModal();
    input.select(); status.textContent = "Loading ...";
    try { await load(); show(); } catch (e) { status.textContent = e.message; }
  }
  $("wb-find").onclick = open;
  addEventListener("keydown", e => {
    if (e.key === "/" && !e.ctrlKey && !e.metaKey && !e.altKey && !e.target.closest?.("input, textarea, select, [contenteditable]") && !dialog.open || e.key === "k" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); open(); }
  });
  dialog.addEventListener("keydown", e => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[e.key];
    if (step) { e.preventDefault(); choose(at + step); }
    else if (e.key === "Enter" && e.target === input) { e.preventDefault(); list.children[at]?.querySelector("a").click(); }
  });
  list.addEventListener("click", e => { if (e.target.closest("a")) dialog.close(); });
  dialog.addEventListener("click", e => { if (e.target === dialog) dialog.close(); });
  input.addEventListener("input", show);
  root.dataset.ready = "true";
})();
