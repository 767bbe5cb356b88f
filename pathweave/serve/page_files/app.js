// The page: what is asked, what is answered, and what is known of the model.

import { channels, cloud, h, map, waveform } from "./draw.js";

const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let about = { modalities: [], curriculum: [] };
let media = []; // of the question: name, type, base64, modality, shown
let running = null; // what stops the requests of the question

// Requests

async function request(url, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const told = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const response = await fetch(url, { ...told, signal });
  if (response.ok) return response;
  if (response.status === 401) $("key").closest("details").open = true;
  const error = (await response.json().catch(() => ({}))).error;
  throw new Error(error?.message ?? `the server answered ${response.status} ${response.statusText}`);
}

const json = async (...given) => (await request(...given)).json();

function complain(error) {
  if (error?.name === "AbortError") return;
  $("error").textContent = error?.message ?? String(error);
  $("error").hidden = false;
}

const whole = (promise) => promise.catch(complain);

// Media

async function base64(blob) {
  const reader = new FileReader();
  await new Promise((resolve, reject) => {
    reader.onload = resolve;
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return reader.result.slice(reader.result.indexOf(",") + 1);
}

async function add(blob, name, modality) {
  const medium = { name, type: blob.type, blob, data: await base64(blob) };
  await look(medium, modality);
  media.push(medium);
  showMedia();
}

// Ask what a medium looks like; without a modality the server finds one that reads it.
async function look(medium, modality) {
  medium.shown = await json("page/preview", { name: medium.name, data: medium.data, modality });
  medium.modality = medium.shown.modality;
}

async function addFiles(files) {
  $("error").hidden = true;
  for (const file of files) await whole(add(file, file.name));
}

const DRAWN = { sound: waveform, channels, map, points: cloud, frames: () => [] };

function player(medium) {
  const many = medium.shown.frames?.length > 1;
  if (many && medium.type.startsWith("image/") && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
    return [h("div", { className: "strip" }, h("img", { src: medium.url, alt: `${medium.name}, moving` }))];
  }
  if (!many || !medium.type.startsWith("video/")) return [];
  const video = h("video", { controls: true, muted: true, loop: true, playsInline: true, src: medium.url });
  video.addEventListener("error", () => video.remove()); // a format that the browser does not play
  return [video];
}

function strip(shown, name) {
  const frames = shown.frames ?? [];
  const words = (i) => (frames.length > 1 ? `Frame ${i + 1} of ${name}` : name);
  const pictures = frames.map((src, i) => h("img", { src, alt: words(i), className: frames.length > 1 ? "small" : "" }));
  return frames.length ? [h("div", { className: "strip" }, pictures)] : [];
}

function showMedia() {
  $("media").replaceChildren(...media.map((medium) => {
    medium.card ??= card(medium);
    return medium.card;
  }));
}

function card(medium) {
  medium.url ??= URL.createObjectURL(medium.blob);
  const options = about.modalities.map(({ name }) => h("option", { value: name, selected: name === medium.modality }, name));
  const select = h("select", { ariaLabel: `What ${medium.name} is` }, options);
  select.addEventListener("change", async () => {
    $("error").hidden = true;
    await whole(look(medium, select.value));
    medium.card.replaceWith((medium.card = card(medium)));
    medium.card.querySelector("select").focus();
  });
  const remove = h("button", { type: "button", ariaLabel: `Remove ${medium.name}` }, "Remove");
  remove.addEventListener("click", () => {
    media = media.filter((other) => other !== medium);
    URL.revokeObjectURL(medium.url);
    showMedia();
    $("files").focus();
  });
  const { shown } = medium;
  const head = h("div", { className: "head" }, h("strong", {}, medium.name), h("label", {}, "read as ", select), remove);
  const body = h("div", { className: "shown" }, player(medium), strip(shown, medium.name), DRAWN[shown.kind](shown));
  return h("li", {}, head, body, h("p", { className: "quiet" }, shown.caption));
}

// Asking

function content() {
  const parts = media.map(({ modality, type, data }) => ({
    type: `${modality}_url`,
    [`${modality}_url`]: { url: `data:${type};modality=${modality};base64,${data}` },
  }));
  const text = $("question").value.trim();
  return text ? [...parts, { type: "text", text }] : parts;
}

function chat(blind) {
  return {
    model: $("model").value || undefined,
    messages: [{ role: "user", content: content() }],
    max_tokens: Number($("tokens").value),
    temperature: Number($("temperature").value),
    stream: true,
    pathweave: { blind },
  };
}

async function stream(element, blind, signal) {
  element.textContent = "";
  element.setAttribute("aria-busy", "true");
  try {
    const response = await request("v1/chat/completions", chat(blind), signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line.includes("[DONE]")) continue;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Error(event.error.message);
        element.append(event.choices[0]?.delta.content ?? "");
      }
    }
  } finally {
    element.setAttribute("aria-busy", "false");
  }
}

