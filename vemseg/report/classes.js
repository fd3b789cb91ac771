/* What the classes are called, how they look, and which of them are one.

Classes that are merged follow their leader, the one with the smallest number, in name, colour and whether they
are shown. Their own names and colours are kept, for when they are split again. */

class Classes extends EventTarget {
  /* rows: as in Page.classes, in the order of the labels. */
  constructor(rows) {
    super();
    this.rows = rows.map((row) => ({ ...row, shown: true }));
    this.byLabel = new Map(this.rows.map((row) => [row.label, row]));
    this.past = [];
    this.saved = true;
  }

  leader(label) { return this.byLabel.get(this.byLabel.get(label).leader); }

  members(label) {
    const leader = this.byLabel.get(label).leader;
    return this.rows.filter((row) => row.leader === leader);
  }

  nameOf(label) { return this.leader(label).name; }

  isUnnamed(row) { return row.name === `class ${row.label}`; }

  rename(label, name) {
    const row = this.leader(label);
    const wanted = cleaned(name) || `class ${row.label}`;
    if (wanted !== row.name) this.edit(() => { row.name = wanted; });
  }

  recolour(label, colour) { this.edit(() => { this.leader(label).colour = colour; }); }

  show(label, shown) {
    this.leader(label).shown = shown;
    this.tell();
  }

  /* Make classes one. The name is that of the first of them that has one. */
  merge(labels) {
    const all = new Set(labels.flatMap((label) => this.members(label).map((row) => row.label)));
    const leaders = [...new Set([...all].map((label) => this.leader(label)))].sort((a, b) => a.label - b.label);
    if (leaders.length < 2) return;
    const named = leaders.find((row) => !this.isUnnamed(row));
    this.edit(() => {
      for (const label of all) this.byLabel.get(label).leader = leaders[0].label;
      if (named) leaders[0].name = named.name;
    });
  }

  split(labels) {
    const all = labels.flatMap((label) => this.members(label));
    if (all.some((row) => row.leader !== row.label)) {
      this.edit(() => { for (const row of all) row.leader = row.label; });
    }
  }

  undo() {
    const before = this.past.pop();
    this.rows.forEach((row, i) => Object.assign(row, before[i]));
    this.saved = false;
    this.tell();
  }

  edit(change) {
    this.past.push(this.rows.map(({ name, colour, leader }) => ({ name, colour, leader })));
    change();
    this.saved = false;
    this.tell();
  }

  tell() { this.dispatchEvent(new Event("change")); }

  /* The colour of each place in the list of classes, RGBA; place 0, nothing, is transparent. */
  colours() {
    const table = new Uint8Array(4 * 256);
    this.rows.forEach((row, i) => {
      const leader = this.leader(row.label);
      if (leader.shown) table.set([...channels(leader.colour), 255], 4 * (i + 1));
    });
    return table;
  }

  /* The text of names.toml, which the commands take as --names. */
  toml(labels, command) {
    const lines = [`# Names, colours and merges of the classes of ${labels}`, `# ${command}`];
    for (const row of this.rows) {
      const leader = this.leader(row.label);
      if (!this.isUnnamed(leader)) lines.push(`${row.label} = ${JSON.stringify(leader.name)}`);
    }
    const groups = this.rows
      .filter((row) => row.leader === row.label)
      .map((row) => this.members(row.label).map((member) => member.label))
      .filter((members) => members.length > 1);
    if (groups.length) lines.push(`merge = [${groups.map((members) => `[${members.join(", ")}]`).join(", ")}]`);
    lines.push("", "[colours]");
    for (const row of this.rows) lines.push(`${row.label} = "${this.leader(row.label).colour}"`);
    return lines.join("\n") + "\n";
  }
}

/* A name that every reader of TOML understands: one line, whole characters only. */
function cleaned(name) {
  return name.replace(/[\u0000-\u001f\u007f]/g, " ").replace(/\p{Surrogate}/gu, "").trim();
}

function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

function percent(share) {
  return share >= 0.0995 ? `${(100 * share).toFixed(0)} %` : `${(100 * share).toFixed(share >= 0.001 ? 1 : 3)} %`;
}

/* A number with three digits. */
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(3)));
}
