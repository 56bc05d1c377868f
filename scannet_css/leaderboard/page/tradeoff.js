// Old against new classes after the last step, with a bar of one deviation each way.

const EQUAL_HIOU = [10, 20, 30, 40, 50, 60, 70, 80, 90];

function drawTradeoff() {
  const points = visibleRows()
    .map((row) => ({
      row,
      old: row.curves.old.at(-1),
      fresh: row.curves.new.at(-1),
      hiou: row.curves.hiou.at(-1),
    }))
    .filter(({ old, fresh }) => old[0] !== null && fresh[0] !== null);
  points.sort((left, right) => rowStyle(left.row).isChosen - rowStyle(right.row).isChosen);
  const top = (pick) => Math.min(100, Math.ceil(Math.max(5, ...points.map(pick)) / 10 + 0.2) * 10);
  const limit = {
    x: top(({ old }) => old[0] + (old[1] ?? 0)),
    y: top(({ fresh }) => fresh[0] + (fresh[1] ?? 0)),
  };
  const marks = points.flatMap((point) => [bars(point), mark(point)]);
  drawChart("tradeoff-chart", {
    grid: { left: 52, right: 24, top: 16, bottom: 48 },
    tooltip: tooltip(({ seriesIndex }) => {
      const { row, old, fresh, hiou } = points[Math.floor(seriesIndex / 2)];
      return [
        row.label,
        `old ${shownPair(old)}`,
        `new ${shownPair(fresh)}`,
        `hiou ${shownPair(hiou)}`,
        seeds(row),
      ];
    }),
    xAxis: valueAxis("old", {
      max: limit.x,
      axisLine: { show: true, lineStyle: { color: colour("muted") } },
    }),
    yAxis: valueAxis("new", { max: limit.y }),
    series: [...marks, ...EQUAL_HIOU.map((level) => equalLine(level, limit))],
  });
  const lines = points.map(({ row, old, fresh, hiou }) => [row.label, ...[old, fresh, hiou].map(shownPair)]);
  fillValues(find("tradeoff-values"), ["method", "old", "new", "hiou"], lines.reverse());
}

function mark({ row, old, fresh }) {
  const style = rowStyle(row);
  return {
    type: "scatter",
    name: row.label,
    data: [[old[0], fresh[0]]],
    color: style.color,
    symbol: style.symbol,
    symbolSize: row.reference ? 14 : style.isChosen ? 11 : 7,
    emphasis: { scale: 1.4 },
    label: {
      show: style.isChosen && isWide("tradeoff-chart"),
      formatter: () => row.label,
      position: "right",
      color: style.color,
      width: 110,
      overflow: "truncate",
    },
    itemStyle: { opacity: 1 },
    labelLayout: { hideOverlap: true, dy: -9 }, // above the bar
  };
}

function bars({ row, old, fresh }) {
  const style = rowStyle(row);
  return {
    type: "custom",
    silent: true,
    data: [[old[0], fresh[0]]],
    renderItem: (_, api) => {
      const corner = (x, y) => api.coord([old[0] + x * (old[1] ?? 0), fresh[0] + y * (fresh[1] ?? 0)]);
      const bar = ([x1, y1], [x2, y2]) => ({
        type: "line",
        shape: { x1, y1, x2, y2 },
        style: { stroke: style.color, lineWidth: 1.5, opacity: style.isChosen ? 0.6 : 0.3 },
      });
      return {
        type: "group",
        children: [bar(corner(-1, 0), corner(1, 0)), bar(corner(0, -1), corner(0, 1))],
      };
    },
  };
}

/** Where hiou is `level`: new = level old / (2 old - level). */
function equalLine(level, limit) {
  const data = [];
  for (let old = level / 2 + 0.25; old <= limit.x; old += 0.5) {
    const fresh = (level * old) / (2 * old - level);
    if (fresh <= limit.y) data.push([old, fresh]);
  }
  return {
    type: "line",
    data,
    silent: true,
    showSymbol: false,
    color: colour("context"),
    lineStyle: { width: 1, type: "dotted" },
    z: 1,
  };
}
