// Sizes and places. A closed box is as large as its texts; an open one as its children, which
// layers.js arranges as a small graph of their own. What was laid out stays until something in it changes.
//
// The picture runs top down, or from left to right. Lines and the graph in an open box are laid out in
// the flow's own measures, x across it and y along it, and turned at the end; sizes of boxes, their
// places and those of texts are as on the screen.

const PAD = 12; // inside a frame
const TITLE = 20; // height of a title, and of a line of text
const LINE = 16;
const HEADER = 28; // of an open box
const APART = 16; // from the middle of two passes that run side by side, at least
const DASH = 16; // of a saved tensor's line, at each side of its text
const RANK = 48; // from one rank of boxes to the next, but for the texts between
const BACK = 14; // how far beside a loop's box its arrow back runs
const STRIP = { width: 7, gap: 2, height: 16 };

const faceParts = []; // of other scripts, in closed boxes: {size(box), draw(box, x, y)}

const fontFamily = getComputedStyle(document.body).fontFamily;
const fonts = {
  title: "600 13px",
  line: "400 12px",
  heat: "600 12px",
  name: "600 11.5px",
  shape: "400 11.5px",
  remark: "400 11.5px",
  header: "600 13px",
};
const pen = document.createElement("canvas").getContext("2d");
const widths = new Map();

/** The size of a thing across the flow, and along it. */
const girth = ({ w, h }) => (state.across ? h : w);
const reach = ({ w, h }) => (state.across ? w : h);

/** A point from the flow's measures to the screen's, or back. */
const turned = ({ x, y }) => (state.across ? { x: y, y: x } : { x, y });

/** A little more than the width of a text: the sum of its letters', each measured once. */
function textWidth(text, font) {
  const known = memo(widths, font, () => new Map());
  let width = 1;
  for (const letter of text) {
    let wide = known.get(letter);
    if (wide === undefined) {
      pen.font = `${fonts[font]} ${fontFamily}`;
      known.set(letter, (wide = pen.measureText(letter).width));
    }
    width += wide;
  }
  return Math.ceil(width);
}

/** A closed box as it is: its forward half, its backward half, and what is saved between them. */
function makeFace(box) {
  const back = backwardOf(box);
  return place({
    box,
    left: { title: box.title, lines: linesOf(box) },
    right: back && { title: back[0], lines: back[1], afar: back[2] },
    saved: back ? box.saved.map(([text, at]) => ({ text, tensor: tensors[at] })) : [],
    heat: heatOf(box),
  });
}

/** The sizes of a face's parts. */
function place(face) {
  const { left, right, saved, heat, box } = face;
  const chevron = box.children.length ? 16 : 0;
  const wide = (half) =>
    Math.max(textWidth(half.title, "title"), ...half.lines.map((t) => textWidth(t, "line")));
  const tall = (half) => TITLE + LINE * half.lines.length + 2 * PAD - 4;
  left.w = Math.max(wide(left), textWidth(left.title, "title") + chevron) + 2 * PAD;
  left.h = tall(left);
  if (state.across) left.w = Math.max(left.w, loopSize(box).w);
  for (const each of faceParts.map((part) => part.size(box)).filter(Boolean)) {
    left.w = Math.max(left.w, each.w + 2 * PAD);
    left.h += each.h + 4;
  }
  if (heat) {
    const strip = heat.bars.length * (STRIP.width + STRIP.gap);
    left.w = Math.max(left.w, textWidth(heat.text, "heat") + 2 * PAD, strip + 2 * PAD);
    left.h += LINE + (strip ? STRIP.height + 6 : 0);
  }
  if (right) {
    left.w = right.w = Math.max(left.w, wide(right) + 2 * PAD);
    right.h = tall(right);
    const across = savedSize(saved);
    if (state.across) left.w = right.w = Math.max(left.w, across.w + PAD);
    else left.h = right.h = Math.max(left.h, right.h, across.h + PAD);
    putBeside(face, 0);
  }
  const whole = right ? { w: right.x + right.w, h: right.y + right.h } : left;
  [face.w, face.h] = [whole.w, whole.h];
  face.apart = right ? turned(right).x : 0;
  // Where lines may touch it: the tensors at its left half, the gradients at its right.
  const all = [0, girth(left)];
  face.spans = { forward: all, backward: right ? [face.apart, girth(face)] : all };
  return face;
}

