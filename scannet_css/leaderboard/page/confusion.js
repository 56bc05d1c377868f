// One run's confusion matrix after a step. Colour is the share of a row (the truth) on a logarithmic scale:
// the rare confusions are what one looks for.

const LEAST_SHARE = 0.01; // percent, the palest colour
const WORST = 8;

/** The run and step that are chosen; at null the section has no such matrix. */
function chosenConfusion() {
  const row = page.section.rows.find(({ index }) => String(index) === find("confusion-method").value);
  const counts = row.confusions[find("confusion-seed").value]?.[find("confusion-step").value];
  const step = Number(find("confusion-step").value);
  const names = ["background", ...page.section.steps.slice(0, step + 1).flat()];
  const size = names.length;
  const totals =
    counts &&
    names.map((_, truth) => counts.slice(truth * size, (truth + 1) * size).reduce((a, b) => a + b, 0));
  return { row, counts, names, size, totals, step };
}

function drawConfusionChoice() {
  fillSelect(
    find("confusion-method"),
    visibleRows().map((row) => [row.index, row.label]),
  );
  const row = page.section.rows.find(({ index }) => String(index) === find("confusion-method").value);
  fillSelect(
    find("confusion-seed"),
    Object.keys(row.confusions).map((seed) => [seed, seed]),
  );
}

function drawConfusion() {
  const { row, counts, names, size, totals, step } = chosenConfusion();
  const cells = [];
  (counts ?? []).forEach((count, place) => {
    const [truth, prediction] = [Math.floor(place / size), place % size];
    if (count > 0) cells.push({ truth, prediction, count, share: (100 * count) / totals[truth] });
  });
  const what = row.reference
    ? "trained on all classes at once"
    : `after step ${step}: + ${page.section.steps[step].join(", ")}`;
  find("confusion-output").textContent = counts ? what : "no matrix of this step";
  drawMatrix(cells, names, totals);
  const wrong = cells
    .filter(({ truth, prediction }) => truth !== prediction)
    .sort((a, b) => b.share - a.share);
  find("confusion-worst").replaceChildren(
    ...wrong
      .slice(0, WORST)
      .map((cell) =>
        element("li", {}, `${names[cell.truth]} → ${names[cell.prediction]}: ${percent(cell.share)}`),
      ),
  );
  const details = find("confusion-values");
  const fill = () => {
    const lines = names.map((name, truth) => [
      name,
      ...(counts ?? []).slice(truth * size, (truth + 1) * size).map(whole),
    ]);
    fillValues(details, ["truth \\ prediction", ...names], lines);
  };
  details.ontoggle = () => details.open && fill();
  if (details.open) fill();
}

const percent = (share) => (share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`);
const whole = (count) => count.toLocaleString("en");

function drawMatrix(cells, names, totals) {
  const holder = find("confusion-chart");
  holder.style.height = `${190 + 19 * names.length}px`;
  holder.style.minWidth = `${160 + 19 * names.length}px`;
  const axis = (name, changes) => ({
    type: "category",
    data: names,
    name,
    nameLocation: "middle",
    nameGap: 104,
    nameTextStyle: { color: colour("muted") },
    axisLabel: { color: colour("text"), interval: 0, fontSize: 11, width: 92, overflow: "truncate" },
    axisLine: { show: false },
    axisTick: { show: false },
    ...changes,
  });
  const labels = axis("").axisLabel;
  drawChart("confusion-chart", {
    grid: { left: 122, right: 8, top: 48, bottom: 122 },
    tooltip: tooltip(({ dataIndex }) => {
      const { truth, prediction, count, share } = cells[dataIndex];
      const heading =
        truth === prediction ? `${names[truth]}, right` : `${names[truth]} → ${names[prediction]}`;
      return [heading, `${whole(count)} of ${whole(totals[truth])} vertices`, percent(share)];
    }),
    xAxis: axis("prediction", { axisLabel: { ...labels, rotate: 90 } }),
    yAxis: axis("truth", { inverse: true }),
    visualMap: {
      min: Math.log10(LEAST_SHARE),
      max: 2,
      dimension: 2,
      orient: "horizontal",
      left: "center",
      top: 0,
      itemWidth: 12,
      itemHeight: 180,
      text: ["100 %", `${LEAST_SHARE} % of the true class`],
      textStyle: { color: colour("muted") },
      inRange: { color: [0, 1, 2, 3, 4].map((level) => colour(`confusion-${level}`)) },
    },
    series: {
      type: "heatmap",
      data: cells.map(({ truth, prediction, share }) => [
        prediction,
        truth,
        Math.log10(Math.max(share, LEAST_SHARE)),
      ]),
      itemStyle: { borderColor: colour("page"), borderWidth: 1 },
      emphasis: { itemStyle: { borderColor: colour("text"), borderWidth: 2 } },
    },
  });
}
