// State, and everything a person does: buttons, keys, mouse, search, the address.

const camera = { x: 0, y: 0, k: 1 };
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const $ = (id) => document.getElementById(id);

window.explorer = { state, boxes, tensors };

// --- What is open ---

function setBase(base) {
  state.base = base;
  state.open = new Set(openOf(base));
  if (raw.levels[base]) state.backward = raw.levels[base].backward && hasBackward;
  touch();
  refresh();
  say([`level ${base}`, ...(raw.levels[base]?.notes ?? [])].join(". "));
}

/** Open or close a box; it stays where it is on the screen. */
function toggle(box) {
  if (!box.children.length) return;
  const before = placeOf(box);
  if (state.open.has(box)) state.open.delete(box);
  else state.open.add(box);
  touch(box);
  render();
  const after = placeOf(box);
  camera.x += (before.x - after.x) * camera.k;
  camera.y += (before.y - after.y) * camera.k;
  applyCamera();
  if (state.open.has(box) && !calm.matches) {
    elements
      .get(box)
      .group.animate([{ opacity: 0.3 }, { opacity: 1 }], { duration: 160, easing: "ease-out" });
  }
  showLegend();
  remember();
  say(`${box.label} ${state.open.has(box) ? "open" : "closed"}`);
}

/** Open what is around a box, so that it can be seen. */
function reveal(box) {
  let changed = false;
  for (const b of chain(box).slice(1, -1)) {
    if (state.open.has(b)) continue;
    state.open.add(b);
    touch(b);
    changed = true;
  }
  if (changed) {
    render();
    showLegend();
  }
}

// --- Selection ---

function select(target, { quiet = false } = {}) {
  state.selected = target;
  if (!target) state.way = null;
  mark();
  showPanel();
  if (!quiet) remember();
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
  if (box) centre(visibleAround(box));
}

function trace(way) {
  if (!state.selected) return;
  state.way = state.way === way ? null : way;
  mark();
  showPanel();
  remember();
}

// --- Camera ---

function applyCamera() {
  world.setAttribute(
    "transform",
    `translate(${camera.x.toFixed(2)} ${camera.y.toFixed(2)}) scale(${camera.k.toFixed(4)})`,
  );
}

let flight = 0;

function fly(target) {
  cancelAnimationFrame(flight);
  const start = { ...camera };
  const began = performance.now();
  const done = () => {
    Object.assign(camera, target);
    applyCamera();
    remember(true);
  };
  if (calm.matches) {
    done();
    return;
  }
  const step = (now) => {
    const t = Math.min(1, Math.max(0, (now - began) / 220));
    const ease = 1 - (1 - t) ** 3;
    for (const key of ["x", "y", "k"]) camera[key] = start[key] + (target[key] - start[key]) * ease;
    applyCamera();
    if (t < 1) flight = requestAnimationFrame(step);
    else done();
  };
  flight = requestAnimationFrame(step);
}

/** The part of the picture that nothing covers. */
function stage() {
  const { width, height } = picture.getBoundingClientRect();
  const covered = panel.hidden ? 0 : panel.offsetWidth;
  return { w: Math.max(200, width - covered), h: height - $("legend").offsetHeight };
}

const clampZoom = (k) => Math.min(4, Math.max(0.03, k));

/** All of it in view; at first no smaller than can be read. */
function fitted(least = 0.03) {
  const { w, h } = measure(root);
  const room = stage();
  const k = Math.min(1.25, Math.max(least, Math.min((room.w - 40) / w, (room.h - 40) / h)));
  return { k, x: (room.w - w * k) / 2, y: Math.max(20, (room.h - h * k) / 2) };
}

function centre(box) {
  const { x, y, w, h } = placeOf(box);
  const room = stage();
  const k = Math.max(camera.k, Math.min(1, (room.w - 60) / w, (room.h - 60) / h));
  fly({
    k,
    x: room.w / 2 - (x + w / 2) * k,
    y: Math.max(room.h / 2 - (y + h / 2) * k, h * k > room.h ? 30 - y * k : -Infinity),
  });
}

