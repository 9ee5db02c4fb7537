// The side panel: sections of a box or tensor, as Python made them, of the member that is shown.

const panel = document.getElementById("panel");
const panelParts = []; // of other scripts: elements for what is selected

const heading = (string) => html("h3", {}, string);

const list = (items) => html("ul", {}, ...items.map((item) => html("li", {}, ...[item].flat())));

/** A name and a text in each row. */
const facts = (rows) =>
  html("dl", {}, ...rows.flatMap(([name, v]) => [html("dt", {}, name), html("dd", {}, v)]));

function button(name, attributes, act) {
  const found = html("button", { type: "button", ...attributes }, name);
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

// --- Source lines ---

const EDITORS = {
  file: ["the browser", (path) => `file://${path.startsWith("/") ? "" : "/"}${encodeURI(path)}`],
  vscode: ["VS Code", (path, line) => `vscode://file/${encodeURI(path.replace(/^\//, ""))}:${line}`],
  idea: ["JetBrains", (path, line) => `idea://open?file=${encodeURIComponent(path)}&line=${line}`],
};

/** The lines around one, with a link that opens it in the editor of the reader's choice. */
function sourceLines(place, code) {
  const found = raw.sources[place];
  const whole = (...parts) => html("pre", {}, html("code", {}, ...parts));
  if (!found) return [place && html("div", { class: "file" }, place), code && whole(code)];
  const [path, line, first, lines] = found;
  const editor = EDITORS[store.get("editor")] ? store.get("editor") : "file";
  const link = html("a", { href: EDITORS[editor][1](path, line), target: "_blank", rel: "noopener" }, place);
  const choice = html("select", { "aria-label": "Opens in" });
  for (const [key, [name]] of Object.entries(EDITORS))
    choice.append(html("option", { value: key, selected: key === editor ? "" : null }, name));
  choice.addEventListener("change", () => {
    store.set("editor", choice.value);
    link.href = EDITORS[choice.value][1](path, line);
  });
  const indent = Math.min(...lines.filter((l) => l.trim()).map((l) => l.match(/^\s*/)[0].length));
  const shown = lines.map((text, i) =>
    html(first + i === line ? "mark" : "span", {}, `${first + i}  ${text.slice(indent)}\n`),
  );
  return [html("div", { class: "file" }, link, " in ", choice), whole(...shown)];
}

// How the rows of a section are painted.
const painters = {
  facts,
  table: ([head, ...rows], target) =>
    html(
      "table",
      {},
      cells("th", head),
      ...rows.map(([name, ...rest], at) => {
        if (!target.names) return cells("td", [name, ...rest]);
        const pressed = String(state.members.get(target) === at);
        const choose = button(name, { class: "jump", "aria-pressed": pressed }, () =>
          showMember(target, at),
        );
        return cells("td", [choose, ...rest]);
      }),
    ),
  tensors: (rows) =>
    list(
      rows.map(([port, at]) => [
        port ? `${port} ` : "",
        ...jump(tensors[at]),
        ` ${tensors[at].size}`,
      ]),
    ),
  boxes: (rows) => list(rows.map((at) => jump(boxes[at]))),
  source: ([place, code, origin]) =>
    html("div", {}, ...sourceLines(place, code), origin && html("div", { class: "file" }, origin)),
};

const section = ([title, kind, rows], target) => [
  ...(title ? [heading(title)] : []),
  painters[kind](rows, target),
];

/** The facts of a box or tensor, with those of the instance that is shown in their places. */
function ownFacts(thing, rows) {
  const at = shown(thing);
  if (at === null) return rows;
  return rows
    .map(([name, text]) => [name, thing.own[name]?.[at] ?? text])
    .filter(([, text]) => text);
}

/** For each fold around a box, a choice of what is shown: all its members or one. */
function memberChoices(thing) {
  const around = folds(thing.home ?? homeOf(thing) ?? root).filter((fold) => fold.names);
  return around.map((fold) => {
    const all = `all ${fold.count}`;
    const choice = html("select", { "data-fold": fold.id });
    [all, ...fold.names].forEach((name, at) => choice.append(html("option", { value: at - 1 }, name)));
    choice.value = state.members.get(fold) ?? -1;
    choice.addEventListener("change", () =>
      showMember(fold, choice.value === "-1" ? null : Number(choice.value)),
    );
    return html("label", { class: "member" }, `${fold.label}: `, choice);
  });
}

/** True if panels and search keys can be read; if not yet, `act` is called when they can. */
function canRead(act) {
  if (document.readyState !== "loading") return true;
  document.addEventListener("DOMContentLoaded", act, { once: true });
  return false;
}

/** Paint the panel anew; who used a button of it is on the same one after. */
function showPanel() {
  if (state.selected && !canRead(showPanel)) return;
  const { selected } = state;
  const places = () => [...panel.querySelectorAll("button, select, a")];
  const focus = places().indexOf(document.activeElement);
  const key = focus < 0 ? "" : document.activeElement.textContent;
  const same = panel.target === selected;
  panel.hidden = !selected;
  panel.target = selected;
  if (!selected) {
    panel.replaceChildren();
    if (focus >= 0) focusPicture();
    return;
  }
  const closing = { class: "close", "aria-label": "Close", title: "Close (Esc)" };
  const close = button("\u00d7", closing, () => select(null));
  const ways = [
    ["up", "ancestors", "Highlight what it comes from (a)"],
    ["down", "descendants", "Highlight what comes of it (d)"],
  ].map(([way, name, title]) => {
    return button(name, { title, "aria-pressed": String(state.way === way) }, () => trace(way));
  });
  const sections = panelOf(selected).map(([title, kind, rows], i) =>
    i || kind !== "facts" ? [title, kind, rows] : [title, kind, ownFacts(selected, rows)],
  );
  if (isTensor(selected))
    for (const maker of selected.made.slice(0, 1))
      sections.push(...panelOf(maker).filter(([, kind]) => kind === "source"));
  const first = selected.home && shown(selected) === null && isTensor(selected);
  const note = first ? [html("p", { class: "file" }, `numbers of ${selected.ids[0]}`)] : [];
  panel.replaceChildren(
    close,
    html("h2", { tabindex: -1 }, selected.title),
    ...memberChoices(selected),
    ...note,
    ...panelParts.flatMap((part) => part(selected)),
    html("div", { class: "buttons" }, ...ways),
    ...sections.flatMap((found) => section(found, selected)),
  );
  if (!same) panel.scrollTop = 0;
  if (focus < 0) return;
  const now = places();
  const [at] = [now[focus]?.textContent === key ? now[focus] : now.find((e) => e.textContent === key)];
  (same ? (at ?? now[focus]) : panel.querySelector("h2"))?.focus({ preventScroll: true });
}
