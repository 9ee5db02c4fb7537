// Mouse and touch: dragging, zooming, clicking.

const pointers = new Map();
const LONG = 500; // ms that a long press lasts
let moved = 0;
let pressing = 0;

picture.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  cancelAnimationFrame(flight);
  if (!pointers.size) moved = 0;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  clearTimeout(pressing);
  const box = boxAt(event.target);
  if (event.pointerType === "touch" && pointers.size === 1 && box?.children.length && box !== root)
    pressing = setTimeout(() => {
      if (moved > 8 || pointers.size !== 1) return;
      moved = Infinity; // no tap follows
      select(box, { quiet: true });
      toggle(box);
    }, LONG);
});
picture.addEventListener("contextmenu", (event) => {
  if (pointers.size || moved === Infinity) event.preventDefault();
});

window.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const now = { x: event.clientX, y: event.clientY };
  moved += Math.hypot(now.x - last.x, now.y - last.y);
  if (moved > 4) picture.classList.add("dragging");
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  pointers.set(event.pointerId, now);
  if (other) {
    const { left, top } = picture.getBoundingClientRect();
    const apart = (p) => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
    zoom(apart(now) / apart(last), (now.x + other.x) / 2 - left, (now.y + other.y) / 2 - top);
  } else if (moved > 4) {
    camera.x += now.x - last.x;
    camera.y += now.y - last.y;
    applyCamera();
  }
});

for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    clearTimeout(pressing);
    picture.classList.remove("dragging");
    if (moved > 4) remember(true);
  });
}

picture.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const { left, top } = picture.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 16 : 1;
    const step = Math.max(-60, Math.min(60, event.deltaY * lines * (event.ctrlKey ? 4 : 1)));
    zoom(Math.exp(-step / 240), event.clientX - left, event.clientY - top);
  },
  { passive: false },
);

picture.addEventListener("click", (event) => {
  if (moved > 4) return;
  const tensor = event.target.closest("[data-tensor]");
  const box = boxAt(event.target);
  if (tensor && tensorById.has(tensor.dataset.tensor)) {
    select(tensorById.get(tensor.dataset.tensor));
    return;
  }
  if (!box || box === root) {
    if (event.target === picture) select(null);
    return;
  }
  select(box, { quiet: true });
  // Of a double click, the first click on a header has done it already.
  if (event.target.closest(".header") && event.detail < 2) toggle(box);
  else remember();
  focusBox(box);
});

picture.addEventListener("dblclick", (event) => {
  const box = boxAt(event.target);
  if (!box || box === root || event.target.closest(".header, [data-tensor]")) return;
  toggle(box);
});
