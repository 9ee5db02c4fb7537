// Which part of the picture is drawn, and how large its words are. Of a large graph only what lies
// in view is in the document, a screen's width around included; and far away a box is its title
// alone, as large as it fits, in place of text that nobody could read.

const CROWD = 600; // boxes, above which only those in view are drawn
const EVERYTHING = [-Infinity, -Infinity, Infinity, Infinity];
const LEGIBLE = 6; // pixels: smaller text is left out
const NEAR = 0.6; // the zoom from which on all texts are drawn at their own size

const shownNow = { area: null, scale: 0, culled: false, wait: 0, kept: new Set() };
const screenSize = { w: 0, h: 0 }; // of the window
new ResizeObserver(() => {
  ({ width: screenSize.w, height: screenSize.h } = picture.getBoundingClientRect());
  showSoon();
}).observe(picture);

const meets = (a, b) => a[0] <= b[2] && b[0] <= a[2] && a[1] <= b[3] && b[1] <= a[3];
const holds = (a, b) => a[0] <= b[0] && a[1] <= b[1] && a[2] >= b[2] && a[3] >= b[3];

/** Everything as the state is. */
function render() {
  const focus = document.activeElement?.closest?.("[data-box]")?.dataset.box;
  shownNow.culled = visible().length > CROWD;
  const { group } = draw(root);
  if (world.firstChild !== group) world.replaceChildren(group);
  show(true);
  mark();
  if (focus && !picture.contains(document.activeElement)) focusBox(visibleAround(boxById.get(focus)));
}

/** Give a box the focus, and draw it for that if it is out of view. */
function focusBox(box) {
  if (shownNow.culled && !elements.get(box)?.group.isConnected) {
    shownNow.kept = new Set(chain(box));
    show(true);
  }
  elements.get(box)?.group.focus({ preventScroll: true });
}

/** After the camera moved: at the next frame, and only if something has come into view. */
function showSoon() {
  cancelAnimationFrame(shownNow.wait);
  shownNow.wait = requestAnimationFrame(() => show());
}

function show(anew = false) {
  if (!elements.has(root)) return;
  if (!screenSize.w) ({ width: screenSize.w, height: screenSize.h } = picture.getBoundingClientRect());
  const { x, y, k } = camera;
  const scale = 2 ** (Math.round(2 * Math.log2(k)) / 2); // words change in steps
  const view = [-x / k, -y / k, (screenSize.w - x) / k, (screenSize.h - y) / k];
  const same = scale === shownNow.scale && (!shownNow.culled || holds(shownNow.area, view));
  drawMinimap();
  if (same && !anew) return;
  const [w, h] = [(view[2] - view[0]) / 2, (view[3] - view[1]) / 2];
  shownNow.area = [view[0] - w, view[1] - h, view[2] + w, view[3] + h];
  shownNow.scale = scale;
  picture.classList.toggle("far", scale < NEAR);
  fillIn(elements.get(root), shownNow.culled ? shownNow.area : EVERYTHING);
}

/** Put into an open box what lies in an area (in the box's own measures); take out the rest. */
function fillIn(drawn, area) {
  const { box, shape, group } = drawn;
  let last = drawn.seam;
  const put = (element, seen) => {
    if (!seen) {
      if (element?.isConnected && !element.contains(document.activeElement)) element.remove();
      return;
    }
    if (last.nextSibling !== element) last.after(element);
    last = element;
  };
  for (const entry of drawn.wires) {
    const seen = meets(entry.extent, area);
    if (seen && !entry.group) {
      entry.group = drawWire(entry.wire, entry.side);
      markWire(entry);
    }
    put(entry.group, seen);
  }
  for (const child of box.children) {
    const { x, y } = shape.places.get(child);
    const { w, h } = measure(child);
    const back = turned({ x: loopRoom(child), y: 0 });
    const covers = [x - back.x, y - back.y, x + w + 8, y + h + 8];
    const seen = meets(covers, area) || shownNow.kept.has(child);
    if (!seen) {
      put(elements.get(child)?.group, false);
      continue;
    }
    const inner = draw(child);
    const move = `translate(${x.toFixed(1)} ${y.toFixed(1)})`;
    if (inner.group.getAttribute("transform") !== move) inner.group.setAttribute("transform", move);
    put(inner.group, true);
    rescale(inner);
    if (!isOpen(child) || (inner.block && shownNow.culled)) continue;
    fillIn(inner, [area[0] - x, area[1] - y, area[2] - x, area[3] - y]);
  }
  const now = new Set(box.children);
  for (let e = last.nextSibling; e; ) {
    const next = e.nextSibling;
    if (e.dataset?.box !== undefined && !now.has(boxById.get(e.dataset.box))) e.remove();
    e = next;
  }
}

// --- Words at every zoom ---

/** How large a title may be in an open box, or in half of another, in its own measures. */
const largestIn = (title, { w, h }) =>
  Math.min((13 * (w - 12)) / textWidth(title, "title"), 0.7 * h);
const largest = (box) => largestIn(box.title, measure(box).left ?? measure(box));

/** The titles in the middle, which stand for all texts when one is far away. */
function addLarge(drawn) {
  const { box, shape } = drawn;
  const { right } = shape.half ?? shape;
  drawn.most = largest(box);
  drawn.large = text(0, 0, box.title, "large");
  if (right) drawn.back = text(0, 0, right.title, "large");
  if (!isOpen(box)) return;
  const sizes = box.children.map(largest).sort((a, b) => a - b);
  drawn.within = sizes[sizes.length >> 1]; // most titles in it are at least as large
}

function rescale(drawn) {
  const { scale } = shownNow;
  if (drawn.scale === scale) return;
  drawn.scale = scale;
  const { box, group, large, shape, most, back } = drawn;
  const far = scale < NEAR;
  drawn.block = far && drawn.within !== undefined && drawn.within * scale < LEGIBLE;
  // An open box in which something can be read has its title in the header still.
  const header = drawn.within !== undefined && !drawn.block;
  const size = Math.min(most, 12 / scale, header ? HEADER - 5 : Infinity);
  group.classList.toggle("alone", far);
  group.classList.toggle("block", drawn.block);
  const own = shape.left ?? shape;
  const line = header ? { ...own, h: HEADER } : own;
  const enlarge = (title, size, { x = 0, y = 0, w, h }) => {
    if (!far || size * scale < LEGIBLE) {
      title.remove();
      return;
    }
    if (title.parentNode !== group) group.append(title);
    title.style.fontSize = `${size.toFixed(1)}px`;
    title.setAttribute("text-anchor", header ? "start" : "middle");
    title.setAttribute("x", header ? x + PAD : x + w / 2);
    title.setAttribute("y", (y + h / 2 + 0.35 * size).toFixed(1));
  };
  enlarge(large, size, line);
  if (!back) return;
  // The short title where the other does not fit: it is read as far away as the forward's.
  const { right } = shape.half ?? shape;
  const fits = largestIn(right.title, right) * scale >= LEGIBLE;
  back.textContent = fits ? right.title : right.afar;
  enlarge(back, Math.min(largestIn(back.textContent, right), size), right);
}
