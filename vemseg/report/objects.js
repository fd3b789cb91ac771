/* The objects of each class: how many, how large, how round. */

function showObjects(objects, classes) {
  byId("objects-section").hidden = false;
  const choice = byId("measure");
  for (const { key, title } of objects.measures) {
    element("option", choice, "", title).value = key;
  }
  const draw = () => drawObjects(objects, objects.measures.find(({ key }) => key === choice.value), classes);
  choice.addEventListener("change", draw);
  classes.addEventListener("change", draw);
  draw();
}

function drawObjects(objects, measure, classes) {
  const head = byId("objects").querySelector("thead");
  const body = byId("objects").querySelector("tbody");
  head.replaceChildren();
  body.replaceChildren();
  const titles = element("tr", head);
  for (const title of ["Class", "Objects", "At the border", "Median", "Quartiles"]) {
    element("th", titles, title === "Class" ? "" : "number", title);
  }
  const [low, high] = measure.range;
  element("th", titles, "", `${measure.title}, ${short(low)} to ${short(high)}${measure.log ? ", logarithmic" : ""}`);
  const known = objects.classes.filter(({ label }) => classes.byLabel.has(label));
  for (const one of known) {
    const line = element("tr", body);
    const [first, median, third] = one[measure.key].quartiles;
    const name = element("div", element("td", line), "share");
    element("i", name).style.background = classes.leader(one.label).colour;
    element("span", name, "", `${one.label} ${classes.nameOf(one.label)}`);
    element("td", line, "number", String(one.count));
    element("td", line, "number", String(one.touching));
    element("td", line, "number", short(median));
    element("td", line, "number", `${short(first)} – ${short(third)}`);
    drawBins(element("canvas", element("td", line)), one[measure.key].bins, classes.leader(one.label).colour);
  }
}

function drawBins(canvas, bins, colour) {
  const [width, height] = [260, 68];
  const context = sized(canvas, width, height);
  const most = Math.max(1, ...bins);
  const step = width / bins.length;
  context.fillStyle = colour;
  bins.forEach((count, i) => {
    const tall = count ? Math.max(2, (height - 3) * (count / most)) : 0;
    context.fillRect(i * step + 0.5, height - 1 - tall, step - 1, tall);
  });
  context.fillStyle = "#9aa2aa";
  context.fillRect(0, height - 1, width, 1);
}
