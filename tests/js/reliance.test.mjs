// Scores of the reliance quiz, beside those that Python made (path in FIXTURE).
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { marked, scores } from "../../workbench/widgets/static/reliance.js";

const { items, runs } = JSON.parse(readFileSync(process.env.FIXTURE));

test("scores are Python's, a share of nothing is null", () => {
  for (const { answers, table } of runs) {
    const got = scores(items, answers); assert.deepEqual(Object.keys(got), Object.keys(table));
    for (const kind in table) for (const name in got[kind]) { const a = got[kind][name], b = table[kind][name]; assert.ok(a === b || Math.abs(a - b) < 1e-12, `${kind} ${name}: ${a} ${b}`); }
  }
});
test("five words are marked, by size, with their sign", () => {
  assert.deepEqual(marked([["a", 1], ["b", -2], ["c", .1], ["d", 3], ["e", -.2], ["f", .05], ["g", .3]]), [1, -1, 0, 1, -1, 0, 1]); assert.deepEqual(marked([["a", 0]]), [0]);
});
