// Sizes and places. A closed box is as large as its texts; an open one as its children, which dagre
// lays out as a small graph of their own. What was laid out stays until something in it changes.

const PAD = 12; // inside a frame
const TITLE = 20; // height of a title, and of a line of text
const LINE = 16;
const HEADER = 28; // of an open box
const APART = 16; // from the middle of two passes that run side by side, at least
const DASH = 16; // of a saved tensor's line, at each side of its text
const STRIP = { width: 7, gap: 2, height: 16 };

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

function textWidth(text, font) {
  const key = `${font}\n${text}`;
  if (!widths.has(key)) {
    pen.font = `${fonts[font]} ${fontFamily}`;
    widths.set(key, Math.ceil(pen.measureText(text).width) + 1);
  }
  return widths.get(key);
}

/** A closed box as it is: its forward half, its backward half, and what is saved between them. */
function makeFace(box) {
  const back = backwardOf(box);
  return place({
    box,
    left: { title: box.title, lines: linesOf(box) },
    right: back && { title: back[0], lines: back[1] },
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
  if (heat) {
    const strip = heat.bars.length * (STRIP.width + STRIP.gap);
    left.w = Math.max(left.w, textWidth(heat.text, "heat") + 2 * PAD, strip + 2 * PAD);
    left.h += LINE + (strip ? STRIP.height + 6 : 0);
  }
  face.w = left.w;
  face.h = left.h;
  if (right) {
    left.w = right.w = Math.max(left.w, wide(right) + 2 * PAD);
    const gap = saved.length
      ? Math.max(...saved.map((s) => textWidth(s.text, "shape"))) + 2 * DASH + 8
      : 3 * DASH;
    right.x = left.w + gap;
    face.w = right.x + right.w;
    face.h = Math.max(left.h, tall(right), LINE * saved.length + PAD);
  }
  face.apart = right ? right.x : 0;
  // Where lines may touch it: the tensors at its left half, the gradients at its right.
  face.spans = { forward: [0, left.w], backward: right ? [right.x, face.w] : [0, left.w] };
  return face;
}

const faces = new Map();
const layouts = new Map();

/** Forget what was laid out: of one box and those around it, or all. */
function touch(box) {
  if (!box) {
    faces.clear();
    layouts.clear();
    return;
  }
  for (const b of chain(box)) layouts.delete(b);
}

function memo(map, box, make) {
  if (!map.has(box)) map.set(box, make(box));
  return map.get(box);
}

const measure = (box) => (isOpen(box) ? memo(layouts, box, layOut) : memo(faces, box, makeFace));

// --- The texts on edges ---

/** The text on one side of an edge and its size, or null where it has no such side. */
function edgeText(edge, side) {
  const lines = edgeLines(edge, side);
  if (!lines) return null;
  const w = Math.max(...lines.map((l) => textWidth(l.text, l.font))) + 10;
  return { lines, w, h: 15 * lines.length + 4 };
}

/** An edge with the texts of both passes, the gradient's to the right of the tensor's. */
function dress(edge, depth) {
  const ends = edge.to !== OUT;
  const forward = edgeText(edge, "forward");
  const backward = state.backward ? edgeText(edge, "backward") : null;
  if (!forward && !backward) return null;
  const wire = { edge, sides: [forward && "forward", backward && "backward"].filter(Boolean) };
  const texts = ends ? { ...(forward && { forward }), ...(backward && { backward }) } : {};
  const parts = Object.values(texts);
  wire.spread = wire.sides.length < 2 ? 0 : 2 * APART;
  if (parts.length > 1) wire.spread = (forward.w + backward.w) / 2 + 8;
  // Between neighbours the passes stay as far apart as in the boxes, so that both run straight.
  if (wire.sides.length > 1 && depth.get(edge.to) - (depth.get(edge.from) ?? 0) === 1) {
    const apart = [edge.from, edge.to]
      .filter((b) => b !== IN && b !== OUT)
      .map((b) => apartAt(b, edge, b === edge.from));
    wire.spread = Math.max(wire.spread, Math.min(...apart));
  }
  const w = wire.spread + Math.max(10, ...parts.map((t) => t.w));
  return { ...wire, texts, w, h: Math.max(1, ...parts.map((t) => t.h)) };
}

/** How far apart the two passes are where an edge leaves a box, or enters it. */
function apartAt(box, edge, leaves) {
  const shape = measure(box);
  if (shape.half) return shape.apart;
  return shape.ports?.get(`${leaves ? "out" : "in"}\n${edge.tensor.id}`)?.apart ?? shape.apart ?? 0;
}

// --- One open box ---

const FIRST = "\nfirst"; // stands above all in a layout, as the next below all
const LAST = "\nlast";

const portName = (edge) => (edge.from === IN ? `in\n${edge.tensor.id}` : `out\n${edge.tensor.id}`);

function layOut(box) {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({
    nodesep: 26,
    edgesep: state.backward ? 2 * APART + 12 : 14,
    ranksep: 48,
    ranker: box.children.length > 200 ? "longest-path" : "network-simplex",
  });
  for (const child of box.children)
    graph.setNode(child.id, { width: measure(child).w, height: measure(child).h });
  const depth = depths(box);
  const wires = [];
  const taken = new Map(); // the wires of each port
  for (const edge of box.edges) {
    const wire = dress(edge, depth);
    if (!wire) continue;
    wires.push(wire);
    [wire.start, wire.end] = [edge.from.id ?? portName(edge), edge.to.id ?? portName(edge)];
    for (const port of [wire.start, wire.end]) {
      if (taken.has(port)) taken.get(port).push(wire);
      if (graph.hasNode(port)) continue;
      taken.set(port, [wire]);
      graph.setNode(port, { height: 0, port: true });
    }
    graph.setEdge(
      wire.start,
      wire.end,
      { width: wire.w, height: wire.h, labelpos: "c", minlen: 1, weight: 1 + wire.sides.length },
      edge.key,
    );
  }
  for (const [port, users] of taken) {
    const apart = Math.max(...users.map((w) => w.spread));
    Object.assign(graph.node(port), { apart, width: apart + 24 });
  }
  const ports = [...taken.keys()];
  const [into, out] = ["in\n", "out\n"].map((kind) => ports.filter((p) => p.startsWith(kind)));
  const inputs = box.children.filter((child) => child.kind === "input").map((child) => child.id);
  const top = [...inPlace(into), ...inputs];
  // Heavy edges keep ports at the border, in ranks for themselves, however far away the reader is,
  // and at the top what the whole graph reads. What is joined last, dagre puts to the left.
  const keep = (from, to, weight, minlen = 1) =>
    graph.setEdge(from, to, { weight, minlen, width: 0, height: 0 }, "border");
  if (top.length) graph.setNode(FIRST, { width: 0, height: 0 });
  if (out.length) graph.setNode(LAST, { width: 0, height: 0 });
  for (const { id } of box.children) {
    if (top.length && !inputs.includes(id) && !graph.inEdges(id).length)
      keep(FIRST, id, 0, into.length ? 2 : 1);
    if (out.length && !graph.outEdges(id).length) keep(id, LAST, 0, 2);
  }
  for (const name of top.reverse()) keep(FIRST, name, 100);
  for (const port of out) keep(port, LAST, 100);
  dagre.layout(graph);
  return measureOpen(box, graph, wires);
}

/** Ports by where their tensors come from, so that they keep one order on all borders. */
function inPlace(ports) {
  const place = (port) => {
    const { made } = tensorById.get(port.slice(port.indexOf("\n") + 1));
    return Math.max(0, ...made.map((box) => box.at));
  };
  return ports.sort((a, b) => place(a) - place(b));
}

function measureOpen(box, graph, wires) {
  const at = (name) => graph.node(name);
  const ports = graph.nodes().filter((name) => at(name).port);
  const edgeOf = (name) => ports.filter((p) => p.startsWith(name)).map((p) => at(p).y)[0];
  const isRoot = box === root;
  const top = edgeOf("in\n") ?? -PAD;
  const header = isRoot ? 0 : HEADER;
  const extent = { left: Infinity, right: -Infinity, bottom: -Infinity };
  const cover = (x, y, w, h) => {
    extent.left = Math.min(extent.left, x - w / 2);
    extent.right = Math.max(extent.right, x + w / 2);
    extent.bottom = Math.max(extent.bottom, y + h / 2);
  };
  for (const child of box.children)
    cover(at(child.id).x, at(child.id).y, at(child.id).width, at(child.id).height);
  for (const port of ports) cover(at(port).x, at(port).y, at(port).width, 0);
  for (const wire of wires) {
    wire.laid = graph.edge(wire.start, wire.end, wire.edge.key);
    cover(wire.laid.x, wire.laid.y, wire.w + 4, wire.h);
    for (const point of wire.laid.points.slice(1, -1)) cover(point.x, point.y, wire.spread + 12, 0);
  }
  // A single tensor comes in at the middle, if that costs little.
  const into = ports.filter((port) => port.startsWith("in\n"));
  if (into.length === 1) {
    const { x } = at(into[0]);
    const [left, right] = [x - extent.left, extent.right - x];
    if (Math.abs(left - right) < 90) cover(x, top, 2 * Math.max(left, right), 0);
  }
  const titled = 16 + textWidth(box.title, "header") + textWidth(box.place || "", "line") + 3 * PAD;
  const least = isRoot ? 0 : titled;
  const w = Math.max(extent.right - extent.left + 2 * PAD, least);
  const shift = { x: (w - extent.right - extent.left) / 2, y: header - top };
  const bottom = edgeOf("out\n") ?? extent.bottom + PAD;
  const found = { box, w, h: bottom + shift.y, places: new Map(), wires };
  found.spans = { forward: [0, w], backward: [0, w] };
  for (const child of box.children) {
    const { x, y, width, height } = at(child.id);
    found.places.set(child, { x: x + shift.x - width / 2, y: y + shift.y - height / 2 });
  }
  if (box.kind === "op" && backwardOf(box)) addHalf(found);
  found.ports = new Map(
    ports.map((port) => [port, { x: at(port).x + shift.x, apart: at(port).apart }]),
  );
  route(found, graph, shift);
  return found;
}

/** Beside what a fused op is made of, its backward. */
function addHalf(found) {
  const face = makeFace(found.box);
  const gap = face.right.x - face.left.w;
  const needed = Math.max(
    TITLE + LINE * face.right.lines.length + 2 * PAD,
    LINE * face.saved.length + PAD,
  );
  found.h = Math.max(found.h, HEADER + needed);
  face.left.w = found.w - PAD;
  face.right.x = face.left.w + gap;
  found.w = face.right.x + face.right.w;
  found.spans.backward = [face.right.x, found.w];
  found.apart = found.w / 2;
  found.half = face;
}

// --- Lines ---

/** The x of a line at each end: at a port where there is one, else near where it comes from. */
function anchors(found, side, end) {
  const groups = new Map();
  for (const wire of found.wires) {
    if (!wire.sides.includes(side)) continue;
    const owner = end === "start" ? wire.edge.from : wire.edge.to;
    const aim = wire.middle[end === "start" ? 0 : wire.middle.length - 1][side];
    const set = (x) => {
      wire[side] = { ...wire[side], [end]: x };
    };
    const atPort = ({ x, apart }) => x + (side === "forward" ? -apart : apart) / 2;
    if (owner === IN || owner === OUT) {
      set(atPort(found.ports.get(wire[end])));
      continue;
    }
    const left = found.places.get(owner).x;
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
    if (!groups.has(owner)) groups.set(owner, new Map());
    const slots = groups.get(owner);
    if (!slots.has(slot)) slots.set(slot, { aims: [], sets: [] });
    slots.get(slot).aims.push(aim);
    slots.get(slot).sets.push(set);
  }
  for (const [owner, slots] of groups) {
    const left = found.places.get(owner).x;
    const [from, to] = measure(owner).spans[side].map((x) => x + left);
    const list = [...slots.values()]
      .map((s) => ({ ...s, x: s.aims.reduce((a, b) => a + b, 0) / s.aims.length }))
      .sort((a, b) => a.x - b.x);
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
}

/** Lines stand upright where they pass boxes and texts, and swing over only between the ranks. */
function route(found, graph, shift) {
  const band = new Map(); // of a rank, by the y of its middle: half its height
  const widen = (y, h) => band.set(Math.round(y), Math.max(band.get(Math.round(y)) ?? 0, h / 2));
  for (const name of graph.nodes()) widen(graph.node(name).y, graph.node(name).height);
  for (const wire of found.wires) widen(wire.laid.y, wire.h);
  const half = (y) => band.get(Math.round(y)) ?? 0;
  for (const wire of found.wires) {
    const both = wire.sides.length > 1;
    const points = wire.laid.points.slice(1, -1);
    if (!points.length) points.push({ x: wire.laid.x, y: wire.laid.y });
    const center = {};
    for (const side of wire.sides) {
      center[side] = wire.laid.x + shift.x + (side === "forward" ? -wire.spread : wire.spread) / 2;
      Object.assign(wire.texts[side] ?? {}, { x: center[side], y: wire.laid.y + shift.y });
    }
    wire.middle = points.map((p) => {
      const labelled = Math.abs(p.y - wire.laid.y) < 1;
      const aside = both ? APART : 0;
      return {
        y: p.y + shift.y,
        half: half(p.y),
        forward: labelled ? center.forward : p.x + shift.x - aside,
        backward: labelled ? center.backward : p.x + shift.x + aside,
      };
    });
  }
  for (const side of ["forward", "backward"])
    for (const end of ["start", "end"]) anchors(found, side, end);
  for (const wire of found.wires) {
    const ends = ["from", "to"].map((which) => {
      const owner = wire.edge[which];
      if (owner === IN) return { y: HEADER, rank: HEADER };
      if (owner === OUT) return { y: found.h, rank: found.h };
      const middle = graph.node(owner.id).y;
      const h = graph.node(owner.id).height;
      return { middle: middle + shift.y, h, half: half(middle) };
    });
    const down = (ends[0].middle ?? ends[0].y) <= (ends[1].middle ?? ends[1].y);
    ends.forEach((end, i) => {
      if (end.middle === undefined) return;
      const sign = (i === 0) === down ? 1 : -1;
      end.y = end.middle + (sign * end.h) / 2;
      end.rank = end.middle + sign * end.half;
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
      wire[side].points = points;
    }
  }
}

/** How far down each child is: 1 more than the deepest it reads from. */
function depths(box) {
  const order = new Map([IN, ...box.children, OUT].map((b, i) => [b, i]));
  const depth = new Map([[IN, 0]]);
  const sorted = [...box.edges].sort((a, b) => order.get(a.from) - order.get(b.from));
  for (const { from, to } of sorted) {
    if (order.get(from) >= order.get(to)) continue; // it closes a circle
    depth.set(to, Math.max(depth.get(to) ?? 0, (depth.get(from) ?? 0) + 1));
  }
  return depth;
}
