// Which methods the charts show in colour, and the row of buttons that chooses them.

const MOST_AT_FIRST = 8;

/** The rows of the shown section that the filter lets through; references always are. */
function visibleRows() {
  const table = page.board.querySelector("table.scores");
  const hidden = new Set(
    [...table.querySelectorAll("tr[data-row][hidden]")].map((row) => Number(row.dataset.row)),
  );
  return page.section.rows.filter((row) => row.reference || !hidden.has(row.index));
}

/** Gives colours to the best row of each method, as many as there are colours. */
function chooseBest() {
  page.slots.clear();
  const methods = new Set();
  for (const row of visibleRows()) {
    if (row.reference || methods.has(row.method) || page.slots.size >= MOST_AT_FIRST) continue;
    methods.add(row.method);
    page.slots.set(row.index, page.slots.size);
  }
}

/** Chooses a row or takes the choice back; a new row gets the first colour that is free. */
function toggleRow(index) {
  if (page.slots.delete(index)) return;
  const taken = new Set(page.slots.values());
  let slot = 0;
  while (taken.has(slot)) slot += 1;
  page.slots.set(index, slot);
}

function drawChips() {
  const rows = visibleRows().filter((row) => !row.reference);
  find("chips").replaceChildren(...rows.map(makeChip));
}

function makeChip(row) {
  const chip = element(
    "button",
    { type: "button", "data-row": row.index },
    element("i", { class: "swatch" }),
    row.label,
  );
  chip.addEventListener("click", () => {
    toggleRow(row.index);
    paintChip(chip, row);
    drawLines();
  });
  paintChip(chip, row);
  return chip;
}

function paintChip(chip, row) {
  const slot = page.slots.get(row.index);
  chip.setAttribute("aria-pressed", String(slot !== undefined));
  chip.style.setProperty(
    "--series",
    slot === undefined ? "var(--context)" : `var(--series-${slot % COLOURS})`,
  );
}
