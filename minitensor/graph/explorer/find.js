// Search: boxes, tensors and members of folded boxes that match every word of a query.

const EXACT = 3;
const START = 2;
const PART = 1;

/** The tests of a query, each of a field; an error if a regular expression in it is none. */
function testsOf(query) {
  const words = query.match(/(?:\w+:)?\/(?:[^/\\]|\\.)+\/|\S+/g) ?? [];
  return words.map((word) => {
    const [prefix, ...rest] = word.split(":");
    const at = raw.fields.indexOf(prefix.toLowerCase());
    const [field, text] = at > 0 && rest.length ? [at, rest.join(":")] : [0, word];
    const [, source] = text.match(/^re:(.+)$/s) ?? text.match(/^\/(.+)\/$/s) ?? [];
    if (!source) return { field, fits: (names) => fits(names, text.toLowerCase()) };
    const pattern = new RegExp(source, "i");
    return { field, fits: (names) => (names.split("\n").some((n) => pattern.test(n)) ? PART : 0) };
  });
}

/** How well the best of several names, or what one ends with after a dot or slash, fits a text. */
function fits(names, text) {
  if (!text || !names.includes(text)) return 0;
  let best = PART;
  for (const name of names.split("\n")) {
    if (!name.includes(text)) continue;
    const last = name.slice(Math.max(name.lastIndexOf("."), name.lastIndexOf("/")) + 1);
    if (name === text || last === text) return EXACT;
    if (name.startsWith(text) || last.startsWith(text)) best = START;
  }
  return best;
}

/** The search keys of one instance: its own path in place of that of the drawn one. */
function keysOfOne(thing, at) {
  const paths = thing.home.own.path;
  if (!paths) return null;
  const [old, path] = [paths[0].toLowerCase(), paths[at].toLowerCase()];
  const renamed = keysOf(thing).map((names) =>
    names.split("\n").map((name) => (name === old ? path : name)).join("\n"),
  );
  if (!isTensor(thing))
    for (const field of [0, raw.fields.indexOf("path")]) renamed[field] += `\n${path}`;
  return renamed;
}

/**
 * What matches a query, the best first: exact names, then beginnings, then parts. A member of a
 * fold is a hit of its own (`at`) where it fits better than what stands for all of them.
 */
function find(query) {
  const tests = testsOf(query);
  if (!tests.length) return [];
  const rank = (keys) => Math.min(...tests.map(({ field, fits }) => fits(keys[field])));
  const found = [];
  const note = (target, box) => {
    if (!box) return;
    const whole = rank(keysOf(target));
    if (whole) found.push({ target, box, at: null, fits: whole });
    if (!target.home || whole === EXACT) return;
    target.ids.forEach((_, at) => {
      const keys = keysOfOne(target, at);
      const own = keys ? rank(keys) : 0;
      if (own > whole) found.push({ target, box, at, fits: own });
    });
  };
  for (const box of boxes.slice(1)) note(box, box);
  for (const tensor of tensors)
    if (!boxById.has(tensor.id)) note(tensor, tensor.made[0] ?? tensor.read[0]);
  const [own, at] = instanceOf(query.trim()); // by its id
  const hit = own && { target: own, box: homeOf(own), at: own.home ? at : null, fits: EXACT + 1 };
  if (hit?.box && !found.some(({ target, fits }) => target === own && fits === EXACT)) found.push(hit);
  return found.sort((a, b) => b.fits - a.fits);
}
