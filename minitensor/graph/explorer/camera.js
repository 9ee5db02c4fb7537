// The camera: which part of the picture the window shows, and at what size.

const camera = { x: 0, y: 0, k: 1 };
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 700px)"); // a phone: outline and panel lie over the picture
const $ = (id) => document.getElementById(id);

/** Show the camera's part of the picture; the page around is told unless that is its own doing. */
function applyCamera(quiet = hearing) {
  world.setAttribute(
    "transform",
    `translate(${camera.x.toFixed(2)} ${camera.y.toFixed(2)}) scale(${camera.k.toFixed(4)})`,
  );
  showSoon();
  if (!quiet) tellView();
}

let flight = 0;

function fly(target) {
  cancelAnimationFrame(flight);
  const [start, quiet] = [{ ...camera }, hearing];
  const began = performance.now();
  const step = (now) => {
    const t = calm.matches ? 1 : Math.min(1, Math.max(0, (now - began) / 220));
    const left = (1 - t) ** 3;
    for (const key of ["x", "y", "k"]) camera[key] = target[key] + (start[key] - target[key]) * left;
    applyCamera(quiet);
    if (t < 1) flight = requestAnimationFrame(step);
    else remember(true);
  };
  step(began);
}

/** The part of the picture that nothing covers. */
function stage() {
  const { width, height } = picture.getBoundingClientRect();
  const covered = narrow.matches && !panel.hidden ? panel.offsetHeight : $("legend").offsetHeight;
  return { w: Math.max(120, width), h: Math.max(120, height - covered) };
}

/** The point of the picture in the middle of the room that it has. */
const middleOf = ({ w, h }) => ({ x: (w / 2 - camera.x) / camera.k, y: (h / 2 - camera.y) / camera.k });

/** Bring a point of the picture to the middle. */
function lookAt(x, y, scale) {
  const { w, h } = stage();
  const k = clampZoom(scale);
  Object.assign(camera, { k, x: w / 2 - x * k, y: h / 2 - y * k });
}

const clampZoom = (k) => Math.min(4, Math.max(0.03, k));

/** All of it in view, or the beginning of it where all would be smaller than `least`. */
function fitted(least = 0.03) {
  const { w, h } = measure(root);
  const room = stage();
  const k = Math.min(1.25, Math.max(least, Math.min((room.w - 40) / w, (room.h - 40) / h)));
  const [x, y] = [(room.w - w * k) / 2, (room.h - h * k) / 2];
  return state.across ? { k, x: Math.max(20, x), y } : { k, x, y: Math.max(20, y) };
}

/** The closed boxes that begin in the first windows of the flow, and titles, as on the screen. */
function beginning(k, most) {
  const found = [];
  const visit = (box, x, y) => {
    for (const [child, at] of measure(box).places) {
      const [left, top] = [x + at.x * k, y + at.y * k];
      if ((state.across ? left : top) > most) continue;
      const { w, h } = measure(child);
      if (!isOpen(child)) found.push({ x: left, y: top, w: w * k, h: h * k, worth: 1 });
      else {
        found.push({ x: left, y: top, w: Math.min(w, 120) * k, h: HEADER * k, worth: 0.5 });
        visit(child, left, top);
      }
    }
  };
  visit(root, 0, 0);
  return found;
}

const ENOUGH = 3; // boxes in sight for a beginning
const CLOSE = 20; // from the border of the window to what is at the border of the picture

/**
 * A picture that is new: at a size that can be read, from its beginning. Where it is larger than the
 * window, it begins at the first box that has many others around it, or further on if none has.
 */
function opening() {
  const found = fitted(0.7);
  const [room, shape] = [stage(), measure(root)];
  const [at, side, along, length] = state.across ? ["y", "h", "x", "w"] : ["x", "w", "y", "h"];
  const over = shape[side] * found.k + 2 * CLOSE - room[side];
  if (over <= 0) return found;
  const all = beginning(found.k, 2 * room[length]).slice(0, 400);
  const inSight = (box, offset) =>
    ["x", "y"].every((axis, i) => {
      const place = box[axis] + offset[axis];
      return place >= 0 && place + box[i ? "h" : "w"] <= room[i ? "h" : "w"];
    });
  const starts = all.map((box) => Math.max(0, box[along] - 2 * HEADER)).sort((a, b) => a - b);
  const places = []; // how much is in sight there, and the place
  for (const start of new Set([0, ...starts])) {
    for (const box of all) {
      if (box[along] < start || box[along] > start + room[length]) continue;
      const both = [2 * CLOSE - box[at], room[side] / 2 - box[at] - box[side] / 2].map((place) => {
        const offset = { [along]: CLOSE - start };
        offset[at] = Math.min(CLOSE, Math.max(CLOSE - over, place));
        return [all.reduce((sum, other) => sum + inSight(other, offset) * other.worth, 0), offset];
      });
      places.push(both[Number(both[1][0] > both[0][0])]);
    }
    if (places.some(([count]) => count >= ENOUGH)) break;
  }
  const least = 0.8 * Math.max(0, ...places.map(([count]) => count));
  return { ...found, ...places.find(([count]) => count >= least)?.[1] };
}

function centre(box) {
  const { x, y, w, h } = placeOf(box);
  const room = stage();
  const k = Math.max(camera.k, Math.min(1, (room.w - 60) / w, (room.h - 60) / h));
  fly({
    k,
    x: room.w / 2 - (x + w / 2) * k,
    y: Math.max(room.h / 2 - (y + h / 2) * k, h * k > room.h ? 30 - y * k : -Infinity),
  });
}

/** Bring a box into view if it is not, or is too small there to be read. */
function ensureSeen(box) {
  const { x, y, w, h } = placeOf(box);
  const room = stage();
  const left = x * camera.k + camera.x;
  const top = y * camera.k + camera.y;
  if (camera.k < 0.3 || left < 0 || top < 0 || left + w * camera.k > room.w || top + h * camera.k > room.h)
    centre(box);
}

function zoom(factor, cx, cy) {
  cancelAnimationFrame(flight);
  const k = clampZoom(camera.k * factor);
  camera.x = cx - ((cx - camera.x) * k) / camera.k;
  camera.y = cy - ((cy - camera.y) * k) / camera.k;
  camera.k = k;
  applyCamera();
  remember(true);
}

const zoomMiddle = (factor) => {
  const { w, h } = stage();
  zoom(factor, w / 2, h / 2);
};
