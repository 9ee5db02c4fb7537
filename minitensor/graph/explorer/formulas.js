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

function broadcastShape(a, b) {
  const [long, short] = a.length < b.length ? [b, a] : [a, b];
  const before = long.length - short.length;
  return long.map((n, axis) => {
    const own = axis < before ? 1 : short[axis - before];
    if (n !== own && n !== 1 && own !== 1) throw new FormulaError("shapes that do not fit");
    return n === 1 ? own : n;
  });
}

const alike = (a, b) => a.length === b.length && a.every((n, i) => n === b[i]);

/** A function of one number or two, of the numbers of arrays that stand at the same place. */
function pointwise(compute, [a, b], bool = false) {
  if (!b) return arrayOf(a.shape, Float64Array.from(a.data, (x) => compute(x)), bool);
  const shape = broadcastShape(a.shape, b.shape);
  const places = [a, b].map((array) => placesIn(array, shape));
  const data = new Float64Array(product(shape));
  for (let i = 0; i < data.length; i += 1) data[i] = compute(a.data[places[0](i)], b.data[places[1](i)]);
  return arrayOf(shape, data, bool);
}

/** Which of an array's numbers stands at each place of a shape. */
function placesIn(array, shape) {
  if (array.data.length === 1) return () => 0;
  return alike(array.shape, shape) ? (i) => i : (i) => partOf(shape, i, array.shape);
}

const modulo = (a, b) => {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
};
const ARITHMETIC = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "//": (a, b) => Math.floor(a / b),
  "%": modulo,
  "**": (a, b) => (a === 1 ? 1 : a ** b),
};
const COMPARISONS = {
  "<": (a, b) => Number(a < b),
  "<=": (a, b) => Number(a <= b),
  ">": (a, b) => Number(a > b),
  ">=": (a, b) => Number(a >= b),
  "==": (a, b) => Number(a === b),
  "!=": (a, b) => Number(a !== b),
};
const BITS = { "&": (a, b) => a & b, "|": (a, b) => a | b, "^": (a, b) => a ^ b };

function operate(name, a, b) {
  if (name === "@") return multiplied(a, b);
  if (ARITHMETIC[name]) return pointwise(ARITHMETIC[name], [a, b]);
  if (COMPARISONS[name]) return pointwise(COMPARISONS[name], [a, b], true);
  const truths = a.bool && b.bool;
  const compute = truths
    ? BITS[name]
    : (x, y) => Number(BITS[name](BigInt(x), BigInt(y))); // more than 32 of them
  return pointwise(compute, [a, b], truths);
}

/** The pairs of numbers whose products are summed to the one at `flat` of a matrix product. */
function factorPairs(a, b, flat) {
  const inner = a.shape.at(-1) ?? 0;
  const columns = b.shape.length > 1 ? b.shape[1] : 1;
  const [row, column] = [Math.floor(flat / columns), flat % columns];
  return Array.from({ length: inner }, (_, k) => [row * inner + k, k * columns + column]);
}

/** The product of vectors and matrices. */
function multiplied(a, b) {
  if (a.shape.at(-1) !== b.shape[0]) throw new FormulaError("shapes that do not fit");
  const shape = [...a.shape.slice(0, -1), ...b.shape.slice(1)];
  const data = Float64Array.from({ length: product(shape) }, (_, flat) =>
    total(factorPairs(a, b, flat).map(([i, j]) => a.data[i] * b.data[j])),
  );
  return arrayOf(shape, data);
}

/** The error function, by a series without cancellation. */
function erf(x) {
  if (Math.abs(x) > 6 || !x) return Number.isNaN(x) ? x : Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n += 1) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** The inverse of it, by Newton's steps. */
function erfinv(y) {
  const log = Math.log(1 - y * y);
  const part = 2 / (Math.PI * 0.147) + log / 2;
  let x = Math.sign(y) * Math.sqrt(Math.sqrt(part * part - log / 0.147) - part);
  for (let i = 0; i < 4; i += 1) x -= ((erf(x) - y) * Math.sqrt(Math.PI) * Math.exp(x * x)) / 2;
  return x;
}

