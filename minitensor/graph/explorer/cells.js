// Where a number comes from. `cellOrigin(id, place)` gives, of a cell of the value `id`,
//
//   kind      "formula", "moved", "gradient", "sum", "update", "start" or "unknown"
//   value     the number, as it was kept; undefined if it was not
//   tokens    the formula in numbers: texts, and for each that was read {text, id, place}
//   text      the same as one text: "0.42 = 0.31*1.2 + 0.1*0.5 + ... 6 more"
//   reads     the cells that it was made of: [{id, name, cells: [place, ...], count, factor}]; of a
//             gradient, those with `factor` are of the forward pass
//   note      what there is to say besides: of a sample, or why there is no more to tell
//
// The forward pass follows the formulas of the ops, and what they moved. A gradient is the sum, over
// the cells of the op's results that read its cell, of the gradient there times the derivative,
// which is a central difference of the formula.

/** A tensor's name on the page, else that of the op that made it, the one in a formula, or its id. */
function nameOf(id, name = "") {
  const tensor = tensorById.get(id);
  const of = held().gradients[id]?.of;
  return tensor?.name || (of ? `${nameOf(of)}.grad` : tensor?.made[0]?.label) || name || id;
}

const written = (id, place) => `${nameOf(id)}[${place.join(", ")}]`;

const COUNTABLE = 20000; // cells, above which those that were not kept are but counted

/** Cells by their flat numbers as places, for each value once; how many, and how many are unknown. */
function readsOf(cells, names = {}) {
  return [...cells].map(([id, flats]) => {
    const numbers = numbersOf(id);
    const all = [...flats];
    const kept = numbers.whole ? all : all.filter((flat) => numbers.getFlat(flat) !== undefined);
    const places = (all.length > COUNTABLE ? kept : all).map((flat) => numbers.place(flat));
    const unknown = all.length - kept.length;
    return { id, name: nameOf(id, names[id]), cells: places, count: all.length, unknown };
  });
}

function cellOrigin(id, place) {
  const numbers = numbersOf(id);
  const value = numbers?.get(place);
  const found = numbers ? originOf(id, place, numbers) : { kind: "unknown", note: "not kept" };
  const { tokens = [], reads = [], note = "" } = found;
  const [all, missing] = ["count", "unknown"].map((name) => total(reads.map((read) => read[name])));
  const kept = missing
    ? `${missing.toLocaleString("en")} of the ${all.toLocaleString("en")} numbers it was made of are not in the sample that was kept.`
    : "";
  const text = tokens.map((token) => token.text ?? token).join("");
  return { ...found, id, place, value, tokens, text, reads, note: [note, kept].filter(Boolean).join(" ") };
}

function originOf(id, place, numbers) {
  const { origins, gradients, opened, updates } = held();
  const equals = [numbers.text(numbers.get(place)), " = "];
  if (gradients[id]) return gradientOrigin(id, place, equals) ?? unknown(id);
  const sum = id.match(/^(.*):in\d+$/s);
  if (sum) return sumOrigin(sum[1], id, place, equals);
  if (updates[id]) return updateOrigin(id, place, equals);
  if (origins[id]?.moved) return movedOrigin(id, numbers.flat(place));
  if (origins[id]) return formulaOrigin(id, place, equals);
  if (opened[id] && numbersOf(opened[id])) return originOf(opened[id], place, numbers);
  return unknown(id);
}

const STARTS = {
  input: "An input: the program was given it.",
  parameter: "A weight: it was there before the program ran.",
  buffer: "A buffer of the module: it was there before the program ran.",
  constant: "A constant: no recorded op made it.",
};

function unknown(id) {
  const kind = id.split(":")[0];
  if (STARTS[kind]) return { kind: "start", note: STARTS[kind] };
  if (/\/[^/:]*$/.test(id)) return { kind: "start", note: "The op drew it itself, at random." };
  if (!numbersOf(id).whole)
    return { kind: "unknown", note: "Of this tensor a sample was kept, which does not tell where its numbers come from." };
  return { kind: "unknown", note: "The op does not tell where its numbers come from." };
}

// --- The forward pass ---

/** What an origin's formula is evaluated with. */
const settingOf = (origin) => ({
  tensors: mapped(origin.tensors, numbersOf),
  read: (name, flat) => numbersOf(origin.tensors[name]).getFlat(flat),
  write(name, flat) {
    const numbers = numbersOf(origin.tensors[name]);
    return numbers.text(numbers.getFlat(flat));
  },
});

const mapped = (object, change) =>
  Object.fromEntries(Object.entries(object).map(([key, entry]) => [key, change(entry)]));

