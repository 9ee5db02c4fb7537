// The page in a frame of another page: a notebook, or two graphs side by side. The two speak by
// `postMessage`; both send and both understand
//
//   {minitensor: "select", id}          a box or tensor is selected; null: none is
//   {minitensor: "open", ids}           the boxes that are open, all of them
//   {minitensor: "view", x, y, scale}   the point of the picture in the middle, and the zoom
//
// An id is that of a box, a tensor, an op of the recording or a member of a folded box: what hides
// it is opened, and it is brought into view. Ids that the graph does not have are passed over.
// Only what a person did is sent, never what a message or the start of the page brought about.

const embedded = window.parent !== window;
let hearing = true; // while what happens here is no person's doing
const told = { id: null, open: "" };

const send = (minitensor, content) => window.parent.postMessage({ minitensor, ...content }, "*");

/** Tell the page around what is selected and open, if that has changed. */
function tell() {
  if (!embedded) return;
  const id = state.selected ? idOf(state.selected) : null;
  const ids = [...state.open].map((box) => box.id);
  const open = ids.join("\n");
  if (!hearing && open !== told.open) send("open", { ids });
  if (!hearing && id !== told.id) send("select", { id });
  Object.assign(told, { id, open });
}

let soon = 0;

/** Tell the page around what part of the picture is seen, once for each frame that is painted. */
function tellView() {
  if (!embedded || soon) return;
  soon = requestAnimationFrame(() => {
    soon = 0;
    send("view", { ...middleOf(stage()), scale: camera.k });
  });
}

/** Do something that is not a person's doing. */
function quietly(act) {
  const before = hearing;
  hearing = true;
  try {
    act();
  } finally {
    hearing = before;
  }
}

const hear = {
  select({ id }) {
    const before = new Map(state.members);
    const target = id === null ? null : targetOf(id);
    if (String([...before.values()]) !== String([...state.members.values()])) rebuild(() => {});
    if (target) meet(target);
    else if (id === null) select(null);
  },
  open({ ids }) {
    if (!Array.isArray(ids)) return;
    const opened = ids.map((id) => boxById.get(id)).filter((box) => box?.children.length);
    rebuild(() => {
      state.open = new Set(opened);
    });
  },
  view({ x, y, scale }) {
    if (![x, y, scale].every(Number.isFinite) || scale <= 0) return;
    cancelAnimationFrame(flight);
    lookAt(x, y, scale);
    applyCamera();
    remember(true);
  },
};

window.addEventListener("message", ({ source, data }) => {
  const kind = data?.minitensor;
  if (source === window.parent && Object.hasOwn(hear, kind ?? "")) quietly(() => hear[kind](data));
});