/** To the nearest whole number, of two the even one. */
function rounded(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

const NUMBERS = {
  exp: Math.exp, log: Math.log, ln: Math.log, log2: Math.log2, log10: Math.log10, sqrt: Math.sqrt,
  abs: Math.abs, sign: Math.sign, floor: Math.floor, ceil: Math.ceil, trunc: Math.trunc,
  round: rounded, sin: Math.sin, cos: Math.cos, tan: Math.tan, tanh: Math.tanh, arcsin: Math.asin,
  arccos: Math.acos, arctan: Math.atan, arctan2: Math.atan2, erf, erfinv,
  gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  silu: (x) => x / (1 + Math.exp(-x)),
};
const TRUTHS = {
  isnan: (x) => Number(Number.isNaN(x)),
  isinf: (x) => Number(Math.abs(x) === Infinity),
  isfinite: (x) => Number(Number.isFinite(x)),
};
const CHOICES = { max: Math.max, min: Math.min };

function total(list) {
  let sum = 0;
  for (const x of list) sum += x;
  return sum;
}
const greatest = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);
const least = (list) => list.reduce((a, b) => Math.min(a, b), Infinity);
const mean = (list) => total(list) / list.length;
/** The place of the first number that is the best, or no number. */
function best(list, better) {
  let found = 0;
  for (let i = 1; i < list.length && !Number.isNaN(list[found]); i += 1)
    if (better(list[i], list[found]) || Number.isNaN(list[i])) found = i;
  return found;
}
function logsumexp(list) {
  const top = greatest(list);
  return top + Math.log(total(list.map((x) => Math.exp(x - top))));
}
function softmax(list) {
  const top = greatest(list);
  const e = list.map((x) => Math.exp(x - top));
  const sum = total(e);
  return e.map((x) => x / sum);
}
/** The places of the numbers in ascending order; what is no number comes last, as in NumPy. */
function argsort(list) {
  const rank = (x) => (Number.isNaN(x) ? 1 : 0);
  return [...list.keys()].sort((i, j) => rank(list[i]) - rank(list[j]) || list[i] - list[j] || i - j);
}

// What makes one number of many, and what makes as many of them.
const REDUCTIONS = {
  sum: total,
  mean,
  prod: (list) => list.reduce((a, b) => a * b, 1),
  max: greatest,
  min: least,
  argmax: (list) => best(list, (a, b) => a > b),
  argmin: (list) => best(list, (a, b) => a < b),
  var: (list) => {
    const around = mean(list);
    return mean(list.map((x) => (x - around) ** 2));
  },
  any: (list) => Number(list.some(Boolean)),
  all: (list) => Number(list.every(Boolean)),
  last: (list) => list.findLastIndex(Boolean),
  logsumexp,
};
const OF_ALL = {
  softmax,
  sort: (list) => argsort(list).map((i) => list[i]),
  argsort,
};

function call(name, args) {
  if (NUMBERS[name]) return pointwise(NUMBERS[name], args);
  if (TRUTHS[name]) return pointwise(TRUTHS[name], args, true);
  if (CHOICES[name] && args.length > 1)
    return args.reduce((a, b) => pointwise(CHOICES[name], [a, b]));
  const list = Float64Array.from(args[0].data);
  if (REDUCTIONS[name]) return single(REDUCTIONS[name](list), name === "any" || name === "all");
  if (!OF_ALL[name]) throw new FormulaError(`no function ${name}`);
  const made = OF_ALL[name](list);
  return arrayOf(name === "softmax" ? args[0].shape : [list.length], made);
}

// --- What subscripts select ---

/** Python's range of a slice. */
function sliced(n, from, to) {
  const end = (value, otherwise) =>
    value === null ? otherwise : Math.min(n, Math.max(0, value < 0 ? value + n : value));
  const [first, last] = [end(from, 0), end(to, n)];
  return Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
}

