// The outline: the boxes as a tree beside the picture, which follows it and steers it. Only the rows
// in sight are made, so that ten thousand cost no more than a few. And the trail: where one is.

const tree = $("tree");
const rows = { boxes: [], at: new Map(), height: 24 };

/** The box that is selected, or that made or reads the selected tensor. */
function homeOf(target) {
  return isTensor(target) ? (target.made[0] ?? target.read[0] ?? null) : target;
}

const current = () => (state.selected && homeOf(state.selected) ? visibleAround(homeOf(state.selected)) : null);

function showOutline() {
  showTrail();
  if ($("outline").hidden) return;
  rows.boxes = visible();
  rows.at = new Map(rows.boxes.map((box, at) => [box, at]));
  rows.height = matchMedia("(pointer: coarse), (max-width: 700px)").matches ? 40 : 24;
  $("rows").style.height = `${rows.boxes.length * rows.height}px`;
  const at = rows.at.get(current());
  if (at !== undefined) {
    const top = at * rows.height;
    if (top < tree.scrollTop) tree.scrollTop = top;
    if (top + rows.height > tree.scrollTop + tree.clientHeight)
      tree.scrollTop = top + rows.height - tree.clientHeight;
  }
  showRows();
}

function showRows() {
  const first = Math.max(0, Math.floor(tree.scrollTop / rows.height) - 4);
  const last = Math.ceil((tree.scrollTop + tree.clientHeight) / rows.height) + 4;
  const chosen = current();
  const made = rows.boxes.slice(first, last).map((box, i) => row(box, first + i, box === chosen));
  $("rows").replaceChildren(...made);
  if (made.some((element) => element.id === `row-${chosen?.at}`))
    tree.setAttribute("aria-activedescendant", `row-${chosen.at}`);
  else tree.removeAttribute("aria-activedescendant");
}

function row(box, at, chosen) {
  const opens = box.children.length > 0;
  const depth = chain(box).length - 1;
  const siblings = box.parent.children;
  const place = box.names && state.members.has(box) ? box.names[state.members.get(box)] : box.place;
  const element = html(
    "div",
    {
      id: `row-${box.at}`,
      role: "treeitem",
      class: "row",
      "aria-level": depth,
      "aria-setsize": siblings.length,
      "aria-posinset": siblings.indexOf(box) + 1,
      "aria-selected": String(chosen),
      "aria-expanded": opens ? String(isOpen(box)) : undefined,
      "aria-label": box.spoken,
      title: [box.title, place].filter(Boolean).join(", "),
      style: `top: ${at * rows.height}px; height: ${rows.height}px; padding-left: ${4 + 12 * (depth - 1)}px`,
    },
    html("span", { class: "twist" }, opens ? (isOpen(box) ? "\u25be" : "\u25b8") : ""),
    icon(box),
    html("span", {}, box.title),
    place ? html("small", {}, place) : "",
  );
  return element;
}

tree.addEventListener("scroll", showRows, { passive: true });

tree.addEventListener("click", (event) => {
  const box = boxes[event.target.closest(".row")?.id.slice(4)];
  if (!box) return;
  if (event.target.closest(".twist") && box.children.length) {
    toggle(box);
    return;
  }
  meet(box);
  if (narrow.matches) setOutline(false);
});

tree.addEventListener("dblclick", (event) => {
  const box = boxes[event.target.closest(".row:not(:has(.twist:hover))")?.id.slice(4)];
  if (box) toggle(box);
});

tree.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const box = current();
  const at = rows.at.get(box) ?? -1;
  const page = Math.max(1, Math.floor(tree.clientHeight / rows.height) - 1);
  const clamp = (i) => rows.boxes[Math.max(0, Math.min(rows.boxes.length - 1, i))];
  const target = {
    ArrowDown: () => clamp(at + 1),
    ArrowUp: () => clamp(at - 1),
    PageDown: () => clamp(at + page),
    PageUp: () => clamp(at - page),
    Home: () => clamp(0),
    End: () => clamp(Infinity),
    ArrowLeft: () => (box && !isOpen(box) && box.parent !== root ? box.parent : null),
    ArrowRight: () => (box && isOpen(box) ? box.children[0] : null),
  }[event.key];
  const turn =
    (event.key === "ArrowRight" && box && !isOpen(box)) ||
    (event.key === "ArrowLeft" && box && isOpen(box)) ||
    event.key === "Enter";
  if (!target && !turn) return;
  event.preventDefault();
  event.stopPropagation();
  const to = target?.();
  if (to) meet(to);
  else if (turn && box) toggle(box);
});

// --- Where one is ---

/** The boxes around what is selected, each to be clicked; and what it costs. */
function showTrail() {
  const target = state.selected;
  const home = target ? homeOf(target) : null;
  const around = home ? chain(home) : [root];
  const parts = around.map((box) => {
    const last = box === target || (!target && box === root);
    const name = box === root ? raw.name || "graph" : trailName(box);
    const link = button(name, { class: "jump", "aria-current": last ? "location" : undefined }, () =>
      box === root ? select(null) : meet(box),
    );
    return html("li", {}, link);
  });
  if (target && isTensor(target)) parts.push(html("li", { "aria-current": "location" }, target.title));
  $("parts").replaceChildren(...parts);
  $("amounts").textContent = costsOf(target);
}

/** What a box is called beside the one around it: "layers.0-5", of a member "layers.3", or its title. */
function trailName(box) {
  const known = ({ parent }) => (shown(parent) === null && parent.own.path?.[0]) || ownText(parent, "path");
  const [path, outer] = [ownText(box, "path"), known(box)];
  if (!path || path === outer) return box.title;
  return path.startsWith(`${outer}.`) ? path.slice(outer.length + 1) : path;
}

function costsOf(target) {
  if (!target) return "nothing selected";
  if (isTensor(target)) return target.size;
  const costs = target.figures?.[Number(state.backward)] ?? [];
  const count = folds(target).reduce((all, fold) => all * fold.count, 1);
  return (count > 1 && costs.length ? `each of ${count}: ` : "") + costs.join(" \u00b7 ");
}

function setOutline(shown) {
  $("outline").hidden = !shown;
  $("outlined").setAttribute("aria-expanded", String(shown));
  if (shown && narrow.matches) tree.focus({ preventScroll: true });
  showOutline();
  remember(true);
}
