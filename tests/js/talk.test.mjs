// Pure parts of the dialogue simulator, on beliefs that Python made (path in FIXTURE).
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as t from "../../workbench/widgets/static/talk.js";
import * as c from "../../workbench/widgets/static/crowd.js";

const said = JSON.parse(readFileSync(process.env.FIXTURE)).panel;

test("a dialogue of any length builds a few cards, the open one among them", () => {
  for (const n of [0, 1, 8, 30, 31, 201]) for (let at = 0; at < n; at++) { const [a, b] = t.cardsAbout(n, at); assert.ok(a <= at && at < b && b - a === Math.min(30, n) && a >= 0 && b <= n); }
});
test("a line covers what is there and never what is missing", () => {
  assert.deepEqual(t.stretches([null, 1, 2, null, 3, NaN, undefined, 0]), [[1, 2], [4, 4], [7, 7]]); assert.deepEqual(t.stretches([]), []); assert.deepEqual(t.stretches([null]), []);
  for (const p of said) for (const part of p.parts) for (const s of part.sources) for (const row of s.values) { const on = new Set(t.stretches(row).flatMap(([a, b]) => Array.from({ length: b - a + 1 }, (_, i) => a + i))); row.forEach((v, i) => assert.equal(on.has(i), v != null)); }
});
test("the nearest run is the one under the pointer", () => {
  const rows = said[0].parts[0].sources[0].values; rows.forEach((row, i) => { const k = t.nearestRun(rows, 4, row[4], .01); assert.ok(k >= 0 && rows[k][4] === row[4]); });
  assert.equal(t.nearestRun(rows, 4, 5, .01), -1); assert.equal(t.nearestRun([[0, null, 1]], 1.5, .5, 1), -1); assert.equal(t.nearestRun([[0, 1]], .5, .52, .05), 0);
});
test("marks are round and inside", () => {
  assert.deepEqual(t.roundMarks(0, 1), [0, .5, 1]); assert.deepEqual(t.roundMarks(1, 5, 4), [1, 2, 3, 4, 5]);
  for (const [a, b] of [[-.03, .041], [0, 1e-9], [2, 900]]) { const m = t.roundMarks(a, b); assert.ok(m.length >= 2 && m.length <= 11 && m.every(v => v >= a - 1e-9 && v <= b + 1e-9)); }
});
test("values by turn become a row", () => { assert.deepEqual(t.listOf({ 0: .5, 2: 1 }, 4), [.5, null, 1, null]); assert.equal(t.wordsOf("model_logit"), "model logit"); });
test("each branch has a row, its parent's above it, and no line crosses a row between", () => {
  const made = [{ branch: "main", at: null, of: null, said: 8 }]; let seed = 1; const draw = n => (seed = seed * 48271 % 2147483647) % n;
  for (let i = 0; i < 20; i++) { const p = made[draw(made.length)], from = p.at ?? 0; made.push({ branch: `b${i}`, of: p.branch, at: from + draw(8 - from), said: 8 }); }
  const rows = t.lanes(made); assert.equal(rows.length, 21); assert.deepEqual(new Set(rows.map(r => r.branch)).size, 21);
  rows.forEach((r, i) => { if (r.up == null) return assert.equal(i, 0); assert.equal(rows[r.up].branch, r.of); assert.ok(r.up < i && r.depth === rows[r.up].depth + 1); for (let k = r.up + 1; k < i; k++) assert.ok(rows[k].at >= r.at, "a row that the line down to this one passes begins later, so it is not crossed"); });
  assert.equal(t.lanes([{ branch: "x", at: 2, of: "gone", said: 3 }])[0].up, null);
});
test("turns are ranked by size, those that could not be told left out", () => { assert.deepEqual(t.byWeight([{ change: .1 }, { change: null }, { change: -.4 }, { change: 0 }]).map(r => r.change), [-.4, .1, 0]); assert.equal(t.clock(0), "0:00"); assert.equal(t.clock(125.9), "2:05"); });
test("steps that are drawn hold both ends, and rows stand by value", () => {
  for (const n of [1, 6, 7, 8, 500]) { const e = c.evenly(n, 7); assert.ok(e.length === Math.min(n, 7) && e[0] === 0 && e.at(-1) === n - 1 && new Set(e).size === e.length); }
  const x = { rows: 4, cols: 2, share: Float32Array.from([.5, .2, .1, .9, .3, NaN, .7, .2]) }; assert.deepEqual(c.rowOrder(x, "last"), [0, 3, 1, 2]); assert.deepEqual(c.rowOrder(x, "first"), [1, 2, 0, 3]); assert.deepEqual(c.rowOrder(x, "given"), [0, 1, 2, 3]); assert.deepEqual([-1, 0, .5, 2].map(c.levelOf), [0, 0, 128, 255]);
});
