// The walkthrough: chapters of the graph, one at a time. Above is what is told, on the left the
// code that runs and the graph with the chapter's boxes lit, on the right the chapter's tensors,
// below the timeline. Without chapters the page is the graph alone.

const PARTS = { tensors: "numbers", code: "code", graph: "graph" }; // what a narrow window shows one of
const READING = { least: 3500, word: 260 }; // ms that playing gives a chapter

const STEP = "step"; // the axis of training steps

const walk = { at: null, opened: new Set(), steps: [], timer: 0, later: 0, maps: new Map(), elements: {} };
const walking = () => document.body.classList.contains("walking");

/** The chapters in their order, with those inside one that is opened in its place. */
function stepsOf(chapters, outer = null) {
  return chapters.flatMap((chapter) => {
    if (chapter.inner && walk.opened.has(chapter)) return stepsOf(chapter.inner, chapter);
    return [{ chapter, outer }];
  });
}

/** The steps that are folded into a chapter, however deep. */
const within = (chapter) => (chapter.inner ?? []).flatMap((inner) => [inner, ...within(inner)]);

// --- What one sees of a chapter ---

function tellText({ chapter, outer }) {
  const { part = "", title, text: told = "", formula, facts: rows } = chapter;
  const paragraphs = told.split("\n\n").filter(Boolean).map((words) => html("p", {}, words));
  const fold = chapter.inner
    ? button(`show each of its ${within(chapter).length} steps (e)`, {}, unfold)
    : outer && button(`fold: ${outer.title} (e)`, {}, unfold);
  const aside = [
    formula && html("pre", { class: "formula", "aria-label": "Formula" }, html("code", {}, formula)),
    rows && sizesOf(rows),
    fold,
  ].filter(Boolean);
  return [
    html("div", { class: "told-words" }, html("div", { class: "heading" }, html("h2", { id: "chapter" }, title), html("span", { class: "part" }, part)), ...paragraphs),
    html("div", { class: "told-aside" }, ...aside),
  ];
}

const sizesOf = (rows) =>
  html(
    "dl",
    { class: "sizes" },
    ...Object.entries(rows).map(([name, v]) =>
      html("div", {}, html("dt", {}, name), html("dd", {}, v)),
    ),
  );

/** The code around the line, which is lit; the same code stays where it is. */
function tellCode({ at }) {
  const pane = walk.elements.code;
  pane.hidden = !at;
  if (!at) {
    pane.replaceChildren();
    walk.piece = null;
    return;
  }
  const [piece, from, to] = at;
  const [file, first, lines] = raw.walk.code[piece];
  if (walk.piece !== piece) {
    const indent = Math.min(...lines.filter((l) => l.trim()).map((l) => l.match(/^\s*/)[0].length));
    walk.rows = lines.map((line, i) =>
      html("span", { class: "code-line" }, html("i", {}, String(first + i)), ...colored(line.slice(indent)), "\n"),
    );
    const shown = html("pre", { tabindex: 0, "aria-label": `Code of ${file}` }, html("code", {}, ...walk.rows));
    pane.replaceChildren(html("h3", { class: "pane" }, file), shown);
    walk.piece = piece;
  }
  walk.rows.forEach((row, i) => {
    const lit = first + i >= from && first + i <= to;
    row.classList.toggle("now", lit);
    if (lit) row.setAttribute("aria-current", "step");
    else row.removeAttribute("aria-current");
  });
  const row = walk.rows[from - first];
  const scroller = row?.closest("pre");
  if (!scroller?.clientHeight) return;
  scroller.scrollTop = row.offsetTop - scroller.offsetTop - scroller.clientHeight / 2 + 8;
  scroller.scrollLeft = 0;
}

const TOKEN = /("""[^]*?"""|"[^"]*"|'[^']*')|(#.*)|\b(def|class|return|if|else|elif|for|in|is|not|and|or|with|None|True|False|self|lambda|import|from|raise|while|yield)\b/g;

