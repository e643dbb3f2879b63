// What a patch grid needs and no document: what a cell can reach, where facets lie, ends of the scale, regions, the line that runs a cell again.

// --- what is known of a cell (patching_data.py has the same numbers) ----------------------------------------------------
export const COMPUTED = 0, PENDING = 1, UNDEFINED = 2, KNOWN = 3, PREVIEW = 4, NOWHERE = 5;

// --- the causal cone ---------------------------------------------------------------------------------------------------
const STAGE = { resid_pre: 0, q: 1, k: 1, v: 1, scores: 2, pattern: 3, z: 4, result: 5, attn_out: 6, resid_mid: 7, mlp_pre: 8, mlp_post: 9, mlp_out: 10, resid_post: 11 };
const MIXES = ["resid_pre", "k", "v"];                     // read by attention at other positions of the same layer
const ATTENTION = n => n > 0 && n < 7, MLP = n => n > 7 && n < 11;
export function reaches(from, to, { causal = true, parallel = false, groups = 1 } = {}) {   // from, to: {name, layer, pos, unit}, pos null when all are patched together
  const later = from.pos == null || to.pos == null || !causal || to.pos >= from.pos, here = from.pos == null || to.pos == null || to.pos === from.pos;
  const a = STAGE[from.name], b = STAGE[to.name], spread = MIXES.includes(from.name);
  if (to.layer !== from.layer) return to.layer > from.layer && (spread || to.layer > from.layer + 1 || b > 1 && !(parallel && MLP(b)) ? later : here);   // what enters the next layer has not been mixed again
  if (a == null || b == null || b <= a || parallel && ATTENTION(a) && MLP(b) || from.name === "scores" && b < 3) return false;
  if (from.unit != null && to.unit != null && a > 0 && b < 6) {                             // heads of one layer meet in the stream, not before
    const kv = from.name === "k" || from.name === "v";
    if ((kv ? Math.floor(to.unit / groups) : to.unit) !== from.unit) return false;
  }
  return spread && b > 1 && !(parallel && MLP(b)) ? later : here;
}

// --- where facets lie: beside each other while their cells stay readable, else below each other with one axis of tokens ---
export function facetLayout(width, count, rows, cols, { left = 30, gap = 18, head = 18, tall = 520 } = {}) {
  const beside = (width - left - gap * (count - 1)) / count / cols, stacked = count > 1 && (beside < 20 || width < 520);
  const w = Math.min(38, stacked || count === 1 ? (width - left) / cols : beside), across = stacked ? 1 : count;
  const height = Math.max(5, Math.min(26, tall / rows / (stacked ? count : 1)));
  const boxes = Array.from({ length: count }, (_, i) => ({ x: left + (stacked ? 0 : i * (w * cols + gap)), y: head + (stacked ? i * (height * rows + head) : 0), w: w * cols, h: height * rows }));
  return { stacked, across, boxes, cw: w, ch: height, bottom: boxes.at(-1).y + height * rows };
}
export function cellOf(layout, x, y, rows, box) {         // pixel -> [facet, row, column], row or column null on the margins, or null
  for (const [f, b] of layout.boxes.entries()) {
    const col = Math.floor(box[0] + (x - b.x) / b.w * (box[1] - box[0])), row = rows - 1 - Math.floor((y - b.y) / b.h * rows);
    const inX = x >= b.x && x < b.x + b.w, inY = y >= b.y && y < b.y + b.h;
    if (inX && inY) return [f, row, col];
    if (inY && x < b.x && x > b.x - 30) return [f, row, null];
    if (inX && y >= b.y + b.h && (f === layout.boxes.length - 1 || !layout.stacked)) return [f, null, col];
  }
  return null;
}

// --- the colour scale ----------------------------------------------------------------------------------------------------
export function scaleEnd({ clean, corrupt }, values, ends, top) {   // both runs lie on it; what is far beyond gets a sign instead of the colour
  if (top) return top;
  let most = 0; for (const v of values) { const a = Math.abs(v); if (a > most && a < Infinity) most = a; }
  const gap = clean == null || corrupt == null ? 0 : Math.abs(clean - corrupt);
  return ends === "view" || !gap ? most || gap || 1 : Math.max(gap, Math.min(most, 1.5 * gap));
}
export function anchors({ clean, corrupt, base }, shade, difference) {   // [where on the scale, which run]
  if (difference) return [[0, "no difference"]];
  const by = shade === "change" ? base ?? 0 : 0;
  return [[corrupt, "corrupted"], [clean, "clean"]].filter(([v]) => v != null).map(([v, name]) => [v - by, name]);
}

// --- regions: [facet, row, column, row, column] ---------------------------------------------------------------------------
export const ordered = ([f, a, b, c, d]) => [f, Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
export const sizeOf = region => { const [, a, b, c, d] = ordered(region); return (c - a + 1) * (d - b + 1); };
export const isIn = (region, f, row, col) => { const [g, a, b, c, d] = ordered(region); return f === g && row >= a && row <= c && col >= b && col <= d; };
export function cellsIn(region) { const [f, a, b, c, d] = ordered(region), out = []; for (let r = a; r <= c; r++) for (let k = b; k <= d; k++) out.push([f, r, k]); return out; }

const py = v => typeof v === "number" ? String(v) : v === null ? "None" : `'${String(v).replace(/\\/g, "\\\\").replace(/'/g, "\\'")}'`;
export function lineOf(meta, region) {                    // the line of Python; `meta.line` holds its beginnings and ends
  const f = meta.facets[region[0]], unit = meta.axis !== "pos" ? meta.axis : meta.unit_dim, where = cellsIn(region).map(([, r, k]) => {
    const cell = { site: f.site, layer: meta.layers[r] }; if (meta.axis === "pos") { if (f.unit != null) cell[meta.unit_dim] = f.unit; cell.pos = meta.place_labels[k]; } else cell[unit] = meta.place_labels[k]; return cell; });
  return meta.line.replace("CELLS", () => "[" + where.map(c => `dict(${Object.entries(c).map(([k, v]) => `${k}=${py(v)}`).join(", ")})`).join(", ") + "]");
}
