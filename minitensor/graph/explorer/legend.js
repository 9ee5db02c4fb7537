// The legend, and the list of keys.

function sample(name, says, fused = false) {
  const parts = [outline(name, 1, 2, 24, 12)];
  if (fused) parts.push(outline(name, 4, 5, 18, 6, "inner"));
  return html("span", {}, svg("svg", { width: 27, height: 16 }, ...parts), says);
}

function wireSample(kind, says) {
  const arrow = [path("wire", "M1 8H22"), path("head", "M29 8l-8 -4v8z")];
  const wire = svg("g", { class: kind === "saved" ? kind : `edge ${kind}` }, ...arrow);
  return html("span", {}, svg("svg", { width: 30, height: 16 }, wire), says);
}

function showLegend() {
  const legend = document.getElementById("legend");
  const overlay = raw.overlays[state.overlay];
  const parts = [];
  if (overlay?.steps) {
    const swatch = (step) => html("span", { class: "ramp" }, html("i", { class: `step-${step}` }));
    parts.push(
      html("strong", {}, overlay.title),
      ...Object.entries(overlay.steps).map(([name, step]) => html("span", {}, swatch(step), name)),
    );
  } else if (overlay) {
    const [low, high] = rampEnds();
    const ramp = Array.from({ length: STEPS }, (_, i) => html("i", { class: `step-${i}` }));
    parts.push(
      html("strong", {}, overlay.title),
      html("span", {}, low),
      html("span", { class: "ramp" }, ...ramp),
      html("span", {}, high),
      html("span", {}, overlay.logarithmic ? "logarithmic" : ""),
    );
  } else {
    const closed = visible().filter((b) => !isOpen(b));
    const shown = new Set(closed.map((b) => b.look));
    for (const [name, { says }] of Object.entries(raw.looks))
      if (says && shown.has(name)) parts.push(sample(name, says));
    if (closed.some((b) => b.fused)) parts.push(sample("other", raw.marks.fused, true));
    if ([root, ...visible()].some((b) => isOpen(b) && b.edges.some((edge) => edge.skip)))
      parts.push(wireSample("forward skip", raw.marks.skip));
    if (state.backward)
      parts.push(wireSample("backward", raw.marks.gradient), wireSample("saved", raw.marks.saved));
  }
  legend.replaceChildren(...parts);
}

const keys = [
  ["arrows", "to the parent, first inside, next, previous"],
  ["Tab", "to the next box"],
  ["Enter, double click", "open or close"],
  ["a, d", "highlight ancestors, descendants"],
  ["Esc", "clear"],
  ["/", "search"],
  ["b", "backward pass"],
  ["o", "next overlay"],
  ["f, 0", "show all"],
  ["+, -, wheel, pinch", "zoom"],
  ["drag", "move"],
  ["tap, long press", "select, open or close"],
  ["t", "outline: arrows, Home, End, Enter"],
  ["r", "left to right, or top down"],
  ["s, p", "download SVG, PNG"],
  ["l, m", "copy a link to this, bookmarks"],
  ["?", "this list"],
];

function showKeys() {
  showDialog($("keys"), "Keys", facts(keys));
}

function showDialog(dialog, title, ...parts) {
  const close = button("close", { autofocus: "" }, () => dialog.close());
  dialog.replaceChildren(html("h2", {}, title), ...parts, close);
  dialog.showModal();
}

/** What the picture does not say: of the graph, and of the level that is shown. */
const notes = () => [...raw.notes, ...(raw.levels[state.base]?.notes ?? [])];

function showNotes() {
  showDialog($("notes"), "Notes", list(notes()));
}
