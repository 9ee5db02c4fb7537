// Formulas of cells (cells.py says what they are): `evaluateFormula` computes one and keeps the value
// of every part, so that `formulaTokens` can write it with its numbers.
//
// An array is {shape, data, bool}: its numbers in the order of C, and true if they are truths.

const PLACE = "ijlmnorstu"; // letters for the axes of a result

const arrayOf = (shape, data, bool = false) => ({ shape, data, bool });
const single = (number, bool = typeof number === "boolean") => arrayOf([], [Number(number)], bool);

class FormulaError extends Error {}

/** Which number of a part stands where one of a whole does that it was broadcast to. */
function partOf(whole, flat, shape) {
  let found = 0;
  let stride = 1;
  for (let axis = whole.length - 1, own = shape.length - 1; own >= 0; axis -= 1, own -= 1) {
    const at = flat % whole[axis];
    flat = (flat - at) / whole[axis];
    if (shape[own] !== 1) found += at * stride;
    stride *= shape[own];
  }
  return found;
}

function broadcastShape(shapes) {
  const found = [];
  for (const shape of shapes)
    shape.forEach((n, i) => {
      const axis = shape.length - i; // from the last
      const known = found[axis] ?? 1;
      if (known !== 1 && n !== 1 && known !== n) throw new FormulaError("shapes that do not fit");
      found[axis] = known === 1 ? n : known;
    });
  return found.slice(1).reverse();
}

const alike = (a, b) => a.length === b.length && a.every((n, i) => n === b[i]);

/** A function of numbers, of the numbers of arrays that stand at the same place. */
function pointwise(compute, arrays, bool = false) {
  const shape = broadcastShape(arrays.map((a) => a.shape));
  const data = new Float64Array(product(shape));
  const same = arrays.map((a) => alike(a.shape, shape));
  for (let i = 0; i < data.length; i += 1)
    data[i] = compute(...arrays.map((a, n) => a.data[same[n] ? i : partOf(shape, i, a.shape)]));
  return arrayOf(shape, data, bool);
}

const modulo = (a, b) => {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
};
const bits = (compute, truths) => [
  (a, b) => Number(compute(BigInt(a), BigInt(b))),
  { truths },
];
// What an operator computes; what it does with truths instead; true if it gives truths.
const OPERATORS = {
  "+": [(a, b) => a + b, { truths: (a, b) => Number(a || b) }],
  "-": [(a, b) => a - b],
  "*": [(a, b) => a * b, { truths: (a, b) => Number(a && b) }],
  "/": [(a, b) => a / b],
  "//": [(a, b) => Math.floor(a / b)],
  "%": [modulo],
  "**": [(a, b) => a ** b],
  "<": [(a, b) => Number(a < b), { compares: true }],
  "<=": [(a, b) => Number(a <= b), { compares: true }],
  ">": [(a, b) => Number(a > b), { compares: true }],
  ">=": [(a, b) => Number(a >= b), { compares: true }],
  "==": [(a, b) => Number(a === b), { compares: true }],
  "!=": [(a, b) => Number(a !== b), { compares: true }],
  "&": bits((a, b) => a & b, (a, b) => a & b),
  "|": bits((a, b) => a | b, (a, b) => a | b),
  "^": bits((a, b) => a ^ b, (a, b) => a ^ b),
};

function operate(name, a, b) {
  const [compute, { truths, compares = false } = {}] = OPERATORS[name];
  const both = a.bool && b.bool && truths !== undefined;
  return pointwise(both ? truths : compute, [a, b], both || compares);
}

/** The error function, by a series without cancellation. */
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n += 1) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** To the nearest whole number, of two the even one. */
function rounded(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

const NUMBERS = {
  exp: Math.exp, log: Math.log, sqrt: Math.sqrt, sin: Math.sin, cos: Math.cos, tan: Math.tan,
  sinh: Math.sinh, cosh: Math.cosh, tanh: Math.tanh, abs: Math.abs, arcsin: Math.asin,
  arccos: Math.acos, arctan: Math.atan, arctan2: Math.atan2, floor: Math.floor, ceil: Math.ceil,
  trunc: Math.trunc, sign: Math.sign, round: rounded, maximum: Math.max, minimum: Math.min,
  where: (test, a, b) => (test ? a : b), expm1: Math.expm1, log1p: Math.log1p,
  fmod: (a, b) => a % b, erf,
};
const TRUTHS = {
  isnan: (x) => Number(Number.isNaN(x)),
  isinf: (x) => Number(Math.abs(x) === Infinity),
  logical_not: (x) => Number(!x),
};

const total = (list) => {
  let sum = 0;
  for (const x of list) sum += x;
  return sum;
};
const greatest = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);
const least = (list) => list.reduce((a, b) => Math.min(a, b), Infinity);
const mean = (list) => total(list) / list.length;
const ascending = (list) =>
  Float64Array.from(list).sort(); // puts what is no number last, as NumPy does