/** The size of what is saved between two halves: a text under the other, or beside it. */
function savedSize(saved) {
  const wide = saved.map((each) => textWidth(each.text, "shape") + 8);
  if (state.across) return { w: wide.reduce((a, b) => a + b, 0), h: LINE };
  return { w: Math.max(...wide, 0), h: LINE * saved.length };
}

/** Put the backward half beside the forward one, or below it, and what is saved between them. */
function putBeside({ left, right, saved }, top) {
  const room = savedSize(saved);
  const gap = saved.length ? girth(room) + 2 * DASH : 3 * DASH;
  if (state.across) [right.x, right.y] = [0, left.h + gap];
  else [right.x, right.y] = [left.w + gap, top];
  let at = ((state.across ? left.w : 2 * top + right.h) - reach(room)) / 2;
  for (const each of saved) {
    const size = savedSize([each]);
    const middle = { x: girth(left) + gap / 2, y: at + reach(size) / 2 };
    at += reach(size);
    Object.assign(each, turned(middle), { half: girth(size) / 2 });
  }
}

const caches = [false, true].map(() => ({ faces: new Map(), layouts: new Map() }));

/** Forget what was laid out: of one box and those around it, or all. */
function touch(box) {
  for (const { faces, layouts } of caches) {
    if (!box) faces.clear();
    for (const b of box ? chain(box) : boxes) layouts.delete(b);
  }
}

function measure(box) {
  const { faces, layouts } = caches[Number(state.across)];
  return isOpen(box) ? memo(layouts, box, layOut) : memo(faces, box, makeFace);
}

/** What the arrows back of a loop's box carry; those of gradients only where the pass is drawn. */
const loopsOf = (box) => box.loops.filter(([, , back]) => !back || state.backward);

/** The size of the texts at a loop's arrows back: two lines each, or one from left to right. */
function loopSize(box) {
  const loops = loopsOf(box);
  if (!loops.length) return { w: 0, h: 0 };
  const each = loops.map((said) => [textWidth(said[0], "name"), textWidth(said[1], "shape")]);
  const wide = each.map(([name, shape]) => (state.across ? name + shape + 8 : Math.max(name, shape)));
  return { w: Math.max(...wide), h: (state.across ? 15 : 30) * loops.length };
}

/** The room left of a loop's box, or above it, for the arrow back and what it carries. */
const loopRoom = (box) => (box.loops.length ? 2 * BACK + 8 + girth(loopSize(box)) : 0);

// --- The texts on edges ---

/** The text on one side of an edge and its size, or null where it has no such side. */
function edgeText(edge, side) {
  const lines = edgeLines(edge, side);
  if (!lines) return null;
  const w = Math.max(...lines.map((l) => textWidth(l.text, l.font))) + 10;
  return { lines, w, h: 15 * lines.length + 4 };
}

/** An edge with the texts of both passes, the gradient's to the right of the tensor's. */
function dress(wire, ranks) {
  const { edge, sides } = wire;
  const texts = edge.to === OUT ? [] : sides.map((side) => [side, edgeText(edge, side)]);
  wire.texts = Object.fromEntries(texts);
  const { forward, backward } = wire.texts;
  wire.spread = sides.length < 2 ? 0 : 2 * APART;
  if (forward && backward) wire.spread = (girth(forward) + girth(backward)) / 2 + 8;
  // Between neighbours the passes stay as far apart as in the boxes, so that both run straight.
  if (sides.length > 1 && ranks[wire.to] - ranks[wire.from] === 1) {
    const apart = [edge.from, edge.to]
      .filter((b) => b !== IN && b !== OUT)
      .map((b) => apartAt(b, edge, b === edge.from));
    wire.spread = Math.max(wire.spread, Math.min(...apart));
  }
  wire.w = wire.spread + Math.max(10, ...texts.map(([, t]) => girth(t)));
  wire.h = Math.max(1, ...texts.map(([, t]) => reach(t)));
}

/** How far apart the two passes are where an edge leaves a box, or enters it. */
function apartAt(box, edge, leaves) {
  const shape = measure(box);
  if (shape.half) return shape.apart;
  return shape.ports?.get(`${leaves ? "out" : "in"}\n${edge.tensor.id}`)?.apart ?? shape.apart ?? 0;
}

// --- One open box ---

const portName = (edge) => (edge.from === IN ? `in\n${edge.tensor.id}` : `out\n${edge.tensor.id}`);