/** Cells that were read by names, by the ids of the values. */
function byId(origin, reads) {
  const found = new Map();
  for (const [name, flats] of reads) {
    const set = memo(found, origin.tensors[name], () => new Set());
    for (const flat of flats) set.add(flat);
  }
  return found;
}

const namesIn = (origin) =>
  Object.fromEntries(Object.entries(origin.tensors).map(([name, id]) => [id, name]));

function formulaOrigin(id, place, equals) {
  const origin = held().origins[id];
  const { tensors, read, write } = settingOf(origin);
  let node;
  try {
    node = evaluateFormula(origin.tree, tensors, place, read);
  } catch (error) {
    if (!(error instanceof FormulaError)) throw error;
    return { kind: "unknown", note: `The formula cannot be followed here: ${error.message}.` };
  }
  const { tokens } = formulaTokens(node, write);
  const linked = tokens.map((token) => {
    if (!token.name) return token;
    const source = origin.tensors[token.name];
    return { text: token.text, id: source, place: numbersOf(source).place(token.flat) };
  });
  return {
    kind: "formula",
    op: origin.op,
    computed: node.value.data[0],
    tokens: [...equals, ...linked],
    reads: readsOf(byId(origin, node.reads), namesIn(origin)),
  };
}

function movedOrigin(id, flat) {
  const origin = held().origins[id];
  const number = movedOf(id)[flat];
  if (number < 0) return { kind: "start", op: origin.op, note: "The op wrote it itself, such as padding." };
  const [source, cell] = whichSource(sourcesOf(id), number);
  const place = source.place(cell);
  return {
    kind: "moved",
    op: origin.op,
    tokens: ["is ", { text: written(source.id, place), id: source.id, place }],
    reads: readsOf(new Map([[source.id, new Set([cell])]])),
  };
}

function updateOrigin(id, place, equals) {
  const { op, param, grad } = held().updates[id];
  const [before, after, slope] = [param, id, grad].map((key) => numbersOf(key)?.get(place));
  const step = after - before;
  const cell = (key, number) => ({ text: numbersOf(key).text(number), id: key, place });
  const tokens = [...equals, cell(param, before), step < 0 ? " - " : " + ", numberText(Math.abs(step))];
  if (slope !== undefined) tokens.push(` (${op}; its gradient is `, cell(grad, slope), ")");
  const keys = [param, grad].filter((key) => numbersOf(key));
  const flat = numbersOf(id).flat(place);
  return { kind: "update", op, tokens, reads: readsOf(new Map(keys.map((key) => [key, new Set([flat])]))) };
}

// --- The backward pass ---

/** The number of a cell, as a part of a formula. */
function cellTokens(id, place) {
  const numbers = numbersOf(id);
  return numberTokens({ text: numbers.text(numbers.get(place)), id, place });
}

/** The sum of the gradients that reached a node of the pass, or what the pass began from. */
function sumOrigin(node, id, place, equals) {
  const entry = Object.entries(held().gradients).find(([key]) => key.startsWith(`${node}:`));
  const all = Object.values(entry?.[1].grads ?? {}).flat();
  const terms = all.filter((key) => key !== id && numbersOf(key));
  if (!terms.length) return { kind: "start", note: "The backward pass begins here, with this." };
  const flat = numbersOf(id).flat(place);
  const items = terms.map((key) => cellTokens(key, place));
  const reads = readsOf(new Map(terms.map((key) => [key, new Set([flat])])));
  return { kind: "sum", tokens: [...equals, ...sumTokens(items, 0).tokens], reads };
}

/** The ops to go through from what an op reads to one of its results: itself, or those inside it. */
function stepsTo(out) {
  const { origins, opened } = held();
  if (origins[out]) return [out];
  if (!opened[out]) return null;
  const inner = `${out.replace(/:\d+$/, "")}/`;
  const steps = new Set();
  let told = true;
  const visit = (id) => {
    if (steps.has(id) || !id.startsWith(inner)) return;
    if (!origins[id]) {
      told = told && !/:\d+$/.test(id); // what an op made, and does not tell of
      return;
    }
    Object.values(origins[id].tensors).forEach(visit);
    steps.add(id);
  };
  visit(opened[out]);
  return told && steps.size ? [...steps] : null;
}

/** The subscripts of a tensor wherever a formula reads it; null where it has none. */
function readersIn(tree, name, found = []) {
  if (!Array.isArray(tree)) return found;
  if (tree[0] === "name" && tree[1] === name) found.push(null);
  if (tree[0] === "at" && tree[1] === name) found.push(tree[2]);
  for (const part of tree) readersIn(part, name, found);
  return found;
}

