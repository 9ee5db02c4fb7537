// What tensors held: decoded when somebody first asks, by the id of a value. held.py describes the
// JSON. `numbersOf(id)` gives null where nothing was kept, else an object with
//
//   id, shape, dims      of the whole tensor; dims are the names of its sizes, as the picture has them
//   kept                 how many places of each axis are in the sample; `at(axis)` lists them
//   get(place)           the number there; undefined if the sample has not got it
//   facts, counts        min, max, mean, nan, inf and the histogram, of all numbers
//   labels(axis)         words for the places of an axis, or null
//   size                 the count of all numbers; `flat(place)` and `place(flat)` number them as C does

let heldNumbers; // undefined until they are read

/** The numbers of the page, or null if none were kept; before the page has come, null as well. */
function held() {
  if (heldNumbers === undefined && document.readyState !== "loading")
    heldNumbers = JSON.parse(document.getElementById("numbers").textContent);
  return heldNumbers ?? null;
}

const TYPES = {
  f4: Float32Array,
  f8: Float64Array,
  i4: Int32Array,
  i8: BigInt64Array,
  u8: BigUint64Array,
  b1: Uint8Array,
};

/** The numbers of base64 in little-endian order. */
function decoded({ dtype, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const found = new TYPES[dtype](bytes.buffer);
  return typeof found[0] === "bigint" ? Float64Array.from(found, Number) : found;
}

const product = (lengths) => lengths.reduce((a, b) => a * b, 1);

class Numbers {
  constructor(id, entry) {
    const { shape, at, size, dims, facts = {}, counts = null, dtype } = entry;
    Object.assign(this, { id, entry, kept: shape, facts, counts, dims: dims ?? [] });
    this.shape = size ?? shape;
    this.size = product(this.shape);
    this.whole = !at;
    this.kind = dtype === "b1" ? "bool" : dtype[0] === "f" ? "float" : "int";
    this.gradient = Boolean(held().gradients[id]) || tensorById?.get(id)?.gradient === 1;
  }

  /** All that is kept, in the order of C. */
  get values() {
    return (this.decodedValues ??= "base64" in this.entry ? decoded(this.entry) : movedValues(this.id));
  }

  /** The places of an axis that are kept. */
  at(axis) {
    return this.entry.at?.[axis] ?? Array.from({ length: this.kept[axis] }, (_, i) => i);
  }

  /** Which of the kept places of an axis a place is; undefined if it is none. */
  index(axis, place) {
    if (this.whole) return place >= 0 && place < this.kept[axis] ? place : undefined;
    this.indexes ??= this.entry.at.map((places) => new Map(places.map((p, i) => [p, i])));
    return this.indexes[axis].get(place);
  }

  get(place) {
    let flat = 0;
    for (let axis = 0; axis < place.length; axis += 1) {
      const index = this.index(axis, place[axis]);
      if (index === undefined) return undefined;
      flat = flat * this.kept[axis] + index;
    }
    return this.values[flat];
  }

  /** The number of a cell by its number in the whole tensor. */
  getFlat(flat) {
    if (this.whole) return this.values[flat];
    let [found, stride, rest] = [0, 1, flat];
    for (let axis = this.shape.length - 1; axis >= 0; axis -= 1) {
      const p = rest % this.shape[axis];
      const index = this.index(axis, p);
      if (index === undefined) return undefined;
      found += index * stride;
      stride *= this.kept[axis];
      rest = (rest - p) / this.shape[axis];
    }
    return this.values[found];
  }

  flat(place) {
    return place.reduce((flat, p, axis) => flat * this.shape[axis] + p, 0);
  }

  place(flat) {
    const found = [];
    for (let axis = this.shape.length - 1; axis >= 0; axis -= 1) {
      found.unshift(flat % this.shape[axis]);
      flat = Math.floor(flat / this.shape[axis]);
    }
    return found;
  }

  labels(axis) {
    return held().labels[this.dims[axis]] ?? null;
  }

  /** A number of this tensor as it is written: whole numbers as they are, others in 4 digits. */
  text(number) {
    if (this.kind === "bool" && number !== undefined) return number ? "True" : "False";
    return numberText(number);
  }

  /** What a sample has of the axes: "24 of 72 rows, about every 3rd"; "" if all is there. */
  get sampled() {
    if (this.whole) return "";
    const last = this.shape.length - 1;
    const said = this.shape.map((n, axis) => {
      const kept = this.kept[axis];
      if (kept === n) return "";
      const every = kept > 1 ? (n - 1) / (kept - 1) : 0;
      const name = axis === last ? "columns" : axis === last - 1 ? "rows" : `places of ${axisName(this, axis)}`;
      const step = Math.round(every);
      const about = Number.isInteger(every) ? "" : "about ";
      return `${kept} of ${n} ${name}${step > 1 ? `, ${about}every ${step}${ordinal(step)}` : ""}`;
    });
    return said.filter(Boolean).join("; ");
  }
}

const ordinal = (n) => ({ 1: "st", 2: "nd", 3: "rd" })[n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] ?? "th";

/** The name of an axis' size, or "axis 0" where it has none. */
function axisName({ dims, shape }, axis) {
  const name = dims[axis];
  return name && name !== String(shape[axis]) ? name : `axis ${axis}`;
}

/** A number in 4 digits, as short as that can be: "0.5", "-1.235", "1.2e-7". */
function numberText(number) {
  if (number === undefined || number === null) return UNKNOWN;
  if (Number.isNaN(number)) return "nan";
  if (!Number.isFinite(number)) return number > 0 ? "inf" : "-inf";
  if (Number.isInteger(number) && Math.abs(number) < 1e7) return String(number);
  return String(Number(number.toPrecision(4)));
}

/** The numbers of a tensor that has but copies of others' numbers. */
function movedValues(id) {
  const sources = sourcesOf(id);
  const moved = movedOf(id);
  if (sources.length === 1) {
    const { values } = sources[0];
    return Float64Array.from(moved, (number) => values[number]);
  }
  return Float64Array.from(moved, (number) => {
    const [source, cell] = whichSource(sources, number);
    return source.getFlat(cell);
  });
}

const movedNumbers = new Map();
const movedOf = (id) => memo(movedNumbers, id, () => decoded(held().origins[id].moved));
const sourcesOf = (id) => Object.values(held().origins[id].tensors).map(numbersOf);

/** The tensor and its cell that a number in all of several stands for. */
function whichSource(sources, number) {
  for (const source of sources) {
    if (number < source.size) return [source, number];
    number -= source.size;
  }
  throw new Error("a number beyond all tensors");
}

const allNumbers = new Map();

function numbersOf(id) {
  const entry = held()?.data[id];
  return entry ? memo(allNumbers, id, () => new Numbers(id, entry)) : null;
}
