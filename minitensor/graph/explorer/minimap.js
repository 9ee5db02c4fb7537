// The minimap: the whole picture small, with a frame around what is in view. Hidden where all of it
// is in view, and on small screens. Its element, `#minimap`, is a canvas in template.html.

const minimap = document.getElementById("minimap");
const SMALL = { w: 170, h: 150 };
let ground = null; // what was painted last: the layout of the whole, and how it was scaled

function drawMinimap() {
  const shape = measure(root);
  const { x, y, k } = camera;
  const fits = x >= 0 && y >= 0 && x + shape.w * k <= screenSize.w && y + shape.h * k <= screenSize.h;
  minimap.hidden = fits || narrow.matches || !shape.w || !shape.h;
  if (minimap.hidden) return;
  const scale = Math.min(SMALL.w / shape.w, SMALL.h / shape.h);
  const [w, h] = [Math.max(6, shape.w * scale), Math.max(6, shape.h * scale)];
  const dots = devicePixelRatio;
  if (ground?.shape !== shape) {
    ground = { shape, scale };
    Object.assign(minimap, { width: w * dots, height: h * dots });
    Object.assign(minimap.style, { width: `${w}px`, height: `${h}px` });
  }
  const paint = minimap.getContext("2d");
  const style = getComputedStyle(minimap);
  paint.setTransform(dots, 0, 0, dots, 0, 0);
  paint.clearRect(0, 0, w, h);
  paint.lineWidth = 1;
  const boxesOf = (box, left, top, depth) => {
    const inside = measure(box);
    for (const child of box.children) {
      const at = inside.places.get(child);
      const { w: wide, h: high } = measure(child);
      const [cx, cy] = [left + at.x, top + at.y];
      paint.globalAlpha = 0.25;
      paint.fillStyle = style.color;
      paint.fillRect(cx * scale, cy * scale, Math.max(1, wide * scale), Math.max(1, high * scale));
      if (depth && isOpen(child) && high * scale > 12) boxesOf(child, cx, cy, depth - 1);
    }
  };
  boxesOf(root, 0, 0, 2);
  paint.globalAlpha = 1;
  paint.strokeStyle = style.outlineColor;
  paint.lineWidth = 2;
  const [left, top] = [(-x / k) * scale, (-y / k) * scale];
  paint.strokeRect(left, top, (screenSize.w / k) * scale, (screenSize.h / k) * scale);
}

/** Move the middle of the view to a point of the minimap. */
function moveTo(event) {
  const { left, top } = minimap.getBoundingClientRect();
  const { w, h } = stage();
  camera.x = w / 2 - ((event.clientX - left) / ground.scale) * camera.k;
  camera.y = h / 2 - ((event.clientY - top) / ground.scale) * camera.k;
  applyCamera();
}

minimap.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  cancelAnimationFrame(flight);
  minimap.setPointerCapture(event.pointerId);
  moveTo(event);
});
minimap.addEventListener("pointermove", (event) => {
  if (minimap.hasPointerCapture(event.pointerId)) moveTo(event);
});
minimap.addEventListener("pointerup", () => remember(true));
