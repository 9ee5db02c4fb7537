// The graph as the page has it: boxes, links, nodes and values, and what follows from them.

const raw = JSON.parse(document.getElementById("data").textContent);

const defaults = {
  boxes: {
    children: [],
    members: [],
    backward: [],
    parameters: [],
    label: "",
    path: "",
    count: 1,
    height: 0,
    parameter_count: 0,
    flops: 0,
    backward_flops: 0,
    activation_bytes: 0,
    saved_bytes: 0,
  },
  links: { fan: 1, port: "" },
  nodes: {
    inputs: [],
    outputs: [],
    input_names: [],
    saved: [],
    attributes: {},
    source: "",
    code: "",
  },
  values: { names: [], dims: [], saved_by: [], shape: [], nbytes: 0 },
};

function records(kind) {
  const { fields, rows } = raw[kind];
  return rows.map((row) => {
    const record = { ...defaults[kind] };
    fields.forEach((field, i) => {
      record[field] = row[i];
    });
    return record;
  });
}

const byId = (list) => new Map(list.map((record) => [record.id, record]));
const boxes = byId(records("boxes"));
const nodes = byId(records("nodes"));
const values = byId(records("values"));
const links = records("links").filter((l) => boxes.has(l.source) && boxes.has(l.target));
const root = boxes.get(raw.root);

for (const [place, box] of [...boxes.values()].entries()) {
  box.place = place; // in the order of the tree
  box.parent = boxes.get(box.parent) ?? null;
  box.children = box.children.map((id) => boxes.get(id));
  box.node = nodes.get(box.node) ?? null;
  box.backward = box.backward.map((id) => nodes.get(id)).filter(Boolean);
  box.parameters = box.parameters.map((id) => values.get(id)).filter(Boolean);
  box.look = raw.look[box.id];
  // Of an input or output, the tensor it is.
  box.value = values.get(box.id) ?? values.get(box.id.replace(/^output:/, "")) ?? null;
  box.measured = raw.measured[box.id] ?? {};
  box.edges = new Map(); // between its children, and to its border
  for (const node of [box.node, ...box.backward]) if (node) node.box = box;
}

/** The boxes around a box and it itself, from the root down. */
function chain(box) {
  const found = [];
  for (let b = box; b; b = b.parent) found.push(b);
  return found.reverse();
}

const inside = (box, outer) => chain(box).includes(outer);

// Whether a box takes part in the backward pass.
for (const box of boxes.values()) {
  if (box.backward.length) for (const b of chain(box)) b.differentiated = true;
}
const hasBackward = Boolean(root.differentiated);

// --- Links, lifted: each box that can be opened has a small graph of its own. ---

const IN = "\nin"; // as no box is called
const OUT = "\nout";

/** Merge a link into the edge of `box` that joins `from` and `to` with the same tensor. */
function addEdge(box, from, to, link) {
  const value = values.get(link.value);
  const tensor = (link.direction === "backward" && value?.of) || link.value;
  const key = [from.id ?? from, to.id ?? to, tensor].join("\n");
  if (!box.edges.has(key)) box.edges.set(key, { key, from, to, tensor, forward: [], backward: [] });
  box.edges.get(key)[link.direction === "backward" ? "backward" : "forward"].push(link);
}

/** A link shows in every box it crosses: where its ends part, and from there to each of them. */
function lift(link) {
  // A gradient runs against its tensor: it is drawn beside it, so it is lifted the same way round.
  const ends = [boxes.get(link.source), boxes.get(link.target)];
  if (link.direction === "backward") ends.reverse();
  const [up, down] = ends.map(chain);
  let depth = 0;
  while (up[depth + 1] && up[depth + 1] === down[depth + 1]) depth += 1;
  if (!up[depth + 1] || !down[depth + 1]) return; // one is in the other
  addEdge(up[depth], up[depth + 1], down[depth + 1], link);
  for (let i = depth + 1; i < up.length - 1; i += 1) addEdge(up[i], up[i + 1], OUT, link);
  for (let i = depth + 1; i < down.length - 1; i += 1) addEdge(down[i], IN, down[i + 1], link);
}
links.forEach(lift);

// Who gives and who reads a tensor.
for (const value of values.values()) {
  value.from = new Set();
  value.to = new Set();
}
for (const link of links) {
  link.from = boxes.get(link.source);
  link.to = boxes.get(link.target);
  values.get(link.value)?.from.add(link.from);
  values.get(link.value)?.to.add(link.to);
}
for (const box of boxes.values()) {
  if (box.kind === "input") box.value?.from.add(box);
  for (const node of [box.node, ...box.backward]) {
    for (const id of node?.outputs ?? []) values.get(id)?.from.add(box);
    for (const id of node?.inputs ?? []) values.get(id)?.to.add(box);
  }
}

