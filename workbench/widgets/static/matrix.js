// What every drawn matrix shares: colours, cells, marks, axes, the small map, the colour bar, arrows, and a table of next tokens.
import { displayToken, luminance, pool, ramp } from "./core.js";
import { h, picture, sharp } from "./dom.js";

export const LOCK_HUES = ["blue", "orange", "purple"];
export const rgb = c => `rgb(${c})`;
export function palette(root, dark) {                     // colours of a theme: ramps for cells, `css` for lines and words
  root.dataset.theme = dark ? "dark" : "light";
  const c = getComputedStyle(root), clear = /^$|^transparent$|^rgba\(.*, 0\)$/.test(c.backgroundColor);   // nothing is known of a root that is not in the page yet
  return { inks: { one: ramp(dark, false), two: ramp(dark, true), locks: LOCK_HUES.map(hue => ramp(dark, false, hue)) },
    css: { known: root.isConnected, ink: c.color || (dark ? "#ddd" : "#222"), soft: dark ? "#aaa" : "#555", ground: dark ? "#191919" : "#ededed", paper: dark ? "#222" : "#fff", page: clear ? (dark ? "#111" : "#fff") : c.backgroundColor, accent: dark ? "#ffb454" : "#c2410c", font: c.fontFamily || "sans-serif" } };
}

// --- cells -----------------------------------------------------------------------------------------------------------
export const cellInk = (v, s, paint) => v !== v ? [255, 0, 255] : paint[s(v)];
export const drawing = (m, w, height, tri, s, paint) => picture(w, height, i => tri && i % w > Math.floor(i / w) ? null : cellInk(m[i], s, paint));   // a square of pixels whose diagonal is the matrix's
export function cross(g, x, y, w, height, ground) {       // no value
  g.fillStyle = ground; g.fillRect(x, y, w, height); g.strokeStyle = "#d0f"; g.lineWidth = 1.5;
  g.beginPath(); g.moveTo(x + 2, y + 2); g.lineTo(x + w - 2, y + height - 2); g.moveTo(x + w - 2, y + 2); g.lineTo(x + 2, y + height - 2); g.stroke();
}
export function beyond(g, x, y, v, paint) {               // past the end of the scale: + or - about a point
  g.fillStyle = luminance(paint[v < 0 ? 0 : 255]) > .5 ? "#000" : "#fff"; g.textAlign = "center"; g.textBaseline = "middle"; g.fillText(v < 0 ? "−" : "+", x, y);
}

// --- axes: `area` = {x, y, w, h} in pixels shows `box` = [k0, q0, k1, q1] of the matrix; text(i) names a row or column, `on` is lit ---
export function rowLabels(g, area, box, at, text, on, css) {
  const size = area.h / (box[3] - box[1]);
  g.textAlign = "right"; g.textBaseline = "middle";
  for (const i of at) { g.fillStyle = i === on ? css.accent : css.soft; g.fillText(text(i), area.x - 4, area.y + (i - box[1]) * size + Math.max(size, 1) / 2); }
}
export function columnLabels(g, area, box, at, text, on, css, y = area.y + area.h + 4, upright = false) {
  const size = area.w / (box[2] - box[0]);
  for (const i of at) {
    g.save(); g.fillStyle = i === on ? css.accent : css.soft; g.translate(area.x + (i - box[0]) * size + Math.max(size, 1) / 2, y);
    if (upright) { g.textAlign = "center"; g.textBaseline = "top"; } else { g.textAlign = "right"; g.textBaseline = "middle"; g.rotate(-Math.PI / 2); }
    g.fillText(text(i), 0, 0); g.restore();
  }
}
export function smallMap(g, area, box, rows, cols, draw, css) {   // the whole matrix in the corner of a part of it; draw(w, h) -> picture
  const z = 96 / Math.max(rows, cols), w = cols * z, height = rows * z, x = area.x + area.w - w - 3, y = area.y + 3;
  g.fillStyle = css.paper; g.fillRect(x - 1, y - 1, w + 2, height + 2); g.drawImage(draw(Math.ceil(w), Math.ceil(height)), x, y, w, height); g.strokeStyle = css.soft; g.lineWidth = 1; g.strokeRect(x - 1, y - 1, w + 2, height + 2);
  g.strokeStyle = css.accent; g.lineWidth = 2; g.strokeRect(x + box[0] * z, y + box[1] * z, (box[2] - box[0]) * z, (box[3] - box[1]) * z);
}
export const whole = (m, rows, cols, w, height, tri, s, paint) => drawing(pool(m, rows, cols, [0, 0, cols, rows], w, height), w, height, tri, s, paint);
export function colourBar(canvas, paint, w = 128) {       // from one end of the scale to the other
  const g = sharp(canvas, w, 12);
  for (let i = 0; i < w; i++) { g.fillStyle = rgb(paint[Math.min(255, Math.round(i * 256 / w))]); g.fillRect(i, 0, 1, 12); }
  return g;
}

// --- hands -----------------------------------------------------------------------------------------------------------
export const arrow = (e, far = 1) => ({ ArrowLeft: [0, -far], ArrowRight: [0, far], ArrowUp: [-far, 0], ArrowDown: [far, 0] })[e.key];   // [rows down, columns right]
export function pointAt(canvas, e, width) { const r = canvas.getBoundingClientRect(), z = r.width / width || 1; return [(e.clientX - r.left) / z, (e.clientY - r.top) / z]; }

// --- what comes next: rows [token, probability, probability, ..., more cells as text] -----------------------------------
export function nextTokens(title, heads, rows, wide = 60) {
  const bar = p => { const b = h("span", { className: "wb-bar-mark" }); b.style.width = `${Math.round(wide * p)}px`; return b; };
  const cell = p => p == null ? h("td", { className: "n", text: "" }) : typeof p === "string" ? h("td", { className: "n", text: p }) : h("td", { className: "n" }, bar(p), p.toFixed(3));
  return h("table", {}, h("caption", { className: "wb-note", text: title }), h("tr", {}, ...heads.map(text => h("th", { text }))), ...rows.map(([tok, ...ps]) => h("tr", {}, h("td", {}, h("bdi", { className: "wb-token", text: displayToken(tok) })), ...ps.map(cell))));
}