/** The place of the first number that is the best, or no number. */
function best(list, better) {
  let found = 0;
  for (let i = 1; i < list.length && !Number.isNaN(list[found]); i += 1)
    if (better(list[i], list[found]) || Number.isNaN(list[i])) found = i;
  return found;
}
function middle(list) {
  if (list.some(Number.isNaN)) return NaN;
  const sorted = ascending(list);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
function variance(list) {
  const around = mean(list);
  return mean(list.map((x) => (x - around) ** 2));
}
function logsumexp(list) {
  const top = greatest(list);
  return top + Math.log(total(list.map((x) => Math.exp(x - top))));
}

// Functions that make one number of many, of all or along one axis.
const REDUCTIONS = {
  sum: total,
  mean,
  prod: (list) => list.reduce((a, b) => a * b, 1),
  max: greatest,
  min: least,
  argmax: (list) => best(list, (a, b) => a > b),
  argmin: (list) => best(list, (a, b) => a < b),
  var: variance,
  median: middle,
  any: (list) => Number(list.some(Boolean)),
  all: (list) => Number(list.every(Boolean)),
  logsumexp,
};

/** The numbers of an array that a reduction makes the one at `flat` of. */
function reducedCells(shape, axis, flat) {
  if (axis === null) return Array.from({ length: product(shape) }, (_, i) => i);
  const inner = product(shape.slice(axis + 1));
  const start = Math.floor(flat / inner) * inner * shape[axis] + (flat % inner);
  return Array.from({ length: shape[axis] }, (_, i) => start + i * inner);
}

const axisOf = (shape, [axis]) =>
  axis === undefined ? null : (axis.data[0] + shape.length) % shape.length;

function reduce(name, array, rest) {
  const axis = axisOf(array.shape, rest);
  const shape = axis === null ? [] : array.shape.filter((_, i) => i !== axis);
  const truths = name === "any" || name === "all";
  if (axis === null) return arrayOf(shape, [REDUCTIONS[name](Float64Array.from(array.data))], truths);
  const data = Float64Array.from({ length: product(shape) }, (_, flat) =>
    REDUCTIONS[name](Float64Array.from(reducedCells(array.shape, axis, flat), (i) => array.data[i])),
  );
  return arrayOf(shape, data, truths);
}

function call(name, args) {
  if (NUMBERS[name]) return pointwise(NUMBERS[name], args);
  if (TRUTHS[name]) return pointwise(TRUTHS[name], args, true);
  const [array, ...rest] = args;
  if (REDUCTIONS[name]) return reduce(name, array, rest);
  const { shape } = array;
  if (name === "softmax") {
    const top = greatest(array.data);
    const e = Float64Array.from(array.data, (x) => Math.exp(x - top));
    const sum = total(e);
    return arrayOf(shape, e.map((x) => x / sum));
  }
  if (name === "sort") {
    const data = Float64Array.from(array.data);
    const axis = axisOf(shape, rest) ?? shape.length - 1;
    for (let row = 0; row < data.length / shape[axis]; row += 1) {
      const at = reducedCells(shape, axis, row);
      ascending(at.map((i) => array.data[i])).forEach((x, i) => { data[at[i]] = x; });
    }
    return arrayOf(shape, data);
  }
  throw new FormulaError(`no function ${name}`);
}

// --- What subscripts select ---

/** Python's range of a slice. */
function sliced(n, from, to) {
  const end = (value, otherwise) =>
    value === null ? otherwise : Math.min(n, Math.max(0, value < 0 ? value + n : value));
  const [first, last] = [end(from, 0), end(to, n)];
  return Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
}

/** The flat numbers of the cells that subscripts select, in the shape of the selection. */
function selected(shape, subscripts) {
  const spans = subscripts.map((found, axis) => {
    if (found.slice) return { slice: true, many: true, at: sliced(shape[axis], ...found.slice) };
    const many = found.shape.length > 0;
    const truths = found.bool && many;
    const at = truths ? [...found.data.keys()].filter((i) => found.data[i]) : [...found.data];
    for (const p of at)
      if (!(p >= 0 && p < shape[axis]))
        throw new FormulaError(Number.isNaN(p) ? "not kept" : `place ${p} of ${shape[axis]}`);
    return { slice: false, many, at: at.map(Math.trunc) };
  });
  const first = spans.findIndex((span) => !span.slice && span.many);
  const own = spans.map((span, axis) => (span.slice ? axis : span.many ? first : -1));
  const axes = spans.map((_, axis) => axis).filter((axis) => spans[axis].slice || axis === first);
  const lengths = axes.map((axis) =>
    Math.max(...spans.filter((_, i) => own[i] === axis).map((span) => span.at.length)),
  );
  const cells = new Float64Array(product(lengths));
  const strides = shape.map((_, axis) => product(shape.slice(axis + 1)));
  const base = total(spans.map((span, axis) => (own[axis] < 0 ? span.at[0] * strides[axis] : 0)));
  const place = axes.map(() => 0);
  for (let i = 0; i < cells.length; i += 1) {
    let flat = base;
    for (let a = 0; a < axes.length; a += 1)
      for (let axis = 0; axis < spans.length; axis += 1)
        if (own[axis] === axes[a]) {
          const { at } = spans[axis];
          flat += at[at.length === 1 ? 0 : place[a]] * strides[axis];
        }
    cells[i] = flat;
    for (let a = axes.length - 1; a >= 0; a -= 1) {
      place[a] += 1;
      if (place[a] < lengths[a]) break;
      place[a] = 0;
    }
  }
  return arrayOf(lengths, cells);
}

// --- Evaluation ---

const NOT_FINITE = { inf: Infinity, "-inf": -Infinity, nan: NaN };

/**
 * A formula evaluated at a place of the result: {value, reads}, and for every part of the tree again
 * {tree, value, parts}. `tensors` are {shape, kind} by name, and `read(name, flat)` gives a number of
 * one, undefined where it was not kept. `reads` are flat numbers by name, each once.
 */
function evaluateFormula(tree, tensors, place, read) {
  const reads = new Map();
  const leaf = (tree, name, cells) => {
    const seen = memo(reads, name, () => new Set());
    const data = Float64Array.from(cells.data, (flat) => {
      seen.add(flat);
      return read(name, flat) ?? NaN;
    });
    return { tree, name, cells, parts: [], value: arrayOf(cells.shape, data, tensors[name].kind === "bool") };
  };
  const letter = (name) => (name in tensors ? undefined : place[PLACE.indexOf(name)]);
  const subscript = (tree) => {
    if (tree[0] !== "slice") return part(tree).value;
    return { slice: tree.slice(1).map((end) => (end === null ? null : part(end).value.data[0])) };
  };
  const part = (tree) => {
    const [kind, ...rest] = tree;
    if (kind === "number")
      return { tree, parts: [], value: single(NOT_FINITE[rest[0]] ?? rest[0]) };
    if (kind === "name") {
      const [name] = rest;
      const found = letter(name);
      if (found !== undefined && name.length === 1) return { tree, parts: [], value: single(found) };
      if (!tensors[name]) throw new FormulaError(`no tensor ${name}`);
      const { shape } = tensors[name];
      const own = place.slice(place.length - shape.length);
      const flat = shape.reduce((flat, n, axis) => flat * n + (n === 1 ? 0 : own[axis]), 0);
      return leaf(tree, name, single(flat));
    }
    if (kind === "at") {
      const [name, subscripts] = rest;
      if (!tensors[name]) throw new FormulaError(`no tensor ${name}`);
      const { shape } = tensors[name];
      const found = subscripts.map((tree, axis) =>
        tree[0] === "name" && shape[axis] === 1 && letter(tree[1]) !== undefined
          ? single(0)
          : subscript(tree),
      );
      return leaf(tree, name, selected(shape, found));
    }
    if (kind === "take") {
      const from = part(rest[0]);
      const cells = selected(from.value.shape, rest[1].map(subscript));
      const data = Float64Array.from(cells.data, (i) => from.value.data[i]);
      return { tree, cells, parts: [from], value: arrayOf(cells.shape, data, from.value.bool) };
    }
    if (kind === "neg") {
      const parts = [part(rest[0])];
      return { tree, parts, value: pointwise((x) => -x, [parts[0].value]) };
    }
    if (kind === "if") {
      const test = part(rest[0]);
      const chosen = part(test.value.data[0] ? rest[1] : rest[2]);
      return { tree, parts: [test, chosen], value: chosen.value };
    }
    if (kind === "call") {
      const parts = rest[1].map(part);
      return { tree, parts, value: call(rest[0], parts.map((p) => p.value)) };
    }
    const parts = rest.map(part);
    return { tree, parts, value: operate(kind, parts[0].value, parts[1].value) };
  };
  return { ...part(tree), reads };
}

// --- In writing ---

const SHOWN = 4; // numbers of a sum or a list; the rest are counted

// How strongly a text holds together: what is weaker than its surroundings stands in brackets.
const STRENGTH = { "+": 2, "-": 2, "*": 3, "/": 3, "//": 3, "%": 3, "**": 5, "&": 1, "|": 1, "^": 1 };

/** Which of the numbers of a list to write: the first, and those that count most, in their order. */
function worthShowing(numbers, weight = Math.abs) {
  const all = numbers.map((_, i) => i);
  if (all.length <= SHOWN) return all;
  const weights = numbers.map((x) => (Number.isNaN(x) ? -Infinity : weight(x)));
  const rest = all.slice(1).sort((a, b) => weights[b] - weights[a]);
  return [0, ...rest.slice(0, SHOWN - 1).sort((a, b) => a - b)];
}

/**
 * What was evaluated as {tokens, strength}: texts, and for each number that was read
 * {text, name, flat}. `write(name, number)` writes a number.
 */
function formulaTokens(node, write, flat = 0) {
  const { tree, parts, value } = node;
  const whole = (tokens, strength = 9) => ({ tokens, strength });
  const of = (part) => formulaTokens(part, write, partOf(value.shape, flat, part.value.shape));
  const held = (found, least) =>
    found.strength < least ? ["(", ...found.tokens, ")"] : found.tokens;
  const [kind, name] = tree;
  if (node.name) {
    const text = write(node.name, value.data[flat]);
    return whole([{ text, name: node.name, flat: node.cells.data[flat] }], text[0] === "-" ? 4 : 9);
  }
  if (kind === "number" || kind === "name") {
    const text = numberText(value.data[flat]);
    return whole([text], text[0] === "-" ? 4 : 9);
  }
  if (kind === "take") return formulaTokens(parts[0], write, node.cells.data[flat]);
  if (kind === "neg") return whole(["-", ...held(of(parts[0]), 4)], 4);
  if (kind === "if") {
    const [test, chosen] = parts;
    const said = formulaTokens(test, write, 0);
    const counts = test.value.data[0] ? said.tokens : ["not ", ...held(said, 2)];
    return whole([...held(of(chosen), 2), " (as ", ...counts, ")"], 0);
  }
  if (kind !== "call") {
    const strength = STRENGTH[kind] ?? 0;
    const [a, b] = parts.map(of);
    const sign = kind === "*" || kind === "**" ? kind : ` ${kind} `;
    const left = held(a, kind === "**" ? 6 : strength);
    // What follows a sign and begins with another stands in brackets.
    const right = held(b, Math.max(strength + 1, 5));
    return whole([...left, sign, ...right], strength);
  }
  if (!REDUCTIONS[name] && name !== "softmax" && name !== "sort") {
    const listed = parts.flatMap((part, i) => [...(i ? [", "] : []), ...of(part).tokens]);
    return whole([`${name}(`, ...listed, ")"]);
  }
  return reductionTokens(node, write, flat);
}

/** A sum, or another function of many numbers. */
function reductionTokens({ tree, parts, value }, write, flat) {
  const [, name] = tree;
  const [array, ...rest] = parts;
  const { shape } = array.value;
  const whole = name === "softmax" || name === "sort"; // gives as many as it takes
  const axis = axisOf(shape, rest.map((part) => part.value));
  const at = reducedCells(shape, whole ? null : axis, flat);
  const numbers = at.map((i) => array.value.data[i]);
  const weight = { min: (x) => -x, max: (x) => x, argmin: (x) => -x, argmax: (x) => x }[name];
  const shown = worthShowing(numbers, weight);
  const left = numbers.length - shown.length;
  const items = shown.map((i) => formulaTokens(array, write, at[i]));
  if (name !== "sum" && name !== "mean") {
    const listed = items.flatMap(({ tokens }, i) => [...(i ? [", "] : []), ...tokens]);
    if (left) listed.push(`, \u2026 ${left} more`);
    const which = whole ? `[${flat}]` : "";
    return { tokens: [`${name}(`, ...listed, `)${which}`], strength: 9 };
  }
  const sum = sumTokens(items, left);
  if (name === "sum") return sum;
  const above = sum.strength < 3 ? ["(", ...sum.tokens, ")"] : sum.tokens;
  return { tokens: [...above, ` / ${numbers.length}`], strength: 3 };
}

/** Terms with plus and minus between them, and the count of those that are left out. */
function sumTokens(items, left) {
  const tokens = [];
  items.forEach((item, i) => {
    const own = item.strength < 2 ? ["(", ...item.tokens, ")"] : [...item.tokens];
    const [first] = own;
    const text = first?.text ?? first;
    if (i && text[0] === "-" && item.strength > 2) {
      tokens.push(" - ");
      own[0] = first.text ? { ...first, text: text.slice(1) } : text.slice(1);
    } else if (i) tokens.push(" + ");
    tokens.push(...own);
  });
  if (left) tokens.push(` + \u2026 ${left} more`);
  if (!tokens.length) tokens.push("0");
  return { tokens, strength: items.length + (left ? 1 : 0) > 1 ? 2 : (items[0]?.strength ?? 9) };
}
