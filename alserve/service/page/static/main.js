/** The page: pictures come in, are sent two at a time, and are shown with their answers; at first an example is. */

import { infernoPalette, loadImage, shareAbove } from "./maps.js";
import { describeObjects, findObjects, listObjects } from "./objects.js";
import { getExample, getModel, predict, segment } from "./service.js";
import { draw, loadLayers, maskBlob } from "./view.js";

const AT_ONCE = 2;
const LAYERS = "include=probability,cam";
/** Shares of the window's height that the picture and the map beside it may fill. */
const PICTURE_SHARE = 0.78;
const MAP_SHARE = 0.2;
/** Milliseconds for which the threshold rests before the objects are counted anew. */
const REST = 120;
const STATES = { waiting: "waiting", busy: "working", failed: "failed" };

/**
 * A picture of the strip, or the example with which the page opens, which is not in the strip.
 * @typedef {object} Item
 * @property {File} file
 * @property {string} url  what the browser shows of it
 * @property {"waiting"|"busy"|"done"|"failed"} state
 * @property {?import("./service.js").Answer} answer
 * @property {string} note  what the user should know of how it is shown, or why it failed
 * @property {HTMLElement} [option]  its place in the strip; the example has none
 */

const find = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
/** @type {Item[]} */
const items = [];
/** @type {?Item} */
let chosen = null;
/** Whether the user has added pictures. */
let hasOwn = false;
/** What is on the screen now. @type {?import("./view.js").Layers & {file: File, answer: Item["answer"]}} */
let shown = null;
let model = null;
/** The user's threshold; null is the model's own. */
let threshold = null;
let working = 0;
let drawing = 0;
let counting = 0;
/** The object that is marked in the picture. @type {?import("./objects.js").MaskObject} */
let marked = null;

const level = () => threshold ?? shown.answer.threshold;

/* ---- pictures in, answers back ---- */

function add(files) {
  const added = [...files].map((file) => {
    const item = { file, url: URL.createObjectURL(file), state: "waiting", answer: null, note: "" };
    item.option = makeOption(item);
    return item;
  });
  hasOwn ||= added.length > 0;
  items.push(...added);
  find("strip").append(...added.map((item) => item.option));
  if (added.length) choose(added[0]);
  work();
}

/** Keeps up to `AT_ONCE` pictures on their way, in the order of the strip. */
function work() {
  const next = items.find((item) => item.state === "waiting");
  if (!next || working >= AT_ONCE) return;
  working += 1;
  process(next).finally(() => {
    working -= 1;
    work();
  });
  work();
}

async function process(item) {
  update(item, { state: "busy", note: "" });
  try {
    const answer = await predict(item.file, LAYERS);
    const note = (await isShown(item.url, answer)) ? "" : await showServersCopy(item);
    update(item, { state: "done", answer, note: [note, answer.warning].filter(Boolean).join(" ") });
  } catch (error) {
    update(item, { state: "failed", note: error.message });
  }
}

/** Tells whether the browser shows the picture in the frame that the maps have. */
async function isShown(url, { width, height }) {
  const image = await loadImage(url).catch(() => null);
  return image?.naturalWidth === width && image.naturalHeight === height;
}

async function showServersCopy(item) {
  const { overlay } = await predict(item.file, "include=overlay&threshold=1"); // nothing is above 1: no outline
  URL.revokeObjectURL(item.url);
  item.url = `data:image/png;base64,${overlay.png}`;
  return "Your browser does not show this kind of file; this is the server's copy of it.";
}

function update(item, changes) {
  Object.assign(item, changes);
  if (!items.includes(item)) return; // removed meanwhile
  fillOption(item);
  if (item === chosen) show();
  if (item.state === "done") {
    const { label, scores, foreground } = item.answer;
    announce(`${item.file.name}: ${label}, ${percent(scores[label])}; foreground ${percent(foreground)}`);
  } else if (item.state === "failed") announce(`${item.file.name}: ${item.note}`);
}

function announce(text) {
  find("status").textContent = text;
}

function remove(item) {
  const index = items.indexOf(item);
  const focused = item.option.contains(document.activeElement);
  items.splice(index, 1);
  item.option.remove();
  URL.revokeObjectURL(item.url);
  announce(`${item.file.name}: removed`);
  choose(items[Math.min(index, items.length - 1)] ?? null);
  (focused && chosen ? chosen.option : find("files")).focus();
}