/** Bring a box into view if it is not. */
function ensureSeen(box) {
  const { x, y, w, h } = placeOf(box);
  const room = stage();
  const left = x * camera.k + camera.x;
  const top = y * camera.k + camera.y;
  if (left < 0 || top < 0 || left + w * camera.k > room.w || top + h * camera.k > room.h)
    centre(box);
}

function zoom(factor, cx, cy) {
  cancelAnimationFrame(flight);
  const k = clampZoom(camera.k * factor);
  camera.x = cx - ((cx - camera.x) * k) / camera.k;
  camera.y = cy - ((cy - camera.y) * k) / camera.k;
  camera.k = k;
  applyCamera();
  remember(true);
}

const zoomMiddle = (factor) => {
  const { w, h } = stage();
  zoom(factor, w / 2, h / 2);
};

// --- The address: what is open, selected, laid over, and the view ---

function address() {
  const params = new URLSearchParams();
  const base = new Set(openOf(state.base));
  const ids = (list) => list.map((b) => b.id).join(";");
  const opened = [...state.open].filter((b) => !base.has(b));
  const closed = [...base].filter((b) => !state.open.has(b));
  params.set("level", state.base);
  if (opened.length) params.set("open", ids(opened));
  if (closed.length) params.set("close", ids(closed));
  if (state.backward) params.set("backward", "1");
  if (state.overlay) params.set("overlay", state.overlay);
  if (state.selected) params.set(isTensor(state.selected) ? "tensor" : "box", state.selected.id);
  if (state.way) params.set("trace", state.way);
  if (state.theme) params.set("theme", state.theme);
  params.set("view", [camera.x, camera.y, camera.k].map((v) => Number(v.toFixed(3))).join(","));
  return `#${params}`;
}

let lastKey = "";
let late = 0;

/** Put the state into the address: a step for back and forward, unless only the view moved. */
function remember(viewOnly = false) {
  clearTimeout(late);
  if (viewOnly) {
    late = setTimeout(() => write("replaceState"), 200);
    return;
  }
  const key = address().replace(/&view=.*/, "");
  write(key === lastKey ? "replaceState" : "pushState");
  lastKey = key;
}

function write(method) {
  try {
    history[method](null, "", address());
  } catch {
    /* a frame without an address of its own */
  }
}

function restore() {
  const params = new URLSearchParams(location.hash.slice(1));
  const get = (name) => params.get(name);
  const ids = (name) =>
    (get(name) ?? "")
      .split(";")
      .map((id) => boxById.get(id))
      .filter((b) => b?.children.length);
  state.base =
    raw.bases.includes(get("level")) ? get("level") : raw.level;
  state.open = new Set(openOf(state.base));
  ids("open").forEach((b) => state.open.add(b));
  ids("close").forEach((b) => state.open.delete(b));
  const fresh = !params.has("level");
  state.backward =
    hasBackward && (fresh ? (raw.backward ?? raw.levels[state.base].backward) : get("backward") === "1");
  const overlay = fresh ? raw.overlay : get("overlay");
  state.overlay = raw.overlays[overlay]?.passes ? overlay : null;
  state.selected = boxById.get(get("box")) ?? tensorById.get(get("tensor")) ?? null;
  state.way = state.selected && ["up", "down"].includes(get("trace")) ? get("trace") : null;
  setTheme(["light", "dark"].includes(get("theme")) ? get("theme") : null);
  touch();
  refresh();
  const view = (get("view") ?? "").split(",").map(Number);
  if (view.length === 3 && view.every(Number.isFinite) && view[2] > 0)
    [camera.x, camera.y, camera.k] = [view[0], view[1], clampZoom(view[2])];
  else Object.assign(camera, fitted(0.7));
  applyCamera();
  lastKey = address().replace(/&view=.*/, "");
  if (state.selected && !get("view")) go(state.selected);
}