async function ask(truth = "") {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = running;
  $("error").hidden = true;
  if (!content().length) return complain("A question must have a medium or a text; add one.");
  $("answers").hidden = false;
  $("truth").textContent = truth;
  $("shares-box").hidden = $("ways-box").hidden = true;
  $("blind-box").hidden = !($("blind").checked && media.length);
  $("stop").hidden = false;
  const choices = [...new Set($("choices").value.split(",").map((one) => one.trim()).filter(Boolean))];
  const work = [stream($("answer"), false, signal)];
  if (!$("blind-box").hidden) work.push(stream($("blind-answer"), true, signal));
  if (choices.length) work.push(weigh(choices, signal));
  if (media.length) work.push(json("page/paths", chat(false), signal).then(showWays));
  await Promise.all(work.map(whole));
  if (running === asked) $("stop").hidden = true;
}

async function weigh(choices, signal) {
  const question = {
    type: "choice",
    instructions: $("question").value.trim(),
    criteria: Object.fromEntries(choices.map((choice) => [choice, null])),
  };
  const state = content().filter((part) => part.type !== "text");
  const body = { model: $("model").value || undefined, state, questions: { asked: question } };
  const { answers } = await json("v1/systemone", body, signal);
  const shares = Object.entries(answers.asked.probabilities).sort((one, other) => other[1] - one[1]);
  $("shares").replaceChildren(...shares.map(([choice, share]) => {
    const bar = h("div", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    return h("tr", {}, h("th", { scope: "row" }, choice), h("td", {}, bar), h("td", {}, percent(share)));
  }));
  $("shares-box").hidden = false;
}

// The way of each medium

const pathColour = (name) => `var(--path-${Math.max(0, about.loaded.indexOf(name)) % 8})`;

function stack(weights, large) {
  const words = Object.entries(weights).map(([name, weight]) => `${name} ${percent(weight)}`).join(", ");
  const pieces = Object.entries(weights).map(([name, weight]) => {
    const piece = h("i");
    piece.style.cssText = `width: ${100 * weight}%; background: ${pathColour(name)}`;
    return piece;
  });
  return h("div", { className: large ? "stack large" : "stack", role: "img", ariaLabel: words, title: words }, pieces);
}

function legend(weights) {
  return h("ul", { className: "legend" }, Object.entries(weights).map(([name, weight]) => {
    const box = h("i");
    box.style.background = pathColour(name);
    return h("li", {}, box, `${name} ${percent(weight)}`);
  }));
}

function showWays(ways) {
  $("ways").replaceChildren(...ways.map((way) => {
    if (way.path === null) return h("div", { className: "way" }, `${way.medium}: the base reads it by itself.`);
    const [tokens, width] = way.features;
    const units = `${way.units} ${way.units === 1 ? "unit" : "units"} of ${tokens} x ${width} features`;
    const route = `${way.medium} -> ${units} -> path ${way.path} -> ${way.tokens} tokens for the language model`;
    const all = way.gates.all;
    if (!Object.keys(all).length) {
      const alone = way.builds_on.length ? "It has no gates." : "It builds on no earlier path, so nothing is mixed.";
      return h("div", { className: "way" }, h("h3", {}, way.medium), h("p", {}, route), h("p", { className: "quiet" }, alone));
    }
    const groups = Object.entries(way.gates.groups).flatMap(([site, weights]) => [h("span", { title: site }, site), stack(weights)]);
    return h("div", { className: "way" }, h("h3", {}, way.medium), h("p", {}, route),
      h("p", { className: "quiet" }, `What its gates mixed for this question, in the mean over tokens and ${groups.length / 2} groups of layers:`),
      stack(all, true), legend(all),
      h("details", {}, h("summary", {}, "Layer by layer"), h("div", { className: "mix" }, groups)));
  }));
  $("ways-box").hidden = false;
}

// What is known of the model

const cell = (content, className = "") => h("td", { className }, content);
const title = (content, className = "", scope = "col") => h("th", { className, scope }, content);
const number = (value) => (value === null || value === undefined ? "" : value.toFixed(1));
const size = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

function showPaths() {
  const rows = Object.entries(about.paths).map(([name, path]) => {
    const { data = [], encoder, ...parts } = path.licences;
    const licences = [["encoder", encoder], ["data", data.join(", ")], ...Object.entries(parts)];
    const scores = (about.results?.datasets[name] ?? []).map((set) =>
      `${set.name} ${number(set.whole ?? last(name, set.name))} (${set.metric})`);
    const use = path.medium_use;
    return h("tr", {}, title(name, "", "row"), cell(path.predecessors.join(", ") || "-"),
      cell(path.trained_parameters.toLocaleString("en"), "number"), cell(size(path.bytes), "number"),
      cell(scores.map((score) => h("div", {}, score))),
      cell(use ? `${use.loss.toFixed(2)} / ${use.swapped.toFixed(2)}` : "-"),
      cell(licences.filter(([, value]) => value).map(([part, value]) => h("div", {}, `${part}: ${value}`)), "licence"));
  });
  const heads = [title("Path"), title("Builds on"), title("Trained parameters", "number"), title("On disk", "number"),
    title("Scores"), title("Loss, own / another's medium"), title("Licences")];
  $("paths").replaceChildren(h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows));
  if (!rows.length) $("paths").replaceChildren(h("tr", {}, cell("The base is served by itself: it has no paths of a run.")));
}

