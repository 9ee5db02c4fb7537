// Heat maps of tensors. `heatMap(id, options)` gives an element, or null where nothing was kept:
//
//   place         the cell that is shown and chosen at first (all axes of the tensor)
//   axes          [row, column]: the axes that are drawn, else the last two; the others have sliders
//   lit           places that stand out
//   onCell(place) is called when a cell is clicked, or chosen with Enter
//   onMove(place) is called when the slice that is shown changes, by a slider or a key
//   brief         true: without facts and histogram
//   high          the most pixels that the cells take
//   under         elements between the cells and the facts
//
// The element has `show(place)`, which goes to a cell, and `light(places)`. `smallMap(id, options)` is
// a canvas of one slice, for lists and boxes. Zero is neutral, below is blue and above is orange; in
// dark mode the neutral is dark. What is no number, or infinite, has marks of its own.

const COLORS = {
  light: {
    neutral: [255, 255, 255],
    below: [[146, 190, 224], [8, 81, 156]],
    above: [[246, 178, 107], [158, 61, 0]],
    infinite: "#a3a8b3",
    lines: "#e4e6ea",
  },
  dark: {
    neutral: [34, 37, 44],
    below: [[40, 104, 158], [143, 208, 255]],
    above: [[160, 84, 20], [255, 200, 140]],
    infinite: "#565c69",
    lines: "#363b46",
  },
};
const NAN = { light: "#a8308a", dark: "#ff8fe0" };
const CELL = 18; // height of a cell with a number in it
const FONT = "10.5px ui-monospace, 'DejaVu Sans Mono', monospace";

const heatState = { shared: false };

const themeNow = () =>
  state.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

// --- Scales ---

const FAR = 1e4; // times the middle of the numbers: above, one is off the scale, as -1e9 in a mask

/** The largest magnitude on a tensor's own scale, and true if some numbers are beyond it. */
function ownLimit(numbers) {
  if (numbers.limit) return numbers.limit;
  const sizes = Float64Array.from(numbers.values, Math.abs).filter((x) => x > 0 && x < Infinity).sort();
  const most = sizes.length ? sizes[sizes.length - 1] : 1;
  const half = sizes[sizes.length >> 1] ?? 1;
  const { min = -most, max = most } = numbers.facts;
  const all = Math.max(Math.abs(min), Math.abs(max)) || 1;
  if (numbers.kind !== "float" || all <= FAR * half) return (numbers.limit = { most: all, beyond: false });
  const near = sizes.filter((x) => x <= FAR * half);
  return (numbers.limit = { most: near[near.length - 1], beyond: true });
}

let sharedLimits = null;

/** The largest magnitude of all tensors of one kind: of gradients, or of the others. */
function sharedLimit(numbers) {
  sharedLimits ??= [false, true].map((gradient) => {
    const all = Object.keys(held().data).map(numbersOf);
    const alike = all.filter((one) => one.kind === "float" && one.gradient === gradient);
    return { most: Math.max(0, ...alike.map((one) => ownLimit(one).most)) || 1, beyond: true };
  });
  return sharedLimits[Number(numbers.gradient)];
}

const limitOf = (numbers) =>
  heatState.shared && numbers.kind === "float" ? sharedLimit(numbers) : ownLimit(numbers);

const rampMemo = new Map();

/** Colours from below to above, 129 of them, and the ink that is legible on each. */
function ramp(theme) {
  return memo(rampMemo, theme, () => {
    const { neutral, below, above } = COLORS[theme];
    return Array.from({ length: 129 }, (_, i) => {
      const t = (i - 64) / 64;
      const [half, end] = t < 0 ? below : above;
      const size = Math.abs(t);
      const [a, b, part] = size < 0.5 ? [neutral, half, 2 * size] : [half, end, 2 * size - 1];
      const color = a.map((x, n) => Math.round(x + (b[n] - x) * part));
      const light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2];
      return { fill: `rgb(${color})`, ink: light > 140 ? "#1b1b1f" : "#ffffff" };
    });
  });
}

const colorOf = (number, most, theme) =>
  ramp(theme)[64 + Math.round(64 * Math.max(-1, Math.min(1, number / most)))];