function layOut(box) {
  let wires = [];
  const taken = new Map(); // the wires of each port
  for (const edge of box.edges) {
    const sides = SIDES.filter((side) => edge[side] && (side === "forward" || state.backward));
    if (!sides.length) continue;
    const wire = { edge, sides, weight: 1 + sides.length };
    wires.push(wire);
    for (const end of [edge.from, edge.to])
      if (!end.children) memo(taken, portName(edge), () => []).push(wire);
  }
  const pairs = pairedWires(wires);
  const passing = throughs(box, wires, pairs);
  const own = asides.get(box) ?? NOTHING;
  for (const child of box.children) {
    const over = [...pairs.filter(({ right }) => right === child).flatMap((pair) => pair.wires)];
    over.push(...passing.filter(({ edge }) => edge.to === child));
    if (isOpen(child)) letIn(child, new Set(over.map(({ edge }) => edge.tensor)));
  }
  for (const { edge } of passing) taken.delete(portName(edge));
  const aside = new Set([...passing, ...pairs.flatMap((pair) => pair.wires)]);
  wires = wires.filter((wire) => !aside.has(wire));
  const ports = [...taken.keys()];
  const [into, out] = ["in\n", "out\n"].map((kind) => ports.filter((p) => p.startsWith(kind)));
  const atLeft = (port) => own.has(taken.get(port)[0].edge.tensor);
  const inputs = box.children.filter((child) => child.kind === "input");
  const rest = box.children.filter((child) => child.kind !== "input");
  // At the border stand ports, in ranks for themselves, and on top what the whole graph reads.
  const nodes = new Map();
  for (const port of inPlace(into.filter((port) => !atLeft(port))))
    nodes.set(port, { first: true, port, h: 0 });
  for (const port of into.filter(atLeft)) nodes.set(port, { aside: true, port, h: 0 });
  for (const child of inputs) nodes.set(child, { stays: true });
  for (const child of rest) nodes.set(child, { ports: inSignature(child) });
  for (const pair of pairs) nodes.set(pair, { w: measurePair(pair).width, h: 0 });
  for (const port of out) nodes.set(port, { last: true, port, h: 0 });
  const number = new Map([...nodes.keys()].map((key, i) => [key, i]));
  for (const wire of wires)
    for (const end of ["from", "to"]) {
      const owner = wire.edge[end];
      wire[end] = number.get(owner.children ? owner : portName(wire.edge));
    }
  const list = [...nodes.values()];
  const rows = pairs.map((pair) => [pair.left, pair, pair.right].map((key) => number.get(key)));
  const ranking = rankedInRows(list, wires, rows);
  for (const wire of wires) dress(wire, ranking.ranks);
  for (const [key, node] of nodes) {
    if (key.lanes) continue;
    if (!node.port) {
      const shape = measure(key);
      Object.assign(node, { w: girth(shape) + loopRoom(key), h: reach(shape) });
    } else {
      node.apart = Math.max(...taken.get(key).map((w) => w.spread));
      node.w = node.apart + 24;
    }
  }
  const edgeGap = state.backward ? 2 * APART + 12 : 14;
  for (const { left, right, tall, down } of pairs) {
    nodes.get(left).h = tall;
    nodes.get(right).h += down;
  }
  const gaps = { node: 26, edge: edgeGap, rank: RANK };
  const { half } = arrange(list, wires, ranking, rows, gaps);
  list.forEach((node, i) => {
    node.half = half(i);
    node.middle = node.y;
  });
  // Branches begin at the top of their rank; what comes from the left comes in below it.
  for (const { left, right, down } of pairs)
    for (const [box, least] of [[left, 0], [right, down]]) {
      const node = nodes.get(box);
      node.h = reach(measure(box));
      node.y = node.middle - node.half + least + node.h / 2;
    }
  const entering = list.filter((node) => node.aside).sort((a, b) => b.x - a.x);
  entering.forEach((node, i) => {
    node.y = node.middle + node.half + (RANK / 2) * ((i + 1) / (entering.length + 1));
  });
  const found = measureOpen(box, nodes, wires);
  routeAside(found, pairs, passing);
  found.wires = [...wires, ...aside];
  return found;
}

/** Ranks where the nodes of a row have one together. */
function rankedInRows(nodes, wires, rows) {
  const first = new Map(rows.flatMap((row) => row.map((node) => [node, row[0]])));
  const stand = (node) => first.get(node) ?? node;
  const own = wires.map((wire) => ({ ...wire, from: stand(wire.from), to: stand(wire.to) }));
  const found = ranked(nodes, own);
  for (const [node, other] of first) found.ranks[node] = found.ranks[other];
  return found;
}

