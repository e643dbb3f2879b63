// Pure parts of the front end against values written by Python (path in FIXTURE): packed arrays, colours, tokens. And geometry by itself.
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as plain from "../../workbench/widgets/static/core.js";
import * as patterns from "../../workbench/widgets/static/patterns.js";

const core = { ...plain, ...patterns };
const said = JSON.parse(readFileSync(process.env.FIXTURE));
const near = (a, b, by = 1e-5) => assert.ok(Math.abs(a - b) <= by || (a !== a && b === null), `${a} is not ${b}`);

const floats = rows => Float32Array.from(rows.flat(), v => v ?? NaN);

test("chunks open to the values Python packed", () => {
  for (const { meta, data, values } of said.chunks) {
    const raw = Buffer.from(data, "base64"), shifted = new Uint8Array(raw.length + 3); shifted.set(raw, 3);   // a view that does not begin where its buffer does
    const chunk = core.open(meta, new DataView(shifted.buffer, 3));
    values.forEach((head, i) => { const m = chunk.head(i); head.flat().forEach((v, n) => near(m[n], v, 2e-4 * (1 + Math.abs(v ?? 0)))); });
  }
});
test("triangle index", () => {
  const chunk = { tri: true, rows: 5, cols: 5 }; let at = 0;
  for (let q = 0; q < 5; q++) { assert.equal(core.rowStart(chunk, q), at); at += core.rowLength(chunk, q); }
  assert.equal(core.cells(chunk), at);
});
test("half floats", () => {
  const u16 = new Uint16Array([0x3c00, 0xc000, 0x0001, 0x7c00, 0x7e00, 0]), f = core.halves(u16.buffer);
  assert.deepEqual([...f].slice(0, 4), [1, -2, 2 ** -24, Infinity].map(Math.fround)); assert.ok(Number.isNaN(f[4])); assert.equal(f[5], 0);
});
test("colours are Python's", () => { for (const { dark, signed, hue, colours } of said.ramps) core.ramp(dark, signed, hue).forEach((c, i) => c.forEach((v, j) => near(v, colours[i][j], 1))); });
test("shades are Python's", () => { for (const { values, top, how, signed, index } of said.shades) { const s = core.shader(Float32Array.from(values), top, how, signed); values.forEach((v, i) => near(s(v), index[i], 1)); } });
test("tokens are shown as Python shows them", () => { for (const [text, shown] of said.tokens) assert.equal(core.displayToken(text), shown); });
test("aggregates, sink and top-p are the attention room's", () => {
  for (const { how, heads, out } of said.combined) core.combine(heads.map(h => floats(h)), how).forEach((v, i) => near(v, out.flat()[i]));
  floats(said.odd.kept).forEach((v, i) => near(core.topP(floats(said.odd.m), 9, 9, .6)[i], v !== v ? null : v));
  const { m, sink, kept, p } = said.cut, rows = m.length, cols = m[0].length, flat = Float32Array.from(m.flat());
  core.withoutSink(flat, rows, cols, true).forEach((v, i) => i % cols ? near(v, sink[Math.floor(i / cols)][i % cols - 1]) : assert.equal(v, 0));
  core.topP(flat, rows, cols, p).forEach((v, i) => near(v, kept.flat()[i]));
});
test("row facts", () => {
  const f = core.rowFacts(Float32Array.from([.5, .25, .25, 0]), 1, 4, 0, 1);
  assert.equal(f.rank, 2); assert.equal(f.of, 3); near(f.entropy, 1.5 * Math.log(2));
});
test("pooling keeps the largest, its sign, and what is not a number", () => {
  const eye = new Float32Array(64 * 64); for (let i = 0; i < 64; i++) eye[65 * i] = -1;
  const small = core.pool(eye, 64, 64, [0, 0, 64, 64], 8, 8); for (let i = 0; i < 8; i++) assert.equal(small[9 * i], -1);
  eye[0] = NaN; assert.ok(Number.isNaN(core.pool(eye, 64, 64, [0, 0, 64, 64], 8, 8)[0]));
  assert.equal(core.pool(Float32Array.from([1, 2, 3, 4]), 2, 2, [0, 0, 2, 2], 4, 4)[15], 4);
});
test("hit, zoom and ticks", () => {
  const plot = { x: 50, y: 10, w: 100, h: 100 };
  assert.deepEqual(core.hit(55, 105, plot, [0, 0, 10, 10]), [9, 0]); assert.equal(core.hit(40, 20, plot, [0, 0, 10, 10]), null); assert.deepEqual(core.hit(50, 10, plot, [4, 2, 9, 7]), [2, 4]);
  const box = core.zoom([0, 0, 100, 100], 100, 100, .5, [99, 0]); assert.deepEqual(box.map(Math.round), [0, 50, 50, 100]);
  assert.deepEqual(core.zoom(box, 100, 100, 1000, [50, 50]), [0, 0, 100, 100]); const close = core.zoom([0, 0, 100, 100], 100, 100, .0001, [5, 5]); near(close[2] - close[0], 8);
  assert.deepEqual(core.ticks(0, 1024, 12), [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]); assert.deepEqual(core.ticks(3, 7, 10), [3, 4, 5, 6]);
});
test("numbers say what they are", () => { assert.equal(core.number(NaN), "not a number"); assert.equal(core.number(.41234), "0.412"); assert.equal(core.number(0), "0"); assert.equal(core.number(1e-6), "1.0e-6"); });