/** A line of Python, with words of the language, texts and comments in their own voice. */
function colored(line) {
  const found = [];
  let last = 0;
  for (const match of line.matchAll(TOKEN)) {
    const kind = match[1] ? "code-text" : match[2] ? "code-note" : "code-word";
    found.push(line.slice(last, match.index), html("span", { class: kind }, match[0]));
    last = match.index + match[0].length;
  }
  return [...found, line.slice(last)];
}

/** Open what is around the chapter's boxes and nothing else, light them, and look at them. */
function tellGraph({ boxes: ids = [], values = {} }) {
  const found = [...new Set(ids.map(targetOf).filter((box) => box && !isTensor(box)))];
  const open = new Set(found.flatMap((box) => chain(box).slice(1, -1)));
  const both = [...state.open].some((box) => !open.has(box)) || [...open].some((box) => !state.open.has(box));
  const gradient = hasBackward && Object.keys(values).some((id) => tensorById.get(id)?.gradient);
  walk.lit = found;
  if (both || gradient !== state.backward || walk.rendered === undefined) {
    const changed = [...state.open].filter((box) => !open.has(box)).concat([...open].filter((box) => !state.open.has(box)));
    const turned = gradient !== state.backward;
    state.open = open;
    state.backward = gradient;
    if (turned || walk.rendered === undefined) touch();
    else for (const box of changed) touch(box);
    nameMembers();
  }
  walk.rendered = true;
  if (!walk.elements.stage.clientHeight) return;
  render();
  for (const { box, group } of elements.values()) group.classList.toggle("told", found.includes(box));
  if (found.length) lookAt(found);
  else fly(opening());
}

/** Bring boxes into view together, as large as they fit and can be read. */
function lookAt(found) {
  const places = found.map((box) => placeOf(visibleAround(box)));
  const [left, top] = [Math.min(...places.map((p) => p.x)), Math.min(...places.map((p) => p.y))];
  const right = Math.max(...places.map((p) => p.x + p.w));
  const bottom = Math.max(...places.map((p) => p.y + p.h));
  const room = stage();
  const k = Math.max(0.55, Math.min(1.1, (room.w - 40) / (right - left), (room.h - 40) / (bottom - top)));
  const fits = (length, size) => length * k <= size - 16;
  fly({
    k,
    x: fits(right - left, room.w) ? room.w / 2 - ((left + right) / 2) * k : 16 - left * k,
    y: fits(bottom - top, room.h) ? room.h / 2 - ((top + bottom) / 2) * k : 16 - top * k,
  });
}

// --- Its tensors ---

function tellValues({ values = {} }) {
  const pane = walk.elements.tensors;
  const ids = Object.keys(values);
  if (ids.length && !canRead(() => tellValues(chapterNow().chapter))) return;
  walk.maps.clear();
  walk.mark = null;
  walk.step = 0;
  pane.replaceChildren(...ids.map((id) => figureOf(id, values[id])));
  pane.scrollTop = 0;
}

/** A tensor: its name and shape in names, a caption, and its numbers. */
function figureOf(id, caption, place) {
  const numbers = numbersOf(id);
  const title = nameIn(id);
  const shape = numbers?.shape.length ? `(${numbers.dims.join(", ")}) = (${numbers.shape.join(", ")})` : "";
  const whole = title && caption.startsWith(`${title}: `) ? caption.slice(title.length + 2) : caption;
  const said = whole === title ? "" : whole;
  const head = html(
    "figcaption",
    {},
    title && html("b", {}, title),
    shape && html("span", { class: "dims" }, shape),
    said && html("span", { class: "caption" }, said),
  );
  const figure = html("figure", { "data-value": id }, head);
  if (!numbers) figure.append(html("p", { class: "file" }, "Its numbers were not kept."));
  else if (!numbers.shape.length) figure.append(html("output", { class: "scalar" }, numberText(numbers.get([]))));
  else if (numbers.shape.length === 1 && numbers.dims[0] === STEP) figure.append(curveOf(numbers));
  else {
    const onMove = numbers.dims[0] === STEP ? ([step]) => turnTo(step, id) : undefined;
    const map = heatMap(id, { place, onMove, onCell: (cell) => tellOrigin(id, cell), brief: true });
    figure.append(map);
    walk.maps.set(id, map);
    if (numbers.shape.at(-1) > 6) figure.classList.add("wide");
  }
  return figure;
}

