// Sorts the table of a sweep by a column: numbers as numbers, text as text, empty cells last.
const table = document.querySelector("table.wb-members");
const value = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent;
function order(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}
table?.tHead.addEventListener("click", event => {
  const head = event.target.closest("th"), body = table.tBodies[0];
  if (!head?.querySelector("button")) return;
  const down = head.getAttribute("aria-sort") === "ascending", i = head.cellIndex;
  for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const empty = row => value(row, i) === "";
  body.append(...[...body.rows].sort((a, b) => empty(a) || empty(b) ? order(value(a, i), value(b, i)) : (down ? -1 : 1) * order(value(a, i), value(b, i))));
});
