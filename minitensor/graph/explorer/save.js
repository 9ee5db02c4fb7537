// Files of the picture: SVG and PNG that stand alone, with the title and the legend, in the colours
// that are on.

const STYLES = `fill fill-opacity stroke stroke-width stroke-dasharray opacity
  font-family font-size font-weight text-anchor`.split(/\s+/);

/** Do something while all of the picture is drawn, at its own size. */
function whole(act) {
  const { culled } = shownNow;
  const { ...before } = camera;
  shownNow.culled = false;
  camera.k = 1;
  show(true);
  const found = act();
  Object.assign(camera, before);
  shownNow.culled = culled;
  show(true);
  return found;
}

/** A copy of an element of the page with every style written out. */
function styled(element) {
  const copy = element.cloneNode(true);
  const originals = [element, ...element.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((each, i) => {
    for (const name of ["tabindex", "role", "aria-level", "aria-expanded", "aria-selected"])
      each.removeAttribute(name);
    if (["g", "title"].includes(each.tagName) && !originals[i].matches(".edge")) return;
    const style = getComputedStyle(originals[i]);
    each.removeAttribute("style");
    for (const name of STYLES) each.setAttribute(name, style.getPropertyValue(name));
  });
  for (const large of copy.querySelectorAll(".text-large")) large.remove();
  return copy;
}

/** The legend as it stands in the page, row under row, no wider than `width`. */
function legendRows(width, style) {
  const rows = svg("g", {});
  let [x, y] = [0, 0];
  for (const entry of document.getElementById("legend").children) {
    const sample = entry.querySelector("svg");
    const steps = [...entry.querySelectorAll("i")];
    const said = steps.length ? "" : entry.textContent;
    const drawn = sample ? Number(sample.getAttribute("width")) + 6 : steps.length * 16;
    const w = drawn + textWidth(said, "line") + 18;
    if (x && x + w > width) [x, y] = [0, y + 22];
    const group = svg("g", { transform: `translate(${x} ${y})` });
    if (sample) group.append(...[...sample.children].map(styled));
    steps.forEach((step, i) => {
      const fill = getComputedStyle(step).backgroundColor;
      group.append(rect("step", 16 * i, 2, 16, 12, { fill }));
    });
    group.append(svg("text", { x: drawn, y: 12, ...style }, said));
    rows.append(group);
    x += w;
  }
  return { rows, h: y + 22 };
}

/** The picture with its title and legend, as the text of an SVG file. */
const asSvg = () => new XMLSerializer().serializeToString(sheet());

function sheet() {
  const copy = whole(() => styled(world));
  copy.removeAttribute("transform");
  const page = getComputedStyle(document.body);
  const ink = { fill: page.color, "font-family": page.fontFamily };
  const facts = document.getElementById("whole")?.textContent ?? "";
  const { w, h } = measure(root);
  const least = Math.max(textWidth(raw.name || "graph", "title") * 1.4, textWidth(facts, "line"), 320);
  const width = Math.max(w, least) + 4 * PAD;
  const legend = legendRows(width - 4 * PAD, { ...ink, "font-size": "12px" });
  const top = facts ? 58 : 40;
  const height = top + h + legend.h + 4 * PAD;
  const place = (x, y, ...parts) => svg("g", { transform: `translate(${x} ${y})` }, ...parts);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height },
    rect("page", 0, 0, width, height, { fill: page.backgroundColor }),
    svg("text", { x: 2 * PAD, y: 30, ...ink, "font-size": "18px", "font-weight": 650 }, raw.name || "graph"),
    svg("text", { x: 2 * PAD, y: 50, ...ink, "font-size": "12px" }, facts),
    place((width - w) / 2, top, copy),
    place(2 * PAD, top + h + 2 * PAD, legend.rows),
  );
}

const LARGEST = 16000; // pixels in one direction that a browser paints

/** The same as the bytes of a PNG file, two pixels for one where that is not too large. */
async function asPng() {
  const picture = sheet();
  const [w, h] = ["width", "height"].map((name) => Number(picture.getAttribute(name)));
  const scale = Math.min(2, LARGEST / Math.max(w, h), Math.sqrt(1.2e8 / (w * h)));
  const image = new Image();
  const text = new XMLSerializer().serializeToString(picture);
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: Math.round(w * scale), height: Math.round(h * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