/** Show one training step in all tensors that have an axis of steps. */
function turnTo(step, from) {
  if (walk.step === step) return;
  walk.step = step;
  for (const [id, map] of walk.maps) {
    const numbers = numbersOf(id);
    if (id !== from && numbers.dims[0] === STEP)
      map.show([step, ...numbers.shape.slice(1).map(() => 0)]);
  }
  walk.mark?.(step);
}

/** A number at each step as a curve. */
function curveOf(numbers) {
  const values = [...numbers.values];
  const [w, h, most] = [620, 120, Math.max(...values)];
  const x = (i) => (values.length > 1 ? (i / (values.length - 1)) * (w - 20) + 10 : w / 2);
  const y = (v) => h - 6 - (v / most) * (h - 16);
  const line = values.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const dot = svg("circle", { r: 5, class: "curve-dot" });
  const said = html("output", {});
  walk.mark = (step) => {
    dot.setAttribute("cx", x(step));
    dot.setAttribute("cy", y(values[step]));
    said.textContent = `step ${step}: ${numberText(values[step])}`;
  };
  walk.mark(0);
  const shown = svg("svg", { viewBox: `0 0 ${w} ${h}`, class: "curve", role: "img" }, path("curve-line", line), dot);
  shown.setAttribute("aria-label", `${numberText(values[0])} at step 0, ${numberText(values.at(-1))} at step ${values.length - 1}`);
  return html("div", {}, shown, said);
}

/** The name that the code has for a tensor; "" for one that it does not name. */
function nameIn(id) {
  walk.names ??= new Map(tensors.flatMap((tensor) => tensor.ids.map((own) => [own, tensor])));
  return walk.names.get(id)?.name || "";
}

/** Tell where a number comes from, and light the cells that it was made of. */
function tellOrigin(id, place) {
  const { tokens, reads, note } = cellOrigin(id, place);
  for (const [shown, map] of walk.maps) {
    const read = reads.find((one) => one.id === shown);
    map.light(read ? read.cells : shown === id ? [] : []);
  }
  const said = tokens.map((token) => {
    if (!token.id) return token.text ?? token;
    const name = `${nameIn(token.id) || "a number"}[${token.place.join(", ")}]`;
    return button(token.text, { class: "jump", title: name, "aria-label": `${token.text}: ${name}` }, () =>
      seek(token.id, token.place),
    );
  });
  const others = reads
    .filter((read) => !walk.maps.has(read.id) && read.cells.length)
    .map((read) => button(`show ${nameIn(read.id) || read.name}`, {}, () => seek(read.id, read.cells[0], read.cells)));
  const box = html("div", { class: "origin", role: "status" }, html("div", {}, ...said), note && html("p", { class: "file" }, note), ...others);
  walk.elements.tensors.querySelector(".origin")?.remove();
  figureAt(id)?.append(box);
}

const figureAt = (id) => [...walk.elements.tensors.children].find((figure) => figure.dataset.value === id);

/** Show the number that another was made of, in its own tensor, and where that comes from. */
function seek(id, place, cells = []) {
  if (!walk.maps.has(id) && numbersOf(id)?.shape.length)
    walk.elements.tensors.append(figureOf(id, "where the number comes from", place));
  walk.maps.get(id)?.show(place);
  tellOrigin(id, place);
  if (cells.length) walk.maps.get(id)?.light(cells);
  figureAt(id)?.scrollIntoView({ block: "nearest" });
}

// --- The timeline ---

function drawTimeline() {
  const { strip, choice } = walk.elements;
  const parts = [];
  walk.steps.forEach(({ chapter, outer }, at) => {
    const part = chapter.part ?? "";
    if (!parts.length || parts.at(-1).name !== part) parts.push({ name: part, steps: [] });
    parts.at(-1).steps.push({ chapter, outer, at });
  });
  strip.replaceChildren(
    ...parts.map(({ name, steps }) =>
      html(
        "li",
        { style: `--steps: ${steps.length}` },
        html("span", { "aria-hidden": "true", title: name }, name),
        html("div", {}, ...steps.map(({ chapter, outer, at }) => {
          const kind = [chapter.inner && "folded", outer && "inner"].filter(Boolean).join(" ");
          const tick = button("", { class: `tick ${kind}`, title: chapter.title, "aria-label": `${at + 1}: ${chapter.title}`, tabindex: -1 }, () => tellStep(at));
          return tick;
        })),
      ),
    ),
  );
  choice.replaceChildren(
    ...parts.map(({ name, steps }) =>
      html(
        "optgroup",
        { label: name || "Chapters" },
        ...steps.map(({ chapter, at }) => html("option", { value: at }, `${at + 1}. ${chapter.title}`)),
      ),
    ),
  );
}

