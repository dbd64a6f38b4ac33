"use strict";
const rows = document.getElementById("rows");
const given = [...rows.rows];
const [filter, kind, order, direction, count] = ["filter", "kind", "order", "direction", "count"].map((id) => document.getElementById(id));
const heads = [...document.querySelectorAll("thead th")];

// A cell's number or text; undefined where there is none, which sorts last in both directions.
function valueOf(row, place) {
  const text = row.cells[place]?.dataset.value ?? "";
  if (text === "") return undefined;
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text.toLowerCase();
}

function compare(one, two) {
  if (typeof one === "number" && typeof two === "number") return one - two;
  return String(one).localeCompare(String(two), "en", { numeric: true });
}

function sort() {
  const place = Number(order.value);
  const sign = direction.getAttribute("aria-pressed") === "true" ? -1 : 1;
  const sorted = place ? [...given].sort((a, b) => {
    const [one, two] = [valueOf(a, place), valueOf(b, place)];
    if (one === undefined || two === undefined) return (one === undefined) - (two === undefined);
    return sign * compare(one, two);
  }) : sign > 0 ? given : [...given].reverse();
  rows.append(...sorted);
  heads.forEach((head, index) => {
    if (head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", index !== place || !place ? "none" : sign > 0 ? "ascending" : "descending");
  });
}

function choose() {
  const wanted = filter.value.trim().toLowerCase();
  let shown = 0;
  for (const row of given) {
    const name = row.cells[1].textContent.toLowerCase();
    row.hidden = !(name.includes(wanted) && (!kind.value || row.dataset.kind === kind.value));
    shown += !row.hidden;
  }
  count.textContent = `${shown} of ${given.length} networks`;
}

function turn(pressed) {
  direction.setAttribute("aria-pressed", pressed);
  direction.textContent = pressed ? "descending" : "ascending";
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const place = button.dataset.column;
    turn(order.value === place && direction.getAttribute("aria-pressed") === "false");
    order.value = place;
    sort();
  });
}
direction.addEventListener("click", () => { turn(direction.getAttribute("aria-pressed") === "false"); sort(); });
order.addEventListener("change", sort);
filter.addEventListener("input", choose);
kind.addEventListener("change", choose);
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
choose();
