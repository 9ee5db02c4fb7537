// A layered layout of one small graph, after Sugiyama, Tagawa and Toda: nodes in ranks, few
// crossings, long edges straight (Brandes and Koepf, "Fast and Simple Horizontal Coordinate
// Assignment"). It knows sizes alone, nothing of boxes and tensors.
//
// A node is {w, h, first, last, stays, ports}: first and last nodes have a rank of their own, above or
// below all; those that stay keep their order; edges come to a node with ports in their own order.
// `rows` are nodes of one rank, by number, that stand next to each other.
// An edge is {from, to, weight, w, h}: two numbers of nodes, and the size of its text.

const SWEEPS = 8;
const MANY = 20000; // items with which a sweep is slow

/** The nodes from the top down, by number; a ring is cut before the first of its nodes. */
function ordered(count, edges) {
  const waiting = new Int32Array(count);
  const below = Array.from({ length: count }, () => []);
  for (const { from, to } of edges) {
    if (from === to) continue;
    waiting[to] += 1;
    below[from].push(to);
  }
  const found = []; // those before `i` have let go of what waits for them
  const place = new Int32Array(count).fill(-1);
  const put = (node) => {
    place[node] = found.length;
    found.push(node);
  };
  for (let node = 0; node < count; node += 1) if (!waiting[node]) put(node);
  for (let i = 0, rest = 0; i < count; i += 1) {
    if (i === found.length) {
      while (place[rest] >= 0) rest += 1;
      put(rest);
    }
    for (const other of below[found[i]]) {
      waiting[other] -= 1;
      if (!waiting[other] && place[other] < 0) put(other);
    }
  }
  return { found, place };
}

/** The rank of each node, 0 at the top, and for each edge whether it runs upwards: it closes a ring. */
function ranked(nodes, edges) {
  const { found, place } = ordered(nodes.length, edges);
  const above = nodes.map(() => []);
  const below = nodes.map(() => []);
  const upwards = edges.map(({ from, to }) => place[from] > place[to]);
  edges.forEach(({ from, to, weight }, i) => {
    if (from === to) return;
    const [upper, lower] = upwards[i] ? [to, from] : [from, to];
    above[lower].push([upper, weight]);
    below[upper].push([lower, weight]);
  });
  const ranks = new Int32Array(nodes.length);
  const own = nodes.some((node) => node.first) ? 1 : 0;
  const lowest = (node) => {
    let rank = nodes[node].first ? 0 : own;
    for (const [other] of above[node]) rank = Math.max(rank, ranks[other] + 1);
    return rank;
  };
  for (const node of found) ranks[node] = lowest(node);
  // What is read far below only goes down to its readers: the sum of all lengths is smaller.
  const sum = (list) => list.reduce((total, [, weight]) => total + weight, 0);
  for (let again = 0; again < 2; again += 1)
    for (const node of [...found].reverse()) {
      if (nodes[node].first || nodes[node].stays || !below[node].length) continue;
      if (sum(above[node]) >= sum(below[node])) continue;
      ranks[node] = Math.min(...below[node].map(([other]) => ranks[other])) - 1;
    }
  let deepest = 0;
  nodes.forEach((node, i) => {
    if (!node.last) deepest = Math.max(deepest, ranks[i]);
  });
  nodes.forEach((node, i) => {
    if (node.last) ranks[i] = deepest + 1;
  });
  return { ranks, upwards };
}

/**
 * Places: x and y of the middle of each node; of each edge those of its text, and the points in
 * every rank that it passes, from its start to its end. `gaps` are {node, edge, rank}.
 */
