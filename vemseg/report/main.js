/* Read what the page holds, and put it on the screen. */

function showFacts(page) {
  document.title = `${page.labels} – vemseg report`;
  byId("title").textContent = page.labels;
  for (const [name, value] of Object.entries(page.facts)) {
    const pair = element("div", byId("facts"));
    element("dt", pair, "", name);
    element("dd", pair, "", value);
  }
  byId("provenance").querySelector("pre").textContent = JSON.stringify(page.provenance, null, 2);
}

function complain(words) {
  byId("alarm").textContent = words;
  byId("alarm").hidden = false;
}

async function start() {
  const page = JSON.parse(byId("page").textContent);
  showFacts(page);
  if (!("DecompressionStream" in window)) {
    complain("This browser is too old to show the slices: use one of 2023 or later.");
    return;
  }
  const entries = [...document.querySelectorAll("script.slice")].map((script) => JSON.parse(script.textContent));
  const classes = new Classes(page.classes);
  const table = new Table(classes, page);
  const slices = new Slices(entries, page.extent, page.voxel_size, classes);
  const through = () => drawThrough(page.through, slices, classes);
  slices.addEventListener("picked", (event) => table.point(event.detail));
  slices.addEventListener("drawn", through);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.target.tagName !== "INPUT") slices.go(slices.at + step);
  });
  if (page.points) await showPoints(page.points, classes, slices);
  if (page.objects) showObjects(page.objects, classes);
  await slices.go(slices.at);
  document.body.dataset.ready = "yes";
}

start().catch((error) => { complain(`This report cannot be shown: ${error.message}`); throw error; });
