// Elements. Text of records goes through textContent only, never through markup.

/** The element with this id. */
const find = (id) => document.getElementById(id);

/** A new element with attributes and children; a child that is no element becomes text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** Fills a <select>; `options` are [value, text]. The old choice stays where it still exists. */
function fillSelect(select, options, preferred) {
  const wanted = options.some(([value]) => String(value) === select.value) ? select.value : preferred;
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  select.value = wanted ?? options[0]?.[0] ?? "";
}

/** Puts a table below the summary of a <details>; the first cell of each line names it. */
function fillValues(details, head, lines) {
  const cell = (text) => element("td", { class: "number" }, text);
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element(
      "tbody",
      {},
      ...lines.map(([name, ...cells]) =>
        element("tr", {}, element("th", { scope: "row" }, name), ...cells.map(cell)),
      ),
    ),
  );
  const label = details.querySelector("summary").textContent;
  const scroller = { class: "scroller", tabindex: "0", role: "region", "aria-label": label };
  details.replaceChildren(details.querySelector("summary"), element("div", scroller, table));
}

/** One decimal as in the table; nothing for null. */
const shown = (value) => (value === null || value === undefined ? "" : value.toFixed(1));

/** [mean, deviation] as in the table. */
function shownPair(pair) {
  if (!pair || pair[0] === null) return "";
  return shown(pair[0]) + (pair[1] === null ? "" : ` ± ${shown(pair[1])}`);
}
