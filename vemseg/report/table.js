/* The table in which classes get names and colours and are merged. */

class Table {
  constructor(classes, page) {
    this.classes = classes;
    this.page = page;
    this.ticked = new Set();
    this.current = null;
    this.rows = classes.rows.map((row) => this.makeRow(row));
    byId("merge").addEventListener("click", () => this.done(() => classes.merge([...this.ticked])));
    byId("split").addEventListener("click", () => this.done(() => classes.split([...this.ticked])));
    byId("undo").addEventListener("click", () => classes.undo());
    byId("save").addEventListener("click", () => this.save());
    byId("command").textContent = page.command;
    if (!page.voxel_size) byId("volume-head").textContent = "voxels";
    classes.addEventListener("change", () => this.draw());
    window.addEventListener("beforeunload", (event) => { if (!classes.saved) event.preventDefault(); });
    this.draw();
  }

  makeRow(row) {
    const line = element("tr", byId("classes").querySelector("tbody"));
    line.dataset.label = String(row.label);
    const tick = input(line, "checkbox", `Tick class ${row.label}`);
    const shown = input(line, "checkbox", `Show class ${row.label}`);
    element("td", line, "label", String(row.label));
    const colour = input(line, "color", `Colour of class ${row.label}`);
    const name = input(line, "text", `Name of class ${row.label}`);
    const share = element("td", line, "number");
    const bar = element("i", element("span", share, "bar"));
    element("span", share, "", percent(row.fraction));
    element("td", line, "number", short(row.volume_um3 === null ? row.voxels : row.volume_um3));
    element("td", line, "may", row.suggestion || "");
    name.spellcheck = false;
    tick.addEventListener("change", () => { this.tick(row.label, tick.checked); });
    shown.addEventListener("change", () => this.classes.show(row.label, shown.checked));
    colour.addEventListener("change", () => this.classes.recolour(row.label, colour.value));
    name.addEventListener("change", () => this.classes.rename(row.label, name.value));
    return { row, line, tick, shown, colour, name, bar };
  }

  tick(label, ticked) {
    if (ticked) this.ticked.add(label); else this.ticked.delete(label);
    this.draw();
  }

  done(change) {
    change();
    this.ticked.clear();
    this.draw();
  }

  /* Point out a class, such as the one that was clicked in the slice. */
  point(label) {
    this.current = label;
    this.draw();
  }

  draw() {
    const classes = this.classes;
    const body = byId("classes").querySelector("tbody");
    const order = [...this.rows].sort((a, b) => a.row.leader - b.row.leader || a.row.label - b.row.label);
    const sorted = order.some((each, i) => body.children[i] !== each.line);
    if (sorted) body.append(...order.map((each) => each.line));
    for (const { row, line, tick, shown, colour, name, bar } of this.rows) {
      const leader = classes.leader(row.label);
      line.classList.toggle("member", leader !== row);
      line.classList.toggle("current", row.label === this.current);
      tick.checked = this.ticked.has(row.label);
      shown.checked = leader.shown;
      colour.value = leader.colour;
      if (name.value !== leader.name) name.value = leader.name;
      bar.style.width = `${100 * row.fraction}%`;
      bar.style.background = leader.colour;
    }
    const ticked = [...this.ticked];
    byId("merge").disabled = new Set(ticked.map((label) => classes.leader(label))).size < 2;
    byId("split").disabled = !ticked.some((label) => classes.members(label).length > 1);
    byId("undo").disabled = !classes.past.length;
  }

  save() {
    const text = this.classes.toml(this.page.labels, this.page.command);
    const link = document.createElement("a");
    const address = URL.createObjectURL(new Blob([text], { type: "application/toml" }));
    link.href = address;
    link.download = "names.toml";
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    this.classes.saved = true;
  }
}

function element(kind, parent, style = "", text = "") {
  const made = document.createElement(kind);
  if (style) made.className = style;
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function input(line, type, label) {
  const made = element("input", element("td", line));
  made.type = type;
  made.setAttribute("aria-label", label);
  return made;
}
