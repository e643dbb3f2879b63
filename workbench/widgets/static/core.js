// What every widget needs and no document: packed arrays, colours, tokens, geometry. Pure functions, tested in node.

// --- packed arrays: one code for each value, a scale for each head ---------------------------------------------------
export const NAN_CODE = 255, TOP_CODE = 254, MIDDLE = 127;

export const bytes = v => v instanceof ArrayBuffer ? new Uint8Array(v) : new Uint8Array(v.buffer, v.byteOffset, v.byteLength);

export function halves(view) {                            // float16 -> Float32Array
  const u8 = bytes(view), v = new DataView(u8.buffer, u8.byteOffset, u8.byteLength), out = new Float32Array(u8.length / 2);
  for (let i = 0; i < out.length; i++) {
    const h = v.getUint16(2 * i, true), e = h >> 10 & 31, m = h & 1023, s = h >> 15 ? -1 : 1;
    out[i] = e === 31 ? (m ? NaN : s * Infinity) : s * (e ? 2 ** (e - 15) * (1 + m / 1024) : 2 ** -14 * m / 1024);
  }
  return out;
}

function levels(scale, signed) {                          // code -> value
  const out = new Float32Array(256).fill(NaN);
  for (let c = 0; c <= TOP_CODE; c++) {
    const t = signed ? (c - MIDDLE) / MIDDLE : c / TOP_CODE;
    out[c] = scale * t * Math.abs(t);
  }
  return out;
}

export const rowStart = (chunk, q) => chunk.tri ? q * (q + 1) / 2 : q * chunk.cols;
export const rowLength = (chunk, q) => chunk.tri ? q + 1 : chunk.cols;
export const cells = chunk => chunk.tri ? chunk.rows * (chunk.rows + 1) / 2 : chunk.rows * chunk.cols;

export function open(meta, view) {                        // a chunk: {heads, rows, cols, tri, signed, scale, head(i) -> dense Float32Array}
  const chunk = { ...meta }, size = cells(chunk), data = meta.code === "f16" ? halves(view) : bytes(view);   // "raw" bytes mean themselves
  chunk.head = i => {
    const out = new Float32Array(chunk.rows * chunk.cols), look = meta.code === "u8" ? levels(chunk.scale[i], chunk.signed) : null;
    for (let q = 0; q < chunk.rows; q++)
      for (let k = 0, n = rowLength(chunk, q), from = i * size + rowStart(chunk, q), to = q * chunk.cols; k < n; k++) out[to + k] = look ? look[data[from + k]] : data[from + k];
    return out;
  };
  chunk.value = (i, q, k) => { const j = i * size + rowStart(chunk, q) + k; return meta.code === "u8" ? levels(chunk.scale[i], chunk.signed)[data[j]] : data[j]; };
  return chunk;
}

// --- matrices: plain arrays of rows x cols ------------------------------------------------------------------------------
export function largest(m) { let top = 0; for (const v of m) { const a = Math.abs(v); if (a > top && a < Infinity) top = a; } return top; }

export function pool(m, rows, cols, box, w, h) {          // largest size in each of w x h pixels of box = [k0, q0, k1, q1]; a mean would hide single strong cells
  const out = new Float32Array(w * h), [k0, q0, k1, q1] = box, sx = (k1 - k0) / w, sy = (q1 - q0) / h;
  for (let y = 0; y < h; y++) {
    const a = Math.floor(q0 + y * sy), b = Math.max(a + 1, Math.min(rows, Math.ceil(q0 + (y + 1) * sy - 1e-9)));
    for (let x = 0; x < w; x++) {
      const c = Math.floor(k0 + x * sx), d = Math.max(c + 1, Math.min(cols, Math.ceil(k0 + (x + 1) * sx - 1e-9)));
      let best = 0;
      for (let q = a; q < b; q++) for (let k = c; k < d; k++) { const v = m[q * cols + k]; if (v !== v) { best = v; q = b; break; } if (Math.abs(v) > Math.abs(best)) best = v; }
      out[y * w + x] = best;
    }
  }
  return out;
}

