// Search, filters, order and differences of runs: values in, values out, no document. Joined with gallery.js by the page; node tests import it.

// --- runs -------------------------------------------------------------------------------------------------------------
const absent = v => v !== null && typeof v === "object" && !Array.isArray(v) && v.absent === 1;
const named = (names, values) => new Map(names.map((n, i) => [n, values[i]]).filter(([, v]) => !absent(v)));

export function show(value) {                                            // a value as a reader sees it
  if (value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function readIndex(data) {                                        // rows of the index -> runs
  return data.runs.map(([id, path, report, status, started, seconds, models, given, params, results, error, thumb, alt, page]) => {
    const of = data.reports[report], run = { id, path, report, status, started, seconds, models, given: new Set(given), error, thumb, alt, page, title: of.title || report,
      params: named(of.params, params), results: named(of.results, results) };
    const words = [run.title, report, status, error, ...models, started.slice(0, 10)];
    for (const part of [run.params, run.results]) for (const [k, v] of part) words.push(k, show(v));
    run.text = words.join("\n").toLowerCase();
    return run;
  });
}

// --- filters ----------------------------------------------------------------------------------------------------------
export const NOTHING = { q: "", report: "", model: "", status: "", from: "", to: "", params: [], sort: "started", down: true, page: 1, view: "cards", pick: [], diff: [] };

const number = text => /^\s*-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(text) ? Number(text) : null;
export function matches(value, want) {                                   // `>3`, `<=0.5`, `1..4`, `=exactly this`, a number, or words in a text
  if (value === undefined) return false;
  const said = show(value).toLowerCase(), wanted = want.trim().toLowerCase();
  if (!wanted) return true;
  if (wanted.startsWith("=")) return said === wanted.slice(1).trim();
  const n = typeof value === "number" ? value : number(said), [, sign, bound] = wanted.match(/^(>=|<=|>|<)\s*(\S+)$/) ?? [], range = wanted.split("..").map(number);
  if (sign && number(bound) !== null) return n !== null && { ">": n > +bound, "<": n < +bound, ">=": n >= +bound, "<=": n <= +bound }[sign];
  if (range.length === 2 && range.every(r => r !== null)) return n !== null && n >= range[0] && n <= range[1];
  if (n !== null && number(wanted) !== null) return n === number(wanted);
  if (typeof value === "boolean") return said === wanted;
  return said.includes(wanted);
}
export const valueOf = (run, name) => run.params.has(name) ? run.params.get(name) : run.results.get(name);

export function chosen(runs, s) {                                        // the runs that pass every filter
  const words = s.q.toLowerCase().split(/\s+/).filter(Boolean);
  return runs.filter(r => (!s.report || r.report === s.report) && (!s.status || r.status === s.status) && (!s.model || r.models.includes(s.model)) &&
    (!s.from || r.started.slice(0, 10) >= s.from) && (!s.to || r.started.slice(0, 10) <= s.to) &&
    s.params.every(([name, want]) => matches(valueOf(r, name), want)) && words.every(w => r.text.includes(w)));
}

const BUILT_IN = { started: r => r.started, seconds: r => r.seconds, report: r => r.title, status: r => r.status };
export function ordered(runs, s) {                                       // sorted; a run without the value comes last either way
  const name = s.sort.replace(/^[pr]:/, ""), value = BUILT_IN[s.sort] ?? (r => valueOf(r, name)), sign = s.down ? -1 : 1;
  const none = v => v === undefined || v === null || v === "";
  const rows = runs.map(r => [value(r), r]);
  rows.sort(([a, r], [b, q]) => none(a) || none(b) ? none(a) - none(b) : sign * (typeof a === "number" && typeof b === "number" ? a - b : show(a).localeCompare(show(b), undefined, { numeric: true })) || (r.started < q.started ? 1 : -1));
  return rows.map(([, r]) => r);
}

export function varying(runs, part) {                                    // names of a part with more than one value among runs, with those values
  const found = new Map();
  for (const r of runs) for (const [k, v] of r[part]) { if (!found.has(k)) found.set(k, new Map()); const said = show(v); found.get(k).set(said, (found.get(k).get(said) ?? 0) + 1); }
  for (const r of runs) for (const [k, vs] of found) if (vs.size === 1 && !r[part].has(k)) vs.set("", 1);
  return new Map([...found].filter(([, vs]) => vs.size > 1));
}

// --- the address keeps the state --------------------------------------------------------------------------------------
export function toHash(s) {
  const out = new URLSearchParams(), put = (k, v, other) => { if (v !== other && v !== "") out.append(k, v); };
  for (const k of ["q", "report", "model", "status", "from", "to", "view"]) put(k, s[k], NOTHING[k]);
  for (const [name, want] of s.params) out.append("p", `${name.replace(/[%=]/g, encodeURIComponent)}=${want}`);
  put("sort", (s.down ? "-" : "") + s.sort, "-started"); put("page", String(s.page), "1"); put("pick", s.pick.join("~"), ""); put("diff", s.diff.join("~"), "");
  return out.toString();
}
export function fromHash(text) {
  const given = new URLSearchParams(text.replace(/^#/, "")), s = structuredClone(NOTHING), ids = k => (given.get(k) ?? "").split("~").filter(x => /^[0-9a-f]{1,64}$/.test(x)).slice(0, 2);
  for (const k of ["q", "report", "model", "status", "from", "to"]) s[k] = given.get(k) ?? "";
  for (const p of given.getAll("p")) { const at = p.indexOf("="); if (at > 0) s.params.push([p.slice(0, at).replace(/%3D/g, "=").replace(/%25/g, "%"), p.slice(at + 1)]); }
  const sort = given.get("sort"); if (sort) { s.down = sort.startsWith("-"); s.sort = sort.replace(/^-/, ""); }
  s.page = Math.max(1, parseInt(given.get("page")) || 1); s.view = given.get("view") === "table" ? "table" : "cards"; s.pick = ids("pick"); s.diff = ids("diff").length === 2 ? ids("diff") : [];
  return s;
}

// --- differences ------------------------------------------------------------------------------------------------------
const digits = x => x === 0 ? "0" : Math.abs(x) >= 1e6 || Math.abs(x) < 1e-4 ? x.toExponential(2) : String(+x.toPrecision(4));
const signed = x => (x > 0 ? "+" : x < 0 ? "−" : "") + digits(Math.abs(x));
export function change(a, b) {                                           // of two numbers: how far, and how far for its size
  const from = typeof a === "number" ? a : number(String(a ?? "")), to = typeof b === "number" ? b : number(String(b ?? ""));
  if (from === null || to === null || !Number.isFinite(from) || !Number.isFinite(to)) return null;
  const by = to - from, part = from ? by / Math.abs(from) : null;
  return { by, part, text: by === 0 ? "" : signed(by) + (part === null ? "" : ` (${signed(+(100 * part).toPrecision(3))} %)`) };
}

const spelled = v => Array.isArray(v) ? `[${v.map(spelled)}]` : v && typeof v === "object" ? `{${Object.keys(v).sort().map(k => JSON.stringify(k) + spelled(v[k]))}}` : JSON.stringify(v) ?? "";
export const same = (a, b) => spelled(a) === spelled(b);

export function compareMaps(a, b) {                                      // rows { name, a, b, has, differs, change }; what differs first, each part in its own order
  const names = [...new Set([...a.keys(), ...b.keys()])];
  const rows = names.map(name => {
    const x = a.get(name), y = b.get(name), differs = !same(x, y) || a.has(name) !== b.has(name);
    return { name, a: x, b: y, has: [a.has(name), b.has(name)], differs, change: differs ? change(x, y) : null };
  });
  return [...rows.filter(r => r.differs), ...rows.filter(r => !r.differs)];
}

export function pairUp(a, b, key = x => x.heading) {                     // items of both, by key and place; null where one has no partner
  const group = list => { const m = new Map(); for (const x of list) m.set(key(x), [...m.get(key(x)) ?? [], x]); return m; };
  const left = group(a), right = group(b), pairs = [];
  for (const k of new Set([...left.keys(), ...right.keys()])) {
    const x = left.get(k) ?? [], y = right.get(k) ?? [];
    for (let i = 0; i < Math.max(x.length, y.length); i++) pairs.push([x[i] ?? null, y[i] ?? null]);
  }
  return pairs;
}

// Two tables as one: columns of both by name; rows by the leading columns that hold words, or by place where those do not tell rows apart.
export function mergeTables(a, b) {
  const columns = [...new Set([...a.columns, ...b.columns])], at = t => columns.map(c => t.columns.indexOf(c)), [ia, ib] = [at(a), at(b)];
  if (new Set(a.columns).size !== a.columns.length || new Set(b.columns).size !== b.columns.length)
    return a.columns.length === b.columns.length && same(a.columns, b.columns) ? joinRows(a.columns, a.rows, b.rows, 0) : null;
  const wide = (t, i) => t.rows.map(r => i.map(k => k < 0 ? undefined : r[k]));
  const rows = [wide(a, ia), wide(b, ib)], wordy = k => rows.some(rs => rs.some(r => r[k] && number(r[k]) === null)) && rows.every(rs => rs.every(r => r[k] !== undefined));
  const count = k => rows.every(rs => rs.every((r, i) => r[k] === String(i)));                      // a plain row number names no row
  if (columns[0] === "" && columns.length > 1 && count(0)) return mergeTables({ columns: a.columns.slice(1), rows: a.rows.map(r => r.slice(1)) }, { columns: b.columns.slice(1), rows: b.rows.map(r => r.slice(1)) });
  const told = k => rows.every(rs => distinct(rs, k));
  let keys = 0; while (keys < columns.length && !told(keys) && (wordy(keys) || integers(rows, keys))) keys++;
  return { ...joinRows(columns, ...rows, told(keys) ? keys : 0), only: columns.map((_, k) => ia[k] < 0 ? "b" : ib[k] < 0 ? "a" : "") };
}
const keyOf = (r, keys) => JSON.stringify(r.slice(0, keys));
const distinct = (rows, keys) => keys > 0 && new Set(rows.map(r => keyOf(r, keys))).size === rows.length;
const integers = (rows, k) => rows.every(rs => rs.every(r => /^-?\d+$/.test(r[k] ?? "")));
function joinRows(columns, a, b, keys) {
  const pairs = keys ? (() => {
    const other = new Map(b.map(r => [keyOf(r, keys), r])), seen = new Set(a.map(r => keyOf(r, keys)));
    return [...a.map(r => [r, other.get(keyOf(r, keys))]), ...b.filter(r => !seen.has(keyOf(r, keys))).map(r => [undefined, r])];
  })() : Array.from({ length: Math.max(a.length, b.length) }, (_, i) => [a[i], b[i]]);
  const rows = pairs.map(([x, y]) => ({ only: !x ? "b" : !y ? "a" : "", cells: columns.map((_, k) => {
    const p = x?.[k], q = y?.[k];
    return { a: p, b: q, differs: !!x && !!y && p !== q && (change(p, q)?.by !== 0), change: x && y && p !== q ? change(p, q) : null };
  }) }));
  return { columns, keys, rows, only: columns.map(() => ""), changed: rows.filter(r => r.only || r.cells.some(c => c.differs)).length };
}

// b - a of two heatmaps of one shape with the same rows and columns; null where they do not fit.
export function subtract(a, b) {
  const z = f => f?.data?.length === 1 && f.data[0].type === "heatmap" ? grid(f.data[0].z) : null, p = z(a), q = z(b);
  if (!p || !q || p.length !== q.length || p.some((r, i) => r.length !== q[i].length)) return null;
  return p.map((r, i) => r.map((v, j) => v === null || q[i][j] === null ? null : q[i][j] - v));
}
const TYPES = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array };
export function grid(z) {                                                // rows of numbers; NaN and what is no number as null
  const clean = v => typeof v === "number" && Number.isFinite(v) ? v : null;
  if (Array.isArray(z)) return z.every(Array.isArray) ? z.map(r => r.map(clean)) : null;
  if (!z?.bdata || !TYPES[z.dtype]) return null;
  const [n, m] = String(z.shape).split(",").map(Number), flat = new TYPES[z.dtype](Uint8Array.from(atob(z.bdata), c => c.charCodeAt(0)).buffer);
  return Array.from({ length: n }, (_, i) => Array.from(flat.subarray(i * m, (i + 1) * m), clean));
}