/** Paint one cell. */
function paintCell(pen, number, [x, y, w, h], limit, theme) {
  if (Number.isFinite(number)) {
    pen.fillStyle = colorOf(number, limit.most, theme).fill;
    pen.fillRect(x, y, w, h);
    if (Math.abs(number) > limit.most && w > 7 && h > 7) {
      pen.fillStyle = colorOf(number, limit.most, theme).ink; // a corner: it is off the scale
      pen.beginPath();
      pen.moveTo(x + w - 5, y);
      pen.lineTo(x + w, y);
      pen.lineTo(x + w, y + 5);
      pen.fill();
    }
    return;
  }
  const small = Math.min(w, h) < 5;
  const nan = Number.isNaN(number);
  pen.fillStyle = nan && small ? NAN[theme] : nan ? `rgb(${COLORS[theme].neutral})` : COLORS[theme].infinite;
  pen.fillRect(x, y, w, h);
  if (small) return;
  pen.save();
  pen.beginPath();
  pen.rect(x, y, w, h);
  pen.clip();
  pen.beginPath();
  pen.lineWidth = nan ? 2 : 1;
  pen.strokeStyle = nan ? NAN[theme] : `rgb(${COLORS[theme].neutral})`;
  if (nan) {
    pen.moveTo(x, y);
    pen.lineTo(x + w, y + h);
    pen.moveTo(x + w, y);
    pen.lineTo(x, y + h);
  } else
    for (let d = 4; d < w + h; d += 4) {
      pen.moveTo(x + d, y);
      pen.lineTo(x + d - h, y + h);
    }
  pen.stroke();
  pen.restore();
}

