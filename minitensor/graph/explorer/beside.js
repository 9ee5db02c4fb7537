// Branches side by side. An open box that gives to another one what joins late there, for all members
// of a fold or further down, stands at its left: an encoder beside its decoder. What it gives goes
// over in a lane between them, and comes to its reader from the left, across the boxes around it.

const TURN = 12; // below a branch, to where what leaves it turns
const CORNER = 6; // the radius of a turn
const NOTHING = new Set();

const asides = new Map(); // of an open box: the tensors that come in at its left

/** Tell an open box what comes in at its left; it is laid out anew if that is not as before. */
function letIn(box, tensors) {
  const before = asides.get(box) ?? NOTHING;
  if (before.size === tensors.size && [...tensors].every((tensor) => before.has(tensor))) return;
  asides.set(box, tensors);
  for (const { layouts } of caches) layouts.delete(box);
}

/** What follows each end of some edges, or with `back` what comes before it. */
function nextOf(edges, back = false) {
  const found = new Map();
  for (const { from, to } of edges) {
    const [one, other] = back ? [to, from] : [from, to];
    memo(found, one, () => new Set()).add(other);
  }
  return found;
}

/** All that can be reached from some ends, these included. */
function reached(after, starts) {
  const found = new Set(starts);
  for (const one of found) for (const other of after.get(one) ?? NOTHING) found.add(other);
  return found;
}

/** Of the edges into an open box those that join late what another one brings. */
function lateOf(brought, box) {
  const after = nextOf(box.edges);
  const ends = new Map(
    brought.map(({ tensor }) => [
      tensor,
      box.edges.filter((e) => e.from === IN && e.tensor === tensor && e.forward).map((e) => e.to),
    ]),
  );
  const below = (tensor) => reached(after, ends.get(tensor));
  const further = (one, other) => {
    const [mine, theirs] = [ends.get(one), ends.get(other)];
    const follows = mine.length && mine.every((end) => !theirs.includes(end) && below(other).has(end));
    return follows && !theirs.some((end) => below(one).has(end));
  };
  return brought.filter((edge) =>
    brought.some((rival) => further(edge.tensor, rival.tensor) || (edge.fanned && !rival.fanned)),
  );
}

/** The pairs of branches among the ends of some wires, with the wires that go over. */
function pairedWires(wires) {
  const edges = wires.map(({ edge }) => edge);
  const after = nextOf(edges);
  const opens = (box) => isOpen(box) && box.kind !== "op";
  const used = new Set();
  const found = [];
  for (const right of new Set(edges.map(({ to }) => to).filter(opens))) {
    const brought = edges.filter(({ to, forward }) => to === right && forward);
    const late = brought.length > 1 ? lateOf(brought, right) : [];
    if (late.length === brought.length) continue;
    for (const left of new Set(late.map(({ from }) => from).filter(opens))) {
      const over = wires.filter(({ edge }) => edge.from === left && edge.to === right);
      if (used.has(left) || used.has(right) || !over.every(({ edge }) => late.includes(edge))) continue;
      const others = [...after.get(left)].filter((box) => box !== right);
      if (reached(after, others).has(right) || reached(after, [right]).has(left)) continue;
      used.add(left).add(right);
      found.push({ left, right, wires: over });
    }
  }
  return found;
}

/** The wires from the left of a box that go straight on into an open one, as nothing is beside it. */
function throughs(box, wires, pairs) {
  const edges = wires.map(({ edge }) => edge);
  const [after, before] = [nextOf(edges), nextOf(edges, true)];
  const paired = new Set(pairs.flatMap(({ left, right }) => [left, right]));
  const alone = (child) => {
    const known = new Set([...reached(after, [child]), ...reached(before, [child])]);
    return box.children.every((other) => known.has(other));
  };
  return wires.filter(({ edge }) => {
    if (edge.from !== IN || !asides.get(box)?.has(edge.tensor)) return false;
    if (edges.filter((e) => e.from === IN && e.tensor === edge.tensor).length > 1) return false;
    return isOpen(edge.to) && edge.to.kind !== "op" && !paired.has(edge.to) && alone(edge.to);
  });
}

