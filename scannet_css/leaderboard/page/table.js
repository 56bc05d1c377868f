// The leaderboard's tables: sorting by any column, and the filter.

/** Makes a table's column heads buttons that sort each group of its rows. */
function makeSortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sortBy(table, heads, column));
    head.replaceChildren(button);
  });
}

/** Best first at the first click, the other way round at the next; empty cells are last both times. */
function sortBy(table, heads, column) {
  const head = heads[column];
  const isNumber = head.classList.contains("number");
  const first = isNumber && !head.dataset.low ? "descending" : "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  for (const body of table.querySelectorAll("tbody.rows")) {
    const rows = [...body.rows].map((row) => [row, cellValue(row.cells[column], isNumber)]);
    rows.sort(([, left], [, right]) => compare(left, right, order === "ascending" ? 1 : -1));
    body.append(...rows.map(([row]) => row));
  }
}

function cellValue(cell, isNumber) {
  if (isNumber) return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  return cell.textContent.trim() || null;
}

function compare(left, right, sign) {
  if (left === null || right === null) return (left === null) - (right === null);
  if (typeof left === "number") return sign * (left - right);
  return sign * left.localeCompare(right, "en", { numeric: true });
}

/** Hides the rows that lack one of the words or have another status; says how many are left. */
function filterRows(section, words, status) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...section.querySelectorAll("table.scores tr[data-row]")];
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden =
      !wanted.every((word) => text.includes(word)) || (status !== "" && row.dataset.status !== status);
  }
  const left = rows.filter((row) => !row.hidden).length;
  section.querySelector(".hits").textContent = left < rows.length ? `${left} of ${rows.length} rows` : "";
}