function arrange(nodes, edges, { ranks, upwards }, rows, gaps) {
  // Items are the nodes, and a bend of an edge in each half rank between its ends.
  const size = nodes.length;
  const wide = nodes.map((node) => node.w);
  const tall = nodes.map((node) => node.h);
  const level = Array.from(ranks, (rank) => 2 * rank);
  const port = []; // of a bend right above a node: which of the node's ports it leads to
  const count = nodes.map(() => 0);
  const above = nodes.map(() => []);
  const below = nodes.map(() => []);
  const join = (upper, lower) => {
    below[upper].push(lower);
    above[lower].push(upper);
  };
  const chains = edges.map((edge, i) => {
    const [upper, lower] = upwards[i] ? [edge.to, edge.from] : [edge.from, edge.to];
    const [top, bottom] = [level[upper], level[lower]];
    const middle = (top + bottom) >> 1;
    const chain = [];
    let last = upper;
    for (let at = top + 1; at < bottom; at += 1) {
      const item = wide.length;
      wide.push(at === middle ? edge.w : 0);
      tall.push(at === middle ? edge.h : 0);
      level.push(at);
      above.push([]);
      below.push([]);
      join(last, item);
      chain.push(item);
      last = item;
    }
    if (last !== upper || bottom > top) join(last, lower);
    if (last !== upper && nodes[lower].ports && !upwards[i]) port[last] = count[lower]++;
    return chain;
  });
  const stays = nodes.flatMap((node, i) => (node.stays ? [i] : []));
  const layers = order(size, level, above, below, { port, count, stays, rows });
  const x = acrossOf(size, layers, wide, above, below, gaps);
  const y = heights(layers, tall, gaps.rank / 2);
  nodes.forEach((node, i) => {
    [node.x, node.y] = [x[i], y.middle[level[i]]];
  });
  edges.forEach((edge, i) => {
    const bends = chains[i].map((item) => ({
      x: x[item],
      y: y.middle[level[item]],
      half: y.half[level[item]],
      text: tall[item] > 0 || wide[item] > 0,
    }));
    const label = bends[(bends.length - 1) >> 1] ?? nodes[edge.from];
    edge.points = upwards[i] ? bends.reverse() : bends;
    [edge.x, edge.y] = [label.x, label.y];
  });
  return { half: (node) => y.half[level[node]] };
}

/** The middle of each rank and half its height. */
function heights(layers, tall, gap) {
  const [middle, half] = [[], []];
  let top = 0;
  for (const layer of layers) {
    let height = 0;
    for (const item of layer) if (tall[item] > height) height = tall[item];
    middle.push(top + height / 2);
    half.push(height / 2);
    top += height + gap;
  }
  return { middle, half };
}

// --- The order in each rank ---

function order(size, level, above, below, { port, count: ports, stays, rows }) {
  const layers = [];
  for (const at of level) while (layers.length <= at) layers.push([]);
  // At first as a walk from the top finds them: what belongs together stands together.
  const seen = new Uint8Array(level.length);
  const tops = Array.from({ length: size }, (_, i) => i).sort((a, b) => level[a] - level[b] || a - b);
  const stack = [];
  for (const top of tops) {
    stack.push(top);
    while (stack.length) {
      const item = stack.pop();
      if (seen[item]) continue;
      seen[item] = 1;
      layers[level[item]].push(item);
      for (let i = below[item].length - 1; i >= 0; i -= 1) stack.push(below[item][i]);
    }
  }
  const place = new Int32Array(level.length);
  const still = new Uint8Array(level.length);
  for (const item of stays) still[item] = 1;
  const number = (layer) => {
    for (let i = 0, kept = 0; i < layer.length; i += 1) {
      if (still[layer[i]]) layer[i] = stays[kept++];
      place[layer[i]] = i;
    }
    for (const [first, ...next] of rows) {
      if (layer !== layers[level[first]]) continue;
      const others = layer.filter((item) => !next.includes(item));
      others.splice(others.indexOf(first) + 1, 0, ...next);
      others.forEach((item, i) => {
        layer[i] = item;
        place[item] = i;
      });
    }
  };
  layers.forEach(number);
  let best = layers.map((layer) => [...layer]);
  const crossed = () => crossings(layers, below, place, port, ports);
  let fewest = crossed();
  const sweeps = level.length > MANY ? 2 : SWEEPS;
  const wanted = new Float64Array(level.length);
  for (let sweep = 0, since = 0; sweep < sweeps && since < 4 && fewest; sweep += 1, since += 1) {
    const down = sweep % 2 === 0;
    const near = down ? above : below;
    for (let i = 0; i < layers.length; i += 1) {
      const layer = layers[down ? i : layers.length - 1 - i];
      for (const item of layer) {
        const others = near[item];
        let sum = 0;
        for (const other of others) sum += place[other];
        wanted[item] = others.length ? sum / others.length : place[item];
        if (!down && port[item]) wanted[item] += port[item] / ports[others[0]];
      }
      // Every second pair of sweeps turns equals round, which gets out of a dead end.
      const turn = sweep % 4 > 1 ? -1 : 1;
      layer.sort((a, b) => wanted[a] - wanted[b] || turn * (place[a] - place[b]));
      number(layer);
    }
    const count = crossed();
    if (count < fewest) {
      [fewest, since] = [count, 0];
      best = layers.map((layer) => [...layer]);
    }
  }
  return best;
}