// --- Everything anew ---

function refresh() {
  render();
  showPanel();
  showLegend();
  for (const button of document.querySelectorAll("[data-base]"))
    button.setAttribute("aria-pressed", button.dataset.base === state.base);
  $("backward").setAttribute("aria-pressed", state.backward);
  $("overlay").value = state.overlay ?? "";
}

/** Lay everything out again, with what is in the middle of the screen kept there. */
function rebuild(change) {
  const room = stage();
  const ratio = () => ({
    x: (room.w / 2 - camera.x) / measure(root).w,
    y: (room.h / 2 - camera.y) / measure(root).h,
  });
  const kept = selectedBox();
  const [before, spot] = [kept && placeOf(kept), ratio()];
  change();
  touch();
  refresh();
  if (kept && kept !== root) {
    const after = placeOf(kept);
    camera.x += (before.x - after.x) * camera.k;
    camera.y += (before.y - after.y) * camera.k;
  } else {
    camera.x = room.w / 2 - spot.x * measure(root).w;
    camera.y = room.h / 2 - spot.y * measure(root).h;
  }
  applyCamera();
  remember();
}

function setOverlay(name) {
  rebuild(() => {
    state.overlay = name || null;
  });
  say(name ? `overlay ${raw.overlays[name].title}` : "no overlay");
}

function setBackward() {
  if (hasBackward)
    rebuild(() => {
      state.backward = !state.backward;
    });
}

function setTheme(theme) {
  state.theme = theme;
  document.documentElement.style.colorScheme = theme ?? "";
}

function say(message) {
  $("status").textContent = message;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    $("status").textContent = "";
  }, 2500);
}

function download() {
  const href = URL.createObjectURL(new Blob([asSvg()], { type: "image/svg+xml" }));
  const name = (raw.name || "graph").replace(/[^\w.-]+/g, "_");
  html("a", { href, download: `${name}.svg` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

// --- Mouse and touch ---

const pointers = new Map();
let moved = 0;

picture.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  cancelAnimationFrame(flight);
  if (!pointers.size) moved = 0;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
});

window.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const now = { x: event.clientX, y: event.clientY };
  moved += Math.hypot(now.x - last.x, now.y - last.y);
  if (moved > 4) picture.classList.add("dragging");
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  pointers.set(event.pointerId, now);
  if (other) {
    const { left, top } = picture.getBoundingClientRect();
    const apart = (p) => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
    zoom(apart(now) / apart(last), (now.x + other.x) / 2 - left, (now.y + other.y) / 2 - top);
  } else if (moved > 4) {
    camera.x += now.x - last.x;
    camera.y += now.y - last.y;
    applyCamera();
  }
});

for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    picture.classList.remove("dragging");
    if (moved > 4) remember(true);
  });
}

picture.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const { left, top } = picture.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 16 : 1;
    const step = Math.max(-60, Math.min(60, event.deltaY * lines * (event.ctrlKey ? 4 : 1)));
    zoom(Math.exp(-step / 240), event.clientX - left, event.clientY - top);
  },
  { passive: false },
);

picture.addEventListener("click", (event) => {
  if (moved > 4) return;
  const tensor = event.target.closest("[data-tensor]");
  const box = boxById.get(event.target.closest("[data-box]")?.dataset.box);
  if (tensor && tensorById.has(tensor.dataset.tensor)) {
    select(tensorById.get(tensor.dataset.tensor));
    return;
  }
  if (!box || box === root) {
    if (event.target === picture) select(null);
    return;
  }
  select(box, { quiet: true });
  // Of a double click, the first click on a header has done it already.
  if (event.target.closest(".header") && event.detail < 2) toggle(box);
  else remember();
  focusBox(box);
});

picture.addEventListener("dblclick", (event) => {
  const box = boxById.get(event.target.closest("[data-box]")?.dataset.box);
  if (!box || box === root || event.target.closest(".header, [data-tensor]")) return;
  toggle(box);
});

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

