// The side panel: sections of a box or tensor, as Python made them; the legend and the keys.

const panel = document.getElementById("panel");

const heading = (string) => html("h3", {}, string);

const list = (items) => html("ul", {}, ...items.map((item) => html("li", {}, ...[item].flat())));

/** A name and a text in each row. */
const facts = (rows) =>
  html("dl", {}, ...rows.flatMap(([name, v]) => [html("dt", {}, name), html("dd", {}, v)]));

/** A link to a box or tensor. */
function jump(target) {
  const button = html("button", { class: "jump" }, isTensor(target) ? target.title : target.label);
  button.addEventListener("click", () => go(target));
  return isTensor(target) || !target.path ? [button] : [button, ` in ${target.path}`];
}

const cells = (tag, row) => html("tr", {}, ...row.map((cell, i) => html(i ? tag : "th", {}, cell)));

// How the rows of a section are painted.
const painters = {
  facts,
  table: ([head, ...rows]) =>
    html("table", {}, cells("th", head), ...rows.map((row) => cells("td", row))),
  tensors: (rows) =>
    list(
      rows.map(([port, at]) => [
        port ? html("span", { class: "port" }, `${port} `) : "",
        ...jump(tensors[at]),
        ` ${tensors[at].size}`,
      ]),
    ),
  boxes: (rows) => list(rows.map((at) => jump(boxes[at]))),
  source: ([file, code, origin]) =>
    html(
      "div",
      {},
      file ? html("div", { class: "file" }, file) : "",
      code ? html("pre", {}, html("code", {}, code)) : "",
      origin ? html("div", { class: "file" }, origin) : "",
    ),
};

const section = ([title, kind, rows]) => [...(title ? [heading(title)] : []), painters[kind](rows)];

function showPanel() {
  const { selected } = state;
  panel.hidden = !selected;
  if (!selected) {
    panel.replaceChildren();
    return;
  }
  const close = html(
    "button",
    { class: "close", "aria-label": "Close", title: "Close (Esc)" },
    "\u00d7",
  );
  close.addEventListener("click", () => select(null));
  const ways = [
    ["up", "ancestors", "Highlight what it comes from (a)"],
    ["down", "descendants", "Highlight what comes of it (d)"],
  ].map(([way, name, title]) => {
    const button = html("button", { title, "aria-pressed": state.way === way }, name);
    button.addEventListener("click", () => trace(way));
    return button;
  });
  const sections = [...selected.panel];
  if (isTensor(selected))
    sections.push(...(selected.made[0]?.panel ?? []).filter(([, kind]) => kind === "source"));
  panel.replaceChildren(
    close,
    html("h2", {}, selected.title),
    html("div", { class: "buttons" }, ...ways),
    ...sections.flatMap(section),
  );
  panel.scrollTop = 0;
}

// --- Legend and keys ---

function sample(name, says, fused = false) {
  const parts = [outline(name, 1, 2, 24, 12)];
  if (fused) parts.push(outline(name, 4, 5, 18, 6, { class: "inner" }));
  return html("span", {}, svg("svg", { width: 27, height: 16 }, ...parts), says);
}

function wireSample(kind, says) {
  const saved = kind === "saved";
  return html(
    "span",
    {},
    svg(
      "svg",
      { width: 30, height: 16 },
      svg(
        "g",
        { class: saved ? "saved" : `edge ${kind}` },
        svg("path", { class: "wire", d: "M1 8H22" }),
        svg("path", { class: "head", d: "M29 8l-8 -4v8z" }),
      ),
    ),
    says,
  );
}

function showLegend() {
  const legend = document.getElementById("legend");
  const overlay = raw.overlays[state.overlay];
  const parts = [];
  if (overlay) {
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
  ["s", "download SVG"],
  ["?", "this list"],
];

function showKeys() {
  const dialog = document.getElementById("keys");
  const close = html("button", { autofocus: "" }, "close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(html("h2", {}, "Keys"), facts(keys), ...notes(), close);
  dialog.showModal();
}

const notes = () => (raw.notes.length ? [html("h2", {}, "Notes"), list(raw.notes)] : []);
