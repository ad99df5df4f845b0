"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const root = document.documentElement;

  /* All text goes in as text, never as markup; what does not show, or turns a line around, is written out. */
  const plain = (text) => String(text).replace(/[^\P{C}\n]/gu, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  const el = (name, of = {}, ...inside) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(of)) key in made ? (made[key] = value) : made.setAttribute(key, value);
    made.append(...inside);
    return made;
  };
  const svg = (name, of, ...inside) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(of)) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  };
  const memory = (name, value) => {
    try {
      if (value === undefined) return localStorage.getItem(name);
      localStorage.setItem(name, value);
    } catch { /* a browser that keeps nothing */ }
    return null;
  };

  /* Theme */
  const themes = ["auto", "light", "dark"];
  const themed = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    $("theme").textContent = `Theme: ${theme}`;
  };
  let theme = themes.includes(memory("usbench-theme")) ? memory("usbench-theme") : "auto";
  themed(theme);
  $("theme").hidden = false;
  $("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % 3];
    memory("usbench-theme", theme);
    themed(theme);
  });

  /* Tables: sorting and filtering */
  const tables = [...document.querySelectorAll("table.board")].map((table) => ({
    body: table.tBodies[0], rows: [...table.tBodies[0].rows], heads: [...table.tHead.rows[0].cells], block: table.closest(".block"),
  }));
  const filters = [...document.querySelectorAll("[data-filter]")];
  const say = (sentence) => { $("count").textContent = sentence; };
  for (const { rows } of tables) {
    for (const row of rows) {
      row.codes = row.dataset.f.split(" ");
      row.words = `${row.textContent} ${data.rows[row.querySelector("[data-row]").dataset.row].key}`.toLowerCase();
    }
  }
  const filtered = () => {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const asked = filters.filter((f) => f.value !== "").map((f) => [Number(f.dataset.filter), f.value]);
    let shown = 0, all = 0;
    for (const { rows, block } of tables) {
      let here = 0;
      for (const row of rows) {
        const fits = asked.every(([place, value]) => row.codes[place] === value) && words.every((word) => row.words.includes(word));
        row.hidden = !fits;
        here += fits;
      }
      block.hidden = !here;
      shown += here;
      all += rows.length;
    }
    say(`${shown} of ${all} rows`);
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const sorted = (table, column, way) => {
    const head = table.heads[column];
    table.heads.forEach((other) => other.removeAttribute("aria-sort"));
    let order = table.rows;
    if (way) {
      head.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1;
      const numbers = table.rows.some((row) => row.cells[column].dataset.v !== undefined);
      const of = (row) => numbers ? (row.cells[column].dataset.v === undefined ? null : Number(row.cells[column].dataset.v)) : row.cells[column].textContent;
      const keyed = table.rows.map((row) => [of(row), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); /* rows without a number stand last */
        return sign * (numbers ? a - b : collator.compare(a, b));
      });
      order = keyed.map(([, row]) => row);
    }
    table.body.append(...order);
    table.sort = way ? [column, way] : null;
  };
  for (const table of tables) {
    table.heads.forEach((head, column) => {
      const title = head.dataset.title;
      const button = el("button", { type: "button" }, title);
      head.replaceChildren(button);
      const down = ["score", "delta"].some((name) => head.classList.contains(`c-${name}`));
      const ways = down ? ["descending", "ascending", ""] : ["ascending", "descending", ""];
      button.addEventListener("click", () => {
        const now = table.sort && table.sort[0] === column ? table.sort[1] : "";
        const way = ways[(ways.indexOf(now) + 1) % 3];
        sorted(table, column, way);
        say(way ? `sorted by ${title}, ${way}` : "in the order of the leaderboard");
      });
    });
  }
  const form = $("filters");
  if (form) { /* an empty store has no table */
    form.hidden = false;
    form.addEventListener("input", filtered);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filtered));
    filtered();
  }

  /* Figures: one method at a time */
  const figures = $("figures");
  const picked = (place) => {
    if (!figures) return;
    figures.classList.toggle("picked", place !== "");
    figures.querySelectorAll(".hot").forEach((line) => line.classList.remove("hot"));
    if (place !== "") figures.querySelectorAll(`[data-m="${place}"]`).forEach((line) => { line.classList.add("hot"); line.parentNode.append(line); });
    figures.querySelectorAll("[data-pick]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.pick === place)));
    if ($("pick")) $("pick").value = [...$("pick").options].some((o) => o.value === place) ? place : "";
  };
  if (figures) {
    figures.querySelectorAll("[data-pick]").forEach((button) =>
      button.addEventListener("click", () => picked(button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.pick)));
    if ($("pick")) $("pick").addEventListener("change", () => picked($("pick").value));
    const boxes = [...document.querySelectorAll(".heatbox")];
    const heat = () => boxes.forEach((box, place) => { box.hidden = String(place) !== $("heat").value; });
    if (boxes.length > 1) {
      $("heat").closest(".choose").hidden = false;
      $("heat").addEventListener("change", heat);
      heat();
    }
  }

  /* Dialogs */
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  const pairs = (list) => el("dl", {}, ...list.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, plain(text)))));
  const grid = (title, heads, rows) => el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: title },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", { scope: "row" }, plain(row[0])), ...row.slice(1).map((text) => el("td", {}, plain(text))))))));
  const details = (title, value) => {
    const box = el("pre", { tabIndex: 0 });
    const made = el("details", {}, el("summary", {}, title), box);
    made.addEventListener("toggle", () => { box.textContent = plain(JSON.stringify(value, null, 1)); });
    return made;
  };
  const origin = (place) => {
    const row = data.rows[place], run = row.run === null ? null : data.runs[row.run];
    $("origin-h").textContent = `${row.name} on ${row.where}, ${row.labels}`;
    const parts = [pairs([["key of the row", row.key], ["data digest", row.pack || "not recorded"], ["arena", row.arena], ["seeds", row.seeds.map((s) => s[0]).join(", ")]])];
    parts.push(el("h3", {}, "Command"));
    if (run && run.command) {
      const text = plain(run.command);
      const copy = el("button", { type: "button" }, "Copy");
      copy.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(text);
          copy.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(copy.parentNode.querySelector("pre"));
          copy.textContent = "Selected";
        }
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
      parts.push(el("div", { className: "command" }, el("pre", { tabIndex: 0 }, text), copy),
        el("p", { className: "small" }, "Makes this row again with the others of its run. Packs and weights go by the names that they had."));
    } else {
      parts.push(el("p", { className: "small" }, "No single run of this store asked for the row, so no command is known. The identities below are all that determined it."));
    }
    parts.push(el("h3", {}, "Scores"), grid("Scores", ["metric", "mean", "low", "high"], row.scores));
    parts.push(el("h3", {}, "Circumstances"), pairs(row.facts));
    parts.push(el("h3", {}, "Stages"), grid("Stages", ["seed", "scores of", "fine-tune", "pretraining", "finished"], row.seeds.map((s) => s.map((text) => text || "–"))));
    parts.push(el("h3", {}, "Versions"), pairs(Object.entries(data.versions[row.versions])));
    parts.push(el("h3", {}, "What determined it"));
    if (run) parts.push(details("Spec of the run", run.spec));
    for (const stage of row.stages) parts.push(details(`Identity of ${plain(stage)}`, data.stages[stage]));
    $("origin-body").replaceChildren(...parts);
    $("origin").showModal();
    $("origin").scrollTop = 0;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-row]");
    if (button) origin(Number(button.dataset.row));
  });

  /* Cases */
  const byKey = new Map(data.rows.map((row) => [row.key, row]));
  const score = (row, at) => row.scores[at] === null || row.scores[at] === undefined ? "–" : row.scores[at].toFixed(3);
  const called = (row) => { const of = byKey.get(row.key); return `${of.name}, ${of.labels}`; };
  const group = () => data.gallery[Number($("case-set").value)];
  const tile = (set, at, row, side) => {
    const shown = set.cases[at], extent = 2 * set.size;
    const said = `${shown.name}: ${called(row)}, score ${score(row, at)}`;
    const inside = [svg("title", {}, said)];
    if (shown.image) inside.push(svg("image", { href: `data:image/webp;base64,${shown.image}`, width: extent, height: extent }));
    if (shown.truth) inside.push(svg("path", { class: "t", d: shown.truth }));
    if (row.paths[at]) inside.push(svg("path", { class: side, d: row.paths[at] }));
    return el("span", { className: "tile" }, svg("svg", { viewBox: `0 0 ${extent} ${extent}`, role: "img" }, ...inside),
      el("span", { className: "cap" }, el("span", {}, `${side.toUpperCase()} ${called(row)}`), el("b", {}, score(row, at))));
  };
  const opened = (title, tiles) => {
    const shown = tiles();
    $("case-h").textContent = title;
    $("case-body").replaceChildren(el("div", { className: shown.length > 1 ? "two" : "two one" }, ...shown));
    $("case").showModal();
  };
  const card = (set, what, at, tiles) => {
    const shown = tiles();
    const button = el("button", { type: "button", className: "case", ariaHasPopup: "dialog" },
      el("span", { className: "what" }, el("b", {}, what), el("span", {}, set.cases[at].name)), el("span", { className: shown.length > 1 ? "two" : "two one" }, ...shown));
    button.addEventListener("click", () => opened(`${what}: ${set.cases[at].name}`, tiles));
    return button;
  };
  const cases = () => {
    const set = group(), [a, b] = ["case-a", "case-b"].map((id) => set.rows.find((row) => row.key === $(id).value));
    const cards = [];
    if ($("case-mode").value === "shared") {
      set.shared.forEach((at, place) => cards.push(card(set, data.cases[place], at, () => [tile(set, at, a, "a"), tile(set, at, b, "b")])));
      $("case-said").textContent = "Best, median and worst in the mean over all rows of this test set, and the image on which they differ most.";
    } else {
      for (const [row, side] of [[a, "a"], [b, "b"]]) row.own.forEach((at, place) => cards.push(card(set, `${side.toUpperCase()}, ${data.cases[place]}`, at, () => [tile(set, at, row, side)])));
      $("case-said").textContent = "Best, median and worst of each row by itself: other images for each.";
    }
    $("case-grid").className = $("case-mode").value;
    $("case-grid").replaceChildren(...cards);
  };
  const choices = () => {
    const set = group(), labels = [...new Set(set.rows.map((row) => byKey.get(row.key).labels))];
    for (const select of [$("case-a"), $("case-b")]) {
      select.replaceChildren(...labels.map((label) => el("optgroup", { label },
        ...set.rows.flatMap((row) => byKey.get(row.key).labels === label ? [el("option", { value: row.key }, called(row))] : []))));
    }
    const of = (row) => byKey.get(row.key);
    const a = set.rows.find((row) => !of(row).baseline) || set.rows[0];
    const b = set.rows.find((row) => row !== a && of(row).baseline && of(row).labels === of(a).labels) || set.rows.find((row) => row !== a) || a;
    $("case-a").value = a.key;
    $("case-b").value = b.key;
    cases();
  };
  if (data.gallery.length) {
    $("pairs").hidden = false;
    $("case-set").replaceChildren(...data.gallery.map((set, place) => el("option", { value: String(place) }, set.name)));
    $("case-set").addEventListener("change", choices);
    for (const id of ["case-a", "case-b", "case-mode"]) $(id).addEventListener("change", cases);
    choices();
    $("see-truth").addEventListener("change", () => $("case-body").classList.toggle("no-truth", !$("see-truth").checked));
    $("see-rows").addEventListener("change", () => $("case-body").classList.toggle("no-rows", !$("see-rows").checked));
  }

  /* Live: only a served page asks, and only the server it came from */
  if (data.live) {
    const kept = ["find", "case-set", "case-a", "case-b", "case-mode", "heat", "pick"];
    const place = "usbench-live";
    const keep = () => {
      const values = Object.fromEntries(kept.filter((id) => $(id)).map((id) => [id, $(id).value]));
      const asked = Object.fromEntries(filters.map((f) => [f.dataset.filter, f.selectedOptions[0].textContent]));
      const across = [...document.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
      const sorts = tables.map((table) => table.sort);
      try { sessionStorage.setItem(place, JSON.stringify({ values, asked, across, sorts, y: scrollY, hot: figures && figures.querySelector('[aria-pressed="true"]')?.dataset.pick })); } catch { /* then it starts anew */ }
    };
    const back = () => {
      const was = JSON.parse(sessionStorage.getItem(place) || "null");
      sessionStorage.removeItem(place);
      if (!was || !form) return;
      const put = (id) => { if ($(id) && [...($(id).options || [])].some((o) => o.value === was.values[id])) $(id).value = was.values[id]; };
      $("find").value = was.values.find;
      for (const f of filters) for (const o of f.options) if (o.textContent === was.asked[f.dataset.filter]) f.value = o.value;
      filtered();
      tables.forEach((table, at) => { if (was.sorts[at] && table.heads[was.sorts[at][0]]) sorted(table, ...was.sorts[at]); });
      if (data.gallery.length) { put("case-set"); choices(); ["case-a", "case-b", "case-mode"].forEach(put); cases(); }
      if ($("heat")) { put("heat"); $("heat").dispatchEvent(new Event("change")); }
      if (was.hot || was.values.pick) picked(was.hot || was.values.pick);
      document.querySelectorAll(".scroll").forEach((box, at) => { if (was.across[at]) box.scrollTo(...was.across[at]); });
      scrollTo({ top: was.y, behavior: "instant" });
    };
    try { back(); } catch { /* what was kept is of another page */ }
    const busy = () => document.querySelector("dialog[open]") || (document.activeElement && /^(INPUT|SELECT)$/.test(document.activeElement.tagName));
    const ask = async () => {
      try {
        const state = await (await fetch("state", { cache: "no-store" })).json();
        $("live").classList.remove("stale");
        const working = state.working.length ? `, in work: ${state.working.join(", ")}` : ", nothing in work";
        $("live-said").textContent = plain(`live: ${state.finished} stages finished${working}`);
        if (state.tag !== data.live && !busy()) { keep(); location.reload(); return; }
      } catch {
        $("live").classList.add("stale");
        $("live-said").textContent = "the server is gone: this is the last state that it gave";
      }
      setTimeout(ask, 3000);
    };
    ask();
  }
})();
