/* The slices: the image below, the classes above it, and marks on top. */

class Slices extends EventTarget {
  /* entries: as Slice.entry() gives them; extent: voxels along z, y, x; size: nm, or null. */
  constructor(entries, extent, size, classes) {
    super();
    this.entries = entries;
    this.extent = extent;
    this.classes = classes;
    this.decoded = new Map();
    this.at = Math.floor(entries.length / 2);
    this.marked = [];
    this.outlines = false;
    const aspect = (extent[2] * (size ? size[2] : 1)) / (extent[1] * (size ? size[1] : 1));
    const stage = byId("stage");
    stage.style.aspectRatio = String(aspect);
    stage.style.maxWidth = `calc(72vh * ${aspect})`;
    byId("z").max = String(entries.length - 1);
    byId("z").addEventListener("input", (event) => this.go(Number(event.target.value)));
    byId("opacity").addEventListener("input", () => this.fade());
    byId("outlines").addEventListener("change", (event) => { this.outlines = event.target.checked; this.draw(); });
    byId("marks").addEventListener("wheel", (event) => { event.preventDefault(); this.go(this.at + Math.sign(event.deltaY)); }, { passive: false });
    byId("marks").addEventListener("mousemove", (event) => this.tellUnder(event));
    byId("marks").addEventListener("mouseleave", () => { byId("under").textContent = ""; });
    byId("marks").addEventListener("click", (event) => {
      const found = this.under(event);
      if (found && found.row) this.dispatchEvent(new CustomEvent("picked", { detail: found.row.label }));
    });
    byId("through").addEventListener("click", (event) => {
      const part = event.offsetX / byId("through").clientWidth;
      this.goTo(part * extent[0]);
    });
    classes.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.drawMarks()).observe(stage);
    this.fade();
  }

  /* Go to the slice nearest to a z of the volume. */
  goTo(z) {
    const away = this.entries.map((entry) => Math.abs(entry.z - z));
    return this.go(away.indexOf(Math.min(...away)));
  }

  go(index) {
    this.at = Math.max(0, Math.min(this.entries.length - 1, index));
    byId("z").value = String(this.at);
    return this.draw();
  }

  fade() { byId("paint").style.opacity = String(Number(byId("opacity").value) / 100); }

  /* Decode a slice once: its image, and the places of its classes, a byte for each pixel. */
  decode(index) {
    if (!this.decoded.has(index)) {
      const entry = this.entries[index];
      const bytes = Uint8Array.from(atob(entry.labels), (sign) => sign.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      const labels = new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer));
      this.decoded.set(index, Promise.all([picture(entry.grey), labels]));
    }
    return this.decoded.get(index);
  }

  async draw() {
    const index = this.at;
    const entry = this.entries[index];
    byId("where").textContent = `z ${entry.z} of ${this.extent[0]}`;
    const [image, labels] = await this.decode(index);
    if (index !== this.at) return;
    this.labels = labels;
    const [height, width] = entry.shape;
    const grey = sized(byId("grey"), width, height);
    grey.drawImage(image, 0, 0);
    const paint = sized(byId("paint"), width, height);
    paint.putImageData(this.painted(labels, width, height), 0, 0);
    this.drawMarks();
    this.dispatchEvent(new Event("drawn"));
  }

  painted(labels, width, height) {
    const table = new Uint32Array(this.classes.colours().buffer);
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels[i]];
    if (this.outlines) keepRims(pixels, width, height);
    return image;
  }

  /* What lies under the pointer: its place in voxels (z, y, x) and its class. */
  under(event) {
    if (!this.labels) return null;
    const box = byId("marks").getBoundingClientRect();
    const [height, width] = this.entries[this.at].shape;
    const v = (event.clientY - box.top) / box.height;
    const u = (event.clientX - box.left) / box.width;
    if (u < 0 || v < 0 || u >= 1 || v >= 1) return null;
    const place = this.labels[Math.floor(v * height) * width + Math.floor(u * width)];
    const voxel = [this.entries[this.at].z, Math.floor(v * this.extent[1]), Math.floor(u * this.extent[2])];
    return { voxel, row: place ? this.classes.rows[place - 1] : null };
  }

  tellUnder(event) {
    const found = this.under(event);
    const name = found && found.row ? this.classes.nameOf(found.row.label) : "nothing";
    byId("under").textContent = found ? `${found.voxel.join(", ")}: ${name}` : "";
  }

  /* Mark places of the volume: a list of {at: [z, y, x], colour, ring}. */
  mark(marks) {
    this.marked = marks;
    this.drawMarks();
  }

  drawMarks() {
    const canvas = byId("marks");
    const scale = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    const context = sized(canvas, width, height);
    const z = this.entries[this.at].z;
    const near = Math.max(1, this.extent[0] / this.entries.length / 2);
    for (const mark of this.marked) {
      const here = Math.abs(mark.at[0] - z) <= near;
      const x = ((mark.at[2] + 0.5) / this.extent[2]) * width;
      const y = ((mark.at[1] + 0.5) / this.extent[1]) * height;
      context.globalAlpha = here ? 1 : 0.22;
      context.beginPath();
      context.arc(x, y, (mark.ring ? 9 : here ? 4 : 2.5) * scale, 0, 2 * Math.PI);
      context.lineWidth = (mark.ring ? 2.5 : 1) * scale;
      context.strokeStyle = mark.ring ? "#ff2d2d" : "#ffffff";
      context.fillStyle = mark.colour;
      if (!mark.ring) context.fill();
      context.stroke();
    }
  }
}

/* Clear all pixels whose four neighbours have the same colour. */
function keepRims(pixels, width, height) {
  const all = pixels.slice();
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const same =
        (x === 0 || all[i - 1] === all[i]) && (x === width - 1 || all[i + 1] === all[i]) &&
        (y === 0 || all[i - width] === all[i]) && (y === height - 1 || all[i + width] === all[i]);
      if (same) pixels[i] = 0;
    }
  }
}

/* Draw the share of each class through the stack, and where the slice that is seen lies. */
function drawThrough(through, slices, classes) {
  const canvas = byId("through");
  const width = Math.max(1, canvas.clientWidth);
  const context = sized(canvas, width, 64);
  for (let x = 0; x < width; x++) {
    const shares = through[Math.floor((x / width) * through.length)];
    let top = 64;
    classes.rows.forEach((row, i) => {
      context.fillStyle = classes.leader(row.label).colour;
      context.fillRect(x, top - 64 * shares[i], 1, 64 * shares[i]);
      top -= 64 * shares[i];
    });
  }
  const x = ((slices.entries[slices.at].z + 0.5) / slices.extent[0]) * width;
  context.fillStyle = "#ffffff";
  context.fillRect(x - 2, 0, 4, 64);
  context.fillStyle = "#000000";
  context.fillRect(x - 1, 0, 2, 64);
}

function byId(id) { return document.getElementById(id); }

/* Give a canvas its size, emptied, and return what draws on it. */
function sized(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d");
}

/* A JPEG in base64 as an image. */
function picture(text) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error("a picture of this report cannot be read"));
    image.src = `data:image/jpeg;base64,${text}`;
  });
}
