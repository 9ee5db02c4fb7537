// The page model as objects that know each other: boxes, tensors, links and edges. Every text,
// number and colour in it was made in Python; here is only what depends on what a person does.

/** The entry of a map, made if there is none. */
function memo(map, key, make) {
  if (!map.has(key)) map.set(key, make(key));
  return map.get(key);
}

class Box {
  /** Most boxes are never opened: their edges are made when they are. */
  set edges(rows) {
    this.edgeRows = rows;
  }

  get edges() {
    return (this.edgesMade ??= (this.edgeRows || []).map(edgeOf));
  }
}
class Tensor {}

/** Objects with the fields of a table. */
function records({ fields, rows }, Kind) {
  return rows.map((row) => {
    const found = new Kind();
    for (let i = 0; i < fields.length; i += 1) found[fields[i]] = row[i];
    return found;
  });
}

const boxes = records(raw.boxes, Box);
const tensors = records(raw.tensors, Tensor);
const root = boxes[0];
const boxById = new Map(boxes.map((box) => [box.id || "", box]));
const tensorById = new Map(tensors.map((tensor) => [tensor.id, tensor]));

boxes.forEach((box, at) => {
  box.id ||= "";
  box.at = at; // in the order of the tree
  box.parent ??= null;
  const inside = (box.children || []).map((at) => boxes[at]);
  for (const child of inside) child.parent = box;
  box.children = inside;
  if (inside.some((child) => child.late)) {
    const early = inside.filter((child) => !child.late);
    Object.defineProperty(box, "children", { get: () => (state.backward ? inside : early) });
  }
  for (const list of ["lines", "saved", "loops"]) box[list] ||= [];
  box.brief ||= box.lines;
  box.tensor = tensors[box.tensor - 1] ?? null; // of an input or output
});
tensors.forEach((tensor, at) => {
  tensor.at = at;
  tensor.made = (tensor.made || []).map((at) => boxes[at]);
  tensor.read = (tensor.read || []).map((at) => boxes[at]);
});
const links = raw.links.map(([from, to, tensor, backward]) => ({
  from: boxes[from],
  to: boxes[to],
  tensor: tensors[tensor],
  backward: Boolean(backward),
}));
const hasBackward = Boolean(root.backward);

// --- Edges: each box that opens has a small graph of its own, of its children and its border ---

const IN = "\nin"; // as no box is called
const OUT = "\nout";
const SIDES = ["forward", "backward"];

function edgeOf([from, to, tensor, marks, ...sides]) {
  const edge = {
    from: from ? boxes[from] : IN,
    to: to ? boxes[to] : OUT,
    tensor: tensors[tensor],
    skip: Boolean(marks & 1),
    fanned: Boolean(marks & 2), // to all members of a fold
  };
  edge.key = [edge.from.id ?? IN, edge.to.id ?? OUT, edge.tensor.id].join("\n");
  sides.forEach((side, i) => {
    if (!side) return;
    const [at, name, shape, remark = "", port = ""] = side;
    edge[SIDES[i]] = { links: at.map((n) => links[n]), name, shape, remark, port };
  });
  return edge;
}

/** A gradient that the program goes on with: it leaves the backward half of the box that made it. */
const onward = (edge) => edge.forward?.links.every((link) => link.tensor.gradient);

/** The boxes around a box and it itself, from the root down. */
function chain(box) {
  const found = [];
  for (let b = box; b; b = b.parent) found.push(b);
  return found.reverse();
}

const inside = (box, outer) => chain(box).includes(outer);
const isTensor = (target) => Boolean(target?.made);

/** Half of the data, and none of the picture: panels and search keys, read when first asked for. */
let details = null;
function detailsOf(thing) {
  details ??= JSON.parse(rawDetails());
  return details[isTensor(thing) ? "tensors" : "boxes"][thing.at];
}