function showPlace() {
  const { strip, choice, count, before, after } = walk.elements;
  [...strip.querySelectorAll(".tick")].forEach((tick, at) => {
    tick.classList.toggle("past", at < walk.at);
    if (at === walk.at) tick.setAttribute("aria-current", "step");
    else tick.removeAttribute("aria-current");
  });
  const tick = strip.querySelector("[aria-current]");
  if (tick) strip.scrollLeft = tick.offsetLeft - strip.clientWidth / 2;
  choice.value = walk.at;
  count.textContent = `${walk.at + 1} of ${walk.steps.length}`;
  before.disabled = walk.at === 0;
  after.disabled = walk.at === walk.steps.length - 1;
}

// --- Stepping ---

const chapterNow = () => walk.steps[walk.at];

/** Tell a chapter, by its number. */
function tellStep(at) {
  const wanted = Math.max(0, Math.min(walk.steps.length - 1, at));
  walk.at = wanted;
  const step = chapterNow();
  walk.elements.text.replaceChildren(...tellText(step));
  walk.elements.text.scrollTop = 0;
  tellCode(step.chapter);
  tellValues(step.chapter);
  showPlace();
  state.chapter = wanted + 1;
  quietly(() => write("replaceState"));
  if (walk.timer) wait();
  // The words and numbers are there at once, the graph follows when they are painted.
  clearTimeout(walk.later);
  walk.later = setTimeout(() => quietly(() => tellGraph(step.chapter)));
}

/** Show each step of a chapter that stands for several, or fold them again. */
function unfold() {
  const { chapter, outer } = chapterNow();
  if (!chapter.inner && !outer) return;
  const target = chapter.inner ? chapter : outer;
  if (!walk.opened.delete(target)) walk.opened.add(target);
  walk.steps = stepsOf(raw.walk.chapters);
  drawTimeline();
  const at = walk.steps.findIndex((step) => step.chapter === target || step.outer === target);
  tellStep(at);
  say(chapter.inner ? `${within(chapter).length} steps shown` : "folded");
}

function play(on = !walk.timer) {
  clearTimeout(walk.timer);
  walk.timer = 0;
  const { playing } = walk.elements;
  playing.textContent = on ? "pause" : "play";
  playing.setAttribute("aria-pressed", String(on));
  if (!on) return;
  if (walk.at === walk.steps.length - 1) tellStep(0);
  wait();
}

/** Go on when what is told has been read. */
function wait() {
  clearTimeout(walk.timer);
  const words = (chapterNow().chapter.text ?? "").split(/\s+/).length;
  walk.timer = setTimeout(() => {
    if (walk.at === walk.steps.length - 1) play(false);
    else tellStep(walk.at + 1);
  }, Math.max(READING.least, words * READING.word));
}

const walkKeys = {
  ArrowRight: () => tellStep(walk.at + 1),
  ArrowLeft: () => tellStep(walk.at - 1),
  Home: () => tellStep(0),
  End: () => tellStep(walk.steps.length - 1),
  " ": () => play(),
  e: unfold,
  g: leave,
};

