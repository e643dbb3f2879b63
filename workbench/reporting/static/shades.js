// Colour scales on a dark page. A scale that fades to white would glare there: it fades to the ground instead, and its strong end is bright.
const DARK = { sequential: ["ground", "#1f5a96", "#6fb1f0", "#d3e9ff"], diverging: ["#ffc4a8", "#d9653b", "ground", "#3b82c8", "#bfe0ff"] };
const REVERSED = [...DARK.diverging].reverse();
const rgb = entry => (entry?.[1] ?? "").match(/^#[0-9a-f]{6}$/i) ? entry[1].slice(1).match(/../g).map(x => parseInt(x, 16)) : /^rgb/.test(entry?.[1] ?? "") ? entry[1].match(/[\d.]+/g).map(Number) : [];
const white = entry => { const c = rgb(entry); return c.length >= 3 && Math.min(...c.slice(0, 3)) > 225; };
export function darkened(trace, ground) {
  for (const holder of [trace, trace.marker ?? {}]) {
    const scale = holder.colorscale;
    if (!Array.isArray(scale)) continue;
    const kind = white(scale[0]) ? DARK.sequential : white(scale[Math.floor(scale.length / 2)]) ? (rgb(scale[0])[2] > rgb(scale[0])[0] ? REVERSED : DARK.diverging) : null;
    if (kind) holder.colorscale = kind.map((c, i, all) => [i / (all.length - 1), c === "ground" ? ground : c]);
  }
  return trace;
}
