// Bookmarks: named states of the page. Each is an address; the list is kept by the browser, or while
// the page is open where a browser keeps nothing for it (a frame, some files).

const store = {
  kept: new Map(),
  get(key) {
    try {
      return localStorage.getItem(`minitensor ${key}`) ?? this.kept.get(key) ?? null;
    } catch {
      return this.kept.get(key) ?? null;
    }
  },
  set(key, text) {
    this.kept.set(key, text);
    try {
      localStorage.setItem(`minitensor ${key}`, text);
    } catch {
      /* it is kept until the page is closed */
    }
  },
};

const shelf = `bookmarks of ${raw.name}`;

function bookmarks() {
  try {
    const found = JSON.parse(store.get(shelf) ?? "[]");
    return Array.isArray(found) ? found.filter((pair) => pair?.length === 2) : [];
  } catch {
    return [];
  }
}

function keepBookmarks(list) {
  store.set(shelf, JSON.stringify(list));
  showBookmarks();
}

function showBookmarks() {
  const dialog = $("bookmarks");
  const name = html("input", { "aria-label": "Name of the bookmark", placeholder: "name", id: "naming" });
  const form = html("form", { class: "naming" }, name, html("button", { type: "submit" }, "add"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const called = name.value.trim() || trailText();
    keepBookmarks([...bookmarks().filter(([other]) => other !== called), [called, address()]]);
    say(`bookmark ${called} added`);
    $("naming").focus();
  });
  const rows = bookmarks().map(([called, place]) => [
    button(called, { class: "jump" }, () => {
      dialog.close();
      quietly(() => restore(place));
      remember();
      say(`bookmark ${called}`);
    }),
    " ",
    button("\u00d7", { "aria-label": `Delete ${called}`, title: "Delete" }, () => {
      keepBookmarks(bookmarks().filter(([other]) => other !== called));
      $("naming").focus();
    }),
  ]);
  dialog.replaceChildren(
    html("h2", {}, "Bookmarks"),
    form,
    rows.length ? list(rows) : html("p", {}, "None yet: what is open, selected and in view is kept."),
    html(
      "div",
      { class: "buttons" },
      button("copy link", {}, copyLink),
      button("close", {}, () => dialog.close()),
    ),
  );
  if (!dialog.open) dialog.showModal();
}

const trailText = () => [...$("parts").children].map((part) => part.textContent).join(" > ");

/** Copy the address of all that is seen now. */
async function copyLink() {
  const link = location.href.split("#")[0] + address();
  try {
    await navigator.clipboard.writeText(link);
    say("link copied");
  } catch {
    const field = html("textarea", { "aria-label": "Link", readonly: "" });
    field.value = link;
    ($("bookmarks").open ? $("bookmarks") : document.body).append(field);
    field.select();
    const copied = document.execCommand("copy");
    if (copied) field.remove();
    say(copied ? "link copied" : "copy the selected link");
  }
}