/* ---- the strip ---- */

function makeOption(item) {
  const option = document.createElement("div");
  option.role = "option";
  option.tabIndex = -1;
  option.ariaSelected = "false";
  const image = new Image();
  for (const type of ["load", "error"]) {
    image.addEventListener(type, () => image.classList.toggle("bare", type === "error"));
  }
  option.append(image, part("name"), part("state"));
  option.addEventListener("click", () => choose(item));
  fillOption({ ...item, option });
  return option;
}

function part(name) {
  const element = document.createElement("span");
  element.className = name;
  return element;
}

function fillOption({ option, file, url, state, answer }) {
  const [image, name, progress] = option.children;
  if (image.src !== url) Object.assign(image, { src: url, alt: "" });
  option.dataset.state = state;
  name.textContent = file.name;
  progress.textContent = answer && state === "done" ? answer.label : STATES[state];
}

function choose(item) {
  chosen = item;
  for (const { option } of items) {
    const selected = option === item?.option;
    option.ariaSelected = String(selected);
    option.tabIndex = selected ? 0 : -1;
  }
  item?.option?.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.body.classList.toggle("empty", !item);
  if (item) show();
  else find("detail").hidden = true;
}

function step(event) {
  if (!chosen || event.target.closest("input, dialog")) return;
  const index = items.indexOf(chosen);
  const targets = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: items.length - 1 };
  if (event.key === "Delete" && event.target.closest("#strip")) remove(chosen);
  else if (items[targets[event.key]]) {
    choose(items[targets[event.key]]);
    chosen.option.focus();
    event.preventDefault();
  }
}

/* ---- the chosen picture ---- */

/** Shows the chosen picture once all of it is loaded, so that picture and figures always belong together. */
async function show() {
  const item = chosen;
  const { url, state, answer } = item;
  const layers = await loadLayers(url, answer).catch(() => ({ image: null }));
  if (item !== chosen || state !== item.state) return; // the user, or the server, went on
  const { file, note, option } = item;
  const drawable = answer && layers.counts;
  shown = { file, answer, ...layers };
  find("example").hidden = Boolean(option);
  find("remove").hidden = !option;
  find("name").textContent = file.name;
  find("note").textContent = state === "done" ? note : "";
  find("message").textContent = state === "failed" ? note : "This browser cannot draw a picture of this size.";
  find("failure").hidden = !(state === "failed" || (answer && !drawable));
  find("progress").hidden = !(state === "waiting" || state === "busy");
  find("result").hidden = !drawable;
  find("picture").ariaLabel = drawable ? `${file.name} with the model's mask: ${answer.label}` : file.name;
  find("map").ariaLabel = drawable ? `Class activation map of ${answer.label}` : "";
  find("detail").classList.toggle("bare", !layers.image);
  find("detail").hidden = false;
  if (drawable) fillResult(answer);
  paint(); // at once: no figure of the picture before stays beside this one's name
  countObjects();
}

function fillResult({ label, scores, threshold: own }) {
  find("label").textContent = label;
  const ranked = Object.entries(scores).sort(([, one], [, other]) => other - one);
  find("scores").tBodies[0].replaceChildren(...ranked.map(([name, score]) => scoreRow(name, score)));
  find("reset").textContent = `Model's own: ${own.toFixed(3)}`;
}

function scoreRow(name, score) {
  const row = document.createElement("tr");
  const heading = Object.assign(document.createElement("th"), { scope: "row", textContent: name });
  row.append(heading);
  const bar = row.insertCell();
  bar.className = "bar";
  bar.append(document.createElement("div"));
  bar.firstChild.style.setProperty("--share", percent(score).replace(" ", ""));
  row.insertCell().textContent = percent(score);
  return row;
}

/** Draws once a frame, however fast a slider moves. */
function redraw() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(paint);
}

