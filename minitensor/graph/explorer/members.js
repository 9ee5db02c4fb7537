// The members of folded boxes. All of a box xN are equal but for names and numbers, so that one of
// them can be shown in place of all: with its own path, ids, statistics and amounts.

const columns = ([before, after, ...parts]) => parts.map((part) => before + part + after);

const ALIKE = {}; // of what stands for itself alone

for (const thing of [...boxes, ...tensors]) {
  const [home, ids, facts] = isTensor(thing) ? thing.own || [] : [thing.at, ...(thing.own || [])];
  thing.home = ids ? boxes[home] : null; // the box that has as many instances
  thing.ids = ids ? columns(ids) : [thing.id];
  const own = Object.entries(facts ?? {}).map(([name, column]) => [name, columns(column)]);
  thing.own = own.length ? Object.fromEntries(own) : ALIKE;
}
for (const box of boxes) box.nodes = box.nodes ? columns(box.nodes) : [];

for (const fold of boxes.filter((box) => box.names))
  fold.all = { place: fold.place, lines: fold.lines, brief: fold.brief };

/** Let every folded box say which of its members is shown. */
function nameMembers() {
  for (const fold of boxes.filter((box) => box.names)) {
    const { place, lines, brief } = fold.all;
    const said = state.members.has(fold) ? fold.names[state.members.get(fold)] : place;
    const renamed = (rows) => (said ? [said, ...rows.slice(Number(rows[0] === place))] : rows);
    Object.assign(fold, { place: said, lines: renamed(lines), brief: renamed(brief) });
  }
}

const folds = (box) => chain(box).filter((b) => b.count > 1);

/** Which instance of a box or tensor is shown: its number, or null where it is all of them. */
function shown(thing) {
  if (!thing?.home) return null;
  const around = folds(thing.home);
  if (!around.every((fold) => state.members.has(fold))) return null;
  return around.reduce((at, fold) => at * fold.count + state.members.get(fold), 0);
}

/** A text of a box or tensor: that of the instance which is shown. */
const ownText = (thing, name) => thing.own[name]?.[shown(thing)] ?? thing[name];

/** The id of a box or tensor: that of the instance which is shown. */
const idOf = (thing) => thing.ids[shown(thing) ?? 0];

/** Show an instance of a box or tensor: in every fold around it, the member it belongs to. */
function showInstance(thing, at) {
  let rest = at;
  for (const fold of folds(thing.home).reverse()) {
    state.members.set(fold, rest % fold.count);
    rest = Math.floor(rest / fold.count);
  }
}

/** Show one member of a folded box, or all of them: null. Those around it show one as well. */
function showMember(fold, at) {
  if (!fold.names) return;
  rebuild(() => {
    if (at === null) {
      for (const inner of state.members.keys()) if (inside(inner, fold)) state.members.delete(inner);
    } else {
      for (const outer of folds(fold)) if (!state.members.has(outer)) state.members.set(outer, 0);
      state.members.set(fold, at);
    }
  });
  say(at === null ? `all ${fold.count} of ${fold.label}` : fold.names[at]);
}

const known = new Map(); // ids of instances and ops: a box or tensor, and which instance

/** The box or tensor that has an instance or op of some id, and which one; null if none has. */
function instanceOf(id) {
  if (!known.size)
    for (const thing of [...tensors, ...boxes])
      for (const names of [thing.ids, thing.nodes ?? []])
        names.forEach((name, at) => known.set(name, [thing, at]));
  return known.get(id) ?? [null];
}

/** The box or tensor of an id, showing the instance whose id it is; null if there is none. */
function targetOf(id) {
  const exact = boxById.get(id) ?? tensorById.get(id);
  if (exact && exact !== root) {
    for (const fold of exact.home ? folds(exact.home) : []) state.members.delete(fold);
    return exact;
  }
  const [thing, at] = instanceOf(id);
  if (thing?.home) showInstance(thing, at);
  return thing === root ? null : thing;
}