/** How many pairs of edges cross, all ranks together. */
function crossings(layers, below, place, port, ports) {
  let count = 0;
  for (let at = 0; at + 1 < layers.length; at += 1) {
    // Where each item of the next rank begins: it is as wide as it has ports.
    const begin = [0];
    for (const item of layers[at + 1]) begin.push(begin.at(-1) + Math.max(1, ports[item] ?? 0));
    const width = begin.at(-1);
    const tree = new Int32Array(width + 1); // sums of those to the left, in a Fenwick tree
    let total = 0;
    for (const item of layers[at]) {
      const ends = below[item];
      for (const end of ends) {
        let left = 0;
        for (let i = begin[place[end]] + (port[item] ?? 0) + 1; i > 0; i -= i & -i) left += tree[i];
        count += total - left;
      }
      for (const end of ends) {
        for (let i = begin[place[end]] + (port[item] ?? 0) + 1; i <= width; i += i & -i) tree[i] += 1;
        total += 1;
      }
    }
  }
  return count;
}

// --- Columns ---

/** The x of every item: the median of four placements, each drawn to one corner. */
function acrossOf(size, layers, wide, above, below, gaps) {
  const count = wide.length;
  const place = new Int32Array(count);
  layers.forEach((layer) => layer.forEach((item, i) => (place[item] = i)));
  for (const near of [above, below])
    for (const others of near) if (others.length > 1) others.sort((a, b) => place[a] - place[b]);
  const conflicts = findConflicts(size, layers, above, place, count);
  const found = [];
  for (const down of [true, false])
    for (const right of [true, false]) {
      const turned = (down ? layers : [...layers].reverse()).map((l) => (right ? l : [...l].reverse()));
      const near = down ? above : below;
      const [root, align] = alignment(turned, near, conflicts, count, right);
      const x = compact(turned, root, align, size, wide, gaps);
      if (!right) for (let i = 0; i < count; i += 1) x[i] = -x[i];
      found.push({ x, right });
    }
  // All are put where the narrowest is.
  let narrowest = null;
  for (const one of found) {
    one.from = Infinity;
    one.to = -Infinity;
    for (let i = 0; i < count; i += 1) {
      one.from = Math.min(one.from, one.x[i] - wide[i] / 2);
      one.to = Math.max(one.to, one.x[i] + wide[i] / 2);
    }
    if (!narrowest || one.to - one.from < narrowest.to - narrowest.from) narrowest = one;
  }
  for (const one of found) {
    const shift = one.right ? narrowest.from - one.from : narrowest.to - one.to;
    if (shift) for (let i = 0; i < count; i += 1) one.x[i] += shift;
  }
  const x = new Float64Array(count);
  const [a, b, c, d] = found.map((one) => one.x);
  for (let i = 0; i < count; i += 1) {
    const least = Math.min(a[i], b[i], c[i], d[i]);
    const most = Math.max(a[i], b[i], c[i], d[i]);
    x[i] = (a[i] + b[i] + c[i] + d[i] - least - most) / 2;
  }
  return x;
}