/** Sets of numbers in place of `null` in a place: every cell that fits. */
function* fitting(place, shape, axis = 0, flat = 0) {
  if (axis === shape.length) {
    yield flat;
    return;
  }
  const own = place[axis];
  const [from, to] = own === null ? [0, shape[axis]] : [own, own + 1];
  for (let p = from; p < to; p += 1) yield* fitting(place, shape, axis + 1, flat * shape[axis] + p);
}

/** The cells of a result that may read a cell of a tensor: all that do, and perhaps more. */
function readersOf(out, id, place) {
  const origin = held().origins[out];
  const result = numbersOf(out);
  const found = new Set();
  const { shape } = numbersOf(id);
  if (origin.moved) {
    const cell = numbersOf(id).flat(place);
    const stands = new Set();
    let first = 0;
    for (const key of Object.values(origin.tensors)) {
      if (key === id) stands.add(first + cell);
      first += numbersOf(key).size;
    }
    movedOf(out).forEach((number, flat) => stands.has(number) && found.add(flat));
    return found;
  }
  for (const [name, key] of Object.entries(origin.tensors)) {
    if (key !== id) continue;
    for (const subscripts of readersIn(origin.tree, name)) {
      const fixed = result.shape.map(() => null);
      let fits = true;
      const fix = (axis, p) => {
        fits = fits && (fixed[axis] === null || fixed[axis] === p);
        fixed[axis] = p;
      };
      shape.forEach((n, axis) => {
        if (n === 1 || (subscripts && subscripts.length !== shape.length)) return;
        const [kind, what] = subscripts?.[axis] ?? [];
        if (!subscripts) fix(result.shape.length - shape.length + axis, place[axis]);
        else if (kind === "name" && !(what in origin.tensors) && PLACE.includes(what))
          fix(PLACE.indexOf(what), place[axis]);
        else if (kind === "number" && (what + n) % n !== place[axis]) fits = false;
      });
      if (fits) for (const flat of fitting(fixed, result.shape)) found.add(flat);
    }
  }
  return found;
}

/**
 * The derivatives of the cells of `out` by a cell of a value that its op reads, by flat numbers; of
 * those alone for which `wanted` is true. `changes` are other numbers for cells, by "id\nflat"; `x`
 * is another number for the cell. Null if the op does not tell.
 */
function derivatives(out, id, place, wanted, changes = null, x = numbersOf(id).get(place)) {
  const steps = stepsTo(out);
  if (!steps) return null;
  const flat = numbersOf(id).flat(place);
  const last = steps.at(-1);
  const h = 1e-5 * Math.max(Math.abs(x), 0.1);
  const near = new Map([[id, new Map([[flat, [x + h, x - h]]])]]);
  for (const step of steps) {
    const origin = held().origins[step];
    const changed = new Set(Object.values(origin.tensors).filter((key) => near.has(key)));
    const cells = new Set();
    for (const key of changed)
      for (const cell of near.get(key).keys())
        for (const reader of readersOf(step, key, numbersOf(key).place(cell))) cells.add(reader);
    const made = new Map();
    for (const cell of cells) {
      if (step === last && !wanted(cell)) continue;
      const both = bothNear(origin, step, cell, near, changes);
      if (both[0] !== both[1]) made.set(cell, both);
    }
    if (made.size) near.set(step, made);
  }
  const made = near.get(last) ?? new Map();
  return new Map([...made].map(([cell, [more, less]]) => [cell, (more - less) / (2 * h)]));
}

class Unkept extends Error {}

/** A cell of a step with a little more and a little less; no numbers if not all it reads were kept. */
function bothNear(origin, step, cell, near, changes) {
  try {
    return [0, 1].map((side) => evaluatedNear(origin, step, cell, near, side, changes));
  } catch (error) {
    if (!(error instanceof Unkept)) throw error;
    return [NaN, NaN];
  }
}

/** A cell of a step, where some of the cells it reads are a little more (0) or less (1). */
function evaluatedNear(origin, step, cell, near, side, changes) {
  const number = (id, flat) => {
    const found =
      near.get(id)?.get(flat)?.[side] ?? changes?.get(`${id}\n${flat}`) ?? numbersOf(id).getFlat(flat);
    if (found === undefined) throw new Unkept();
    return found;
  };
  if (origin.moved) {
    const [source, from] = whichSource(sourcesOf(step), movedOf(step)[cell]);
    return number(source.id, from);
  }
  const tensors = (origin.numbers ??= mapped(origin.tensors, numbersOf));
  const read = (name, flat) => number(origin.tensors[name], flat);
  return evaluateFormula(origin.tree, tensors, numbersOf(step).place(cell), read).value.data[0];
}

