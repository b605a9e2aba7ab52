"use strict";
// What the page can do beyond being read: choose, sort, explain, save. All state is in the fragment of the
// address, such as #workload=mnist-cnn&sort=table-2:3:descending&at=throughput.
(() => {
  const one = (id) => document.getElementById(id);
  const all = (query, within = document) => [...within.querySelectorAll(query)];
  const form = one("choices");
  const selects = form ? all("select", form) : [];
  const tagged = all("[data-tags]").map((node) => [node, Object.entries(JSON.parse(node.dataset.tags))]);
  const rows = tagged.map(([node]) => node).filter((node) => node.tagName === "TR");
  // The bars and lines of charts have an attribute for each tag.
  const marks = all(".plot g").map((node) => [node, selects.map((select) => select.name)
    .filter((key) => node.hasAttribute(`data-${key}`)).map((key) => [key, node.getAttribute(`data-${key}`)])]);
  tagged.push(...marks.filter(([, tags]) => tags.length));
  const sorted = new Map(); // of a table's id: the column and the direction

  // ---- choosing

  function choose() {
    const chosen = new Map(selects.filter((select) => select.value).map((select) => [select.name, select.value]));
    for (const [node, tags] of tagged) {
      node.classList.toggle("out", tags.some(([key, value]) => chosen.has(key) && chosen.get(key) !== value));
    }
    for (const section of all("main > section")) {
      const parts = all("[data-tags]:not(svg *)", section);
      const none = section.querySelector(":scope > .none");
      if (none) none.hidden = !parts.length || parts.some((node) => !node.closest(".out"));
    }
    const shown = rows.filter((row) => !row.closest(".out")).length;
    const what = selects.filter((select) => select.value).map((select) => select.selectedOptions[0].text).join(", ");
    if (form) {
      one("shown").textContent = chosen.size
        ? `${what}: ${shown} of ${rows.length} table rows are shown.`
        : "";
    }
    measure();
  }

  // ---- sorting

  const SCALES = { "\u00b5s": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

  function amount(text) {
    const found = /^[^\d\u2212+-]*([\u2212+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)\s*([\u00b5a-zA-Z]*)/.exec(text);
    if (!found) return NaN;
    const unit = found[2] in SCALES ? found[2] : found[2].replace(/^(.+?)(FLOP|B)$/, "$1");
    return Number(found[1].replaceAll(",", "").replace("\u2212", "-")) * (SCALES[unit] ?? 1);
  }

  function compare(first, second) {
    const a = amount(first), b = amount(second);
    if (Number.isNaN(a) !== Number.isNaN(b)) return null; // what is missing stays below
    return Number.isNaN(a) ? first.localeCompare(second, "en", { numeric: true }) : a - b;
  }

  function arrange(table) {
    const [column, direction] = sorted.get(table.id) ?? [null, null];
    const body = table.tBodies[0];
    const lines = [...body.rows].sort((a, b) => a.dataset.place - b.dataset.place);
    all("th[aria-sort]", table.tHead).forEach((head) => head.removeAttribute("aria-sort"));
    if (direction) {
      const numbers = table.tHead.rows[0].cells[column].classList.contains("n");
      const sign = direction === "ascending" ? 1 : -1;
      lines.sort((a, b) => {
        const x = a.cells[column].textContent, y = b.cells[column].textContent;
        if (!numbers) return sign * x.localeCompare(y, "en", { numeric: true });
        return compare(x, y) === null ? Number.isNaN(amount(x)) - Number.isNaN(amount(y)) : sign * compare(x, y);
      });
      table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
    }
    body.append(...lines);
  }

  function turn(table, column, numbers) {
    const order = numbers ? ["descending", "ascending", null] : ["ascending", "descending", null];
    const [before, direction] = sorted.get(table.id) ?? [null, null];
    const next = before === column ? order[order.indexOf(direction) + 1] : order[0];
    if (next) sorted.set(table.id, [column, next]);
    else sorted.delete(table.id);
    arrange(table);
    remember();
  }

  for (const table of all("main table")) {
    if (table.tBodies[0].rows.length < 2) continue;
    [...table.tBodies[0].rows].forEach((row, place) => (row.dataset.place = place));
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      const term = head.querySelector(".term");
      if (term) {
        // A link inside a button cannot be reached: the button takes over the explanation.
        button.dataset.tip = term.dataset.tip;
        button.textContent = head.textContent;
      } else button.append(...head.childNodes);
      button.addEventListener("click", () => turn(table, column, head.classList.contains("n")));
      head.replaceChildren(button);
    });
  }

  // ---- saving a table

  const named = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  for (const table of all("main table")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "Save as CSV";
    button.setAttribute("aria-label", `Save as CSV: ${table.caption.textContent}`);
    button.addEventListener("click", () => {
      const lines = [...table.rows]
        .filter((row) => !row.classList.contains("out"))
        .map((row) => [...row.cells].map((cell) => quoted(cell.textContent)).join(","));
      const link = document.createElement("a");
      link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(`${lines.join("\n")}\n`)}`;
      link.download = `${named(table.caption.textContent)}.csv`;
      link.click();
    });
    table.parentElement.after(button);
  }

  // ---- the state in the address

  let at = "";

  function read() {
    const text = location.hash.slice(1);
    if (!text.includes("=")) {
      // A link within the page: it keeps what was chosen, and the address then tells both.
      try { at = decodeURIComponent(text); } catch { at = ""; }
      if (!text) { selects.forEach((select) => (select.value = "")); sorted.clear(); }
    } else {
      const state = new URLSearchParams(text);
      at = state.get("at") ?? "";
      for (const select of selects) {
        const value = state.get(select.name) ?? "";
        select.value = [...select.options].some((option) => option.value === value) ? value : "";
      }
      sorted.clear();
      for (const part of (state.get("sort") ?? "").split(",")) {
        const [id, column, direction] = part.split(":");
        const table = one(id);
        if (table?.tHead?.rows[0].cells[column]?.querySelector(".sort") && ["ascending", "descending"].includes(direction)) {
          sorted.set(id, [Number(column), direction]);
        }
      }
    }
    all("main table").filter((table) => table.querySelector(".sort")).forEach(arrange);
    choose();
    remember();
    show();
  }

  function remember() {
    const state = new URLSearchParams();
    selects.filter((select) => select.value).forEach((select) => state.set(select.name, select.value));
    const order = [...sorted].map(([id, [column, direction]]) => `${id}:${column}:${direction}`).join(",");
    if (order) state.set("sort", order);
    const chosen = state.toString() !== "";
    if (at && chosen) state.set("at", at);
    const text = chosen ? state.toString().replaceAll("%3A", ":").replaceAll("%2C", ",") : encodeURIComponent(at);
    if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function show() {
    const place = at && one(at);
    if (!place) return;
    for (let node = place; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    place.scrollIntoView();
  }

  addEventListener("hashchange", read);
  if (form) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => { choose(); remember(); });
    form.addEventListener("reset", () => setTimeout(() => { choose(); remember(); one("shown").textContent = "Everything is shown."; }));
  }

  // ---- tooltips

  const tip = one("tip");
  // The tooltips of charts work without this script too; here they get the look of the others.
  for (const title of all(".plot svg title")) {
    if (title.parentElement.tagName === "svg") continue;
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  }

  let since = 0;

  function explain(target, x, y) {
    since = performance.now();
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + box.height + 8 > innerHeight ? Math.max(4, y - box.height - 28) : y}px`;
  }

  const hide = () => (tip.hidden = true);
  addEventListener("pointermove", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (target) explain(target, event.clientX + 12, event.clientY + 16);
    else if (!document.activeElement?.matches("[data-tip]:focus-visible")) hide();
  });
  addEventListener("focusin", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (!target?.matches(":focus-visible")) return hide();
    const box = target.getBoundingClientRect();
    explain(target, box.left, box.bottom + 6);
    target.setAttribute("aria-describedby", "tip");
  });
  addEventListener("focusout", (event) => { event.target.removeAttribute?.("aria-describedby"); hide(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  // Focus can scroll the page itself, which must not hide what it shows.
  addEventListener("scroll", () => { if (performance.now() - since > 200) hide(); }, { passive: true });

  // ---- light and dark

  const theme = one("theme"), preferred = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (preferred.matches ? "dark" : "light")) === "dark";
  const label = () => (theme.textContent = dark() ? "Light colours" : "Dark colours");
  theme.hidden = false;
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; label(); });
  preferred.addEventListener("change", label);
  label();

  // ---- small screens, printing, and where the reader is

  function measure() {
    // Only what can be scrolled is a stop for the keyboard.
    for (const node of all(".scroll, .plot, pre")) {
      if (node.scrollWidth > node.clientWidth || node.scrollHeight > node.clientHeight + 1) node.tabIndex = 0;
      else node.removeAttribute("tabindex");
    }
  }
  if (matchMedia("(max-width: 40rem)").matches) all(".contents details, .choices details").forEach((node) => (node.open = false));
  addEventListener("resize", measure);
  addEventListener("toggle", measure, true);
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("main details:not([open]):not(.bulky)");
    opened.forEach((node) => (node.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((node) => (node.open = false)));
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -75% 0px" });
  all("main > section").forEach((section) => seen.observe(section));

  read();
})();
