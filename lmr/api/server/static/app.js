// Search with a photo, look at what agrees, search again, browse places. Text is set as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const make = (name, parts = {}, children = []) => {
  const one = Object.assign(document.createElement(name), parts);
  one.append(...children);
  return one;
};
const count = (n) => n.toLocaleString("en");
const photoUrl = (row, size) => `api/photos/${row}?size=${size}`;

let shown = null; // the address of the photo that was searched for
let asked = 0; // answers of earlier searches come too late and are dropped
let uploadBytes = Infinity;

async function call(path, options) {
  const answer = await fetch(path, options);
  const found = await answer.json().catch(() => ({ error: "the server did not answer" }));
  if (!answer.ok) throw new Error(found.error || "the server did not answer");
  return found;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

async function search(path, options, picture, name) {
  const mine = ++asked;
  showTab("search");
  at("matches").replaceChildren();
  at("subject").hidden = true;
  say("Searching…");
  try {
    const answer = await call(path, options);
    if (mine === asked) showAnswer(answer, picture, name);
  } catch (error) {
    if (mine === asked) say(`This photo could not be searched for: ${error.message}.`, true);
  }
}

function searchFile(file) {
  if (file.size > uploadBytes) {
    say(`This photo could not be searched for: it has more than ${count(uploadBytes)} bytes.`, true);
    return;
  }
  if (shown && shown.startsWith("blob:")) URL.revokeObjectURL(shown);
  search("api/search", { method: "POST", body: file }, URL.createObjectURL(file), file.name);
}

function searchPhoto(photo, name) {
  search(`api/photos/${photo}/search`, { method: "POST" }, photoUrl(photo, "large"), name);
  window.scrollTo({ top: 0 });
}

function showAnswer(answer, picture, name) {
  shown = picture;
  say("");
  at("query").src = picture;
  at("subject").hidden = false;
  const n = answer.matches.length;
  const sure = answer.confident === null ? "" : `, ${answer.confident || "none"} of them confident`;
  at("sentence").textContent = n ? `${n} ${n === 1 ? "match" : "matches"}${sure}` : "No match";
  at("details").textContent = `${name} · ${answer.seconds.toFixed(2)} s${answer.note ? ` · ${answer.note}` : ""}`;
  at("matches").replaceChildren(...answer.matches.map(card));
}

function figures(match) {
  const parts = [];
  if (match.inliers) parts.push(`${count(match.inliers)} inliers`);
  if (match.similarity !== null) parts.push(`similarity ${match.similarity.toFixed(2)}`);
  if (match.probability !== null) parts.push(`probability ${match.probability.toFixed(2)}`);
  return parts.join(" · ");
}

function pictureButton(photo, name, label) {
  const image = make("img", { src: photoUrl(photo, "small"), alt: "", loading: "lazy" });
  const button = make("button", { className: "picture", title: label }, [image]);
  button.setAttribute("aria-label", `${label}: ${name}`);
  button.addEventListener("click", () => searchPhoto(photo, name));
  return button;
}

function card(match) {
  const says = make("p", { className: "says" }, [figures(match)]);
  if (match.confident) says.prepend(make("b", { textContent: "confident" }), " · ");
  const parts = [
    pictureButton(match.photo, match.name, "Search with this photo"),
    make("p", {}, [make("b", { textContent: `${match.rank} ` }), match.name]),
    says,
  ];
  if (match.lines.length) {
    const button = make("button", { className: "link", textContent: "show what agrees" });
    button.addEventListener("click", () => showPair(match));
    parts.push(make("p", {}, [button]));
  }
  return make("li", { className: match.confident ? "sure" : "" }, parts);
}

async function showPair(match) {
  const images = [shown, photoUrl(match.photo, "large")].map((src) => make("img", { src }));
  at("pair-says").textContent = `${match.name}: ${figures(match)}`;
  at("again").onclick = () => { at("pair").close(); searchPhoto(match.photo, match.name); };
  at("pair").showModal();
  try {
    await Promise.all(images.map((image) => image.decode()));
  } catch {
    at("pair-says").textContent += " (a picture cannot be shown)";
    return;
  }
  const height = 480, gap = 8, canvas = at("lines"), draw = canvas.getContext("2d");
  const widths = images.map((image) => (image.naturalWidth * height) / image.naturalHeight);
  canvas.width = widths[0] + gap + widths[1];
  canvas.height = height;
  const second = widths[0] + gap;
  draw.drawImage(images[0], 0, 0, widths[0], height);
  draw.drawImage(images[1], second, 0, widths[1], height);
  draw.lineWidth = 1.6;
  for (const [x1, y1, x2, y2] of match.lines) {
    // The colour follows the height, so that neighbours can be told from strays.
    draw.strokeStyle = `hsl(${190 + 140 * y1} 95% 62%)`;
    draw.beginPath();
    draw.moveTo(x1 * widths[0], y1 * height);
    draw.lineTo(second + x2 * widths[1], y2 * height);
    draw.stroke();
  }
  canvas.dataset.lines = match.lines.length;
}

function showTab(name) {
  for (const one of ["search", "places"]) {
    at(one).hidden = one !== name;
    at(`tab-${one}`).setAttribute("aria-pressed", one === name);
  }
}

async function showPlaces(page = 0) {
  showTab("places");
  const found = await call(`api/groups?page=${page}`);
  at("groups").replaceChildren(...found.groups.map(place));
  const step = (text, to) => {
    const button = make("button", { textContent: text, disabled: to < 0 || to >= found.pages });
    button.addEventListener("click", () => showPlaces(to).then(() => window.scrollTo({ top: 0 })));
    return button;
  };
  const where = make("span", { textContent: `page ${page + 1} of ${found.pages}` });
  at("pager").replaceChildren(step("Earlier", page - 1), where, step("Later", page + 1));
  at("pager").hidden = found.pages < 2;
}

function place(group) {
  const row = make("div", { className: "row" }, group.photos.map((one) => pictureButton(one.photo, one.name, "Search with this photo")));
  const head = make("h3", {}, [`Place ${group.group}`, make("span", { className: "quiet", textContent: `${count(group.size)} photos` })]);
  const card = make("div", { className: "card place" }, [head, row]);
  if (group.size > group.photos.length) {
    const more = make("button", { className: "link", textContent: `show all ${count(group.size)}` });
    more.addEventListener("click", async () => {
      const whole = await call(`api/groups/${group.group}`);
      row.classList.add("all");
      row.replaceChildren(...whole.photos.map((one) => pictureButton(one.photo, one.name, "Search with this photo")));
      more.remove();
    });
    card.append(make("p", {}, [more]));
  }
  return card;
}

at("file").addEventListener("change", (event) => {
  if (event.target.files[0]) searchFile(event.target.files[0]);
  event.target.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) searchFile(event.dataTransfer.files[0]);
  });
}
at("tab-search").addEventListener("click", () => showTab("search"));
at("tab-places").addEventListener("click", () => showPlaces());
at("close").addEventListener("click", () => at("pair").close());
call("api/about").then((about) => {
  uploadBytes = about.upload_bytes;
  at("about").textContent = `${about.name}: ${count(about.photos)} photos`;
  at("tab-places").hidden = !about.groups;
}, (error) => say(`The server could not be asked: ${error.message}.`, true));
