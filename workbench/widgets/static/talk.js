// Pure parts of the dialogue simulator: which cards are built, where a line breaks, which run lies under the pointer, round marks of an axis.

export function cardsAbout(n, at, most = 30) {            // [from, to) of at most `most` of n cards, the one at `at` among them
  const from = Math.max(0, Math.min(n - most, at - Math.floor(most / 2)));
  return [from, Math.min(n, from + most)];
}
export function stretches(values) {                       // [[from, to]] of values that follow each other: no line goes across what is missing
  const out = []; let from = -1;
  values.forEach((v, i) => { const there = v != null && v === v; if (there && from < 0) from = i; if (!there && from >= 0) { out.push([from, i - 1]); from = -1; } });
  if (from >= 0) out.push([from, values.length - 1]);
  return out;
}
export function atTurn(values, x) {                       // value between two neighbouring turns; null where one of them is missing
  const i = Math.floor(x), a = values[i], b = values[Math.min(values.length - 1, i + 1)];
  return a == null || (x > i && b == null) ? null : a + (x - i) * ((x > i ? b : a) - a);
}
export function nearestRun(rows, x, y, reach) {           // index of the row that passes nearest to a point, none farther than `reach`; -1
  let best = -1, least = reach;
  rows.forEach((row, i) => { const v = atTurn(row, Math.max(0, Math.min(row.length - 1, x))); if (v != null && Math.abs(v - y) < least) { least = Math.abs(v - y); best = i; } });
  return best;
}
export function roundMarks(low, high, most = 4) {         // round numbers of an axis
  const raw = (high - low) / most || 1, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map(m => m * unit).find(s => s >= raw * .999), out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) out.push(+(i * step).toPrecision(6));
  return out.length < 2 && most < 32 ? roundMarks(low, high, 2 * most) : out;
}
export const wordsOf = source => source.replaceAll("_", " ");
export const listOf = (values, n) => Array.from({ length: n }, (_, i) => values[i] ?? null);   // {turn: value} as a row
export function lanes(branches) {                         // a row for each branch, below the one it left and later departures first: no line crosses another
  const out = [], names = new Set(branches.map(b => b.branch)), put = (b, depth, up) => {
    if (out.some(x => x.branch === b.branch)) return; const row = out.push({ ...b, depth, up }) - 1;
    for (const c of branches.filter(c => c.at != null && c.of === b.branch && c.branch !== b.branch).sort((c, d) => d.at - c.at)) put(c, depth + 1, row);
  };
  for (const b of branches) if (b.at == null || !names.has(b.of)) put(b, 0, null);
  return out;
}
export const clock = s => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
export const byWeight = rows => rows.filter(r => r.change != null).sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