document.addEventListener(
  "keydown",
  (event) => {
    if (!raw.walk || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (!walking()) {
      if (event.key !== "w" || event.target.closest("input, select, textarea")) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      enterWalk();
      return;
    }
    const { target, key } = event;
    if (target.closest("input, select, textarea, #picture, .heat")) return;
    if (key === " " && target.closest("button, a")) return;
    const act = walkKeys[key];
    if (!act) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    act();
  },
  { capture: true },
);

// --- The page of a walkthrough, and the graph's ---

/** Show the graph alone, as a page without chapters does. */
function leave() {
  play(false);
  clearTimeout(walk.later);
  document.body.classList.remove("walking");
  state.chapter = null;
  for (const { group } of elements.values()) group.classList.remove("told");
  refresh();
  fly(opening());
  remember();
  focusPicture();
}

function enterWalk() {
  document.body.classList.add("walking");
  select(null, { quiet: true });
  state.overlay = null;
  walk.rendered = undefined;
  tellStep(walk.at ?? 0);
  walk.elements.text.focus({ preventScroll: true });
}

function showOnly(part) {
  for (const name of Object.keys(PARTS)) {
    document.body.classList.toggle(`only-${name}`, name === part);
    walk.elements[`${name}-tab`].setAttribute("aria-pressed", String(name === part));
  }
  if (walk.at === null) return;
  if (part === "graph") quietly(() => tellGraph(chapterNow().chapter));
  if (part === "code") tellCode(chapterNow().chapter);
}

function buildWalk() {
  const made = walk.elements;
  made.text = html("section", { id: "walk-text", tabindex: -1, "aria-live": "polite", "aria-labelledby": "chapter" });
  made.code = html("section", { id: "walk-code", "aria-label": "Code" });
  made.tensors = html("section", { id: "walk-tensors", "aria-label": "Tensors of this step" });
  made.before = button("\u25c0", { title: "Step back (\u2190)", "aria-label": "Step back" }, walkKeys.ArrowLeft);
  made.after = button("\u25b6", { title: "Step (\u2192)", "aria-label": "Step" }, walkKeys.ArrowRight);
  made.playing = button("play", { title: "Play (space)", "aria-pressed": "false" }, () => play());
  made.choice = html("select", { "aria-label": "Chapter" });
  made.choice.addEventListener("change", () => tellStep(Number(made.choice.value)));
  made.count = html("span", { id: "walk-count" });
  made.strip = html("ol", { id: "walk-strip", "aria-label": "Timeline" });
  made.line = html(
    "nav",
    { id: "walk-line", "aria-label": "Chapters" },
    html("div", { class: "walk-buttons" }, made.before, made.playing, made.after, made.choice, made.count),
    made.strip,
  );
  const tabs = Object.entries(PARTS).map(([name, label]) => {
    made[`${name}-tab`] = button(label, { "aria-pressed": "false" }, () => showOnly(name));
    return made[`${name}-tab`];
  });
  made.tabs = html("div", { id: "walk-tabs", class: "buttons", role: "group", "aria-label": "Shown" }, ...tabs);
  made.stage = $("stage");
  const main = document.querySelector("main");
  main.before(made.text, made.tabs);
  main.prepend(made.code);
  main.append(made.tensors);
  main.after(made.line);
  const switches = html(
    "span",
    { id: "walk-switch" },
    button("walkthrough", { class: "to-walk", title: "Walk through it (w)" }, enterWalk),
    button("whole graph", { class: "to-graph", title: "The graph alone (g)" }, leave),
    button("theme", { class: "to-graph", title: "Light or dark" }, () => $("theme").click()),
  );
  document.querySelector("h1").after(switches);
  walk.steps = stepsOf(raw.walk.chapters);
  drawTimeline();
}

/** The chapter that an address names, from 0 on; null if it names none. */
function chapterIn(address) {
  const found = Number(new URLSearchParams(address.slice(1)).get("chapter"));
  return found >= 1 && found <= walk.steps.length ? Math.floor(found) - 1 : null;
}

if (raw.walk) {
  const from = location.hash;
  buildWalk();
  showOnly("tensors");
  if (!from || chapterIn(from) !== null) {
    document.body.classList.add("walking");
    walk.at = chapterIn(from) ?? 0;
    tellStep(walk.at);
  }
  window.addEventListener("hashchange", () => {
    const at = chapterIn(location.hash);
    if (at === null) return;
    if (!walking()) enterWalk();
    tellStep(at);
  });
  window.addEventListener("resize", () => walking() && quietly(() => tellGraph(chapterNow().chapter)));
  window.explorer.walk = walk;
}
