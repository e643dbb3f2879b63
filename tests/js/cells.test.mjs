// Pure parts of the patch grid: what a cell reaches against what really changed in a model (path in FIXTURE), layout, scale, regions, the copied line.
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as cells from "../../workbench/widgets/static/cells.js";
import * as core from "../../workbench/widgets/static/core.js";

const said = JSON.parse(readFileSync(process.env.FIXTURE));

test("a cell reaches what changes when it is changed, and nothing else", () => {
  for (const { model, options, from, changed } of said.reach) for (const [to, moved] of changed)
    assert.equal(cells.reaches(from, to, options), moved, `${model}: ${JSON.stringify(from)} to ${JSON.stringify(to)} ${moved ? "changes" : "does not change"}`);
});
test("facets stand beside each other while cells stay readable", () => {
  const wide = cells.facetLayout(1200, 3, 12, 15), narrow = cells.facetLayout(500, 3, 12, 15), deep = cells.facetLayout(1200, 3, 32, 256);
  assert.equal(wide.stacked, false); assert.equal(narrow.stacked, true); assert.ok(deep.stacked && deep.bottom < 700);
  for (const l of [wide, narrow, deep]) for (const b of l.boxes) assert.ok(b.x + b.w <= 1200.001);
  assert.equal(new Set(narrow.boxes.map(b => b.x)).size, 1); assert.equal(new Set(wide.boxes.map(b => b.y)).size, 1);
});
test("pixels become cells, margins become rows and columns", () => {
  const l = cells.facetLayout(600, 2, 4, 10), [a, b] = l.boxes, box = [0, 10];
  assert.deepEqual(cells.cellOf(l, b.x + 1, b.y + b.h - 1, 4, box), [1, 0, 0]); assert.deepEqual(cells.cellOf(l, a.x + a.w - 1, a.y + 1, 4, box), [0, 3, 9]);
  assert.deepEqual(cells.cellOf(l, a.x - 5, a.y + 1, 4, box), [0, 3, null]); assert.deepEqual(cells.cellOf(l, b.x + 1, b.y + b.h + 20, 4, box), [1, null, 0]); assert.equal(cells.cellOf(l, 0, 0, 4, box), null);
  assert.deepEqual(cells.cellOf(l, a.x + 1, a.y + 1, 4, [5, 10]), [0, 3, 5]);
});
test("both runs lie on the scale, what is far beyond does not stretch it", () => {
  const both = { clean: 1, corrupt: 0 };
  assert.equal(cells.scaleEnd(both, [.1, NaN], "anchors", 0), 1); assert.equal(cells.scaleEnd(both, [1.2], "anchors", 0), 1.2); assert.equal(cells.scaleEnd(both, [9], "anchors", 0), 1.5);
  assert.equal(cells.scaleEnd(both, [.1], "view", 0), .1); assert.equal(cells.scaleEnd(both, [.1], "view", 3), 3); assert.equal(cells.scaleEnd({}, [Infinity, -4], "anchors", 0), 4);
  for (const { ends, values, how, top } of said.scales) assert.ok(Math.abs(cells.scaleEnd(ends, values, how, 0) - top) < 1e-9, "as Python's picture has it");
  assert.deepEqual(cells.anchors({ clean: 1, corrupt: 0, base: 1 }, "change"), [[-1, "corrupted"], [0, "clean"]]); assert.deepEqual(cells.anchors({ clean: 3, corrupt: -2, base: -2 }, "value"), [[-2, "corrupted"], [3, "clean"]]);
});
test("regions", () => {
  assert.deepEqual(cells.ordered([1, 3, 5, 0, 2]), [1, 0, 2, 3, 5]); assert.equal(cells.sizeOf([0, 3, 5, 0, 2]), 16); assert.ok(cells.isIn([0, 3, 5, 0, 2], 0, 2, 4) && !cells.isIn([0, 3, 5, 0, 2], 1, 2, 4));
  assert.deepEqual(cells.cellsIn([0, 1, 1, 0, 1]), [[0, 0, 1], [0, 1, 1]]);
});
test("the copied line is Python's", () => { for (const { meta, region, line } of said.lines) assert.equal(cells.lineOf(meta, region), line); });
test("raw bytes mean themselves", () => {
  const chunk = core.open({ heads: 2, rows: 1, cols: 3, tri: false, signed: false, code: "raw", scale: [] }, new Uint8Array([0, 1, 2, 3, 4, 5]).buffer);
  assert.deepEqual([...chunk.head(1)], [3, 4, 5]); assert.equal(chunk.value(1, 0, 2), 5);
});
