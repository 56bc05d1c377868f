// Which section is shown, and what happens when something is chosen.

const page = {
  sections: JSON.parse(find("data").textContent),
  section: null, // data of the one that is shown
  board: null, // its element with title and table
  slots: new Map(), // row -> its colour's number
};

function showSection(name) {
  page.section = page.sections.find((section) => section.name === name) ?? page.sections[0];
  if (!page.section) return;
  page.board = find(page.section.name);
  document.querySelectorAll(".board").forEach((board) => (board.hidden = board !== page.board));
  for (const link of find("choice").querySelectorAll("a")) {
    if (link.hash === `#${page.section.name}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  page.board.querySelector(".scroller").before(find("filter"));
  filterBoard();
  const last = page.section.steps.length - 1;
  for (const id of ["classes-step", "confusion-step"]) {
    Object.assign(find(id), { max: last, value: last });
    find(id).closest("label").hidden = last === 0;
  }
  fillSelect(
    find("curves-metric"),
    page.section.metrics.map((metric) => [metric, metric.replaceAll("_", " ")]),
    "all",
  );
  chooseBest();
  drawCharts();
}

const filterBoard = () => filterRows(page.board, find("words").value, find("status").value);

function drawCharts() {
  find("charts").hidden = visibleRows().length === 0;
  if (find("charts").hidden) return;
  drawChips();
  drawLines();
  drawClasses();
  drawConfusionChoice();
  drawConfusion();
}

function drawLines() {
  drawCurves();
  drawTradeoff();
}

/** A link to a section changes what is shown, and neither scrolls nor moves the focus. */
function followLink(event) {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.hash);
  showSection(currentName());
}

const currentName = () => location.hash.slice(1);

const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function nameTheme() {
  find("theme").textContent = isDark() ? "Light" : "Dark";
}

function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("scannet-css theme", theme);
  } catch {
    // storage is switched off: the choice lasts as long as the page
  }
  changedTheme();
}

function changedTheme() {
  nameTheme();
  if (page.section) drawCharts();
}

function start() {
  find("filter").hidden = page.sections.length === 0;
  find("theme").hidden = false;
  document.querySelectorAll("table.scores").forEach(makeSortable);
  const onFilter = () => (filterBoard(), drawCharts());
  find("words").addEventListener("input", onFilter);
  find("status").addEventListener("change", onFilter);
  find("curves-metric").addEventListener("change", drawCurves);
  find("classes-step").addEventListener("input", drawClasses);
  find("confusion-step").addEventListener("input", drawConfusion);
  find("confusion-seed").addEventListener("change", drawConfusion);
  find("confusion-method").addEventListener("change", () => (drawConfusionChoice(), drawConfusion()));
  find("chosen-best").addEventListener("click", () => (chooseBest(), drawChips(), drawLines()));
  find("chosen-none").addEventListener("click", () => (page.slots.clear(), drawChips(), drawLines()));
  find("theme").addEventListener("click", toggleTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changedTheme);
  find("choice").addEventListener("click", followLink);
  window.addEventListener("popstate", () => showSection(currentName()));
  nameTheme();
  showSection(currentName());
}

start();