/** A pen on a canvas that has so many pixels of the page. */
function penOn(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  const [w, h] = [width * scale, height * scale].map(Math.round);
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

// --- One slice of a tensor ---

/** The cells of a slice: rows and columns of kept places, and the number at each. */
class Slice {
  constructor(numbers, axes, place) {
    const [row, column] = axes;
    Object.assign(this, { numbers, row, column, place });
    this.rows = row === null ? [0] : numbers.at(row);
    this.columns = column === null ? [0] : numbers.at(column);
    const strides = numbers.kept.map((_, axis) => product(numbers.kept.slice(axis + 1)));
    this.strides = axes.map((axis) => (axis === null ? 0 : strides[axis]));
    this.start = total(
      place.map((p, axis) => (axes.includes(axis) ? 0 : strides[axis] * (numbers.index(axis, p) ?? 0))),
    );
  }

  number(r, c) {
    return this.numbers.values[this.start + r * this.strides[0] + c * this.strides[1]];
  }

  /** The place in the tensor of a cell of the slice. */
  placeOf(r, c) {
    const found = [...this.place];
    if (this.row !== null) found[this.row] = this.rows[r];
    if (this.column !== null) found[this.column] = this.columns[c];
    return found;
  }

  /** Where a place of the tensor is in the slice, or null. */
  cellOf(place) {
    const { row, column } = this;
    if (place.some((p, axis) => axis !== row && axis !== column && p !== this.place[axis])) return null;
    const r = row === null ? 0 : this.numbers.index(row, place[row]);
    const c = column === null ? 0 : this.numbers.index(column, place[column]);
    return r === undefined || c === undefined ? null : [r, c];
  }
}

const lastAxes = ({ shape }) => [
  shape.length > 1 ? shape.length - 2 : null,
  shape.length ? shape.length - 1 : null,
];
const firstPlace = (numbers) => numbers.shape.map((_, axis) => numbers.at(axis)[0] ?? 0);

/** Paint a slice where each cell is as large as its share of a rectangle. */
function paintSlice(pen, slice, [left, top, width, height]) {
  const theme = themeNow();
  const limit = limitOf(slice.numbers);
  const [w, h] = [width / slice.columns.length, height / slice.rows.length];
  const edges = (start, size, i) => [Math.round(start + size * i), Math.round(start + size * (i + 1))];
  for (let r = 0; r < slice.rows.length; r += 1)
    for (let c = 0; c < slice.columns.length; c += 1) {
      const [x0, x1] = edges(left, w, c);
      const [y0, y1] = edges(top, h, r);
      if (x1 > x0 && y1 > y0)
        paintCell(pen, slice.number(r, c), [x0, y0, x1 - x0, y1 - y0], limit, theme);
    }
}

/** A canvas of one slice, no larger than `width` by `height`; null where nothing was kept. */
function smallMap(id, { place, axes, width = 84, height = 44 } = {}) {
  const numbers = numbersOf(id);
  if (!numbers?.size) return null;
  const slice = new Slice(numbers, axes ?? lastAxes(numbers), place ?? firstPlace(numbers));
  const [rows, columns] = [slice.rows.length, slice.columns.length];
  const cell = Math.min(12, width / columns, height / rows);
  const [w, h] = [columns, rows].map((n, i) =>
    Math.max(4, Math.min([width, height][i], Math.round(n * Math.max(cell, 2)))),
  );
  const canvas = html("canvas", { class: "small-map", "aria-hidden": "true" });
  canvas.repaint = () => paintSlice(penOn(canvas, w, h), slice, [0, 0, w, h]);
  canvas.repaint();
  return canvas;
}

const mapRepaints = []; // what else is painted in the colours of the maps

/** Paint all maps anew: the theme or the scale has changed. */
function repaintMaps() {
  for (const repaint of mapRepaints) repaint();
  for (const map of document.querySelectorAll(".heat, .small-map")) map.repaint?.();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaintMaps);
new MutationObserver(repaintMaps).observe(document.documentElement, { attributeFilter: ["style"] });

// --- The map with its controls ---

const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

function heatMap(id, { place, axes, lit = [], onCell, onMove, brief = false, high: most = 340, under = [] } = {}) {
  const numbers = numbersOf(id);
  if (!numbers) return null;
  const map = html("div", { class: "heat", "data-value": id });
  if (!numbers.size) {
    map.append(html("p", { class: "file" }, "It has no numbers: an axis of it has length 0."));
    return map;
  }
  const [row, column] = axes ?? lastAxes(numbers);
  const leading = numbers.shape.map((_, axis) => axis).filter((axis) => axis !== row && axis !== column);
  const nearest = (axis, p) => numbers.at(axis).reduce((a, b) => (Math.abs(b - p) < Math.abs(a - p) ? b : a));
  const within = (p) => p.map((at, axis) => (numbers.index(axis, at) === undefined ? nearest(axis, at) : at));
  const first = place ?? lit[0];
  let slice = new Slice(numbers, [row, column], first ? within(first) : firstPlace(numbers));
  let cursor = (first && slice.cellOf(within(first))) ?? [0, 0];
  let chosen = place ?? null;
  let large = false; // cells with numbers, which scroll
  const shape = {};

  const canvas = html("canvas", {});
  const spacer = html("div", { class: "spacer" }, canvas);
  const view = html(
    "div",
    {
      class: "view",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "heat map",
      "aria-label": `${nameOf(id)}, ${sizesText(numbers)}: arrow keys move over the cells, Enter follows one`,
    },
    spacer,
  );
  const said = html("output", { class: "said", "aria-live": "polite" });
  const beyond = html("p", { class: "file" });
  const scale = html("div", { class: "scale" });

  // Sliders
  const sliders = new Map();
  for (const axis of leading) {
    const kept = numbers.at(axis);
    const input = html("input", {
      type: "range", min: 0, max: kept.length - 1, value: numbers.index(axis, slice.place[axis]),
    });
    input.setAttribute("aria-label", `${axisName(numbers, axis)}, ${numbers.shape[axis]} places`);
    const text = html("span", {});
    input.addEventListener("input", () => {
      const found = [...slice.place];
      found[axis] = kept[Number(input.value)];
      moveTo(found);
    });
    sliders.set(axis, { input, text });
  }
  const rowsOfSliders = leading.map((axis) => {
    const { input, text } = sliders.get(axis);
    return html("label", { class: "slider" }, html("b", {}, axisName(numbers, axis)), input, text);
  });
  const named = [row, column]
    .map((axis, i) => axis !== null && `${sizeText(numbers, axis)} ${i ? "\u2192" : "\u2193"}`)
    .filter(Boolean)
    .join(", ");
  const enlarge = html("button", { type: "button", class: "jump", "aria-pressed": "false" }, "larger cells");
  enlarge.addEventListener("click", () => {
    large = !large;
    enlarge.setAttribute("aria-pressed", String(large));
    arrangeCells();
    reveal();
  });
  const top = html("div", { class: "axes" }, html("span", {}, named), enlarge);
  const sample = numbers.sampled && html("p", { class: "file" }, `A sample: ${numbers.sampled}.`);
  map.append(...rowsOfSliders, top, view, said, beyond, ...(sample ? [sample] : []), scale);
  map.append(...under);
  if (!brief) map.append(factsOf(numbers));

  /** The words or numbers of an axis' places. */
  const labelsOf = (axis, places) => {
    const words = axis === null ? null : numbers.labels(axis);
    return places.map((p) => words?.[p] ?? String(p));
  };

  /** Sizes of cells and of what is left and above, for the room there is. */
  function arrangeCells() {
    const room = view.clientWidth;
    if (!room) return;
    const { rows, columns } = slice;
    const pen = canvas.getContext("2d");
    pen.font = FONT;
    shape.left = labelsOf(row, rows);
    shape.above = labelsOf(column, columns);
    const widest = (texts) => Math.ceil(Math.max(...texts.map((t) => pen.measureText(t).width)));
    shape.x = row === null ? 0 : Math.min(90, widest(shape.left) + 6);
    const high = column === null ? 0 : widest(shape.above);
    let digits = 1;
    if (rows.length * columns.length < 5000) {
      for (let r = 0; r < rows.length; r += 1)
        for (let c = 0; c < columns.length; c += 1)
          digits = Math.max(digits, numbers.text(slice.number(r, c)).length);
    } else digits = 9;
    const wide = Math.ceil(pen.measureText("0").width * digits) + 6;
    const fits = shape.x + wide * columns.length <= room;
    enlarge.hidden = fits;
    if (fits || large) {
      shape.w = Math.max(wide, Math.min(64, high + 6, (room - shape.x) / columns.length));
      shape.h = CELL;
    } else {
      shape.w = clamp((room - shape.x) / columns.length, 2, wide);
      shape.h = clamp(shape.w, 2, CELL);
      const low = (most - 20) / rows.length; // so that all rows are seen, below their heading
      if (shape.h > low) shape.h = Math.max(shape.w > 8 ? 12 : 2, low);
    }
    shape.numbers = shape.w >= wide && shape.h >= 13;
    shape.words = column !== null && numbers.labels(column) !== null;
    shape.upright = shape.words && high + 4 > shape.w && shape.w >= 9;
    shape.y = column === null ? 0 : shape.upright ? Math.min(70, high) + 6 : 15;
    const [width, height] = [shape.x + shape.w * columns.length + 1, shape.y + shape.h * rows.length + 1];
    spacer.style.width = `${width}px`;
    spacer.style.height = `${height}px`;
    view.style.height = `${Math.min(most, height + (width > room ? 14 : 0))}px`;
    shape.seen = [Math.min(view.clientWidth, width), Math.min(view.clientHeight, height)];
    paint();
  }

  /** Where a cell is drawn: x, y, width, height. */
  const boxOf = (r, c) => {
    const x = Math.round(shape.x + c * shape.w - view.scrollLeft);
    const y = Math.round(shape.y + r * shape.h - view.scrollTop);
    return [
      x,
      y,
      Math.round(shape.x + (c + 1) * shape.w - view.scrollLeft) - x,
      Math.round(shape.y + (r + 1) * shape.h - view.scrollTop) - y,
    ];
  };

  function paint() {
    if (!shape.w || !view.clientWidth) return;
    const [width, height] = shape.seen;
    const pen = penOn(canvas, width, height);
    const theme = themeNow();
    const ink = getComputedStyle(map).color;
    const limit = limitOf(numbers);
    const span = (scroll, start, size, end, n) => [
      Math.max(0, Math.floor(scroll / size)),
      Math.min(n, Math.ceil((scroll + end - start) / size)),
    ];
    const [r0, r1] = span(view.scrollTop, shape.y, shape.h, height, slice.rows.length);
    const [c0, c1] = span(view.scrollLeft, shape.x, shape.w, width, slice.columns.length);
    const shown = new Set(
      lit.map((p) => slice.cellOf(p)).filter(Boolean).map(([r, c]) => r * slice.columns.length + c),
    );
    pen.save();
    pen.beginPath();
    pen.rect(shape.x, shape.y, width, height);
    pen.clip();
    pen.font = FONT;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let r = r0; r < r1; r += 1)
      for (let c = c0; c < c1; c += 1) {
        const at = boxOf(r, c);
        const [x, y, w, h] = at;
        const number = slice.number(r, c);
        const dim = shown.size && !shown.has(r * slice.columns.length + c);
        pen.globalAlpha = dim ? 0.35 : 1;
        paintCell(pen, number, at, limit, theme);
        if (shape.numbers) {
          pen.fillStyle = dim || !Number.isFinite(number) ? ink : colorOf(number, limit.most, theme).ink;
          pen.fillText(numbers.text(number), x + w / 2, y + h / 2 + 0.5);
        }
      }
    pen.globalAlpha = 1;
    if (shape.w >= 6 && shape.h >= 6) {
      pen.strokeStyle = COLORS[theme].lines;
      pen.lineWidth = 1;
      pen.beginPath();
      for (let r = r0; r <= r1; r += 1) {
        const [, y] = boxOf(r, 0);
        pen.moveTo(shape.x, y + 0.5);
        pen.lineTo(boxOf(0, c1)[0], y + 0.5);
      }
      for (let c = c0; c <= c1; c += 1) {
        const [x] = boxOf(0, c);
        pen.moveTo(x + 0.5, shape.y);
        pen.lineTo(x + 0.5, boxOf(r1, 0)[1]);
      }
      pen.stroke();
    }
    const accent = getComputedStyle(map).accentColor;
    const frame = ([x, y, w, h], color, thick) => {
      pen.strokeStyle = color;
      pen.lineWidth = thick;
      pen.strokeRect(x + 0.5, y + 0.5, w, h);
    };
    for (const flat of shown)
      frame(boxOf(Math.floor(flat / slice.columns.length), flat % slice.columns.length), accent, shape.w > 5 ? 2 : 1);
    const at = chosen && slice.cellOf(chosen);
    if (at) frame(boxOf(...at), ink, 3);
    if (document.activeElement === view) {
      const [x, y, w, h] = boxOf(...cursor);
      frame([x - 2, y - 2, w + 4, h + 4], accent, 2);
    }
    pen.restore();
    paintLabels(pen, ink, [r0, r1], [c0, c1]);
  }

  /** Words, or numbers of places, left of the rows and above the columns: as many as there is room. */
  function paintLabels(pen, ink, [r0, r1], [c0, c1]) {
    pen.fillStyle = ink;
    pen.font = FONT;
    pen.globalAlpha = 0.85;
    pen.textBaseline = "middle";
    const every = (size, least) => (size >= least ? 1 : Math.ceil(least / size / 5) * 5);
    if (row !== null) {
      const step = every(shape.h, 11);
      pen.textAlign = "right";
      for (let r = r0; r < r1; r += 1) {
        const [, y, , h] = boxOf(r, 0);
        if (r % step === 0 && y + h / 2 > shape.y - 2) clipped(pen, shape.left[r], shape.x - 4, y + h / 2, shape.x - 4);
      }
    }
    if (column !== null) {
      const least = shape.words ? 30 : 8 + 6.5 * String(shape.above.at(-1)).length;
      const step = shape.upright ? 1 : every(shape.w, least);
      for (let c = c0; c < c1; c += 1) {
        const [x, , w] = boxOf(0, c);
        const middle = x + w / 2;
        if (c % step || middle < shape.x) continue;
        if (shape.upright) {
          pen.save();
          pen.translate(middle, shape.y - 4);
          pen.rotate(-Math.PI / 2);
          pen.textAlign = "left";
          clipped(pen, shape.above[c], 0, 0, shape.y - 6);
          pen.restore();
        } else {
          pen.textAlign = "center";
          clipped(pen, shape.above[c], middle, 7, shape.words ? step * shape.w : 200);
        }
      }
    }
    pen.globalAlpha = 1;
  }

  // Moving about

  function moveTo(found) {
    const before = slice.placeOf(...cursor);
    slice = new Slice(numbers, [row, column], found);
    cursor = slice.cellOf(found) ?? slice.cellOf(found.map((p, axis) => (leading.includes(axis) ? p : before[axis])));
    arrangeCells();
    tell();
    onMove?.(slice.placeOf(...cursor));
  }

  function tell(cell = cursor) {
    for (const [axis, { input, text }] of sliders) {
      const at = slice.place[axis];
      const word = numbers.labels(axis)?.[at];
      input.value = numbers.index(axis, at);
      text.textContent = `${at}${word === undefined ? "" : ` ${word}`} of ${numbers.shape[axis]}`;
      input.setAttribute("aria-valuetext", text.textContent);
    }
    said.textContent = cellText(numbers, slice.placeOf(...cell));
    const elsewhere = lit.filter((p) => !slice.cellOf(p));
    const lost = elsewhere.filter((p) => numbers.get(p) === undefined).length;
    const away = elsewhere.length - lost;
    beyond.textContent = [
      away && `${away} of ${lit.length} lit cells are in other slices.`,
      lost && `${lost} of ${lit.length} lit cells are not in the sample.`,
    ].filter(Boolean).join(" ");
  }

  /** Bring the cursor into view, when cells scroll. */
  function reveal() {
    const [r, c] = cursor;
    const near = (scroll, from, size, start, room) =>
      clamp(scroll, start + from + size - room, from);
    view.scrollTop = near(view.scrollTop, r * shape.h, shape.h, shape.y, view.clientHeight);
    view.scrollLeft = near(view.scrollLeft, c * shape.w, shape.w, shape.x, view.clientWidth);
    paint();
  }

  function choose() {
    chosen = slice.placeOf(...cursor);
    paint();
    onCell?.(chosen);
  }

  const turn = (axis, step) => {
    const kept = numbers.at(axis);
    const found = slice.placeOf(...cursor);
    found[axis] = kept[clamp(numbers.index(axis, slice.place[axis]) + step, 0, kept.length - 1)];
    moveTo(found);
  };
  const inner = leading.at(-1);
  const outer = leading.at(-2);
  const keys = {
    ArrowUp: () => [cursor[0] - 1, cursor[1]],
    ArrowDown: () => [cursor[0] + 1, cursor[1]],
    ArrowLeft: () => [cursor[0], cursor[1] - 1],
    ArrowRight: () => [cursor[0], cursor[1] + 1],
    Home: () => [cursor[0], 0],
    End: () => [cursor[0], Infinity],
    PageUp: (shift) => slide(shift, -1),
    PageDown: (shift) => slide(shift, 1),
    Enter: choose,
    " ": choose,
  };
  const slide = (shift, step) => {
    const axis = shift ? outer : inner;
    if (axis !== undefined) turn(axis, step);
  };
  view.addEventListener("keydown", (event) => {
    const act = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    const to = act(event.shiftKey);
    if (!to) return;
    cursor = [clamp(to[0], 0, slice.rows.length - 1), clamp(to[1], 0, slice.columns.length - 1)];
    reveal();
    tell();
  });

  /** The cell under the pointer, or null. */
  const cellAt = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    if (x < shape.x || y < shape.y) return null;
    const r = Math.floor((y - shape.y + view.scrollTop) / shape.h);
    const c = Math.floor((x - shape.x + view.scrollLeft) / shape.w);
    return r < slice.rows.length && c < slice.columns.length ? [r, c] : null;
  };
  view.addEventListener("click", (event) => {
    const cell = cellAt(event);
    if (!cell) return;
    cursor = cell;
    tell();
    choose();
  });
  view.addEventListener("pointermove", (event) => {
    const cell = event.pointerType === "mouse" && cellAt(event);
    if (cell) tell(cell);
  });
  view.addEventListener("pointerleave", () => tell());
  view.addEventListener("scroll", paint);
  for (const name of ["focus", "blur"]) view.addEventListener(name, paint);
  new ResizeObserver(() => arrangeCells()).observe(view);

  map.repaint = () => {
    paint();
    paintScale(scale, numbers);
  };
  map.cellBox = boxOf;
  map.show = (found) => {
    chosen = found;
    moveTo(within(found));
    reveal();
  };
  map.light = (places) => {
    lit = places;
    tell();
    paint();
  };
  tell();
  paintScale(scale, numbers);
  return map;
}

