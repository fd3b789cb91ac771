/* The vectors as dots in a plane: a click shows the patch of one, a line around some shows where they lie. */

class Points {
  /* data: as points.scatter gives it; patches: the picture that holds all of them. */
  constructor(data, patches, classes, slices) {
    Object.assign(this, { data, patches, classes, slices, chosen: [], picked: null, line: [] });
    this.canvas = byId("scatter");
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.follow(event));
    this.canvas.addEventListener("pointerup", (event) => this.end(event));
    byId("clear").addEventListener("click", () => this.clear());
    byId("how-many").textContent = String(data.at.length);
    if (!data.shares) byId("placed-by").textContent = "so that neighbours stay neighbours (UMAP)";
    classes.addEventListener("change", () => this.draw());
    this.draw();
  }

  /* Where a vector lies on the canvas. */
  place(i) {
    const { width, height } = this.canvas;
    const edge = 26;
    return [
      width / 2 + this.data.x[i] * (width / 2 - edge),
      height / 2 - this.data.y[i] * (height / 2 - edge),
    ];
  }

  pointer(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.canvas.width,
      ((event.clientY - box.top) / box.height) * this.canvas.height,
    ];
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.line = [this.pointer(event)];
  }

  follow(event) {
    if (!this.line.length) return;
    this.line.push(this.pointer(event));
    this.draw();
  }

  /* A line that leads nowhere is a click. */
  end(event) {
    const line = this.line;
    this.line = [];
    const here = this.pointer(event);
    if (!line.length) return;
    const far = Math.max(...line.map((point) => distance(point, here)));
    if (far < 5) this.pick(here);
    else this.lasso(line);
  }

  pick(here) {
    const away = this.data.at.map((_, i) => distance(this.place(i), here));
    const nearest = away.indexOf(Math.min(...away));
    this.picked = away[nearest] <= 14 ? nearest : null;
    this.tell();
    if (this.picked !== null) this.slices.goTo(this.data.at[this.picked][0]);
  }

  lasso(line) {
    this.chosen = this.data.at.map((_, i) => i).filter((i) => isInside(this.place(i), line));
    this.tell();
    if (this.chosen.length) this.slices.goTo(this.fullest());
  }

  /* The slice that most of the chosen vectors lie near. */
  fullest() {
    const counts = new Map();
    for (const i of this.chosen) counts.set(this.data.at[i][0], (counts.get(this.data.at[i][0]) || 0) + 1);
    return [...counts].reduce((best, each) => (each[1] > best[1] ? each : best))[0];
  }

  clear() {
    this.chosen = [];
    this.picked = null;
    this.tell();
  }

  colourOf(i) {
    const place = this.data.classes[i];
    return place ? this.classes.leader(this.classes.rows[place - 1].label).colour : "#9aa2aa";
  }

  nameOf(i) {
    const place = this.data.classes[i];
    return place ? this.classes.nameOf(this.classes.rows[place - 1].label) : "nothing";
  }

  /* Show what was picked and chosen, here and in the slices. */
  tell() {
    const marks = this.chosen.map((i) => ({ at: this.data.at[i], colour: this.colourOf(i) }));
    if (this.picked !== null) marks.push({ at: this.data.at[this.picked], colour: "#ff2d2d", ring: true });
    this.slices.mark(marks);
    byId("clear").disabled = !marks.length;
    this.showPatch();
    this.showShares();
    this.draw();
  }

  showPatch() {
    const context = sized(byId("patch"), 160, 160);
    byId("picked-text").textContent = "";
    if (this.picked === null) return;
    const { patch, columns } = this.data;
    const [row, column] = [Math.floor(this.picked / columns), this.picked % columns];
    context.drawImage(this.patches, column * patch, row * patch, patch, patch, 0, 0, 160, 160);
    context.strokeStyle = "#ff2d2d";
    context.lineWidth = 2;
    context.beginPath();
    context.arc(80, 80, 9, 0, 2 * Math.PI);
    context.stroke();
    byId("picked-text").textContent = `${this.nameOf(this.picked)}, at ${this.data.at[this.picked].join(", ")} (z, y, x)`;
  }

  showShares() {
    const list = byId("lasso-text");
    list.replaceChildren();
    if (!this.chosen.length) return;
    element("p", list, "", `${this.chosen.length} vectors in the line:`);
    const found = new Map();
    for (const i of this.chosen) {
      const name = this.nameOf(i);
      found.set(name, { count: (found.has(name) ? found.get(name).count : 0) + 1, colour: this.colourOf(i) });
    }
    for (const [name, { count, colour }] of [...found].sort((a, b) => b[1].count - a[1].count)) {
      const line = element("div", list, "share");
      element("i", line).style.background = colour;
      element("span", line, "", `${percent(count / this.chosen.length)} ${name}`);
    }
  }

  /* What the directions of the plane are called. */
  axes() {
    const { shares } = this.data;
    if (!shares) return ["UMAP 1", "UMAP 2"];
    return [`direction 1 (${percent(shares[0])} of the variance)`, `direction 2 (${percent(shares[1])})`];
  }

  draw() {
    const { width, height } = this.canvas;
    const context = sized(this.canvas, width, height);
    const chosen = new Set(this.chosen);
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = "#5d6670";
    const [across, up] = this.axes();
    context.fillText(across, 10, height - 8);
    context.save();
    context.translate(14, height - 30);
    context.rotate(-Math.PI / 2);
    context.fillText(up, 0, 0);
    context.restore();
    this.data.at.forEach((_, i) => {
      const [x, y] = this.place(i);
      context.globalAlpha = chosen.size && !chosen.has(i) ? 0.18 : 0.8;
      context.fillStyle = this.colourOf(i);
      context.beginPath();
      context.arc(x, y, 2.6, 0, 2 * Math.PI);
      context.fill();
    });
    context.globalAlpha = 1;
    if (this.picked !== null) {
      const [x, y] = this.place(this.picked);
      context.strokeStyle = "#ff2d2d";
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(x, y, 7, 0, 2 * Math.PI);
      context.stroke();
    }
    if (this.line.length > 1) {
      context.strokeStyle = "#0b6bcb";
      context.lineWidth = 1.5;
      context.beginPath();
      this.line.forEach(([x, y]) => context.lineTo(x, y));
      context.closePath();
      context.stroke();
    }
  }
}

function distance(a, b) { return Math.hypot(a[0] - b[0], a[1] - b[1]); }

/* Whether a point lies inside a polygon: a ray from it crosses the border an odd number of times. */
function isInside([x, y], polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[x1, y1], [x2, y2]] = [polygon[i], polygon[j]];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}

async function showPoints(data, classes, slices) {
  byId("points-section").hidden = false;
  return new Points(data, await picture(data.patches), classes, slices);
}
