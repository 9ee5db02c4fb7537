// What a person changes: what is open, selected and shown; keys and buttons. It starts the page.
// In a frame it speaks with the page around it: {minitensor: "select", id}, {minitensor: "open",
// ids} and {minitensor: "view", x, y, scale}, both ways; frames.js says what they mean.

window.explorer = { state, boxes, tensors, camera, address, visible };

/** The focus on the picture: on the selected box, if it is there. */
function focusPicture() {
  const box = selectedBox();
  if (box && box !== root) focusBox(box);
  else picture.focus({ preventScroll: true });
}

// --- What is open ---

function setBase(base) {
  state.base = base;
  state.open = new Set(openOf(base));
  if (raw.levels[base]) state.backward = raw.levels[base].backward && hasBackward;
  touch();
  refresh();
  say(`level ${base}`);
}

/** Open or close a box; it stays where it is on the screen. */
function toggle(box) {
  if (!box.children.length) return;
  keeping(box, () => {
    if (!state.open.delete(box)) state.open.add(box);
    touch(box);
    render();
  });
  if (state.open.has(box) && !calm.matches) {
    elements
      .get(box)
      ?.group.animate([{ opacity: 0.3 }, { opacity: 1 }], { duration: 160, easing: "ease-out" });
  }
  showLegend();
  showOutline();
  remember();
  say(`${box.label} ${state.open.has(box) ? "open" : "closed"}`);
}

/** Open what is around a box, so that it can be seen. */
function reveal(box) {
  const closed = chain(box).slice(1, -1).filter((b) => !state.open.has(b));
  if (!closed.length) return;
  for (const b of closed) state.open.add(b);
  touch(closed[0]);
  for (const b of closed) touch(b);
  render();
  showLegend();
  showOutline();
}

// --- Selection ---

function select(target, { quiet = false } = {}) {
  state.selected = target;
  if (!target) state.way = null;
  mark();
  const opens = target && panel.hidden;
  showPanel();
  if (opens) clearPanel();
  showOutline();
  if (!quiet) remember();
}

let clearing = 0;

/** Move what is selected out from under the panel that opens; after a double click, not amidst it. */
function clearPanel() {
  clearTimeout(clearing);
  clearing = setTimeout(() => {
    const home = state.selected && homeOf(state.selected);
    if (!home) return;
    const { x, y, w, h } = placeOf(visibleAround(home));
    const [room, { k }] = [stage(), camera];
    const over = (from, size, most) => Math.max(0, Math.min(from + size * k + 12 - most, from - 12));
    const [dx, dy] = [over(x * k + camera.x, w, room.w), over(y * k + camera.y, h, room.h)];
    if (dx || (dy && narrow.matches)) fly({ k, x: camera.x - dx, y: camera.y - (narrow.matches && dy) });
  }, 350);
}

/** The selected box, or what hides it; null if none is, or a tensor. */
function selectedBox() {
  return state.selected && !isTensor(state.selected) ? visibleAround(state.selected) : null;
}

/** Show a box or tensor wherever it hides: open what is around it, select and centre it. */
function go(target) {
  const box = isTensor(target) ? (target.made[0] ?? target.read[0]) : target;
  if (box) reveal(box);
  select(target);
  if (box) centre(box);
}

/** Show a box or tensor wherever it hides, and stay where one is if it is in sight there. */
function meet(target) {
  const box = isTensor(target) ? (target.made[0] ?? target.read[0]) : target;
  if (box) reveal(box);
  select(target);
  if (box) ensureSeen(visibleAround(box));
}

function trace(way) {
  if (!state.selected) return;
  state.way = state.way === way ? null : way;
  mark();
  showPanel();
  remember();
  say(state.way ? `${way === "up" ? "ancestors" : "descendants"} highlighted` : "no highlight");
}

// --- Everything anew ---

