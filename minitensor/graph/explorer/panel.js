// The side panel: every number of a box or tensor, and the line of code that made it.

const panel = document.getElementById("panel");

const heading = (string) => html("h3", {}, string);

function table(rows) {
  const shown = rows.filter(([, v]) => v !== "" && v !== null && v !== undefined);
  return html(
    "dl",
    {},
    ...shown.flatMap(([name, v]) => [html("dt", {}, name), html("dd", {}, ...[v].flat())]),
  );
}

/** A link to a box or tensor. */
function jump(target, string) {
  const button = html(
    "button",
    { class: "jump" },
    string ?? (target.from ? valueText(target) : boxText(target)),
  );
  button.addEventListener("click", () => go(target));
  return button;
}

const valueText = (value) => `${nameOf(value) || value.kind} ${label(value)}`;
const boxText = (box) =>
  box.path && box.path !== box.label ? `${box.label} in ${box.path}` : box.label;
const list = (items) => html("ul", {}, ...items.map((item) => html("li", {}, ...[item].flat())));

function source(node) {
  if (!node?.source && !node?.origin) return [];
  const parts = [heading("Source")];
  if (node.source) parts.push(html("div", { class: "file" }, node.source));
  if (node.code) parts.push(html("pre", {}, html("code", {}, node.code)));
  if (node.origin) parts.push(html("div", { class: "file" }, `called in ${node.origin}`));
  return parts;
}

function tensors(title, ids, names = []) {
  const found = ids.map((id, i) => [values.get(id), names[i]]).filter(([value]) => value);
  if (!found.length) return [];
  return [
    heading(title),
    list(
      found.map(([value, name]) => [
        name ? html("span", { class: "port" }, `${name} `) : "",
        jump(value),
        ` ${number(value.nbytes, "B")}`,
      ]),
    ),
  ];
}

function boxPanel(box) {
  const many = box.count > 1 ? ` each, \u00d7${box.count}` : "";
  const node = box.node;
  const parts = [
    table([
      ["path", box.path],
      ["kind", box.kind],
      ["op", node && node.op !== box.label ? node.op : ""],
      ["settings", raw.settings[box.id]],
      [
        "stands for",
        box.count > 1
          ? [`${box.count} equal ones`, weightsText(box)].filter(Boolean).join(", ")
          : "",
      ],
      ["parameters", box.parameter_count ? box.parameter_count.toLocaleString("en") + many : ""],
      ["FLOPs", box.flops ? number(box.flops) + many : ""],
      ["backward FLOPs", box.backward_flops ? number(box.backward_flops) + many : ""],
      ["makes", box.activation_bytes ? number(box.activation_bytes, "B") + many : ""],
      ["saves", box.saved_bytes ? number(box.saved_bytes, "B") + many : ""],
      ["time", box.measured.time ? seconds(sum(box.measured.time)) : ""],
      ["gradient norm", box.measured.gradnorm ? number(largest(box.measured.gradnorm)) : ""],
      ["NaN", box.measured.nan ? percent(largest(box.measured.nan)) : ""],
      ["inside", box.parent && box.parent !== root ? jump(box.parent) : ""],
    ]),
  ];
  if (box.members.length > 1) parts.push(...membersOf(box));
  if (node) {
    const attributes = Object.entries(node.attributes);
    if (attributes.length)
      parts.push(heading("Arguments"), table(attributes.map(([k, v]) => [k, written(v)])));
    parts.push(
      ...tensors("Reads", node.inputs, node.input_names),
      ...tensors("Makes", node.outputs),
      ...tensors("Saves for backward", node.saved),
    );
  } else {
    if (box.value) parts.push(...tensors("Tensor", [box.value.id]));
    parts.push(
      ...tensors(
        "Weights",
        box.parameters.map((v) => v.id),
      ),
      ...crossing(box),
    );
  }
  for (const back of box.backward)
    parts.push(
      ...tensors(`${back.op} backward reads`, back.inputs, back.input_names),
      ...tensors(`${back.op} backward makes`, back.outputs),
    );
  return [...parts, ...source(node)];
}