function paint() {
  if (!shown) return;
  for (const id of ["fill", "opacity"]) find(`${id}-value`).textContent = `${Math.round(100 * find(id).value)} %`;
  if (shown.counts) {
    find("threshold").value = level();
    find("threshold-value").textContent = level().toFixed(3);
    find("foreground").textContent = percent(shareAbove(shown.counts, level()));
    find("reset").disabled = threshold === null;
  }
  const opacity = find("opacity").valueAsNumber;
  draw(find("picture"), shown, PICTURE_SHARE, {
    outline: find("outline").checked,
    fill: find("fill").valueAsNumber,
    heat: find("heat").checked,
    opacity,
    threshold: shown.counts ? level() : 1,
    marked,
  });
  if (shown.counts) draw(find("map"), shown, MAP_SHARE, { outline: false, heat: true, opacity });
}

/** Counts and lists the objects above the threshold. */
function countObjects() {
  clearTimeout(counting);
  marked = null;
  if (!shown?.counts) return;
  const objects = findObjects(shown.whole, level());
  find("objects-count").textContent = describeObjects(objects);
  find("objects").hidden = !objects?.length;
  listObjects(find("objects"), objects ?? [], (object) => {
    marked = object;
    redraw();
  });
}

function setThreshold(value) {
  threshold = value;
  redraw();
  clearTimeout(counting);
  counting = setTimeout(countObjects, REST);
}

/* ---- downloads ---- */

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const stem = (file) => file.name.replace(/\.[^.]+$/, "");

async function saveMask() {
  const { file, answer } = shown;
  const blob = await maskBlob(answer, level());
  if (blob) save(blob, `${stem(file)}_mask.png`);
  else announce(`${file.name}: too large for this browser to write; ask POST /segment for the mask`);
}

function saveJson() {
  const { probability, cam, threshold: own, ...facts } = shown.answer;
  const answer = {
    file: shown.file.name,
    ...facts,
    foreground: shareAbove(shown.counts, level()),
    threshold: level(),
    model: { threshold: own, sha256: model?.sha256 },
  };
  save(new Blob([JSON.stringify(answer, null, 2)], { type: "application/json" }), `${stem(shown.file)}.json`);
}

/** Saves another output, which the server makes at the threshold of the page. */
async function saveOutput({ format, suffix }) {
  const { file } = shown;
  try {
    const blob = await segment(file, `format=${format}&threshold=${level()}`);
    save(blob, `${stem(file)}_${format}${suffix}`);
  } catch (error) {
    announce(`${file.name}: ${error.message}`);
  }
}

/* ---- what the user does ---- */

function setUp() {
  find("scale").getContext("2d").putImageData(new ImageData(infernoPalette(), 256, 1), 0, 0);
  find("files").addEventListener("change", ({ target }) => {
    add(target.files);
    target.value = "";
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", () => addExample(button.dataset.example));
  }
  document.addEventListener("keydown", step);
  for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dragging", type === "dragenter" || type === "dragover");
      if (type === "drop") add(event.dataTransfer.files);
    });
  }
  find("threshold").addEventListener("input", ({ target }) => setThreshold(target.valueAsNumber));
  find("reset").addEventListener("click", () => setThreshold(null));
  for (const id of ["outline", "fill", "heat", "opacity"]) find(id).addEventListener("input", redraw);
  new ResizeObserver(redraw).observe(find("picture").parentElement);
  find("remove").addEventListener("click", () => remove(chosen));
  find("retry").addEventListener("click", () => {
    update(chosen, { state: "waiting" });
    work();
  });
  find("save-mask").addEventListener("click", saveMask);
  find("save-json").addEventListener("click", saveJson);
  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", () => saveOutput(button.dataset));
  }
}

async function addExample(name) {
  try {
    add([new File([await getExample(name)], name)]);
  } catch (error) {
    announce(error.message);
  }
}

/** Describes the model, once the service answers, and then shows an example until the user adds pictures. */
async function begin() {
  try {
    model = await getModel();
    find("model").textContent = `Classes: ${model.classes.join(", ")} · model ${model.sha256.slice(0, 12)} on ${model.device}`;
  } catch (error) {
    find("model").textContent = error.message;
  }
  const example = model && !hasOwn && (await answeredExample());
  if (!hasOwn) choose(example);
}

/** @returns {Promise<?Item>}  null where the server has no time for it, which is no error for the user */
async function answeredExample() {
  const name = document.querySelector("[data-example]").dataset.example;
  try {
    const file = new File([await getExample(name)], name);
    const answer = await predict(file, LAYERS);
    return { file, url: URL.createObjectURL(file), state: "done", answer, note: "" };
  } catch {
    return null;
  }
}

setUp();
begin();
