// The gallery without its page: what is found, in which order, and what differs between two runs.
import { test } from "node:test";
import assert from "node:assert/strict";
import * as g from "../../workbench/reporting/static/compare.js";

const gone = { absent: 1 };
const index = { reports: { lens: { title: "A lens", params: ["model", "layer", "prompt", "flag"], results: ["accuracy", "words"] }, tour: { title: "Tour", params: ["model"], results: [] } }, runs: [
  ["aa", "lens/a", "lens", "done", "2026-03-01T10:00:00+00:00", 3, ["micro"], ["layer"], ["micro", 2, "Mary and <b>John</b>", true], [.5, "x"], "", "svg", "Lens", true],
  ["bb", "lens/b", "lens", "failed", "2026-03-02T10:00:00+00:00", 30, ["micro-llama"], [], ["micro-llama", 10, "", gone], [gone, gone], "ValueError: no", "", "", true],
  ["cc", "tour/c", "tour", "done", "2026-02-01T10:00:00+00:00", null, ["micro"], [], ["micro"], [], "", "", "", true]] };
const runs = g.readIndex(index), ids = found => found.map(r => r.id).join(), find = s => ids(g.chosen(runs, { ...g.NOTHING, ...s }));

test("every word must be somewhere: in a title, a parameter, a result, an error, a date", () => {
  assert.equal(find({ q: "MARY lens" }), "aa"); assert.equal(find({ q: "<b>john" }), "aa"); assert.equal(find({ q: "valueerror" }), "bb"); assert.equal(find({ q: "mary tour" }), "");
  assert.equal(find({ q: "2026-03" }), "aa,bb"); assert.equal(find({ q: "  " }), "aa,bb,cc"); assert.equal(find({ q: "accuracy" }), "aa");
});
test("filters", () => {
  assert.equal(find({ report: "tour" }), "cc"); assert.equal(find({ model: "micro" }), "aa,cc"); assert.equal(find({ status: "failed" }), "bb");
  assert.equal(find({ from: "2026-03-01", to: "2026-03-01" }), "aa"); assert.equal(find({ params: [["layer", ">2"]] }), "bb"); assert.equal(find({ params: [["accuracy", "0..1"], ["model", "=micro"]] }), "aa");
});
test("what is wanted of a value", () => {
  const yes = [[2, "2"], [2, "2.0"], [-.5, "-1..0"], [1e-5, "<=1e-4"], ["micro-llama", "micro"], ["micro", "=micro"], [true, "true"], [[1, 2], "[1,2]"], ["", ""], [0, "=0"], ["a", " "]];
  const no = [[12, "2"], ["micro-llama", "=micro"], [true, "tru"], [undefined, ""], ["x", ">1"], [3, "1..2"], [null, "1"]];
  for (const [v, w] of yes) assert.ok(g.matches(v, w), `${v} ${w}`); for (const [v, w] of no) assert.ok(!g.matches(v, w), `${v} ${w}`);
});
test("numbers are in order of size; a run without the value comes last either way", () => {
  const by = (sort, down) => ids(g.ordered(runs, { sort, down }));
  assert.equal(by("p:layer", false), "aa,bb,cc"); assert.equal(by("p:layer", true), "bb,aa,cc"); assert.equal(by("started", true), "bb,aa,cc"); assert.equal(by("seconds", true), "bb,aa,cc"); assert.equal(by("r:accuracy", false).slice(0, 2), "aa");
});
test("the address holds the state", () => {
  const s = { ...g.NOTHING, q: "a b&c=#%👑", report: "lens", params: [["p=q%3D", "x=1"], ["layer", ">=2"]], sort: "p:layer", down: false, page: 3, view: "table", pick: ["aa", "bb"], diff: ["bb", "aa"] };
  const back = g.fromHash("#" + g.toHash(s));
  assert.deepEqual(back, s); assert.equal(g.toHash(g.NOTHING), ""); assert.deepEqual(g.fromHash(""), g.NOTHING);
  assert.deepEqual(g.fromHash("#diff=aa~bb~cc&page=-4&view=x").diff, ["aa", "bb"]); assert.deepEqual(g.fromHash("#diff=javascript:1~bb").diff, []); assert.equal(g.fromHash("#page=-4").page, 1);
});
test("a change says how far, and how far for its size", () => {
  assert.deepEqual(g.change(2, 3), { by: 1, part: .5, text: "+1 (+50 %)" }); assert.equal(g.change(-2, -3).text, "−1 (−50 %)"); assert.equal(g.change(0, 1).text, "+1"); assert.equal(g.change("0.50", "0.25").text, "−0.25 (−50 %)");
  assert.equal(g.change("a", 1), null); assert.equal(g.change(null, 1), null); assert.equal(g.change("nan", 1), null); assert.equal(g.change(1, 1).text, "");
});
test("what differs comes first; a missing value is not an equal one", () => {
  const rows = g.compareMaps(new Map([["same", [1]], ["n", 1], ["old", null]]), new Map([["same", [1]], ["n", 2], ["new", null]]));
  assert.deepEqual(rows.map(r => [r.name, r.differs]), [["n", true], ["old", true], ["new", true], ["same", false]]); assert.ok(g.same({ a: 1, b: [2] }, { b: [2], a: 1 })); assert.ok(!g.same([1, 2], [2, 1]));
});
test("pictures find their partner by heading and place", () => {
  const p = (heading, n) => ({ heading, n });
  assert.deepEqual(g.pairUp([p("A", 1), p("A", 2), p("B", 3)], [p("A", 4), p("C", 5)]).map(([x, y]) => [x?.n, y?.n]), [[1, 4], [2, undefined], [3, undefined], [undefined, 5]]);
});
test("rows of two tables are matched by their words, whatever their order", () => {
  const m = g.mergeTables({ columns: ["head", "effect"], rows: [["L0H1", "0.5"], ["L1H0", "0.1"], ["L2H2", "1"]] }, { columns: ["head", "effect"], rows: [["L1H0", "0.2"], ["L0H1", "0.50"], ["L9H9", "3"]] });
  assert.equal(m.keys, 1); assert.deepEqual(m.rows.map(r => r.only), ["", "", "a", "b"]); assert.equal(m.changed, 3);
  assert.equal(m.rows[0].cells[1].differs, false, "0.5 and 0.50 are one number"); assert.equal(m.rows[1].cells[1].change.text, "+0.1 (+100 %)");
  const counted = g.mergeTables({ columns: ["layer", "head", "x"], rows: [["0", "0", "1"], ["0", "1", "2"]] }, { columns: ["layer", "head", "x"], rows: [["0", "1", "5"], ["0", "0", "1"]] });
  assert.equal(counted.keys, 2); assert.equal(counted.changed, 1); assert.equal(counted.rows[1].cells[2].b, "5");
  const numbered = g.mergeTables({ columns: ["", "site", "x"], rows: [["0", "mlp", "1"], ["1", "attn", "2"]] }, { columns: ["", "site", "x"], rows: [["0", "attn", "2"], ["1", "mlp", "1"]] });
  assert.deepEqual([numbered.columns[0], numbered.changed], ["site", 0]);
  const repeated = g.mergeTables({ columns: ["w", "x"], rows: [["a", "1"], ["a", "1"]] }, { columns: ["w", "x"], rows: [["a", "1"], ["a", "1"], ["b", "1"]] });
  assert.equal(repeated.keys, 0); assert.equal(repeated.changed, 1); assert.equal(g.mergeTables({ columns: ["a", "a"], rows: [] }, { columns: ["b", "b"], rows: [] }), null);
  assert.deepEqual(g.mergeTables({ columns: ["w", "old"], rows: [["a", "1"]] }, { columns: ["w", "new"], rows: [["a", "2"]] }).only, ["", "a", "b"]);
});
test("two heatmaps of one shape are subtracted, packed numbers as lists", () => {
  const bytes = btoa(String.fromCharCode(...new Uint8Array(new Float32Array([1, 2, NaN, 4]).buffer))), heat = z => ({ data: [{ type: "heatmap", z }] });
  assert.deepEqual(g.subtract(heat([[1, 1], [1, 1]]), heat({ dtype: "f4", bdata: bytes, shape: "2, 2" })), [[0, 1], [null, 3]]);
  assert.equal(g.subtract(heat([[1]]), heat([[1, 2]])), null); assert.equal(g.subtract({ data: [] }, heat([[1]])), null);
});
