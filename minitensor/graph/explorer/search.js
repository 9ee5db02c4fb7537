// The search field and the list under it.

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