// --- colours: one hue from the ground up, or blue - ground - orange, even steps in OKLCH -----------------------------
function oklch(l, c, hue) {
  const a = c * Math.cos(hue), b = c * Math.sin(hue), cube = x => x * x * x;
  const L = cube(l + .3963377774 * a + .2158037573 * b), M = cube(l - .1055613458 * a - .0638541728 * b), S = cube(l - .0894841775 * a - 1.291485548 * b);
  return [4.0767416621 * L - 3.3077115913 * M + .2309699292 * S, -1.2684380046 * L + 2.6097574011 * M - .3413193965 * S, -.0041960863 * L - .7034186147 * M + 1.707614701 * S]
    .map(x => Math.round(255 * Math.min(1, Math.max(0, x <= .0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - .055))));
}
export const HUES = { blue: 4.5, orange: 1.05, purple: 5.5 };
export function ramp(dark, signed, hue = "blue") {        // 256 colours [r, g, b]
  const one = (t, h) => dark ? oklch(.3 + .6 * t, .12 * Math.sin(Math.PI * Math.min(1, t * .8)), h) : oklch(.985 - .6 * t, .15 * Math.sin(Math.PI * Math.min(1, t * .65)), h);
  return Array.from({ length: 256 }, (_, i) => signed ? one(Math.abs(i - 127.5) / 127.5, i < 127.5 ? HUES.blue : HUES.orange) : one(i / 255, HUES[hue]));
}
export const luminance = ([r, g, b]) => (.2126 * r + .7152 * g + .0722 * b) / 255;

export function shader(m, top, how, signed) {             // value -> index of a colour; top is where the scale ends
  if (!top) return () => signed ? 128 : 0;
  let t = v => Math.min(1, v / top);
  if (how === "sqrt") t = v => Math.sqrt(Math.min(1, v / top));
  if (how === "rank") {
    const all = Float32Array.from(m, Math.abs).filter(v => v > 0).sort(), n = all.length;
    t = w => { const v = Math.fround(w); if (!(v > 0)) return 0; let a = 0, b = n; while (a < b) { const c = a + b >> 1; if (all[c] < v) a = c + 1; else b = c; } return Math.min(1, (a + 1) / n); };
  }
  return v => signed ? Math.round(127.5 + Math.sign(v) * 127.5 * t(Math.abs(v))) : Math.round(255 * t(Math.abs(v)));
}

// --- tokens: what a reader must see of a piece of text ---------------------------------------------------------------
const MARKS = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;
export function displayToken(text) {
  if (text === "") return "∅";
  return text.replace(/<0x([0-9A-Fa-f]{2})>/g, (_, b) => `⟨0x${b.toUpperCase()}⟩`).replace(/[ \n\t\r\u00a0]/g, c => MARKS[c]).replaceAll("\ufffd", "⟨?⟩").replace(HIDDEN, c => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
export function shorten(text, n) { const c = [...text]; return c.length > n ? c.slice(0, n - 1).join("") + "…" : text; }

// --- geometry and numbers --------------------------------------------------------------------------------------------
export function ticks(from, to, most) {                   // whole numbers at a round step, at most `most` of them
  let step = 1; for (const s of [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000]) { step = s; if ((to - from) / s <= most) break; }
  const out = []; for (let i = Math.ceil(from / step) * step; i < to; i += step) out.push(i);
  return out;
}
export function hit(x, y, plot, box) {                    // pixel -> [query, key] or null
  const k = Math.floor(box[0] + (x - plot.x) / plot.w * (box[2] - box[0])), q = Math.floor(box[1] + (y - plot.y) / plot.h * (box[3] - box[1]));
  return x < plot.x || y < plot.y || x >= plot.x + plot.w || y >= plot.y + plot.h ? null : [q, k];
}
export function zoom(box, rows, cols, factor, at) {       // the box scaled about a cell, inside the matrix, at least 8 cells wide
  const w = Math.min(cols, Math.max(Math.min(8, cols), (box[2] - box[0]) * factor)), h = Math.min(rows, Math.max(Math.min(8, rows), (box[3] - box[1]) * factor));
  const fx = (at[1] + .5 - box[0]) / (box[2] - box[0]), fy = (at[0] + .5 - box[1]) / (box[3] - box[1]);
  return inside([at[1] + .5 - fx * w, at[0] + .5 - fy * h, at[1] + .5 - fx * w + w, at[0] + .5 - fy * h + h], rows, cols);
}
export function inside(box, rows, cols) {                 // moved, not cut
  const dx = Math.max(0, -box[0]) - Math.max(0, box[2] - cols), dy = Math.max(0, -box[1]) - Math.max(0, box[3] - rows);
  return [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
}
export function number(v) {
  if (v !== v) return "not a number";
  const a = Math.abs(v);
  return a === 0 ? "0" : a < .001 || a >= 1e5 ? v.toExponential(1) : a < 1 ? v.toFixed(3) : v.toPrecision(4);
}
