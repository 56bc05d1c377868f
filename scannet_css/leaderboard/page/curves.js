// A metric after each step, mean over seeds.

function drawCurves() {
  const { steps } = page.section;
  const metric = find("curves-metric").value;
  // a joint run knows the last step only: its level is drawn across, to compare with
  const rows = visibleRows().map((row) => ({
    row,
    pairs: row.reference ? steps.map(() => row.curves[metric].at(-1)) : row.curves[metric],
  }));
  rows.sort((left, right) => rowStyle(left.row).isChosen - rowStyle(right.row).isChosen); // grey ones below
  drawChart("curves-chart", {
    grid: { left: 48, right: isWide("curves-chart") ? 130 : 24, top: 16, bottom: 48 },
    tooltip: tooltip(({ seriesIndex, dataIndex }) => {
      const { row, pairs } = rows[seriesIndex];
      const at = row.reference ? "trained on all classes at once" : `step ${dataIndex}`;
      return [row.label, `${metric} ${shownPair(pairs[dataIndex])}`, `${at}, ${seeds(row)}`];
    }),
    xAxis: {
      type: "category",
      boundaryGap: steps.length === 1,
      data: steps.map(
        (names, index) => `step ${index}\n${names.length === 1 ? names[0] : `${names.length} classes`}`,
      ),
      axisLabel: {
        color: colour("muted"),
        lineHeight: 15,
        hideOverlap: true,
        overflow: "truncate",
        width: 90,
      },
      axisLine: { lineStyle: { color: colour("muted") } },
    },
    yAxis: valueAxis("", { min: (range) => Math.min(0, Math.floor(range.min / 10) * 10) }),
    series: rows.map(({ row, pairs }) => curve(row, pairs)),
  });
  const head = ["method", ...steps.map((_, index) => `step ${index}`)];
  const lines = visibleRows().map((row) => [
    row.label,
    ...steps.map((_, step) => shownPair(row.curves[metric][step])),
  ]);
  fillValues(find("curves-values"), head, lines);
}

const seeds = (row) => `${row.runs} seed${row.runs === 1 ? "" : "s"}`;

function curve(row, pairs) {
  const style = rowStyle(row);
  return {
    type: "line",
    name: row.label,
    data: pairs.map((pair) => pair && pair[0]),
    color: style.color,
    symbol: style.symbol,
    symbolSize: style.isChosen ? 8 : 4,
    showSymbol: !row.reference,
    triggerLineEvent: true,
    lineStyle: { width: style.isChosen ? 2 : 1, type: style.line },
    emphasis: { focus: "series", lineStyle: { width: 3 } },
    blur: { lineStyle: { opacity: 0.25 }, itemStyle: { opacity: 0.25 } },
    endLabel: {
      show: style.isChosen && isWide("curves-chart"),
      formatter: () => row.label,
      color: style.color,
      lineHeight: 15,
      width: 118,
      overflow: "truncate",
    },
    labelLayout: { moveOverlap: "shiftY" },
  };
}