/** The links on which a box or tensor depends ("up"), or which depend on it ("down"). */
function follow(start, way) {
  const [near, far] = way === "up" ? ["to", "from"] : ["from", "to"];
  const isBox = boxes.get(start.id) === start;
  const gradient = !isBox && start.kind === "gradient";
  const ahead = new Map();
  for (const link of links) {
    if ((link.direction === "backward") !== gradient) continue;
    if (!ahead.has(link[near])) ahead.set(link[near], []);
    ahead.get(link[near]).push(link);
  }
  const found = { boxes: new Set(), links: new Set() };
  const queue = [];
  if (isBox) {
    for (const box of boxes.values()) if (inside(box, start)) queue.push(box);
  } else if (way === "up") {
    queue.push(...start.from);
  } else {
    for (const link of links) {
      if (link.value === start.id) {
        found.links.add(link);
        queue.push(link.to);
      }
    }
  }
  for (let box = queue.pop(); box; box = queue.pop()) {
    if (found.boxes.has(box)) continue;
    found.boxes.add(box);
    for (const link of ahead.get(box) ?? []) {
      found.links.add(link);
      queue.push(link[far]);
    }
  }
  return found;
}

// --- Texts ---

const label = (value) => `(${(value.dims.length ? value.dims : value.shape).join(", ")})`;
const sizes = (value) => `(${value.shape.join(", ")})`;

/** What the code calls a tensor; a weight goes by the last part of its path. */
function nameOf(value) {
  if (value.kind === "gradient") {
    const of = values.get(value.of);
    return `\u2202${of ? nameOf(of) : ""}`;
  }
  const name = value.names[0] ?? "";
  return value.kind === "parameter" || value.kind === "buffer" ? name.split(".").pop() : name;
}

/** A number in three digits: 3152384 -> "3.15 M". */
function number(value, unit = "") {
  if (typeof value !== "number") return String(value);
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let power = 0;
  while (Math.abs(value) >= 999.5 && power < prefixes.length - 1) {
    value /= 1000;
    power += 1;
  }
  const digits = Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  return `${digits} ${prefixes[power]}${unit}`.trim();
}

function seconds(value) {
  for (const [unit, scale] of [
    ["s", 1],
    ["ms", 1e3],
  ]) {
    if (value * scale >= 1) return `${number(value * scale)} ${unit}`;
  }
  return `${number(value * 1e6)} \u00b5s`;
}

const percent = (share) => `${number(100 * share)} %`;

const sum = (list) => list.reduce((a, b) => a + Number(b), 0);
const largest = (list) =>
  list.reduce((a, b) => (Number(b) > Number(a) || Number.isNaN(Number(b)) ? b : a), 0);

// What can be laid over the picture: a number for each box, and one for each of its members.
const additive = (field) => ({
  join: "in",
  of: (box) => box[field] * copies(box),
  members: (box) => Array(copies(box)).fill(box[field]),
});
const measured = (kind, join) => ({
  join: join === sum ? "in" : "is the largest of",
  of: (box) => (box.measured[kind] ? join(box.measured[kind]) : null),
  members: (box) => box.measured[kind] ?? [],
});
const copies = (box) => chain(box).reduce((n, b) => n * b.count, 1);
const untraced = "no data: trace with stats=True";
const overlays = {
  flops: {
    title: "FLOPs",
    text: (v) => number(v, "FLOP"),
    why: "no FLOPs recorded",
    ...additive("flops"),
  },
  bytes: {
    title: "bytes",
    text: (v) => number(v, "B"),
    why: "no bytes recorded",
    ...additive("activation_bytes"),
  },
  time: { title: "time", text: seconds, why: untraced, log: true, ...measured("time", sum) },
  gradnorm: {
    title: "gradient norm",
    text: (v) => number(v),
    why: untraced,
    log: true,
    ...measured("gradnorm", largest),
  },
  nan: { title: "NaN", text: percent, why: untraced, ...measured("nan", largest) },
};
for (const overlay of Object.values(overlays)) {
  const found = [...boxes.values()].map(overlay.of);
  // That there is no NaN is worth knowing; that there are no FLOPs is not.
  const isNaNs = overlay === overlays.nan;
  overlay.has = found.some((v) => v !== null && (isNaNs || v > 0));
}

// --- Search ---

/** Boxes and tensors that hold every word: free text, or path:, shape:, op: and a text. */
function find(query) {
  const words = query
    .toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => {
      const [, field, text] = word.match(/^(path|shape|op):(.*)$/) ?? [null, "text", word];
      return { field, text };
    });
  if (!words.length) return [];
  const has = (texts) =>
    words.every(({ field, text }) => text && (texts[field] ?? "").toLowerCase().includes(text));
  const found = [];
  for (const box of boxes.values()) {
    if (box === root) continue;
    const texts = {
      text: [box.label, box.path, box.id, box.node?.op].join(" "),
      path: `${box.path} ${box.id}`,
      op: box.node ? `${box.node.op} ${box.label}` : "",
      shape: box.value ? label(box.value) : "",
    };
    if (has(texts)) found.push({ box, text: box.label, detail: box.path || box.kind });
  }
  for (const value of values.values()) {
    const box = [...value.from][0] ?? [...value.to][0];
    if (!box || boxes.has(value.id)) continue;
    const names = [nameOf(value), ...value.names].join(" ");
    const texts = { text: names, path: `${box.path} ${box.id}`, shape: label(value), op: "" };
    if (has(texts))
      found.push({
        box,
        value,
        text: nameOf(value) || box.label,
        detail: `${label(value)} ${box.path}`,
      });
  }
  return found;
}
