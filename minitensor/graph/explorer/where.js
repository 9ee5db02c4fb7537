// Numbers in the panel: the heat map of what is selected, where the chosen cell comes from, and the
// way back; small maps in lists of tensors; attention maps in their boxes.

// The cell whose origin is shown, and those that led to it, first to last: {id, place}.
const pathway = { trail: [] };
const followed = () => pathway.trail.at(-1) ?? null;

const sameCell = (a, b) => a.id === b.id && a.place.join() === b.place.join();

/** Begin at a cell. */
function startAt(id, place) {
  pathway.trail = [{ id, place }];
  showCell();
}

/** Go on to a cell that the present one was made of. */
function goOn(id, place) {
  const at = pathway.trail.findIndex((cell) => sameCell(cell, { id, place }));
  if (at >= 0) pathway.trail.length = at + 1;
  else pathway.trail.push({ id, place });
  showCell();
}

function goBack(to = pathway.trail.length - 2) {
  pathway.trail.length = to + 1;
  showCell();
}

/** Show the cell that is followed: its tensor is selected, if the page has it. */
function showCell() {
  const { id, place } = followed();
  const before = [...state.members].join();
  const within = panel.contains(document.activeElement);
  const target = targetOf(id);
  pathway.apart = target ? null : state.selected;
  if ([...state.members].join() !== before) rebuild(() => {});
  if (target && target !== state.selected) {
    select(target);
    const box = isTensor(target) ? (target.made[0] ?? target.read[0]) : target;
    if (box) ensureSeen(visibleAround(box));
  } else {
    showPanel();
    remember();
  }
  if (within) panel.querySelector(".heat .view")?.focus({ preventScroll: true });
  say(cellText(numbersOf(id), place));
}

/** The value whose numbers are shown for a tensor: what is followed, if the page has no box for it. */
function valueShown(target) {
  if (pathway.apart === target && followed()) return followed().id;
  if (isTensor(target)) return idOf(target);
  const { tensor } = target;
  return tensor ? idOf(tensor) : null;
}

function numberParts(target) {
  if (!held()) return [];
  const parts = [];
  if (!isTensor(target) && target.map && pathway.apart !== target) {
    const id = idOf(tensors[target.map - 1]);
    const onMove = (place) => turnMap(target, place);
    const found = heatMap(id, { onCell: (place) => startAt(id, place), onMove, place: target.slice });
    if (found) parts.push(heading("Attention"), found);
  }
  const id = valueShown(target);
  const numbers = id && numbersOf(id);
  if (!numbers) return parts;
  const cell = followed()?.id === id ? followed() : null;
  const under = cell
    ? originPart(cellOrigin(id, cell.place))
    : html("p", { class: "file" }, "Click a cell, or press Enter on it: where its number comes from.");
  const onCell = (place) => startAt(id, place);
  const map = heatMap(id, { place: cell?.place, onCell, under: [under] });
  const name = pathway.apart === target ? `Numbers of ${nameOf(id)}` : "Numbers";
  return [...parts, ...(cell ? [trailOf()] : []), heading(name), map];
}

/** The cells on the way to the present one, each a button. */
function trailOf() {
  const { trail } = pathway;
  const steps = trail.map(({ id, place }, at) => {
    const name = written(id, place);
    if (at === trail.length - 1) return html("span", { "aria-current": "step" }, name);
    return button(name, { class: "jump" }, () => goBack(at));
  });
  const back = button("\u2190 back", { title: "Back to the cell before (Backspace)" }, () => goBack());
  back.disabled = trail.length < 2;
  const shown = steps.length > 6 ? [steps[0], "\u2026", ...steps.slice(-4)] : steps;
  const nav = html("nav", { class: "trail", "aria-label": "The way of the number" }, back);
  shown.forEach((step, i) => nav.append(...(i ? ["\u2190"] : []), step));
  return nav;
}

const LEADS = {
  formula: (op) => `made by ${op}`,
  moved: (op) => `moved by ${op}`,
  gradient: () => "gradient: what arrived, times the derivative",
  sum: () => "the sum of the gradients that arrived",
  update: (op) => `after the step of ${op}`,
};