/** Write a text, cut where there is no more room. */
function clipped(pen, text, x, y, room) {
  let shown = text;
  while (shown.length > 1 && pen.measureText(shown).width > room) shown = `${shown.slice(0, -2)}\u2026`;
  pen.fillText(shown, x, y);
}

const sizeText = (numbers, axis) => `${axisName(numbers, axis)} = ${numbers.shape[axis]}`;
const sizesText = (numbers) => numbers.shape.map((_, axis) => sizeText(numbers, axis)).join(", ") || "one number";

/** A cell in words: its place, the words of its places, its number. */
function cellText(numbers, place) {
  const words = place.map((p, axis) => numbers.labels(axis)?.[p]).filter((word) => word !== undefined);
  const said = words.length ? ` (${words.join(", ")})` : "";
  const where = place.length ? `[${place.join(", ")}]` : "";
  return `${nameOf(numbers.id)}${where}${said} = ${numbers.text(numbers.get(place))}`;
}

// --- The scale, facts and histogram ---

function paintScale(scale, numbers) {
  const { most, beyond } = limitOf(numbers);
  const theme = themeNow();
  const { min = -1, max = 1 } = numbers.facts;
  const [low, high] = [min < 0 ? -most : 0, max > 0 || min >= 0 ? most : 0];
  const steps = Array.from({ length: 17 }, (_, i) => colorOf(low + ((high - low) * i) / 16, most, theme).fill);
  const bar = html("i", { style: `background: linear-gradient(to right, ${steps})` });
  const kind = numbers.gradient ? "gradients" : "tensors";
  const choice = html("input", { type: "checkbox" });
  choice.checked = heatState.shared;
  choice.addEventListener("change", () => {
    const focused = document.activeElement === choice;
    heatState.shared = choice.checked;
    repaintMaps();
    if (focused) scale.querySelector("input").focus();
  });
  const shared = html("label", {}, choice, `scale of all ${kind}`);
  const off = beyond && Math.max(Math.abs(min), Math.abs(max)) > most;
  const marks = [
    numbers.facts.nan && html("span", {}, html("span", { class: "nan-mark" }, "\u00d7"), " nan"),
    numbers.facts.inf && html("span", {}, html("span", { class: "inf-mark" }), " infinite"),
    off && html("span", {}, "\u25e5 off the scale"),
  ].filter(Boolean);
  const known = numbers.kind === "float" ? [shared] : [];
  scale.replaceChildren(numberText(low), bar, numberText(high), ...known, ...marks);
}