function refresh() {
  nameMembers();
  render();
  showPanel();
  showLegend();
  showOutline();
  const figures = raw.figures[Number(state.backward)].split(/\s+\u00b7\s+/);
  const said = notes().length;
  $("whole").replaceChildren(...figures.map((text) => html("span", {}, text)));
  $("noted").hidden = !said;
  $("noted").textContent = said === 1 ? "1 note" : `${said} notes`;
  for (const button of document.querySelectorAll("[data-base]"))
    button.setAttribute("aria-pressed", button.dataset.base === state.base);
  $("backward").setAttribute("aria-pressed", state.backward);
  $("across").setAttribute("aria-pressed", state.across);
  $("overlay").value = state.overlay ?? "";
}

/** Change the picture, with a box, or else the middle of the screen, kept where it is. */
function keeping(box, change) {
  const [room, whole] = [stage(), measure(root)];
  const point = () => {
    if (box && box !== root) return placeOf(visibleAround(box));
    const { w, h } = measure(root);
    return { x: (middle.x * w) / whole.w, y: (middle.y * h) / whole.h };
  };
  const middle = middleOf(room);
  const before = point();
  change();
  const after = point();
  camera.x += (before.x - after.x) * camera.k;
  camera.y += (before.y - after.y) * camera.k;
  applyCamera();
}

/** Lay everything out again. */
function rebuild(change) {
  keeping(selectedBox(), () => {
    change();
    touch();
    refresh();
  });
  remember();
}

function setOverlay(name) {
  rebuild(() => {
    state.overlay = name || null;
  });
  say(name ? `overlay ${raw.overlays[name].title}` : "no overlay");
}

function setBackward() {
  if (!hasBackward) return;
  rebuild(() => {
    state.backward = !state.backward;
  });
  say(state.backward ? "with the backward pass" : "forward pass alone");
}

/** Draw from left to right, or from top to bottom again. */
function setAcross() {
  state.across = !state.across;
  refresh();
  fly(opening());
  remember();
  say(state.across ? "left to right" : "top down");
}

function setTheme(theme) {
  state.theme = theme;
  document.documentElement.style.colorScheme = theme ?? "";
}

function say(message) {
  const status = $("status");
  status.textContent = message;
  Object.assign(status.style, freeCorner(status));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    $("status").textContent = "";
  }, 2500);
}

/** The corner of the picture where a note covers no box and no text; else the one above the left. */
function freeCorner({ offsetWidth: w, offsetHeight: h }) {
  const { left, top, right, bottom } = picture.getBoundingClientRect();
  const low = bottom - top - h - 10 - $("legend").offsetHeight;
  const corners = [
    [(right - left - w) / 2, low],
    [10, 10],
    [right - left - w - 10, 10],
    [10, low],
    [right - left - w - 10, low],
  ];
  const covered = ([x, y]) =>
    [0, 0.25, 0.5, 0.75, 1].some((i) =>
      [0, 0.5, 1].some((j) => {
        const at = document.elementFromPoint(left + x + i * w, top + y + j * h);
        return at?.closest(".box:not(.open), .edge, button") || at?.matches(".header, canvas");
      }),
    );
  const [x, y] = corners.find((corner) => !covered(corner)) ?? corners[1];
  return { left: `${x}px`, top: `${y}px` };
}