/** An op or a module has what it reads in the order of its signature, as its edges are in. */
const inSignature = (box) => ["op", "module"].includes(box.kind) && !isOpen(box);

/** Ports by where their tensors come from, so that they keep one order on all borders. */
function inPlace(ports) {
  const place = (port) => {
    const { made } = tensorById.get(port.slice(port.indexOf("\n") + 1));
    return Math.max(0, ...made.map((box) => box.at));
  };
  return ports.sort((a, b) => place(a) - place(b));
}

function measureOpen(box, nodes, wires) {
  const ports = [...nodes.values()].filter((node) => node.port);
  const into = ports.filter((node) => node.first);
  const isRoot = box === root;
  const top = into[0]?.y ?? -PAD;
  const header = isRoot ? 0 : HEADER; // where the flow begins, or from left to right beside it
  const [aside, ahead] = state.across ? [header, 0] : [0, header];
  const extent = { left: Infinity, right: -Infinity, bottom: -Infinity };
  const cover = ({ x, y }, w, h) => {
    extent.left = Math.min(extent.left, x - w / 2);
    extent.right = Math.max(extent.right, x + w / 2);
    extent.bottom = Math.max(extent.bottom, y + h / 2);
  };
  for (const node of nodes.values()) cover(node, node.w, node.h);
  for (const wire of wires) {
    cover(wire, wire.w + 4, wire.h);
    for (const point of wire.points) cover(point, wire.spread + 12, 0);
  }
  // A single tensor comes in at the middle, if that costs little.
  if (into.length === 1) {
    const [{ x }] = into;
    const [left, right] = [x - extent.left, extent.right - x];
    if (Math.abs(left - right) < 90) cover({ x, y: top }, 2 * Math.max(left, right), 0);
  }
  const titled = 16 + textWidth(box.title, "header") + textWidth(box.place || "", "line") + 3 * PAD;
  const least = isRoot ? 0 : Math.max(titled, loopSize(box).w);
  const inner = extent.right - extent.left + 2 * PAD;
  const breadth = state.across ? header + inner : Math.max(inner, least);
  const shift = { x: (aside + breadth - extent.right - extent.left) / 2, y: ahead - top };
  for (const item of [...nodes.values(), ...wires, ...wires.flatMap((wire) => wire.points)]) {
    item.x += shift.x;
    item.y += shift.y;
    if (item.middle !== undefined) item.middle += shift.y;
  }
  const bottom = ports.find((node) => node.last)?.y ?? extent.bottom + PAD + shift.y;
  const { x: w, y: h } = turned({ x: breadth, y: state.across ? Math.max(bottom, least) : bottom });
  const found = { box, w, h, nodes, wires, places: new Map() };
  found.spans = { forward: [aside, breadth], backward: [aside, breadth] };
  for (const child of box.children) {
    const node = nodes.get(child);
    const x = node.x - node.w / 2 + loopRoom(child);
    found.places.set(child, turned({ x, y: node.y - node.h / 2 }));
  }
  if (box.kind === "op" && backwardOf(box) && !box.children.some(backwardOf)) addHalf(found);
  found.ports = new Map(ports.map((node) => [node.port, node]));
  route(found);
  return found;
}

/** Beside what a fused op is made of, or below it, its backward. */
function addHalf(found) {
  const face = makeFace(found.box);
  const { left, right } = face;
  if (state.across) {
    left.w = right.w = Math.max(found.w, right.w);
    left.h = found.h - PAD;
  } else {
    right.h = Math.max(found.h - HEADER, right.h);
    left.w = found.w - PAD;
  }
  putBeside(face, HEADER);
  [found.w, found.h] = [right.x + right.w, right.y + right.h];
  found.spans.backward = [turned(right).x, girth(found)];
  found.apart = girth(found) / 2;
  found.half = face;
}

// --- Lines ---