/** The facts of all numbers of a tensor, and their histogram. */
function factsOf(numbers) {
  const { min, max, mean: middle, nan, inf } = numbers.facts;
  const six = (x) => (x === undefined ? "" : String(Number(x.toPrecision(6))));
  const rows = [
    ["min", six(min)],
    ["mean", six(middle)],
    ["max", six(max)],
    ["NaN", nan === undefined ? "" : String(nan)],
    ["infinite", inf ? String(inf) : ""],
    ["numbers", numbers.size.toLocaleString("en")],
  ].filter(([, text]) => text);
  const table = html("dl", { class: "figures" }, ...rows.map(([name, text]) => html("div", {}, html("dt", {}, name), html("dd", {}, text))));
  return html("div", { class: "about" }, ...(numbers.counts ? [histogram(numbers)] : []), table);
}

function histogram({ counts, facts: { min, max } }) {
  const most = Math.max(...counts);
  const [w, h] = [240, 40];
  const step = w / counts.length;
  const bars = counts.map((count, i) => {
    const high = count ? Math.max(1, (h * count) / most) : 0;
    const from = min + ((max - min) * i) / counts.length;
    const to = min + ((max - min) * (i + 1)) / counts.length;
    const bar = rect("count", i * step + 0.5, h - high, step - 1, high);
    bar.append(svg("title", {}, `${count.toLocaleString("en")} from ${numberText(from)} to ${numberText(to)}`));
    return bar;
  });
  const zero = min < 0 && max > 0 ? [svg("line", { class: "zero", x1: (-min / (max - min)) * w, x2: (-min / (max - min)) * w, y1: 0, y2: h })] : [];
  const label = `Histogram from ${numberText(min)} to ${numberText(max)}: ${counts.join(", ")}`;
  return svg("svg", { class: "histogram", viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": label, preserveAspectRatio: "none" }, ...bars, ...zero);
}
