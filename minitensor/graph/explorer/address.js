// The address: what is open, selected, laid over, and the view: the point of the picture in the
// middle and the zoom, so that a link shows the same in a window of any size.

const addressParts = []; // of other scripts: {write(params), read(get)}

function address() {
  if (state.chapter) return `#chapter=${state.chapter}${state.theme ? `&theme=${state.theme}` : ""}`;
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
  for (const part of addressParts) part.write(params);
  if (state.way) params.set("trace", state.way);
  const members = [...state.members].map(([fold, at]) => `${at}@${fold.id}`);
  if (members.length) params.set("members", members.join(";"));
  if (state.across) params.set("across", "1");
  if (state.theme) params.set("theme", state.theme);
  if ($("query").value.trim()) params.set("find", $("query").value);
  if (search.marked) params.set("marked", "1");
  if ($("outline").hidden === !narrow.matches) params.set("outline", $("outline").hidden ? "0" : "1");
  const { x, y } = middleOf(stage());
  params.set("view", [x, y, camera.k].map((v) => Number(v.toFixed(3))).join(","));
  return `#${params}`;
}

let lastKey = "";
let late = 0;

/** Put the state into the address: a step for back and forward, unless only the view moved. */
function remember(viewOnly = false) {
  clearTimeout(late);
  if (!viewOnly) tell();
  if (viewOnly) {
    late = setTimeout(() => write("replaceState"), 200);
    return;
  }
  const key = address().replace(/&view=.*/, "");
  write(key === lastKey || embedded ? "replaceState" : "pushState");
  lastKey = key;
}

function write(method) {
  try {
    history[method](null, "", address());
  } catch {
    /* a frame without an address of its own */
  }
}

/** Show what an address says: that of the page, or of a bookmark. */
function restore(from = location.hash) {
  const params = new URLSearchParams(from.slice(1));
  const get = (name) => params.get(name);
  const ids = (name) =>
    (get(name) ?? "")
      .split(";")
      .map((id) => boxById.get(id))
      .filter((b) => b?.children.length);
  state.base = raw.bases.includes(get("level")) ? get("level") : raw.level;
  state.open = new Set(openOf(state.base));
  ids("open").forEach((b) => state.open.add(b));
  ids("close").forEach((b) => state.open.delete(b));
  const fresh = !params.has("level");
  state.backward =
    hasBackward && (fresh ? (raw.backward ?? raw.levels[state.base].backward) : get("backward") === "1");
  const overlay = fresh ? raw.overlay : get("overlay");
  state.overlay = raw.overlays[overlay]?.passes ? overlay : null;
  state.members.clear();
  for (const pair of (get("members") ?? "").split(";")) {
    const [, at, id] = pair.match(/^(\d+)@(.*)$/s) ?? [];
    const fold = boxById.get(id);
    if (fold?.names && Number(at) < fold.count) state.members.set(fold, Number(at));
  }
  state.across = get("across") === "1";
  $("query").value = get("find") ?? "";
  look();
  search.marked = get("marked") === "1" && search.found.length > 0;
  $("marked").disabled = !search.found.length;
  state.selected = boxById.get(get("box")) ?? tensorById.get(get("tensor")) ?? null;
  state.way = state.selected && ["up", "down"].includes(get("trace")) ? get("trace") : null;
  for (const part of addressParts) part.read(get);
  setTheme(["light", "dark"].includes(get("theme")) ? get("theme") : null);
  $("outline").hidden = get("outline") ? get("outline") === "0" : narrow.matches;
  $("outlined").setAttribute("aria-expanded", String(!$("outline").hidden));
  touch();
  refresh();
  const view = (get("view") ?? "").split(",").map(Number);
  if (view.length === 3 && view.every(Number.isFinite) && view[2] > 0)
    lookAt(...view);
  else Object.assign(camera, opening());
  applyCamera();
  lastKey = address().replace(/&view=.*/, "");
  if (state.selected && !get("view")) go(state.selected);
}
