// From places to SVG: one group element per visible box, made anew only when its layout changed.

const SVG = "http://www.w3.org/2000/svg";
const STEPS = 7; // of the ramp
const picture = document.getElementById("picture");
const world = document.getElementById("world");

function fill(element, attributes, children) {
  for (const [name, v] of Object.entries(attributes))
    if (v !== undefined && v !== null) element.setAttribute(name, v);
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

const text = (x, y, string, kind, anchor) =>
  svg("text", { x, y, class: `text-${kind}`, "text-anchor": anchor }, string);
const rect = (kind, x, y, width, height, attributes) =>
  svg("rect", { class: kind, x, y, width, height, ...attributes });
const path = (kind, d) => svg("path", { class: kind, d });

/** A path from the flow's measures, as layout.js has them, to the screen's. */
function flowing(kind, d) {
  const turns = { H: "V", V: "H", h: "v", v: "h" };
  const turn = (_, letter, said) => {
    const numbers = said.match(/-?[\d.]+/g) ?? [];
    return (turns[letter] ?? letter) + numbers.map((n, i) => numbers[i ^ 1] ?? n).join(" ");
  };
  return path(kind, state.across ? d.replace(/([a-zA-Z])([^a-zA-Z]*)/g, turn) : d);
}

// --- Boxes ---

function outline(look, x, y, w, h, kind = "outline") {
  const { border, style, bars } = raw.looks[look];
  const frame = rect(kind, x, y, w, h, {
    rx: style === "rounded" ? Math.min(10, h / 3) : 3,
    "stroke-width": border,
    "stroke-dasharray": { dashed: "6 3", dotted: "1.5 3" }[style],
  });
  const shape = svg("g", { class: `look look-${look}` }, frame);
  if (bars)
    for (const at of [x + 5, x + w - 5])
      shape.append(svg("line", { class: "bar", x1: at, x2: at, y1: y, y2: y + h }));
  return shape;
}

const stack = (box, w, h) =>
  box.count ? [8, 4].map((d) => outline("module", d, d, w, h, "outline stacked")) : [];

/** A bar for each instance, as high as its step on the ramp. */
function drawBars(bars, x, y) {
  if (!bars.length) return [];
  const width = bars.length * (STRIP.width + STRIP.gap) + 4;
  return [
    rect("strip", x - 3, y, width, STRIP.height + 4, { rx: 2 }),
    ...bars.map((bar, i) => {
      const height = (STRIP.height * (Number(bar.step) + 1)) / STEPS;
      const [left, top] = [x + i * (STRIP.width + STRIP.gap), y + 2 + STRIP.height - height];
      const shape = rect(`bar-of-one step-${bar.step}`, left, top, STRIP.width, height);
      shape.append(svg("title", {}, bar.text));
      return shape;
    }),
  ];
}

function drawFace(face) {
  const { box, left, right, heat } = face;
  const shape = outline(box.look, 0, 0, left.w, left.h);
  const parts = [shape];
  if (box.fused) parts.push(outline(box.look, 3, 3, left.w - 6, left.h - 6, "inner"));
  let x = PAD;
  if (box.children.length) {
    parts.push(rect("header", 0, 0, left.w, TITLE + PAD, { rx: 3 }));
    parts.push(chevron(PAD, PAD + 7, false));
    x += 16;
  }
  parts.push(text(x, PAD + 12, left.title, "title"));
  left.lines.forEach((line, i) => parts.push(text(PAD, PAD + 12 + TITLE + LINE * i, line, "line")));
  let y = PAD + 12 + TITLE + LINE * left.lines.length;
  for (const part of faceParts.filter((part) => part.size(box))) {
    parts.push(...part.draw(box, PAD, y - 10));
    y += part.size(box).h + 4;
  }
  if (heat) {
    parts.push(text(PAD, y, heat.text, "heat"));
    for (const part of parts) part.classList.add("heated", `step-${heat.step}`);
    parts.push(...drawBars(heat.bars, PAD, y + 5));
  }
  return [...stack(box, face.w, face.h), ...(right ? drawBackward(face) : []), ...parts];
}

/** The backward half of an op, and what is saved for it. */
function drawBackward(face) {
  const { left, right, saved } = face;
  const [x, y] = [right.x + PAD, right.y + PAD + 12];
  return [
    outline("backward", right.x, right.y, right.w, right.h),
    text(x, y, right.title, "title"),
    ...right.lines.map((line, i) => text(x, y + TITLE + LINE * i, line, "line")),
    ...saved.map((entry) => drawSaved(entry, girth(left), turned(right).x)),
  ];
}

function drawSaved(entry, from, to) {
  const { x, y } = turned(entry);
  return svg(
    "g",
    { class: "saved", "data-tensor": entry.tensor?.id },
    flowing("wire", `M${from} ${y}H${x - entry.half}M${x + entry.half} ${y}H${to - 5}`),
    flowing("head", `M${to} ${y}l-6 -3v6z`),
    text(entry.x, entry.y + 4, entry.text, "shape", "middle"),
  );
}

const chevron = (x, y, open) =>
  path("chevron", open ? `M${x} ${y - 2}l4.5 5l4.5 -5` : `M${x + 2} ${y - 4.5}l5 4.5l-5 4.5`);

function drawOpen(found) {
  const { box, w, h } = found;
  if (box === root) return [];
  const depth = Math.min(chain(box).length - 2, 3);
  const parts = stack(box, w, h);
  parts.push(rect(`frame depth-${depth}`, 0, 0, w, h, { rx: 8 }));
  parts.push(rect("header", 0, 0, w, HEADER, { rx: 8 }));
  parts.push(chevron(PAD, HEADER / 2, true));
  parts.push(text(PAD + 16, HEADER / 2 + 5, box.title, "title"));
  if (found.half) parts.push(...drawBackward(found.half));
  if (box.place)
    parts.push(text(PAD + 26 + textWidth(box.title, "header"), HEADER / 2 + 5, box.place, "line"));
  return parts;
}

/**
 * The arrow from the end of a loop's box back to its beginning, with what goes from turn to turn,
 * and that of the gradients, which go the other way.
 */
function drawLoops(box, shape) {
  if (!box.loops.length) return [];
  const loops = loopsOf(box);
  const rows = loops.flatMap(([name, shape, back]) => [
    [name, "name", back],
    [shape, "shape", back],
  ]);
  const end = reach(shape);
  const { w, h } = loopSize(box);
  const top = end / 2 - h / 2 + 11;
  // Left of the box line under line; above it a tensor's name and shape in one line.
  const write = ([said, kind, back], i) => {
    if (Boolean(back) !== gradient) return [];
    if (!state.across) return [text(-2 * BACK - 6, top + 15 * i, said, kind, "end")];
    const x = (end + (kind === "name" ? -w : w)) / 2;
    const y = -2 * BACK - 6 - h + 15 * ((i >> 1) + 1);
    return [text(x, y, said, kind, kind === "name" ? "start" : "end")];
  };
  let gradient = false;
  const found = [
    svg(
      "g",
      { class: "loop" },
      flowing("wire", `M14 ${end}v4q0 6 -6 6H${6 - BACK}q-6 0 -6 -6V-4q0 -6 6 -6H8q6 0 6 6`),
      flowing("head", "M14 0l-4 -8h8z"),
      ...rows.flatMap(write),
    ),
  ];
  if (!loops.some(([, , back]) => back)) return found;
  gradient = true;
  const foot = end + 8; // of the boxes stacked behind
  const wire = `M28 0v-8q0 -6 -6 -6H${6 - 2 * BACK}q-6 0 -6 6V${foot + 6}q0 6 6 6H22q6 0 6 -6`;
  found.push(
    svg(
      "g",
      { class: "loop backward" },
      flowing("wire", wire),
      flowing("head", `M28 ${foot}l-4 8h8z`),
      ...rows.flatMap(write),
    ),
  );
  return found;
}

// --- Edges ---

function curve(points) {
  const n = (v) => Math.round(v * 10) / 10;
  let d = `M${n(points[0][0])} ${n(points[0][1])}`;
  for (let i = 1; i < points.length; i += 1) {
    const [[x0, y0], [x, y]] = [points[i - 1], points[i]];
    if (Math.abs(x - x0) < 0.5) {
      d += `V${n(y)}`;
      points[i] = [x0, y];
    } else d += `C${n(x0)} ${n((y0 + y) / 2)} ${n(x)} ${n((y0 + y) / 2)} ${n(x)} ${n(y)}`;
  }
  return d;
}

/** A line through corners, and then on through points. */
function wayOf(corners, points) {
  if (!corners) return curve(points);
  return cornered(corners) + (points.length ? curve(points).replace(/^M[^CV]*/, "") : "");
}

/** An op that reads one tensor twice, as in c + c, has two lines: how far each is from the middle. */
function strandsOf({ to, forward }, side) {
  if (side !== "forward") return [0];
  const [first] = forward.links;
  const alike = ({ from, to: reader, tensor }) =>
    reader === to && from === first.from && tensor === first.tensor;
  const count = Math.max(1, forward.links.filter(alike).length);
  return Array.from({ length: count }, (_, i) => 10 * (i - (count - 1) / 2));
}

function drawWire(wire, side) {
  const { edge } = wire;
  const { points, corners } = wire[side];
  const { tensor } = edge[side].links[0];
  const kinds = [side];
  if (side === "forward" && onward(edge)) kinds.push("onward");
  if (side === "forward" && edge.skip) kinds.push("skip");
  if (edge[side].links.every((link) => link.from.nograd || link.to.nograd)) kinds.push("nograd");
  const group = svg("g", { class: `edge ${kinds.join(" ")}`, "data-tensor": tensor.id });
  const strands = strandsOf(edge, side);
  for (const aside of strands)
    group.append(flowing("wire", wayOf(corners, points.map(([x, y]) => [x + aside, y]))));
  const last = side === "forward" ? edge.to : edge.from;
  const opened = isOpen(last) && !(side === "backward" && measure(last).half);
  if (last !== IN && last !== OUT && !opened) {
    const [[x, y], ...before] = side === "forward" ? [...points].reverse() : points;
    const above = (before.find((p) => Math.abs(p[1] - y) > 0.5)?.[1] ?? y - 1) < y;
    for (const aside of strands)
      group.append(flowing("head", `M${x + aside} ${y}l-4 ${above ? -8 : 8}h8z`));
  }
  const said = wire.texts[side];
  if (said) {
    const { x, w, h, lines } = said;
    const top = said.y - h / 2;
    group.append(rect("paper", x - w / 2 + 2, top, w - 4, h, { rx: 4 }));
    lines.forEach((line, i) =>
      group.append(text(x, top + 13 + 15 * i, line.text, line.font, "middle")),
    );
  }
  group.append(svg("title", {}, ownText(tensor, "tooltip")));
  return group;
}

// --- The tree of elements ---

const elements = new Map();

/** The element of a box with what is its own; show.js puts in the lines and boxes inside. */
function draw(box) {
  const shape = measure(box);
  let drawn = elements.get(box);
  if (drawn?.shape === shape) return drawn;
  const open = isOpen(box);
  const group = svg("g", {
    class: `box ${box.kind}${open ? " open" : ""}${box.children.length ? " opens" : ""}`,
    "data-box": box.id,
    ...(box !== root && {
      role: "treeitem",
      tabindex: 0,
      "aria-level": chain(box).length - 1,
      "aria-label": box.spoken,
      "aria-expanded": box.children.length ? open : undefined,
    }),
  });
  drawn = { box, shape, group, wires: [] };
  elements.set(box, drawn);
  group.append(...drawLoops(box, shape), ...(open ? drawOpen(shape) : drawFace(shape)));
  if (open) {
    drawn.seam = document.createComment("");
    group.append(drawn.seam);
    const wires = shape.wires.flatMap((wire) => wire.sides.map((side) => ({ wire, side })));
    // Residuals under the others; all under the boxes.
    drawn.wires = wires.sort((a, b) => Number(b.wire.edge.skip) - Number(a.wire.edge.skip));
    for (const entry of drawn.wires) {
      entry.links = entry.wire.edge[entry.side].links;
      entry.extent = extentOf(entry.wire, entry.side);
    }
  }
  if (box !== root) addLarge(drawn);
  markOne(drawn);
  return drawn;
}

/** Around a line and its text. */
function extentOf(wire, side) {
  const { corners = [], points: own } = wire[side];
  const points = [...corners, ...own].map(([x, y]) => turned({ x, y }));
  const said = wire.texts[side];
  if (said)
    for (const sign of [-1, 1])
      points.push({ x: said.x + sign * (said.w / 2 + 4), y: said.y + (sign * said.h) / 2 });
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Where a box lies in the whole picture. */
function placeOf(box) {
  measure(root); // which lets inner boxes know what comes in at their left
  let [x, y] = [0, 0];
  for (let b = box; b.parent; b = b.parent) {
    const at = measure(b.parent).places.get(b);
    x += at.x;
    y += at.y;
  }
  return { x, y, w: measure(box).w, h: measure(box).h };
}

let marking = { traced: null, lit: new Set() };

/** Show what is selected, found, and on the way to or from it. */
function mark() {
  const { selected, way } = state;
  const traced = selected && way ? follow(selected, way) : null;
  marking = { traced, lit: new Set(traced ? [...traced.boxes].flatMap(chain) : []) };
  picture.classList.toggle("tracing", Boolean(traced));
  for (const drawn of elements.values()) markOne(drawn);
  markHits();
}

function markOne({ box, group, wires }) {
  const chosen = box === state.selected;
  group.classList.toggle("selected", chosen);
  group.setAttribute("aria-selected", chosen);
  group.classList.toggle("lit", marking.lit.has(box) || chosen);
  for (const entry of wires) markWire(entry);
}

function markWire({ group, links: passing }) {
  if (!group) return; // not drawn yet
  const { traced } = marking;
  const picked = isTensor(state.selected) && passing.some((l) => l.tensor === state.selected);
  group.classList.toggle("selected", picked);
  group.classList.toggle("lit", Boolean(traced) && passing.some((l) => traced.links.has(l)));
}
