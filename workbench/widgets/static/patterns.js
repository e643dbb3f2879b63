// What an attention matrix is shown as: heads put together, without the sink, the top of its mass, and what one entry is in its row.

export function combine(all, how) {
  if (how === "rollout" || all.length < 2) return all[0];
  const out = Float32Array.from(all[0]), n = all.length;
  for (const m of all.slice(1)) for (let i = 0; i < out.length; i++) out[i] = how === "max" ? (m[i] > out[i] || m[i] !== m[i] ? m[i] : out[i]) : how === "product" ? out[i] * m[i] : out[i] + m[i];
  if (how === "mean") for (let i = 0; i < out.length; i++) out[i] /= n;
  return out;
}

export function withoutSink(m, rows, cols, share) {       // key 0 leaves; rows that are shares sum to 1 again
  const out = Float32Array.from(m);
  for (let q = 0; q < rows; q++) {
    const a = q * cols; let rest = 0;
    out[a] = 0;
    if (share) for (let k = 1; k < cols; k++) rest += m[a + k];
    if (rest > 0) for (let k = 1; k < cols; k++) out[a + k] = m[a + k] / rest;
  }
  return out;
}

export function topP(m, rows, cols, p) {                  // per row the fewest entries that hold p of its mass; the rest is 0
  if (p >= 1) return m;
  const out = new Float32Array(m.length);
  for (let q = 0; q < rows; q++) {
    const row = m.subarray(q * cols, q * cols + cols); row.forEach((v, k) => { if (v !== v) out[q * cols + k] = v; });
    const order = [...row.keys()].filter(k => row[k] && row[k] === row[k]).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]));
    let sum = 0; for (const k of order) sum += Math.abs(row[k]);
    let held = 0; for (const k of order) { if (held >= p * sum - 1e-9) break; held += Math.abs(row[k]); out[q * cols + k] = row[k]; }
  }
  return out;
}

export function rowFacts(m, rows, cols, q, k) {           // rank of entry k in row q (1 is largest), entries that are not zero, entropy in nats of |row| normalised
  let rank = 1, sum = 0, s = 0, n = 0; const v = Math.abs(m[q * cols + k]);
  for (let j = 0; j < cols; j++) { const a = Math.abs(m[q * cols + j]); if (a > v) rank++; if (a > 0) { n++; sum += a; s += a * Math.log(a); } }
  return { rank, of: n, entropy: sum ? Math.log(sum) - s / sum : 0 };
}
