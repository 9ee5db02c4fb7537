// The search field, the list under it, and the hits marked in the picture.

const MOST = 200; // hits that are listed
const search = { found: [], at: -1, marked: false };

function look() {
  if ($("query").value && !canRead(showHits)) return "";
  const query = $("query").value;
  let failed = "";
  try {
    search.found = find(query);
  } catch (error) {
    search.found = [];
    failed = error.message;
  }
  search.at = -1;
  $("query").removeAttribute("aria-activedescendant");
  return failed || (query.trim() && !search.found.length ? "nothing found" : "");
}

/** What a hit is: a sample of its box, or a line for a tensor. */
function icon(target) {
  const shape = isTensor(target)
    ? svg("g", { class: `edge ${target.gradient ? "backward" : "forward"}` }, path("wire", "M1 7H13"))
    : outline(target.look, 1, 2, 14, 10);
  return svg("svg", { class: "icon", width: 16, height: 14, "aria-hidden": "true" }, shape);
}

function hitItem({ target, box, at }, i) {
  const kind = isTensor(target) ? "tensor" : target.kind;
  const item = html(
    "li",
    { role: "option", id: `hit-${i}`, "aria-selected": "false" },
    icon(target),
    html("b", {}, target.name || target.title || box.label),
    isTensor(target) ? ` ${target.shape} ` : " ",
    at === null ? box.path || "" : (target.home.own.path?.[at] ?? target.ids[at]),
    html("span", { class: "hidden" }, `, ${kind}`),
  );
  item.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
  item.addEventListener("click", () => {
    step(i);
    closeHits();
  });
  return item;
}

function showHits() {
  const failed = look();
  const items = search.found.slice(0, MOST).map(hitItem);
  const more = search.found.length - items.length;
  const note = (string) => html("li", { class: "more", role: "presentation" }, string);
  if (items.length) items.unshift(note(`${search.found.length} found`));
  if (more > 0) items.push(note(`${more} more: add a word`));
  if (failed) items.push(note(failed));
  $("hits").replaceChildren(...items);
  $("hits").hidden = !items.length;
  $("query").setAttribute("aria-expanded", String(items.length > 0));
  $("marked").disabled = !search.found.length;
  if ($("query").value.trim()) say(failed || `${search.found.length} found`);
  markHits();
  remember(true);
}

function closeHits() {
  $("hits").hidden = true;
  $("query").setAttribute("aria-expanded", "false");
}

function step(i) {
  const count = Math.min(search.found.length, MOST);
  if (!count) return;
  search.at = (i + count) % count;
  const hit = search.found[search.at];
  for (const item of $("hits").querySelectorAll("[role=option]"))
    item.setAttribute("aria-selected", String(item.id === `hit-${search.at}`));
  const chosen = $(`hit-${search.at}`);
  chosen?.scrollIntoView({ block: "nearest" });
  $("query").setAttribute("aria-activedescendant", `hit-${search.at}`);
  if (hit.at !== null) rebuild(() => showInstance(hit.target, hit.at));
  go(hit.target);
  say(`${search.at + 1} of ${search.found.length}: ${chosen?.textContent ?? ""}`);
}

/** Mark every hit in the picture, or what hides it, if that is asked for. */
function markHits() {
  const hits = search.marked ? search.found.map(({ box }) => visibleAround(box)) : [];
  const marked = new Set(hits);
  for (const [box, { group }] of elements) group.classList.toggle("hit", marked.has(box));
  $("marked").setAttribute("aria-pressed", String(search.marked));
}

$("marked").addEventListener("click", () => {
  search.marked = !search.marked;
  markHits();
  remember(true);
  say(search.marked ? `${search.found.length} marked` : "no marks");
});
$("query").addEventListener("input", showHits);
$("query").addEventListener("focus", () => {
  if ($("query").value) showHits();
});
$("query").addEventListener("blur", closeHits);
$("query").addEventListener("keydown", (event) => {
  const way = { Enter: event.shiftKey ? -1 : 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (way) {
    event.preventDefault();
    step(search.at < 0 && way < 0 ? -1 : search.at + way);
    if (event.key === "Enter") closeHits(); // it would hide what the panel says
  }
  if (event.key === "Escape") {
    event.preventDefault();
    if ($("hits").hidden) {
      focusPicture();
      select(null);
    } else closeHits();
  }
});