function save(blob, suffix) {
  const href = URL.createObjectURL(blob);
  const name = (raw.name || "graph").replace(/[^\w.-]+/g, "_");
  html("a", { href, download: `${name}.${suffix}` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
  say(`${name}.${suffix} saved`);
}

const saveSvg = () => save(new Blob([asSvg()], { type: "image/svg+xml" }), "svg");
const savePng = async () => save(await asPng(), "png");

// --- Keys ---

function neighbour(box, key) {
  const row = box.parent?.children ?? [];
  const at = row.indexOf(box);
  return {
    ArrowDown: row[at + 1],
    ArrowUp: row[at - 1],
    ArrowRight: isOpen(box) ? box.children[0] : row[at + 1],
    ArrowLeft: box.parent === root ? row[at - 1] : box.parent,
  }[key];
}

/** The box that an element belongs to, if any. */
const boxAt = (element) => boxById.get(element?.closest?.("[data-box]")?.dataset.box);

function enter() {
  const box = boxAt(document.activeElement);
  select(box, { quiet: true });
  toggle(box);
  focusBox(box);
}

function arrow(key) {
  const from = boxAt(document.activeElement) ?? selectedBox();
  const to = from && from !== root ? neighbour(from, key) : root.children[0];
  if (!to) return;
  select(to, { quiet: true });
  focusBox(to);
  ensureSeen(to);
}

const commands = {
  "/": () => {
    $("query").focus();
    $("query").select();
  },
  "?": showKeys,
  t: () => {
    setOutline(true);
    tree.focus();
  },
  b: setBackward,
  r: setAcross,
  s: saveSvg,
  p: savePng,
  l: copyLink,
  m: showBookmarks,
  a: () => trace("up"),
  d: () => trace("down"),
  f: () => fly(fitted()),
  0: () => fly(fitted()),
  "+": () => zoomMiddle(1.25),
  "=": () => zoomMiddle(1.25),
  "-": () => zoomMiddle(0.8),
  o: () => {
    const names = ["", ...Object.keys(raw.overlays).filter((name) => raw.overlays[name].passes)];
    setOverlay(names[(names.indexOf(state.overlay ?? "") + 1) % names.length]);
  },
  Escape: () => {
    if (narrow.matches && !$("outline").hidden) setOutline(false);
    else select(null);
  },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea")) return;
  const inPicture = !event.target.closest("button, a");
  const command =
    event.key.startsWith("Arrow") ? inPicture && arrow
    : event.key === "Enter" ? inPicture && boxAt(event.target) && enter
    : commands[event.key];
  if (!command) return;
  event.preventDefault();
  command(event.key);
});

picture.addEventListener("focusin", (event) => {
  const box = boxById.get(event.target.dataset?.box);
  if (box && box !== root && event.target.matches(":focus-visible")) ensureSeen(box);
});

// --- Buttons ---

for (const at of document.querySelectorAll("[data-base]")) {
  at.addEventListener("click", () => {
    setBase(at.dataset.base);
    fly(opening());
    remember();
  });
}
$("title").textContent = $("title").title = raw.name || "graph";
$("backward").disabled = !hasBackward;
if (!hasBackward) $("backward").title = "no backward pass: trace with backward=True";
const presses = {
  backward: "b", across: "r", fit: "f", svg: "s", png: "p", link: "l", kept: "m", help: "?",
};
for (const [id, key] of Object.entries(presses)) $(id).addEventListener("click", commands[key]);
$("noted").addEventListener("click", showNotes);
$("outlined").addEventListener("click", () => setOutline($("outline").hidden));
$("opened").addEventListener("click", () => {
  const open = document.querySelector("header").classList.toggle("all");
  $("opened").setAttribute("aria-expanded", String(open));
});
document.addEventListener("click", ({ target }) => {
  if (!narrow.matches && !target.closest("#opened, #theme")) closeMore();
});
function closeMore() {
  document.querySelector("header").classList.remove("all");
  $("opened").setAttribute("aria-expanded", "false");
}
$("legended").addEventListener("click", () => $("stage").classList.add("keyed"));
$("legend").addEventListener("click", () => $("stage").classList.remove("keyed"));
window.addEventListener("resize", showOutline);
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  setTheme((state.theme ?? dark) === "dark" ? "light" : "dark");
  remember();
});
$("overlay").append(
  html("option", { value: "" }, "none"),
  ...Object.entries(raw.overlays).map(([value, { title, missing }]) =>
    html("option", { value, ...(missing && { disabled: "", title: missing }) }, title),
  ),
);
$("overlay").addEventListener("change", () => {
  setOverlay($("overlay").value);
  $("overlay").blur();
});
for (const name of ["popstate", "hashchange"]) window.addEventListener(name, () => quietly(restore));

function start() {
  restore();
  hearing = false;
}
// What is selected takes its room for the panel before it is centred.
if (!/[#&](box|tensor|find)=/.test(location.hash) || canRead(start)) start();