/** The sections of a panel: its frame, filled. */
function panelOf(thing) {
  const [[at, ...filling]] = detailsOf(thing);
  return details.frames[at].map(([title, kind, names]) => [
    title,
    kind,
    names ? names.map((name) => [name, filling.shift()]) : filling.shift(),
  ]);
}

/** What a box or tensor is found by: for each of the fields, names in lines. */
const keysOf = (thing) => detailsOf(thing).slice(1);

/** The links on which a box or tensor depends ("up"), or which depend on it ("down"). */
function follow(start, way) {
  const [near, far] = way === "up" ? ["to", "from"] : ["from", "to"];
  const gradient = Boolean(start.gradient);
  const ahead = new Map();
  for (const link of links) {
    if (link.backward !== gradient) continue;
    memo(ahead, link[near], () => []).push(link);
  }
  const found = { boxes: new Set(), links: new Set() };
  const queue = [];
  if (!isTensor(start)) queue.push(...boxes.filter((box) => inside(box, start)));
  else if (way === "up") queue.push(...start.made);
  else
    for (const link of links) {
      if (link.tensor !== start) continue;
      found.links.add(link);
      queue.push(link.to);
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

// --- Which boxes are open ---

const state = {
  base: raw.level,
  open: new Set(),
  selected: null,
  members: new Map(), // of folded boxes: which one is shown in place of all
  way: null,
  overlay: null,
  backward: false,
  across: false, // from left to right, in place of top down
  theme: null,
  chapter: null, // of a walkthrough, from 1 on; null where the graph stands alone
};

/** The boxes that are open to begin with: at a level, all or none. */
function openOf(base) {
  if (base === "none") return [];
  const opened = base === "all" ? boxes : raw.levels[base].open.map((at) => boxes[at]);
  return opened.filter((box) => box.children.length);
}

const isOpen = (box) => box.children?.length > 0 && (box === root || state.open.has(box));

/** The visible boxes, outer before inner. */
function visible() {
  const found = [];
  const queue = [root];
  while (queue.length) {
    const box = queue.pop();
    if (box !== root) found.push(box);
    if (isOpen(box)) queue.push(...[...box.children].reverse());
  }
  return found;
}

/** The box itself if it is visible, else the nearest around it that is. */
function visibleAround(box) {
  const found = chain(box).find((b) => !isOpen(b)) ?? box;
  return found.late && !state.backward ? found.parent : found;
}

// --- What is said, as the state is ---

function linesOf(box) {
  const own = box.own.data?.[shown(box)]; // the number of the one that is shown
  return [...(state.base === "arch" ? box.brief : box.lines), ...(own ? [own] : [])];
}
const backwardOf = (box) => (state.backward && box.backward) || null;

/** The overlay that is on, for the passes that are drawn: ends of its ramp, and heats by box. */
function passes() {
  const found = raw.overlays[state.overlay]?.passes;
  return found ? (found[Number(state.backward)] ?? found[0]) : null;
}

/**
 * What the overlay says of a box: a text, a step of the ramp, and the same of each instance; or of
 * the one that is shown.
 */
function heatOf(box) {
  const heat = passes()?.heats[box.at];
  if (!heat) return null;
  const at = raw.bases.indexOf(state.base);
  const [text, steps, bars = []] = heat;
  const each = passes().owns[box.at] ?? [];
  const own = each[Math.min(shown(box) ?? NaN, each.length - 1)]; // of alike ones there is one
  if (own) return { text: own[0], step: own[1][at], bars: [] };
  return { text, step: steps[at], bars: bars.map(([said, each]) => ({ text: said, step: each[at] })) };
}

const rampEnds = () => passes().ends[raw.bases.indexOf(state.base)];

/** The lines of text on one side of an edge, or null where it has no such side. */
function edgeLines(edge, side) {
  const said = edge[side];
  if (!said) return null;
  const closed = edge.to.children && !isOpen(edge.to);
  return [
    { text: (closed && said.port) || said.name, font: "name" },
    { text: said.shape, font: "shape" },
    { text: said.remark, font: "remark" },
  ].filter((line) => line.text);
}