const scored = (stage, modality, dataset) => about.results.scores.scores.find((one) =>
  one.stage === stage && one.modality === modality && one.dataset === dataset)?.score;
const last = (modality, dataset) => scored(about.curriculum.length - 1, modality, dataset);

function showScores() {
  const note = $("scores-note");
  if (!about.results) {
    note.textContent = "Nothing is scored yet.";
    return;
  }
  const { curriculum, datasets } = about.results;
  const columns = curriculum.flatMap((modality) => (datasets[modality] ?? []).map((set) => ({ modality, ...set })));
  const head = [
    h("tr", {}, title(""), columns.map(({ modality }) => title(modality, "number"))),
    h("tr", {}, title(""), columns.map(({ name, metric }) => title(`${name}, ${metric}`, "number"))),
  ];
  const stages = curriculum.map((learnt, stage) => h("tr", {}, title(`after ${learnt}`, "", "row"),
    columns.map(({ modality, name }) => cell(number(scored(stage, modality, name)), learnt === modality ? "number learnt" : "number"))));
  const lines = [["whole test set", "whole"], ["95 % interval", null], ["without the medium", "text_only"],
    ["most frequent answer", "majority"], ["linear probe", "probe"]];
  const summary = lines.filter(([, field]) => columns.some((set) => set[field ?? "low"] !== null)).map(([words, field]) => h("tr", {}, title(words, "", "row"), columns.map((set) => {
    const interval = set.low === null ? "" : `${number(set.low)} - ${number(set.high)}`;
    return cell(field ? number(set[field]) : interval, "number");
  })));
  note.textContent = "A row a stage, a column a test set. What stands below a bold number was scored after later stages: where it stays the same, nothing was forgotten.";
  $("scores").replaceChildren(h("thead", {}, head), h("tbody", {}, stages), h("tbody", { className: "whole" }, summary));
}

async function showExamples() {
  const examples = await json("page/examples");
  const groups = Map.groupBy(examples, ({ modality }) => modality);
  $("examples").replaceChildren(...[...groups].map(([modality, own]) => h("section", {}, h("h3", {}, modality),
    h("ul", {}, [...Map.groupBy(own, ({ dataset, text }) => `${text || "(no text)"} [${dataset}]`)].map(([words, alike]) =>
      h("li", {}, h("span", {}, words), alike.map((example, i) => {
        const from = [example.attribution ?? example.source, example.licence].filter(Boolean).join(", ");
        const button = h("button", { type: "button", title: from, ariaLabel: `${modality}: ${words}, example ${i + 1}` }, String(i + 1));
        button.addEventListener("click", () => whole(take(example, from)));
        return button;
      })))))));
  if (!examples.length) $("examples").replaceChildren(h("p", { className: "quiet" }, "The test sets of this run are not on this machine."));
}

async function take(example, from) {
  clear();
  for (const { url, name, modality } of example.media) {
    await add(await (await request(url)).blob(), name, modality);
  }
  $("question").value = example.text;
  $("choices").value = example.choices.filter((choice) => !choice.includes(",")).join(", ");
  $("ask-title").scrollIntoView({ block: "start" });
  $("from").textContent = from;
  await ask(`The test set says: ${example.references.join("; ")}`);
}

function clear() {
  running?.abort();
  media.forEach(({ url }) => URL.revokeObjectURL(url));
  media = [];
  showMedia();
  const key = $("key").value;
  $("form").reset();
  $("key").value = key;
  $("from").textContent = "";
  for (const id of ["error", "answers", "shares-box", "ways-box", "stop"]) $(id).hidden = true;
}

async function begin() {
  about = await json("page/about");
  $("run").textContent = about.run ? `${about.run}, on the base ${about.base}` : `the base ${about.base} by itself`;
  $("kinds").textContent = about.modalities.map(({ name, reads }) => `${name}: ${reads}`).join(" | ");
  $("model").replaceChildren(h("option", { value: "" }, "their own paths"),
    ...Object.entries(about.models).filter(([, path]) => path).map(([id, path]) => h("option", { value: id }, `path ${path}`)));
  showPaths();
  showScores();
  await showExamples();
}

// Theme, keys and files

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  localStorage.setItem("theme", theme);
  document.dispatchEvent(new Event("themechange"));
}
const THEMES = ["system", "light", "dark"];
setTheme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");
$("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));

$("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
$("stop").addEventListener("click", () => { running?.abort(); $("stop").hidden = true; });
$("clear").addEventListener("click", () => { clear(); $("files").focus(); });
$("key").addEventListener("change", () => { $("error").hidden = true; whole(begin()); });
$("files").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  await addFiles(files);
});
document.addEventListener("paste", (event) => addFiles(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") addFiles(event.dataTransfer.files);
  });
}
whole(begin());
