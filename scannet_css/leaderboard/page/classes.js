// The IoU of every class, methods by classes, after a step of choice.

function drawClasses() {
  const { steps } = page.section;
  const step = Number(find("classes-step").value);
  const heads = steps.map((names, index) =>
    element("th", { scope: "colgroup", colspan: names.length, class: "first" }, `step ${index}`),
  );
  const names = ["background", ...steps.flat()];
  const firsts = firstChannels();
  const head = names.map((name, channel) =>
    element("th", { scope: "col", class: firsts.has(channel) ? "first" : null }, element("span", {}, name)),
  );
  const rows = visibleRows().map((row) => {
    const cells = names.map((name, channel) =>
      heatCell(row.ious[step]?.[channel], firsts.has(channel), `${name}, ${row.label}`),
    );
    return element("tr", {}, element("th", { scope: "row", title: row.label }, row.label), ...cells);
  });
  find("classes-table").replaceChildren(
    element(
      "thead",
      {},
      element("tr", {}, element("td"), element("td"), ...heads),
      element("tr", {}, element("td"), ...head),
    ),
    element("tbody", {}, ...rows),
  );
  const what = step === steps.length - 1 ? "the last step" : `step ${step}`;
  find("classes-output").textContent = `after ${what}: + ${steps[step].join(", ")}`;
}

/** The channels with which a step begins. */
function firstChannels() {
  let channel = 1;
  const firsts = new Set();
  for (const names of page.section.steps) {
    firsts.add(channel);
    channel += names.length;
  }
  return firsts;
}

function heatCell(iou, isFirst, title) {
  const kind = [isFirst ? "first" : "", iou >= 55 ? "strong" : ""].join(" ").trim();
  const cell = element(
    "td",
    { class: kind || null, title },
    iou === undefined || iou === null ? "" : Math.round(iou),
  );
  if (iou !== undefined && iou !== null) cell.style.setProperty("--iou", `${iou}%`);
  return cell;
}