function arrow(key) {
  const focused = boxById.get(document.activeElement?.closest("[data-box]")?.dataset.box);
  const from = focused ?? selectedBox();
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
  b: setBackward,
  s: download,
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
  Escape: () => select(null),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (event.target.closest("input, select")) return;
  const inPicture = !event.target.closest("button, a");
  if (event.key.startsWith("Arrow") && inPicture) {
    event.preventDefault();
    arrow(event.key);
    return;
  }
  if (event.key === "Enter" && inPicture) {
    const box = boxById.get(event.target.closest("[data-box]")?.dataset.box);
    if (!box) return;
    event.preventDefault();
    select(box, { quiet: true });
    toggle(box);
    focusBox(box);
    return;
  }
  const command = commands[event.key];
  if (command) {
    event.preventDefault();
    command();
  }
});

picture.addEventListener("focusin", (event) => {
  const box = boxById.get(event.target.dataset?.box);
  if (box && box !== root && event.target.matches(":focus-visible")) ensureSeen(box);
});

// --- Search ---

const search = { found: [], at: -1 };
const MOST = 200; // hits that are listed

function showHits() {
  const hits = $("hits");
  search.found = find($("query").value);
  search.at = -1;
  const items = search.found.slice(0, MOST).map((hit, i) => {
    const item = html(
      "li",
      { role: "option", id: `hit-${i}` },
      html("b", {}, hit.target.name || hit.box.label),
      isTensor(hit.target) ? ` ${hit.target.shape} ` : " ",
      hit.box.path || "",
    );
    item.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      step(i);
    });
    return item;
  });
  const more = search.found.length - items.length;
  if (more > 0) items.push(html("li", { class: "more" }, `${more} more: add a word`));
  if (!items.length && $("query").value.trim())
    items.push(html("li", { class: "more" }, "nothing found"));
  hits.replaceChildren(...items);
  hits.hidden = !items.length;
}

function step(i) {
  const count = Math.min(search.found.length, MOST);
  if (!count) return;
  search.at = (i + count) % count;
  const hit = search.found[search.at];
  [...$("hits").children].forEach((item, k) => item.setAttribute("aria-selected", k === search.at));
  $("hits").children[search.at].scrollIntoView({ block: "nearest" });
  $("query").setAttribute("aria-activedescendant", `hit-${search.at}`);
  go(hit.target);
  say(`${search.at + 1} of ${search.found.length}`);
}

$("query").addEventListener("input", showHits);
$("query").addEventListener("focus", () => {
  if ($("query").value) showHits();
});
$("query").addEventListener("blur", () => {
  $("hits").hidden = true;
});
$("query").addEventListener("keydown", (event) => {
  const way = { Enter: event.shiftKey ? -1 : 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (way) {
    event.preventDefault();
    step(search.at < 0 && way < 0 ? -1 : search.at + way);
    if (event.key === "Enter") $("hits").hidden = true; // it would hide what the panel says
  }
  if (event.key === "Escape") {
    event.preventDefault();
    $("query").blur();
    select(null);
  }
});

// --- Buttons ---

for (const button of document.querySelectorAll("[data-base]")) {
  button.addEventListener("click", () => {
    setBase(button.dataset.base);
    fly(fitted());
    remember();
  });
}
$("title").textContent = raw.name || "graph";
$("backward").disabled = !hasBackward;
if (!hasBackward) $("backward").title = "no backward pass: trace with backward=True";
$("backward").addEventListener("click", setBackward);
$("fit").addEventListener("click", () => fly(fitted()));
$("svg").addEventListener("click", download);
$("help").addEventListener("click", showKeys);
$("theme").addEventListener("click", () => {
  const dark = state.theme
    ? state.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
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
window.addEventListener("popstate", restore);
window.addEventListener("hashchange", restore);

restore();