function gradientOrigin(id, place, equals) {
  const { of, grads } = held().gradients[id];
  if (!of || !numbersOf(of)) return null;
  if (numbersOf(of).get(place) === undefined)
    return { kind: "unknown", note: `${written(of, place)} is not in the sample that was kept.` };
  let lost = false; // some of what arrived
  const terms = []; // of each cell of a result that reads it: gradient and derivative
  for (const [out, reached] of Object.entries(grads)) {
    const known = reached.filter((key) => numbersOf(key));
    let found;
    try {
      const kept = (flat) => {
        const all = known.every((key) => numbersOf(key).getFlat(flat) !== undefined);
        lost ||= !all;
        return all;
      };
      found = derivatives(out, of, place, kept);
    } catch (error) {
      if (!(error instanceof FormulaError)) throw error;
    }
    if (!found || !numbersOf(out))
      return { kind: "unknown", note: "The op does not tell where its numbers come from." };
    for (const [flat, slope] of found) {
      const at = numbersOf(out).place(flat);
      terms.push({ out, flat, at, known, grad: total(known.map((key) => numbersOf(key).get(at))), slope });
    }
  }
  const reads = new Map();
  for (const { known, flat } of terms)
    for (const key of known) memo(reads, key, () => new Set()).add(flat);
  const factors = new Map();
  const numbers = terms.map(({ grad, slope }) => grad * slope);
  const { items, left } = worthShowing(numbers, (i) => termTokens(terms[i], of, place, factors));
  return {
    kind: "gradient",
    of,
    note: lost ? "Of the gradients that arrived a sample was kept: terms are missing." : "",
    computed: total(terms.map(({ grad, slope }) => grad * slope)),
    tokens: [...equals, ...sumTokens(items, left).tokens],
    reads: [
      ...readsOf(reads),
      ...readsOf(factors).map((found) => ({ ...found, factor: true })),
    ],
  };
}

/** A gradient that arrived, times a derivative: its own cell where it is but the number of one. */
function termTokens(term, of, place, factors) {
  const { at, known, slope } = term;
  const arrived = sumTokens(known.map((key) => cellTokens(key, at)), 0);
  if (Number.isNaN(slope)) return { tokens: [...inBrackets(arrived, 3), "*", { text: UNKNOWN }], strength: 3 };
  const found = factorsOf(term, of, place);
  for (const [key, cells] of found)
    for (const one of cells) memo(factors, key, () => new Set()).add(one);
  if (Math.abs(slope - 1) < 1e-8 && !found.size) return arrived;
  const [[key, [cell]] = [null, []]] = found;
  const factor = found.product
    ? cellTokens(key, numbersOf(key).place(cell))
    : numberTokens(numberText(slope));
  return { tokens: [...inBrackets(arrived, 3), "*", ...inBrackets(factor, 5)], strength: 3 };
}

/**
 * The cells on which a derivative depends, by ids: none if it is constant; the one whose number it is,
 * in a product; else all that the formula reads.
 */
function factorsOf({ out, flat, slope }, of, place) {
  const origin = held().origins[out];
  if (!origin?.tree) return new Map();
  const { tensors, read } = settingOf(origin);
  const { reads } = evaluateFormula(origin.tree, tensors, numbersOf(out).place(flat), read);
  const all = new Map([...byId(origin, reads)].filter(([id]) => numbersOf(id).kind === "float"));
  const own = numbersOf(of).flat(place);
  const x = numbersOf(of).get(place);
  const alone = (cell) => cell === flat;
  const after = (cells) => {
    const others = new Map(cells.map(([id, cell]) => [`${id}\n${cell}`, 1.1 * numbersOf(id).getFlat(cell) + 0.1]));
    return derivatives(out, of, place, alone, others)?.get(flat) ?? 0;
  };
  const differs = (a, b) => Math.abs(a - b) > 1e-6 * Math.max(Math.abs(a), Math.abs(b), 1e-6);
  const others = [...all].flatMap(([id, cells]) =>
    [...cells].filter((cell) => id !== of || cell !== own).map((cell) => [id, cell]),
  );
  const [same] = others.filter(([id, cell]) => !differs(numbersOf(id).getFlat(cell), slope));
  if (same && !differs(after([same]), 1.1 * slope + 0.1))
    return Object.assign(new Map([[same[0], new Set([same[1]])]]), { product: true });
  const far = x + 0.1 + 0.1 * Math.abs(x);
  const moved = derivatives(out, of, place, alone, null, far)?.get(flat) ?? 0;
  return differs(after(others), slope) || differs(moved, slope) ? all : new Map();
}
