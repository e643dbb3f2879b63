// Pure parts of the society view: which steps are drawn, in what order rows stand, which colour a share has.

export function evenly(n, most) {                         // at most `most` of n indices, the first and the last among them
  return n <= most ? Array.from({ length: n }, (_, i) => i) : Array.from({ length: most }, (_, i) => Math.round(i * (n - 1) / (most - 1)));
}
export function rowOrder({ rows, cols, share }, by) {     // agents by their last or first value, lowest first, those without one at the end; equal ones as given
  const all = Array.from({ length: rows }, (_, i) => i), at = by === "first" ? 0 : cols - 1; if (by === "given") return all;
  const key = i => { const v = share[i * cols + at]; return v === v ? v : Infinity; };
  return all.sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b)) || a - b);
}
export const levelOf = t => Math.max(0, Math.min(255, Math.round(255 * t)));
