// Pure parts of the dialogue simulator, on beliefs that Python made (path in FIXTURE).
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as t from "../../workbench/widgets/static/talk.js";

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