/** How many axes a subscript takes: a matrix of truths takes two. */
const axesOf = (found) => (!found.slice && found.bool && found.shape.length ? found.shape.length : 1);

/** The places that truths select along one of their axes. */
function trueAlong({ shape, data }, axis) {
  const inner = product(shape.slice(axis + 1));
  return [...data.keys()].filter((i) => data[i]).map((i) => Math.floor(i / inner) % shape[axis]);
}

/** The flat numbers of the cells that subscripts select, in the shape of the selection. */
function selectedCells(shape, subscripts) {
  const spans = [];
  for (const found of subscripts) {
    const n = shape[spans.length];
    if (found.slice) spans.push({ slice: true, many: true, at: sliced(n, ...found.slice) });
    else if (found.bool && found.shape.length)
      found.shape.forEach((_, axis) => spans.push({ many: true, at: trueAlong(found, axis) }));
    else spans.push({ many: found.shape.length > 0, at: [...found.data].map(Math.trunc) });
  }
  if (spans.length !== shape.length) throw new FormulaError(`${spans.length} places for ${shape.length} axes`);
  spans.forEach((span, axis) => {
    const n = shape[axis];
    span.at = span.at.map((p) => {
      if (!(p >= -n && p < n)) throw new FormulaError(Number.isNaN(p) ? "a place that was not kept" : `place ${p} of ${n}`);
      return p < 0 ? p + n : p;
    });
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
  const letters = new Map(place.map((p, axis) => [PLACE[axis], p]));
  const leaf = (tree, name, cells) => {
    const seen = memo(reads, name, () => new Set());
    const data = Float64Array.from(cells.data, (flat) => {
      seen.add(flat);
      return read(name, flat) ?? NaN;
    });
    return { tree, name, cells, parts: [], value: arrayOf(cells.shape, data, tensors[name].kind === "bool") };
  };
  const shapeOf = (name) => {
    if (!tensors[name]) throw new FormulaError(`no tensor ${name}`);
    return tensors[name].shape;
  };
  const subscript = (tree) => {
    if (tree[0] !== "slice") return part(tree).value;
    return { slice: tree.slice(1).map((end) => (end === null ? null : part(end).value.data[0])) };
  };
  const kinds = {
    number: (tree, number) => ({ tree, parts: [], value: single(NOT_FINITE[number] ?? number) }),
    name: (tree, name) => {
      if (!(name in tensors) && letters.has(name))
        return { tree, parts: [], value: single(letters.get(name)) };
      const shape = shapeOf(name);
      const own = place.slice(place.length - shape.length);
      return leaf(tree, name, single(shape.reduce((flat, n, axis) => flat * n + (n === 1 ? 0 : own[axis]), 0)));
    },
    at: (tree, name, subscripts) => {
      const shape = shapeOf(name);
      let axis = 0;
      const found = subscripts.map((tree) => {
        const one = tree[0] === "name" && letters.has(tree[1]) && shape[axis] === 1;
        const each = one ? single(0) : subscript(tree);
        axis += axesOf(each);
        return each;
      });
      return leaf(tree, name, selectedCells(shape, found));
    },
    take: (tree, whole, subscripts) => {
      const from = part(whole);
      const cells = selectedCells(from.value.shape, subscripts.map(subscript));
      const data = Float64Array.from(cells.data, (i) => from.value.data[i]);
      return { tree, cells, parts: [from], value: arrayOf(cells.shape, data, from.value.bool) };
    },
    neg: (tree, inner) => {
      const parts = [part(inner)];
      return { tree, parts, value: pointwise((x) => -x, [parts[0].value]) };
    },
    invert: (tree, inner) => {
      const parts = [part(inner)];
      const { bool } = parts[0].value;
      return { tree, parts, value: pointwise((x) => (bool ? Number(!x) : ~x), [parts[0].value], bool) };
    },
    if: (tree, condition, yes, no) => {
      const test = part(condition);
      const chosen = part(test.value.data[0] ? yes : no);
      return { tree, parts: [test, chosen], value: chosen.value };
    },
    call: (tree, name, args) => {
      const parts = args.map(part);
      return { tree, parts, value: call(name, parts.map((p) => p.value)) };
    },
    each: (tree, loops, condition, body) => {
      const parts = [];
      const run = ([loop, ...inner]) => {
        if (!loop) {
          if (condition === null || part(condition).value.data[0]) parts.push(part(body));
          return;
        }
        const count = part(loop[1]).value.data[0];
        for (let number = 0; number < count; number += 1) {
          letters.set(loop[0], number);
          run(inner);
        }
        letters.delete(loop[0]);
      };
      run(loops);
      const values = parts.map((p) => p.value);
      const data = Float64Array.from(values.flatMap((value) => [...value.data]));
      const shape = [parts.length, ...(values[0]?.shape ?? [])];
      return { tree, parts, value: arrayOf(shape, data, values.every((value) => value.bool)) };
    },
  };
  const part = (tree) => {
    const [kind, ...rest] = tree;
    if (kinds[kind]) return kinds[kind](tree, ...rest);
    const parts = rest.map(part);
    return { tree, parts, value: operate(kind, parts[0].value, parts[1].value) };
  };
  return { ...part(tree), reads };
}

// --- In writing ---

const SHOWN = 4; // numbers of a sum or a list; the rest are counted

// How strongly a text holds together: what is weaker than its surroundings stands in brackets.
const STRENGTH = { "+": 2, "-": 2, "*": 3, "/": 3, "//": 3, "%": 3, "**": 5, "&": 1, "|": 1, "^": 1 };
const HOLDS = 9; // by itself

const inBrackets = ({ tokens, strength }, least) => (strength < least ? ["(", ...tokens, ")"] : tokens);

/** A number, which in front of a sign is weaker if it has one itself. */
const numberTokens = (token) => ({
  tokens: [token],
  strength: (token.text ?? token)[0] === "-" ? 4 : HOLDS,
});

const UNKNOWN = "?"; // in place of a number that was not kept
const TRIED = 60; // terms, for some that are known

/**
 * What to write of a list: the first, and those that count most, in their order; not those that have
 * unknown numbers. `write(i)` writes one; the tokens of each, and how many are left.
 */
function worthShowing(numbers, write, weight = Math.abs) {
  const all = [...numbers.keys()];
  const none = all.slice(1).filter((i) => Number.isNaN(numbers[i])); // not kept, or what spoils a sum
  const rest = all.slice(1).filter((i) => !Number.isNaN(numbers[i]));
  rest.sort((a, b) => weight(numbers[b]) - weight(numbers[a]));
  const found = [];
  for (const i of [...all.slice(0, 1), ...none.slice(0, TRIED), ...rest.slice(0, TRIED)]) {
    if (found.length === SHOWN) break;
    const item = write(i);
    if (item.tokens.every((token) => token.text !== UNKNOWN)) found.push({ i, ...item });
  }
  found.sort((a, b) => a.i - b.i);
  return { items: found, left: numbers.length - found.length };
}

/**
 * What was evaluated as {tokens, strength}: texts, and for each number that was read
 * {text, name, flat}. `write(name, flat)` writes one. In a term of a sum or list, what is itself
 * made of many is but its number.
 */
function formulaTokens(node, write, flat = 0, inTerm = false) {
  const { tree, parts, value } = node;
  const of = (part) =>
    formulaTokens(part, write, partOf(value.shape, flat, part.value.shape), inTerm);
  const [kind, name] = tree;
  if (node.name)
    return numberTokens({ text: write(node.name, node.cells.data[flat]), name: node.name, flat: node.cells.data[flat] });
  if (kind === "number" || kind === "name") return numberTokens(numberText(value.data[flat]));
  if (kind === "take") return formulaTokens(parts[0], write, node.cells.data[flat], inTerm);
  if (kind === "each") {
    const size = product(value.shape.slice(1));
    return formulaTokens(parts[Math.floor(flat / size)], write, flat % size, inTerm);
  }
  if (kind === "neg") return { tokens: ["-", ...inBrackets(of(parts[0]), 5)], strength: 4 };
  if (kind === "invert") return { tokens: ["not ", ...inBrackets(of(parts[0]), 2)], strength: 0 };
  if (kind === "if") {
    const [test, chosen] = parts;
    const said = formulaTokens(test, write, 0, true);
    const counts = test.value.data[0] ? said.tokens : ["not ", ...inBrackets(said, 2)];
    return { tokens: [...inBrackets(of(chosen), 2), " (as ", ...counts, ")"], strength: 0 };
  }
  const many = kind === "@" || (kind === "call" && parts.length === 1 && name in { ...REDUCTIONS, ...OF_ALL });
  if (many && inTerm) return numberTokens(numberText(value.data[flat]));
  if (kind === "@") return productTokens(node, write, flat);
  if (many) return listTokens(node, write, flat);
  if (kind === "call") {
    const listed = parts.flatMap((part, i) => [...(i ? [", "] : []), ...of(part).tokens]);
    return { tokens: [`${name}(`, ...listed, ")"], strength: HOLDS };
  }
  const strength = STRENGTH[kind] ?? 0;
  const sign = kind === "*" || kind === "**" ? kind : ` ${kind} `;
  const left = inBrackets(of(parts[0]), kind === "**" ? 6 : strength);
  // What follows a sign and begins with another stands in brackets.
  const right = inBrackets(of(parts[1]), Math.max(strength + 1, 5));
  return { tokens: [...left, sign, ...right], strength };
}

/** A matrix product's cell: the sum of products. */
function productTokens({ parts: [a, b] }, write, flat) {
  const pairs = factorPairs(a.value, b.value, flat);
  const numbers = pairs.map(([i, j]) => a.value.data[i] * b.value.data[j]);
  const { items, left } = worthShowing(numbers, (n) => {
    const [one, other] = [a, b].map((part, side) => formulaTokens(part, write, pairs[n][side], true));
    return { tokens: [...inBrackets(one, 3), "*", ...inBrackets(other, 5)], strength: 3 };
  });
  return sumTokens(items, left);
}

/** A sum, or another function of many numbers. */
function listTokens({ tree, parts: [array] }, write, flat) {
  const [, name] = tree;
  const numbers = [...array.value.data];
  const weight = { min: (x) => -x, max: (x) => x, argmin: (x) => -x, argmax: (x) => x }[name];
  const { items, left } = worthShowing(numbers, (i) => formulaTokens(array, write, i, true), weight);
  if (name !== "sum" && name !== "mean") {
    const listed = items.flatMap(({ tokens }, i) => [...(i ? [", "] : []), ...tokens]);
    if (left) listed.push(items.length ? `, \u2026 ${left} more` : `\u2026 ${left} numbers`);
    return { tokens: [`${name}(`, ...listed, `)${OF_ALL[name] ? `[${flat}]` : ""}`], strength: HOLDS };
  }
  const sum = sumTokens(items, left);
  if (name === "sum") return sum;
  return { tokens: [...inBrackets(sum, 3), ` / ${numbers.length}`], strength: 3 };
}

/** Terms with plus and minus between them, and the count of those that are left out. */
function sumTokens(items, left) {
  const tokens = [];
  items.forEach((item, i) => {
    const own = [...inBrackets(item, items.length + left > 1 ? 3 : 2)];
    const text = own[0].text ?? own[0];
    if (i && text[0] === "-" && item.strength > 2) {
      tokens.push(" - ");
      own[0] = own[0].text ? { ...own[0], text: text.slice(1) } : text.slice(1);
    } else if (i) tokens.push(" + ");
    tokens.push(...own);
  });
  if (left) tokens.push(items.length ? ` + \u2026 ${left} more` : `\u2026 ${left} terms`);
  if (!tokens.length) tokens.push("0");
  return { tokens, strength: items.length + (left ? 1 : 0) > 1 ? 2 : (items[0]?.strength ?? HOLDS) };
}
