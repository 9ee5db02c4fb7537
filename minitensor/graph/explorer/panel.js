// The side panel: sections of a box or tensor, as Python made them.

const panel = document.getElementById("panel");

const heading = (string) => html("h3", {}, string);

const list = (items) => html("ul", {}, ...items.map((item) => html("li", {}, ...[item].flat())));

/** A name and a text in each row. */
const facts = (rows) =>
  html("dl", {}, ...rows.flatMap(([name, v]) => [html("dt", {}, name), html("dd", {}, v)]));

function button(name, attributes, act) {
  const found = html("button", attributes, name);
  found.addEventListener("click", act);
  return found;
}

/** A link to a box or tensor. */
function jump(target) {
  const name = isTensor(target) ? target.title : target.label;
  const place = isTensor(target) || !target.path ? "" : ` in ${target.path}`;
  return [button(name, { class: "jump" }, () => go(target)), place];
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
        port ? `${port} ` : "",
        ...jump(tensors[at]),
        ` ${tensors[at].size}`,
      ]),
    ),
  boxes: (rows) => list(rows.map((at) => jump(boxes[at]))),
  source: ([file, code, origin]) => {
    const [before, after] = [file, origin].map((line) => line && html("div", { class: "file" }, line));
    return html("div", {}, before, code && html("pre", {}, html("code", {}, code)), after);
  },
};

const section = ([title, kind, rows]) => [...(title ? [heading(title)] : []), painters[kind](rows)];

function showPanel() {
  const { selected } = state;
  panel.hidden = !selected;
  if (!selected) {
    panel.replaceChildren();
    return;
  }
  const closing = { class: "close", "aria-label": "Close", title: "Close (Esc)" };
  const close = button("\u00d7", closing, () => select(null));
  const ways = [
    ["up", "ancestors", "Highlight what it comes from (a)"],
    ["down", "descendants", "Highlight what comes of it (d)"],
  ].map(([way, name, title]) => {
    return button(name, { title, "aria-pressed": state.way === way }, () => trace(way));
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
