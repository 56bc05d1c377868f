// What the charts share: colours of the theme, marks, tooltips, size.

const SYMBOLS = ["circle", "rect", "triangle", "diamond"];
const COLOURS = 8; // --series-0 ... in site.css
const LINES = ["solid", "dashed", "dotted"];

/** A colour of the style sheet as the browser resolves it for the present theme. */
function colour(name) {
  const probe = element("span", { class: "probe" });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** How a row is drawn; a slot of its own where it is chosen, so that no two chosen rows look the same. */
function rowStyle(row) {
  if (row.reference) return { color: colour("text"), symbol: "diamond", line: "dashed", isChosen: true };
  const slot = page.slots.get(row.index);
  if (slot === undefined)
    return { color: colour("context"), symbol: "circle", line: "solid", isChosen: false };
  return {
    color: colour(`series-${slot % COLOURS}`),
    symbol: SYMBOLS[(slot + Math.floor(slot / COLOURS)) % SYMBOLS.length],
    line: LINES[Math.floor(slot / COLOURS) % LINES.length],
    isChosen: true,
  };
}

/** Draws into the element with this id, which has to be visible. */
function drawChart(id, option) {
  const holder = find(id);
  let chart = echarts.getInstanceByDom(holder);
  if (!chart) {
    chart = echarts.init(holder);
    new ResizeObserver(() => holder.clientWidth && chart.resize()).observe(holder);
  }
  chart.setOption(
    {
      animation: false,
      textStyle: {
        color: colour("muted"),
        fontFamily: getComputedStyle(document.body).fontFamily,
        fontSize: 12,
      },
      ...option,
    },
    { notMerge: true },
  );
  return chart;
}

/** A tooltip whose text is `lines(what is hovered)`, the first line as a heading. */
function tooltip(lines) {
  return {
    trigger: "item",
    confine: true,
    transitionDuration: 0,
    backgroundColor: colour("page"),
    borderColor: colour("line"),
    textStyle: { color: colour("text"), fontSize: 13 },
    formatter: (hovered) => {
      const [heading, ...rest] = lines(hovered);
      const texts = rest.filter(Boolean).map((text) => element("div", {}, text));
      return element("div", { class: "tip" }, element("b", {}, heading), ...texts);
    },
  };
}

/** A value axis from 0 in the theme's colours. */
function valueAxis(name, changes = {}) {
  return {
    type: "value",
    name,
    min: 0,
    nameLocation: "middle",
    nameGap: 30,
    splitNumber: 5,
    nameTextStyle: { color: colour("muted") },
    axisLabel: { color: colour("muted") },
    splitLine: { lineStyle: { color: colour("line") } },
    ...changes,
  };
}

/** Whether a chart is wide enough for names beside its marks. */
const isWide = (id) => find(id).clientWidth >= 480;