/** How far below the middle of a way its line of one pass runs. */
const bias = (side) => (state.backward ? (side === "forward" ? 5 : -5) : 0);

/** The sizes of a pair: of its lanes, where each one's ways turn, and how far down the right one is. */
function measurePair(pair) {
  const [left, right] = [measure(pair.left), measure(pair.right)];
  const port = (shape, kind, { edge }) => shape.ports.get(`${kind}\n${edge.tensor.id}`);
  let width = 0;
  pair.down = 0;
  pair.lanes = [...pair.wires]
    .sort((a, b) => port(left, "out", b).x - port(left, "out", a).x)
    .map((wire, i) => {
      const texts = wire.sides.map((side) => [side, edgeText(wire.edge, side)]);
      wire.texts = Object.fromEntries(texts.filter(([, said]) => said));
      const lane = { wire, out: port(left, "out", wire), into: port(right, "in", wire).y, x: {} };
      lane.turn = reach(left) + (i + 1) * (state.backward ? 2 * TURN : TURN);
      const room = Math.max(...Object.values(wire.texts).map(reach)) + 4 * TURN;
      const apart = lane.into + pair.down - lane.turn;
      if (Math.abs(apart) < room) pair.down += room - apart;
      // The passes do not cross: the one that leaves at the left is the inner one where both turn.
      const up = lane.into + pair.down < lane.turn;
      for (const side of up ? [...SIDES].reverse() : SIDES) {
        if (!wire.sides.includes(side)) continue;
        const w = Math.max(20, wire.texts[side] ? girth(wire.texts[side]) : 0);
        lane.x[side] = width + w / 2;
        width += w + 10;
      }
      return lane;
    });
  pair.width = width - 10;
  pair.tall = Math.max(reach(left), pair.lanes.at(-1).turn + TURN);
  return pair;
}

/** The ways of what goes over between the branches, and of what goes on into a box from its left. */
function routeAside(found, pairs, passing) {
  for (const pair of pairs) {
    const [left, right] = [pair.left, pair.right].map((box) => turned(found.places.get(box)));
    const lanes = found.nodes.get(pair);
    for (const { wire, out, into, turn, x } of pair.lanes) {
      const [low, end] = [left.y + turn, right.y + into];
      for (const side of wire.sides) {
        const by = bias(side);
        const from = left.x + out.x + (side === "forward" ? -out.apart : out.apart) / 2;
        const lane = lanes.x - lanes.w / 2 + x[side];
        const corners = [
          [from, left.y + reach(measure(pair.left))],
          [from, low + by],
          [lane, low + by],
          [lane, end + by],
          [right.x, end + by],
        ];
        wire[side] = { corners, points: [] };
        if (wire.texts[side]) Object.assign(wire.texts[side], turned({ x: lane, y: (low + end) / 2 }));
      }
    }
  }
  for (const wire of passing) {
    const name = portName(wire.edge);
    const { x, y } = turned(found.places.get(wire.edge.to));
    const port = { port: name, aside: true, y: y + measure(wire.edge.to).ports.get(name).y, apart: 0 };
    found.ports.set(name, port);
    wire.texts = {};
    for (const side of wire.sides) {
      const at = port.y + bias(side);
      wire[side] = { corners: [[0, at], [x, at]], points: [] };
    }
  }
}

/** A path through corners that are rounded. */
function cornered(corners) {
  const n = ([x, y]) => `${Math.round(x * 10) / 10} ${Math.round(y * 10) / 10}`;
  let d = `M${n(corners[0])}`;
  for (let i = 1; i + 1 < corners.length; i += 1) {
    const near = [corners[i - 1], corners[i + 1]].map(([x, y]) => {
      const [dx, dy] = [x - corners[i][0], y - corners[i][1]];
      const part = Math.min(1 / 2, CORNER / Math.max(1, Math.hypot(dx, dy)));
      return [corners[i][0] + dx * part, corners[i][1] + dy * part];
    });
    d += `L${n(near[0])}Q${n(corners[i])} ${n(near[1])}`;
  }
  return `${d}L${n(corners.at(-1))}`;
}
