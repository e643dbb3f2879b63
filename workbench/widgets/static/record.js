// Pure parts of the feature browser: which rows are in sight, how a context is cut into runs, where a value lies among a feature's activations.

export function inSight(scroll, height, row, count, extra = 1) {   // [from, to) of the rows that are built
  const from = Math.max(0, Math.floor(scroll / row) - extra), to = Math.min(count, Math.ceil((scroll + height) / row) + extra);
  return [Math.min(from, count), Math.max(Math.min(from, count), to)];
}
export function scrollTo(at, scroll, height, row) {       // the least scrolling that brings a row into sight
  return at * row < scroll ? at * row : (at + 1) * row > scroll + height ? (at + 1) * row - height : scroll;
}
export function runs(tokens, values, special = [], at = -1) {      // neighbours on which a feature is silent become one run; what fires, a special token and the peak stand alone
  const out = [];
  tokens.forEach((text, i) => {
    const value = values?.[i] ?? null, lone = value !== null && value !== 0 || special.includes(i) || i === at, last = out.at(-1);
    if (!lone && last && !last.lone) last.texts.push(text);
    else out.push({ texts: [text], from: i, value: value, lone, special: special.includes(i), peak: i === at });
  });
  return out;
}
export function bandOf(value, edges) {                    // 1 for the weakest group; 0 below them all
  if (!edges?.length || !(value >= edges[0])) return 0;
  let b = 1; while (b < edges.length - 1 && value >= edges[b]) b++;
  return b;
}
export function shareBelow(value, histogram) {            // of the activations above 0, the share that lies below a value
  const { edges, counts } = histogram, all = counts.reduce((a, c) => a + c, 0); let n = 0;
  for (let i = 0; i < counts.length; i++) n += counts[i] * Math.min(1, Math.max(0, (value - edges[i]) / (edges[i + 1] - edges[i] || 1)));
  return all ? n / all : NaN;
}
export const logPlace = (density, low = -6) => density > 0 ? Math.min(1, Math.max(0, 1 - Math.log10(density) / low)) : null;   // 0 at 10^low, 1 at 1
export function warning({ density, fired, n }) {          // what must be said before anything is read into a feature
  if (density == null) return null;
  if (density === 0) return ["dead", `never fired in the ${n.toLocaleString("en")} tokens seen`];
  if (density > .1) return ["dense", `fires at ${percent(density)} of all tokens: most texts contain it`];
  return fired < 10 ? ["rare", `fired ${fired === 1 ? "once" : `${fired} times`} in the tokens seen: too few to say what it means`] : null;
}
export function percent(x) { const p = 100 * x; return `${p >= 9.95 ? p.toFixed(0) : p >= .0995 ? p.toPrecision(2) : p.toExponential(1)} %`; }
export function groups(examples, bands, each) {           // [[name, contexts]]: the strongest, quantile groups from strong to weak, random controls, at most `each` of every group
  const some = b => examples.filter(e => e.band === b), order = [0, ...Array.from({ length: bands }, (_, i) => bands - i), -1];
  return order.map(b => [b === 0 ? "strongest" : b < 0 ? "silent" : `group ${b} of ${bands}`, some(b).slice(0, each), some(b).length, b]).filter(g => g[2]);
}
export function chosenRows(rows, words, sort, descending) {        // a page without a kernel: which of its rows, in which order
  const said = i => `${rows.feature[i]} ${rows.label[i]} ${rows.tokens[i].join(" ")}`.toLowerCase(), list = words.toLowerCase().split(/\s+/).filter(Boolean);
  const all = rows.feature.map((_, i) => i).filter(i => list.every(w => said(i).includes(w))), by = rows[sort]; if (!by) return all;
  const gap = v => v == null || v === "";
  return all.sort((a, b) => gap(by[a]) - gap(by[b]) || (by[a] < by[b] ? -1 : by[a] > by[b] ? 1 : 0) * (descending ? -1 : 1) || a - b);
}