/** Pairs that would bend a long edge, because they cross it: they are not put in line. */
function findConflicts(size, layers, above, place, count) {
  const found = new Set();
  for (let at = 1; at < layers.length; at += 1) {
    const [upper, lower] = [layers[at - 1], layers[at]];
    let [from, scanned] = [0, 0];
    lower.forEach((item, i) => {
      const inner = item >= size ? above[item].find((other) => other >= size) : undefined;
      if (inner === undefined && i < lower.length - 1) return;
      const to = inner === undefined ? upper.length - 1 : place[inner];
      for (; scanned <= i; scanned += 1)
        for (const other of above[lower[scanned]]) {
          const outside = place[other] < from || place[other] > to;
          if (outside && !(other >= size && lower[scanned] >= size)) found.add(other * count + lower[scanned]);
        }
      from = to;
    });
  }
  return found;
}

/** Blocks of items that stand in line: each joins a neighbour in the middle of those it has. */
function alignment(layers, near, conflicts, count, right) {
  const root = new Int32Array(count).map((_, i) => i);
  const align = new Int32Array(count).map((_, i) => i);
  const place = new Int32Array(count);
  for (const layer of layers) for (let i = 0; i < layer.length; i += 1) place[layer[i]] = i;
  for (const layer of layers) {
    let last = -1;
    for (const item of layer) {
      const others = near[item];
      if (!others.length) continue;
      const middle = (others.length - 1) / 2;
      const medians = [Math.floor(middle), Math.ceil(middle)];
      if (!right) medians.reverse();
      for (const at of medians) {
        const other = others[at];
        if (align[item] !== item || place[other] <= last) continue;
        if (conflicts.has(other * count + item) || conflicts.has(item * count + other)) continue;
        align[other] = item;
        align[item] = root[item] = root[other];
        last = place[other];
      }
    }
  }
  return [root, align];
}

/** The blocks as far to the left as they go, then back to the right where there is room. */
function compact(layers, root, align, size, wide, gaps) {
  const count = wide.length;
  const before = new Map(); // of a block: those to its left, and how far their middles are apart
  const after = new Map();
  const room = (item) => wide[item] / 2 + (item < size ? gaps.node : gaps.edge) / 2;
  const waiting = new Int32Array(count);
  for (const layer of layers)
    for (let i = 1; i < layer.length; i += 1) {
      const [one, other] = [layer[i - 1], layer[i]];
      const apart = room(one) + room(other);
      memo(before, root[other], () => []).push([root[one], apart]);
      memo(after, root[one], () => []).push([root[other], apart]);
      waiting[root[other]] += 1;
    }
  const x = new Float64Array(count);
  const queue = [];
  for (let i = 0; i < count; i += 1) if (root[i] === i && !waiting[i]) queue.push(i);
  for (let i = 0; i < queue.length; i += 1) {
    const block = queue[i];
    for (const [one, apart] of before.get(block) ?? []) x[block] = Math.max(x[block], x[one] + apart);
    for (const [one] of after.get(block) ?? []) {
      waiting[one] -= 1;
      if (!waiting[one]) queue.push(one);
    }
  }
  for (const block of queue.reverse()) {
    let most = Infinity;
    for (const [one, apart] of after.get(block) ?? []) most = Math.min(most, x[one] - apart);
    if (most < Infinity) x[block] = Math.max(x[block], most);
  }
  for (let i = 0; i < count; i += 1) x[i] = x[root[i]];
  return x;
}