/** The x of a line at each end: at a port where there is one, else near where it comes from. */
function anchors(found, side, end) {
  const groups = { forward: new Map(), backward: new Map() };
  for (const wire of found.wires) {
    if (!wire.sides.includes(side)) continue;
    const owner = end === "start" ? wire.edge.from : wire.edge.to;
    const aim = wire.middle[end === "start" ? 0 : wire.middle.length - 1][side];
    const set = (x) => {
      wire[side] = { ...wire[side], [end]: x };
    };
    const atPort = ({ x, apart }) => x + (side === "forward" ? -apart : apart) / 2;
    if (owner === IN || owner === OUT) {
      set(atPort(found.ports.get(portName(wire.edge))));
      continue;
    }
    const left = turned(found.places.get(owner)).x;
    const shape = measure(owner);
    const port =
      side === "backward" && shape.half
        ? null
        : shape.ports?.get(`${end === "start" ? "out" : "in"}\n${wire.edge.tensor.id}`);
    if (port) {
      set(left + atPort(port));
      continue;
    }
    // One tensor leaves a box at one place; what it reads comes in side by side.
    const slot = end === "start" ? wire.edge.tensor.id : wire.edge.key;
    const half = end === "start" && side === "forward" && onward(wire.edge) ? "backward" : side;
    const slots = memo(groups[half], owner, () => new Map());
    const users = memo(slots, slot, () => ({ aims: [], sets: [] }));
    users.aims.push(aim);
    users.sets.push(set);
  }
  for (const half of SIDES) for (const each of groups[half]) spread(found, half, end, ...each);
}

/** Lines side by side at one half of a box: as near as may be to where they come from. */
function spread(found, half, end, owner, slots) {
  const left = turned(found.places.get(owner)).x;
  const [from, to] = measure(owner).spans[half].map((x) => x + left);
  const list = [...slots.values()].map((s) => ({
    ...s,
    x: s.aims.reduce((a, b) => a + b, 0) / s.aims.length,
  }));
  if (end === "start" || !inSignature(owner)) list.sort((a, b) => a.x - b.x);
  const room = Math.min(14, (to - from) / (list.length + 1));
  let x = from;
  for (const slot of list) {
    x = Math.max(x + room, Math.min(slot.x, to - room));
    slot.at = x;
  }
  x = to;
  for (const slot of list.reverse()) {
    x = Math.min(slot.at, x - room);
    slot.sets.forEach((set) => set(x));
  }
}

/** Lines stand upright where they pass boxes and texts, and swing over only between the ranks. */
function route(found) {
  for (const wire of found.wires) {
    const aside = wire.sides.length > 1 ? APART : 0;
    const center = { forward: wire.x - wire.spread / 2, backward: wire.x + wire.spread / 2 };
    for (const [side, said] of Object.entries(wire.texts))
      Object.assign(said, turned({ x: center[side], y: wire.y }));
    const points = wire.points.length ? wire.points : [{ x: wire.x, y: wire.y, half: 0, text: true }];
    wire.middle = points.map(({ x, y, half, text }) => ({
      y,
      half,
      forward: text ? center.forward : x - aside,
      backward: text ? center.backward : x + aside,
    }));
  }
  for (const side of SIDES) for (const end of ["start", "end"]) anchors(found, side, end);
  for (const wire of found.wires) {
    const left = found.ports.get(wire.edge.from === IN ? portName(wire.edge) : null)?.aside;
    const ends = ["from", "to"].map((which) => {
      const owner = wire.edge[which];
      if (owner === IN && left) return { middle: found.ports.get(portName(wire.edge)).y, h: 0, half: 0 };
      if (owner === IN) return { middle: state.across ? 0 : HEADER, h: 0, half: 0 };
      if (owner === OUT) return { middle: reach(found), h: 0, half: 0 };
      const { y, middle, h, half } = found.nodes.get(owner);
      return { middle: y, h, half, rank: middle };
    });
    const down = ends[0].middle <= ends[1].middle;
    ends.forEach((end, i) => {
      const sign = (i === 0) === down ? 1 : -1;
      end.y = end.middle + (sign * end.h) / 2;
      end.rank = (end.rank ?? end.middle) + sign * end.half;
    });
    for (const side of wire.sides) {
      const { start, end } = wire[side];
      const points = [
        [start, ends[0].y],
        [start, ends[0].rank],
      ];
      for (const m of wire.middle) {
        const sign = down ? 1 : -1;
        points.push([m[side], m.y - sign * m.half], [m[side], m.y + sign * m.half]);
      }
      points.push([end, ends[1].rank], [end, ends[1].y]);
      if (left) {
        const y = ends[0].y + bias(side);
        wire[side].corners = [[0, y], [start, y], [start, y + CORNER]];
        points[0] = points[1] = [start, y + CORNER];
      }
      wire[side].points = points;
    }
  }
}
