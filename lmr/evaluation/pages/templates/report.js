// The lists of the queries. Text from the run is only ever set as text, never as markup.
"use strict";
(() => {
  const config = JSON.parse(document.getElementById("config").textContent);
  const PAGE = 20, STRIP = 8;
  const $ = (id) => document.getElementById(id);
  const number = (n) => n.toLocaleString("en-US");
  const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

  // Files: scripts of one call, `lmrData(kind, number, value)`, each loaded once.
  const files = new Map(), kept = new Map();
  window.lmrData = (kind, n, value) => kept.set(`${kind} ${n}`, value);
  function load(kind, n) {
    const key = `${kind} ${n}`;
    if (!files.has(key)) {
      files.set(key, new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = `${config.folder}/${kind}-${String(n).padStart(5, "0")}.js`;
        script.onload = () => { script.remove(); done(kept.get(key)); };
        script.onerror = () => { files.delete(key); failed(new Error(`${script.src} is missing: copy the whole folder of the report`)); };
        document.head.append(script);
      }));
      // The browser's memory stays bounded, however long someone looks.
      const loaded = [...files.keys()].filter((one) => !one.startsWith("index"));
      if (loaded.length > 60) { files.delete(loaded[0]); kept.delete(loaded[0]); }
    }
    return files.get(key);
  }

  // The index: columns over all queries.
  const all = { id: [], path: [], found: [], confident: [], scores: [], right: [], pictured: [], file: [] };
  const unreadable = new Map();
  let names = [];
  function addIndex(part) {
    const start = all.id.length;
    for (const name of Object.keys(all)) for (const value of part[name]) all[name].push(value);
    for (const [i, why] of Object.entries(part.unreadable)) unreadable.set(start + Number(i), why);
    for (let i = start; i < all.id.length; i++) names.push(`${all.path[i]}\n${all.id[i]}`.toLowerCase());
  }

  // Small helpers for elements.
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick") made.onclick = value;
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }
  const image = (uri, alt) => uri && uri.startsWith("data:image/")
    ? el("img", { src: uri, alt, loading: "lazy", decoding: "async" })
    : el("span", { class: "blank", role: "img", "aria-label": `${alt}, no picture` });

  const last = (i) => { const s = all.scores[i]; return s.length ? s[s.length - 1] : null; };
  const change = (i, from, to) => {
    const s = all.scores[i];
    return s.length && s[from] !== null && s[to] !== null ? s[to] - s[from] : 0;
  };
  function sentence(i) {
    if (unreadable.has(i)) return `no list: ${unreadable.get(i)}`;
    if (!all.found[i]) return "no match";
    const found = plural(all.found[i], "match", "matches");
    return all.confident[i] === null ? found : `${found}, ${all.confident[i] ? number(all.confident[i]) : "none"} of them confident`;
  }

  // Filters and sorts.
  const filters = [["all queries", () => true]];
  const sorts = [["name", (a, b) => a - b]];
  const end = config.stages.length - 1;
  if (config.verified) {
    filters.push(["without a confident match", (i) => all.confident[i] === 0 && !unreadable.has(i)]);
    filters.push(["with confident matches", (i) => all.confident[i] > 0]);
    sorts.push(["fewest confident matches", (a, b) => all.confident[a] - all.confident[b]]);
    sorts.push(["most confident matches", (a, b) => all.confident[b] - all.confident[a]]);
  }
  filters.push(["without a list", (i) => unreadable.has(i)]);
  if (config.scored) {
    const known = (i) => last(i) ?? 2;
    filters.push(["scored below 0.5", (i) => last(i) !== null && last(i) < 0.5]);
    sorts.push(["worst score first", (a, b) => known(a) - known(b)]);
    if (end > 0) {
      sorts.push(["largest gain since the first stage", (a, b) => change(b, 0, end) - change(a, 0, end)]);
      sorts.push(["largest loss since the first stage", (a, b) => change(a, 0, end) - change(b, 0, end)]);
    }
    for (let s = 1; s <= end; s++) {
      filters.push([`gained at ${config.stages[s]}`, (i) => change(i, s - 1, s) > 0]);
      filters.push([`lost at ${config.stages[s]}`, (i) => change(i, s - 1, s) < 0]);
    }
  }
  if (config.pictured && !config.allPictured) {
    filters.push(["with pictures", (i) => all.pictured[i] === 1]);
    sorts.unshift(["pictures first", (a, b) => all.pictured[b] - all.pictured[a] || a - b]);
  }
  for (const [select, options] of [[$("filter"), filters], [$("sort"), sorts]])
    options.forEach(([label], i) => select.append(el("option", { value: i }, label)));

  let chosen = [], page = 0;
  function choose() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const keep = filters[$("filter").value || 0][1], order = sorts[$("sort").value || 0][1];
    chosen = [];
    for (let i = 0; i < names.length; i++)
      if (keep(i) && words.every((word) => names[i].includes(word))) chosen.push(i);
    if (order !== sorts[0][1] || sorts[0][0] !== "name") chosen.sort((a, b) => order(a, b) || a - b);
    page = 0;
    return show();
  }

  let drawn = 0;
  async function show() {
    const mine = ++drawn, pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    $("count").textContent = chosen.length === config.queries
      ? plural(chosen.length, "query", "queries")
      : `${number(chosen.length)} of ${plural(config.queries, "query", "queries")}`;
    if (names.length < config.queries) $("count").textContent += ", more are loading";
    const shown = chosen.slice(page * PAGE, (page + 1) * PAGE);
    const cards = shown.map(card);
    $("queries").replaceChildren(...(cards.length ? cards : [el("p", { class: "note empty" }, "No query fits. Change the search or what is shown.")]));
    pager(pages);
    document.body.dataset.shown = chosen.length;
    await Promise.all(shown.map(async (i, n) => {
      try {
        const file = await load("queries", all.file[i]);
        if (mine === drawn) fill(cards[n], i, file);
      } catch (error) {
        cards[n].append(el("p", { class: "state" }, error.message));
      }
    }));
  }

  function pager(pages) {
    const go = (to) => () => { page = to; show(); $("matches").scrollIntoView(); };
    const button = (label, to, off) => el("button", { type: "button", disabled: off, onclick: go(to) }, label);
    $("pager").replaceChildren(...(pages === 1 ? [] : [
      button("First", 0, page === 0), button("Previous", page - 1, page === 0),
      el("span", {}, `page ${number(page + 1)} of ${number(pages)}`),
      button("Next", page + 1, page === pages - 1), button("Last", pages - 1, page === pages - 1)]));
  }

  function card(i) {
    const score = last(i);
    return el("article", { class: "card query" },
      el("a", { class: "whole", href: `#q=${i}` },
        el("span", { class: "picture" }),
        el("span", { class: "name" }, all.path[i])),
      el("div", { class: "found" },
        el("p", { class: unreadable.has(i) ? "says bad" : "says" }, sentence(i),
          score === null ? "" : el("span", { class: "score" }, `AP ${score.toFixed(3)}`)),
        el("ol", { class: "strip" })));
  }

  function fill(made, i, file) {
    const query = file.queries[i];
    made.querySelector(".picture").replaceChildren(image(query.picture, `query ${all.path[i]}`));
    const shown = query.list.slice(0, STRIP), strip = made.querySelector(".strip");
    if (bare(query, file)) { strip.className = "plain"; strip.append(...shown.slice(0, 4).map((entry) => line(entry, file))); }
    else strip.append(...shown.map((entry, n) => el("li", {}, photoButton(i, query, file, n, false))));
    const left = all.found[i] - Math.min(STRIP, query.list.length);
    if (left > 0) made.querySelector(".found").append(
      el("a", { class: "more", href: `#q=${i}` }, `Open: ${query.heads.length > 1 && query.picture ? "all stages, lines between matches, " : ""}${number(left)} more`));
  }

  // A photo of a list: [row, ranks, inliers, confident, right, lines, probability].
  function marks(entry) {
    const [, , inliers, confident, right, , probability] = entry;
    return [
      confident ? el("b", { class: "mark sure" }, "confident") : null,
      right === 1 ? el("b", { class: "mark right" }, "right") : right === 0 ? el("b", { class: "mark wrong" }, "wrong") : null,
      inliers === null ? null : el("span", {}, inliers ? plural(inliers, "inlier", "inliers") : "not verified"),
      probability === null ? null : el("span", {}, `probability ${probability.toFixed(2)}`)];
  }
  // A list without pictures is lines of text.
  const bare = (query, file) => query.list.every((entry) => !file.photos[entry[0]][2]);
  const line = (entry, file) => el("li", {}, el("b", {}, String(place(entry))), el("span", { class: "name" }, file.photos[entry[0]][1]), ...marks(entry));
  function photoButton(i, query, file, n, large) {
    const entry = query.list[n], [, path, small] = file.photos[entry[0]];
    const verdict = [entry[3] ? "confident" : "", entry[4] === 0 ? "wrong" : entry[4] === 1 ? "right" : ""].filter(Boolean);
    return el("button", {
      type: "button", class: `photo ${verdict.join(" ")}`, title: path,
      "aria-label": `rank ${place(entry)}, ${path}${verdict.length ? `, ${verdict.join(", ")}` : ""}; enlarge`,
      onclick: () => enlarge(i, query, file, n) }, image(small, path), el("i", { class: "rank" }, String(place(entry))),
      large ? "" : entry[3] ? el("i", { class: "tick", "aria-hidden": "true" }, "✓") : "");
  }
  const place = (entry) => entry[1][lastStage(entry)] || "–";
  function lastStage(entry) {
    for (let s = entry[1].length - 1; s > 0; s--) if (entry[1][s]) return s;
    return 0;
  }

  // One query.
  async function open(i) {
    $("list").hidden = true;
    const view = $("query");
    view.hidden = false;
    view.replaceChildren(el("p", { class: "note" }, "loading"));
    if (!(i in all.path)) { view.replaceChildren(el("p", { class: "state" }, "There is no such query. "), el("a", { href: "#matches" }, "All queries")); return; }
    let file, query;
    try { file = await load("queries", all.file[i]); query = file.queries[i]; }
    catch (error) { view.replaceChildren(el("p", { class: "state" }, error.message)); return; }
    const at = chosen.indexOf(i);
    const step = (to, label) => el("a", { class: "button", href: to === undefined ? null : `#q=${to}`, "aria-disabled": to === undefined, rel: label === "Next" ? "next" : "prev" }, label);
    view.replaceChildren(
      el("div", { class: "bar" }, el("a", { class: "button", href: "#matches" }, "All queries"), el("span", { class: "space" }), step(chosen[at - 1], "Previous"), step(at < 0 ? undefined : chosen[at + 1], "Next")),
      el("div", { class: "head" },
        el("span", { class: "picture" }, image(query.picture, `query ${all.path[i]}`)),
        el("div", {},
          el("h3", { tabindex: "-1" }, all.path[i]),
          el("p", { class: "says" }, sentence(i)),
          facts(i))),
      best(i, query, file),
      bare(query, file) ? el("ol", { class: "plain" }, ...query.list.map((entry) => line(entry, file)))
        : el("ol", { class: "grid" }, ...query.list.map((entry, n) => figure(i, query, file, n))),
      el("p", { class: "note" }, all.found[i] > query.list.length ? `and ${number(all.found[i] - query.list.length)} more, in matches.csv` : ""),
      stages(query, file));
    view.querySelector("h3").focus({ preventScroll: true });
    $("matches").scrollIntoView();
    const picture = query.large >= 0 ? (await load("large", query.large))[`q${i}`] : null;
    if (picture) view.querySelector(".head .picture").replaceChildren(image(picture, `query ${all.path[i]}`));
  }

  function facts(i) {
    const parts = [];
    if (all.right[i] !== null) parts.push(all.right[i] ? plural(all.right[i], "right photo", "right photos") + " in the gallery" : "no right photo in the gallery");
    const scores = all.scores[i];
    if (scores.length && scores[scores.length - 1] !== null)
      parts.push("AP after each stage: " + scores.map((s, n) => `${config.stages[n]} ${s.toFixed(3)}`).join(" → "));
    return el("p", { class: "note" }, parts.join(". "));
  }

  function figure(i, query, file, n) {
    const entry = query.list[n], [, path] = file.photos[entry[0]];
    const ranks = config.stages.map((stage, s) => `${stage}: ${entry[1][s] ? `rank ${entry[1][s]}` : "not listed"}`);
    return el("li", { class: entry[3] ? "sure" : "" }, photoButton(i, query, file, n, true),
      el("p", { class: "marks" }, ...marks(entry)),
      el("p", { class: "name" }, path),
      config.stages.length > 1 ? el("p", { class: "ranks", title: ranks.join("\n") },
        "ranks " + entry[1].map((rank) => rank || "–").join(" → ")) : "");
  }

  function best(i, query, file) {
    const n = query.list.findIndex((entry) => entry[3] && entry[5].length);
    if (n < 0) return "";
    const made = el("div", { class: "best" });
    pair(made, i, query, file, n);
    return made;
  }

  async function pair(holder, i, query, file, n) {
    const entry = query.list[n], [id, path, small, large] = file.photos[entry[0]];
    const [left, right] = await Promise.all([
      query.large >= 0 ? load("large", query.large).then((some) => some[`q${i}`]) : query.picture,
      large >= 0 ? load("large", large).then((some) => some[`g${entry[0]}`]) : small]);
    if (!left || !right) return;
    const sides = [image(left, `query ${all.path[i]}`), image(right, path)];
    sides.forEach((side) => { side.loading = "eager"; });
    const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    lines.setAttribute("aria-hidden", "true");
    const frame = el("div", { class: "pair" }, ...sides, lines);
    holder.replaceChildren(frame, el("p", { class: "caption" },
      el("b", {}, entry[2] ? plural(entry[2], "inlier", "inliers") : "no inliers"),
      ` between the query and ${path}`, entry[5].length ? `; ${entry[5].length / 4} of them drawn` : ""));
    const draw = () => {
      const box = frame.getBoundingClientRect(), at = sides.map((side) => side.getBoundingClientRect());
      lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
      lines.replaceChildren();
      for (let k = 0; k < entry[5].length; k += 4) {
        const [x1, y1, x2, y2] = entry[5].slice(k, k + 4);
        const points = [[at[0], x1, y1], [at[1], x2, y2]].map(([side, x, y]) =>
          [side.left - box.left + side.width * x / 1000, side.top - box.top + side.height * y / 1000]);
        const colour = `hsl(${Math.round(y1 * 0.17 + 20)} 95% 60%)`;
        const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        ["x1", "y1", "x2", "y2"].forEach((name, m) => line.setAttribute(name, points[m >> 1][m & 1].toFixed(1)));
        line.setAttribute("stroke", colour);
        lines.append(line);
        for (const [x, y] of points) {
          const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
          dot.setAttribute("cx", x.toFixed(1)); dot.setAttribute("cy", y.toFixed(1)); dot.setAttribute("r", 3); dot.setAttribute("fill", colour);
          lines.append(dot);
        }
      }
    };
    await Promise.all(sides.map((side) => side.decode ? side.decode().catch(() => {}) : null));
    draw();
    new ResizeObserver(draw).observe(frame);
  }

  function stages(query, file) {
    if (config.stages.length < 2 || !query.heads.some((head) => head.length)) return "";
    const final = new Map(query.list.map((entry) => [entry[0], entry]));
    return el("details", { class: "stages" }, el("summary", {}, `What each of the ${config.stages.length} stages found`),
      ...query.heads.map((head, s) => {
        const before = s ? query.heads[s - 1] : head;
        const lost = before.filter((row) => !head.includes(row)), gained = head.filter((row) => !before.includes(row));
        const thumb = (row, n, isNew) => el("li", {}, el("span", { class: `photo ${isNew ? "new" : ""} ${final.get(row)?.[3] ? "confident" : ""}`, title: file.photos[row][1] },
          image(file.photos[row][2], file.photos[row][1]), n === null ? "" : el("i", { class: "rank" }, String(n + 1)), isNew ? el("i", { class: "tag" }, "new") : ""));
        return el("section", { class: "stage" },
          el("h4", {}, config.stages[s], s ? el("small", {}, `${gained.length} new among the first ${head.length || 10}, ${lost.length} gone`) : ""),
          head.length ? el("ol", { class: "strip ten" }, ...head.map((row, n) => thumb(row, n, s > 0 && gained.includes(row)))) : el("p", { class: "note" }, "nothing found"),
          lost.length ? el("div", { class: "gone" }, el("span", {}, "gone"), el("ol", { class: "strip ten" }, ...lost.map((row) => thumb(row, null, false)))) : "");
      }));
  }

  // Enlarged: a confident match beside its query with lines, any other photo alone.
  function enlarge(i, query, file, n) {
    const dialog = $("large");
    const draw = async (to) => {
      n = to;
      const entry = query.list[n], [, path, small, large] = file.photos[entry[0]];
      const holder = el("div", { class: "shown" }, image(small, path));
      const turn = (by, label) => el("button", { type: "button", disabled: !query.list[n + by], onclick: () => draw(n + by) }, label);
      dialog.replaceChildren(
        el("div", { class: "bar" }, turn(-1, "Previous"), turn(1, "Next"), el("span", { class: "space" }), el("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close")),
        holder,
        el("p", { class: "marks" }, el("span", {}, `rank ${place(entry)}`), ...marks(entry)),
        el("p", { class: "name" }, path));
      if (entry[5].length) await pair(holder, i, query, file, n);
      else if (large >= 0) {
        const picture = (await load("large", large))[`g${entry[0]}`];
        if (picture) holder.replaceChildren(image(picture, path));
      }
    };
    dialog.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by && query.list[n + by]) { event.preventDefault(); draw(n + by); }
    };
    dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
    draw(n);
    dialog.showModal();
  }

  function route() {
    const found = /^#q=(\d+)$/.exec(location.hash);
    if (found) open(Number(found[1]));
    else if (!$("query").hidden) { $("query").hidden = true; $("list").hidden = false; if (location.hash === "#matches") $("matches").scrollIntoView(); }
  }

  let timer = 0;
  $("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(choose, 60); });
  for (const id of ["filter", "sort"]) $(id).addEventListener("change", choose);
  document.querySelector(".controls").addEventListener("submit", (event) => { event.preventDefault(); choose(); });
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", (event) => {
    if ($("large").open || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !typing && $("query").hidden) { event.preventDefault(); $("search").focus(); }
    if (typing || $("query").hidden) return;
    if (event.key === "Escape") location.hash = "#matches";
    const link = { ArrowRight: "next", ArrowLeft: "prev" }[event.key];
    if (link) document.querySelector(`#query .bar a[rel=${link}][href]`)?.click();
  });

  (async () => {
    try {
      for (let n = 0; n < config.indexFiles; n++) {
        addIndex(await load("index", n));
        kept.delete(`index ${n}`);
        if (n === 0 && config.indexFiles > 1) choose();  // something to look at while the others load
      }
      await choose();
      document.body.dataset.ready = "yes";
      route();
    } catch (error) { $("count").textContent = error.message; }
  })();
})();