/** What goes in and out of a module. */
function crossing(box) {
  const into = new Set();
  const out = new Set();
  for (const edge of box.edges.values()) {
    if (edge.from === IN && edge.forward.length) into.add(edge.tensor);
    if (edge.to === OUT && edge.forward.length) out.add(edge.tensor);
  }
  return [...tensors("Reads", [...into]), ...tensors("Gives", [...out])];
}

function membersOf(box) {
  const kinds = Object.keys(box.measured);
  const formats = { time: seconds, gradnorm: number, nan: percent };
  const rows = box.members.map((member, i) =>
    html(
      "tr",
      {},
      html("th", { scope: "row" }, member),
      ...kinds.map((kind) => html("td", {}, formats[kind](box.measured[kind][i] ?? ""))),
    ),
  );
  return [
    heading("Members"),
    html(
      "table",
      {},
      html(
        "tr",
        {},
        html("th", {}),
        ...kinds.map((kind) => html("th", { scope: "col" }, overlays[kind].title)),
      ),
      ...rows,
    ),
  ];
}

function valuePanel(value) {
  const stats = value.stats ?? {};
  const related = (id) => (values.has(id) ? jump(values.get(id)) : (id ?? ""));
  const who = (title, found) =>
    found.length ? [heading(title), list(found.map((box) => jump(box)))] : [];
  const gradient = [...values.values()].find((v) => v.of === value.id);
  const savers = value.saved_by.map((id) => nodes.get(id)?.box).filter(Boolean);
  return [
    table([
      ["shape", label(value)],
      ["actual", sizes(value)],
      ["dtype", value.dtype],
      ["bytes", value.nbytes.toLocaleString("en")],
      ["kind", value.kind],
      ["also called", value.names.slice(1).join(", ")],
      ["id", value.id],
      ["views", related(value.views)],
      ["gradient of", related(value.of)],
      ["gradient", gradient ? jump(gradient) : ""],
      ...Object.entries(stats).map(([name, v]) => [name, name === "nan" ? percent(v) : String(v)]),
      [
        "gradient norm",
        value.grad_norm === null || value.grad_norm === undefined ? "" : String(value.grad_norm),
      ],
    ]),
    ...who("Made by", [...value.from]),
    ...who("Read by", [...value.to]),
    ...who("Saved by", savers),
    ...source([...value.from][0]?.node),
  ];
}

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
  const title = selected.from ? valueText(selected) : selected.label + times(selected);
  panel.replaceChildren(
    close,
    html("h2", {}, title),
    html("div", { class: "buttons" }, ...ways),
    ...(selected.from ? valuePanel(selected) : boxPanel(selected)),
  );
  panel.scrollTop = 0;
}

// --- Legend and keys ---

function sample(name, says) {
  return html("span", {}, svg("svg", { width: 27, height: 16 }, outline(name, 1, 2, 24, 12)), says);
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
  const overlay = overlays[state.overlay];
  const parts = [];
  if (overlay) {
    const steps = [0, 0.25, 0.5, 0.75, 1].map((at) => `${rgb(heatColor(at))} ${100 * at}%`);
    const bar = html("span", { class: "ramp" });
    bar.style.background = `linear-gradient(to right, ${steps.join(", ")})`;
    parts.push(
      html("strong", {}, overlay.title),
      html("span", {}, overlay.text(scale.log ? scale.low : 0)),
      bar,
      html("span", {}, overlay.text(scale.high)),
      html("span", {}, scale.log ? "logarithmic; a bar for each member" : "a bar for each member"),
    );
  } else {
    const shown = new Set(
      visible()
        .filter((b) => !isOpen(b))
        .map((b) => b.look),
    );
    for (const [name, { says }] of Object.entries(raw.looks))
      if (says && shown.has(name)) parts.push(sample(name, says));
    parts.push(wireSample("forward", "tensor"), wireSample("forward skip", "residual"));
    if (state.backward)
      parts.push(wireSample("backward", "gradient"), wireSample("saved", "saved"));
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
  dialog.replaceChildren(html("h2", {}, "Keys"), table(keys), ...notes(), close);
  dialog.showModal();
}

const notes = () => (raw.notes.length ? [html("h2", {}, "Notes"), list(raw.notes)] : []);