/** The formula in numbers, and the maps of what it was made of. */
function originPart(origin) {
  const { kind, op, tokens, reads, note } = origin;
  const part = html("div", { class: "origin" });
  if (LEADS[kind]) part.append(html("p", { class: "file" }, LEADS[kind](op)));
  if (tokens.length) part.append(html("p", { class: "formula" }, ...tokens.map(tokenButton)));
  if (note) part.append(html("p", { class: "file" }, note));
  for (const read of reads) {
    const map = heatMap(read.id, {
      lit: read.cells,
      onCell: (place) => goOn(read.id, place),
      brief: true,
      high: 220,
    });
    if (!map) continue;
    const { count } = read;
    const name = button(read.name, { class: "jump" }, () => goOn(read.id, read.cells[0]));
    const from = read.factor ? ", of the forward pass, in the derivative" : "";
    const said = ` ${count === 1 ? `[${read.cells[0].join(", ")}]` : `${count.toLocaleString("en")} cells`}${from}`;
    const kinds = `source-of${read.factor ? " factor" : ""}`;
    part.append(html("div", { class: kinds }, html("div", {}, name, said), map));
  }
  return part;
}

function tokenButton(token) {
  if (token.text === undefined) return token;
  return button(token.text, { class: "jump", title: written(token.id, token.place) }, () =>
    goOn(token.id, token.place),
  );
}

panelParts.push(numberParts);

keys.push(
  ["in a map: arrows, Home, End", "to the next cells, the ends of the row"],
  ["in a map: Page Up, Page Down", "another slice, of the axis before with Shift"],
  ["in a map: Enter", "where the number comes from"],
  ["in the panel: Backspace", "back to the number before"],
);

panel.addEventListener("keydown", (event) => {
  if (event.key !== "Backspace" || pathway.trail.length < 2 || !panel.querySelector(".trail")) return;
  event.preventDefault();
  goBack();
});

// The chosen cell in the address, and where the browser's way back leads.
addressParts.push({
  write(params) {
    const cell = followed();
    const id = state.selected && valueShown(state.selected);
    if (cell && cell.id === id && !pathway.apart) params.set("cell", cell.place.join(","));
  },
  read(get) {
    const id = get("cell") !== null && state.selected && valueShown(state.selected);
    const numbers = id && numbersOf(id);
    const place = (get("cell") ?? "").split(",").filter(Boolean).map(Number);
    if (!numbers || place.length !== numbers.shape.length) return;
    const at = pathway.trail.findIndex((cell) => sameCell(cell, { id, place }));
    pathway.trail = at < 0 ? [{ id, place }] : pathway.trail.slice(0, at + 1);
  },
});

// --- Lists of tensors ---

const plainTensors = painters.tensors;
painters.tensors = (rows, target) => {
  const found = plainTensors(rows, target);
  if (!held()) return found;
  [...found.children].forEach((item, i) => {
    const tensor = tensors[rows[i][1]];
    const numbers = numbersOf(idOf(tensor));
    if (numbers?.size === 1) item.append(` = ${numbers.text(numbers.get(firstPlace(numbers)))}`);
    const map = numbers?.size > 1 && smallMap(numbers.id);
    if (!map) return;
    map.classList.add("mapped");
    map.addEventListener("click", () => go(tensor));
    item.prepend(map);
  });
  return found;
};

// --- Attention maps in their boxes ---

/** Show another slice in the picture. */
function turnMap(box, place) {
  box.slice = place;
  paintMapIn(box);
}

/** The slice of a box' map as an image, one pixel a cell. */
function mapImage(box) {
  const id = idOf(tensors[box.map - 1]);
  const numbers = numbersOf(id);
  if (!numbers?.size) return null;
  const place = box.slice?.length === numbers.shape.length ? box.slice : firstPlace(numbers);
  const slice = new Slice(numbers, lastAxes(numbers), place);
  const canvas = html("canvas", { width: slice.columns.length, height: slice.rows.length });
  paintSlice(canvas.getContext("2d"), slice, [0, 0, canvas.width, canvas.height]);
  return canvas.toDataURL();
}

function paintMapIn(box) {
  const image = elements.get(box)?.group.querySelector(":scope > .map-in-box");
  const href = image && mapImage(box);
  if (href) image.setAttribute("href", href);
}

/** The place of a map in a closed box: {w, h}. */
faceParts.push({
  size: (box) => box.map && { w: MAP, h: MAP },
  draw: (box, x, y) => {
    const image = svg("image", { class: "map-in-box", x, y, width: MAP, height: MAP, preserveAspectRatio: "none", "image-rendering": "pixelated" });
    const href = mapImage(box);
    if (href) image.setAttribute("href", href);
    return [image, rect("map-frame", x, y, MAP, MAP)];
  },
});
const MAP = 72;

function paintMapsInBoxes() {
  for (const box of elements.keys()) if (box.map) paintMapIn(box);
}
mapRepaints.push(paintMapsInBoxes);
if (canRead(paintMapsInBoxes)) paintMapsInBoxes();

window.numbers = { numbersOf, cellOrigin, heatMap, smallMap, evaluateFormula };
