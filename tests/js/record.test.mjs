// Pure parts of the feature browser against what Python says of the same record (path in FIXTURE).
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as r from "../../workbench/widgets/static/record.js";

const said = JSON.parse(readFileSync(process.env.FIXTURE)), near = (a, b) => assert.ok(Math.abs(a - b) < 1e-9, `${a} is not ${b}`);

test("a list of any length builds the rows in sight and no more", () => {
  assert.deepEqual(r.inSight(0, 468, 26, 65536), [0, 19]); assert.deepEqual(r.inSight(26 * 1000, 468, 26, 65536), [999, 1019]); assert.deepEqual(r.inSight(26 * 65536, 468, 26, 65536).at(-1), 65536);
  assert.deepEqual(r.inSight(0, 468, 26, 4), [0, 4]); assert.deepEqual(r.inSight(9999, 468, 26, 0), [0, 0]);
  for (let s = 0; s < 26 * 65536; s += 99_991) { const [a, b] = r.inSight(s, 468, 26, 65536); assert.ok(b - a <= 21 && a * 26 <= s && b * 26 >= Math.min(s + 468, 26 * 65536)); }
});
test("scrolling goes no farther than needed", () => {
  assert.equal(r.scrollTo(5, 0, 468, 26), 0); assert.equal(r.scrollTo(100, 0, 468, 26), 101 * 26 - 468); assert.equal(r.scrollTo(2, 260, 468, 26), 52);
});
test("runs put every token back in its place", () => {
  for (const e of said.examples) {
    const made = r.runs(e.tokens, e.activations, [0], e.at); assert.deepEqual(made.flatMap(x => x.texts), e.tokens);
    for (const x of made) { assert.equal(x.from, e.tokens.length - made.slice(made.indexOf(x)).reduce((n, y) => n + y.texts.length, 0)); if (x.lone) assert.equal(x.texts.length, 1); else for (let i = 0; i < x.texts.length; i++) assert.ok(!e.activations[x.from + i]); }
    assert.ok(made.find(x => x.peak)?.from === e.at && made.length <= 3 + 2 * e.activations.filter(v => v).length + 2);
  }
  assert.deepEqual(r.runs(["a", "b"], null).map(x => x.texts), [["a", "b"]]); assert.equal(r.runs(["a"], [null])[0].value, null);
});
test("groups and their order are those of Python's picture", () => {
  const made = r.groups(said.examples, said.bands.length - 1, 2); assert.deepEqual(made.map(([name, some]) => [name, some.length]), said.groups);
  assert.equal(made[0][0], "strongest"); assert.equal(made.at(-1)[3], -1); assert.ok(made.every(g => g[1].length <= 2 && g[1].length <= g[2]));
  assert.deepEqual(r.groups([], 10, 2), []); assert.equal(r.groups(said.examples.filter(e => e.band === 0), 0, 3).length, 1);
});
test("a value lies where numpy says", () => {
  for (const [v, share] of said.below) near(r.shareBelow(v, said.histogram), share);
  for (const [v, band] of said.where) assert.equal(r.bandOf(v, said.bands), band);
  assert.equal(r.bandOf(1, null), 0); assert.equal(r.bandOf(NaN, [0, 1]), 0); assert.ok(Number.isNaN(r.shareBelow(1, { edges: [0, 1], counts: [0] })));
});
test("density on a log scale, and what must be said first", () => {
  assert.equal(r.logPlace(1), 1); near(r.logPlace(1e-3), .5); assert.equal(r.logPlace(1e-9), 0); assert.equal(r.logPlace(0), null);
  const word = (density, fired) => r.warning({ density, fired, n: 100000 })?.[0]; assert.deepEqual([word(0, 0), word(.2, 20000), word(5e-5, 5), word(.01, 1000), word(null, 0)], ["dead", "dense", "rare", undefined, undefined]);
  assert.deepEqual([.5, .0728, .00123, .00001].map(r.percent), ["50 %", "7.3 %", "0.12 %", "1.0e-3 %"]);
});
test("a page sorts and filters its own rows, what is missing last", () => {
  const rows = { feature: [1, 2, 3], label: ["b", "", "a"], density: [.1, 0, .2], score: [null, .5, .1], tokens: [["x"], [], ["Paris"]] };
  assert.deepEqual(r.chosenRows(rows, "", "score", true), [1, 2, 0]); assert.deepEqual(r.chosenRows(rows, "", "score", false), [2, 1, 0]); assert.deepEqual(r.chosenRows(rows, "", "label", false), [2, 0, 1]);
  assert.deepEqual(r.chosenRows(rows, "paris a", "feature", false), [2]); assert.deepEqual(r.chosenRows(said.rows, "", "density", true).map(i => said.rows.density[i]), [...said.rows.density].sort((a, b) => b - a));
});
