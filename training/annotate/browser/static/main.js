/** The page: the images asked for, the one that is drawn on, and what the person says of it. */

import { fillAll, Mask } from "./mask.js";
import { Saver } from "./saver.js";
import * as service from "./service.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

/** Between looks at the command, in milliseconds. */
const LOOK = 1000;
/** What went wrong is shown this long, in milliseconds. */
const ALARM = 6000;
/** Brush sizes, in pixels of the image. */
const SIZES = [1, 1000];

/** What each tool does, and what else where there is a mouse. */
const HINTS = {
  brush: ["Drag to paint.", "Alt or the right button erases."],
  eraser: ["Drag to erase.", "Alt or the right button paints."],
  polygon: ["Click the corners, and the first one again to close.", "So do Enter and a double click; Alt cuts out."],
  fill: ["Click inside a closed outline to fill it.", "Alt or the right button removes an area."],
};

const KEYS = [
  ["Enter", "done, on to the next image (of a polygon: close it)"],
  ["N, S, R", "nothing here; skip; take back"],
  ["Page ↑, Page ↓", "the image before, the next one"],
  ["B, E, P, F", "brush, eraser, polygon, fill"],
  ["[ ]", "smaller, larger brush"],
  ["Z, Y", "undo, redo (also with Ctrl or ⌘)"],
  ["C, I", "clear the mask; invert it"],
  ["Wheel, + −", "zoom; on a touch screen, two fingers"],
  ["Space and drag", "move the image; also the middle button, or two fingers"],
  ["0, 1", "whole image; one pixel of it for one of the screen"],
  ["H", "hide the mask, show it again"],
  ["Arrows, X", "move a crosshair (with Shift by one pixel); X presses and lifts the tool there"],
  ["Esc, ⌫", "drop the polygon; its last corner"],
];

const find = (id) => document.getElementById(id);
const view = new View(find("stage"), find("picture"), find("overlay"));
const tools = new Tools(find("stage"), view, { changed: onChange, refuse: (message) => note(message, true) });
const saver = new Saver(showSaving, askWhichToKeep);

/** What the command said last. */
let status = { phase: "loading", images: [] };
/** Key of the image on the desk, or of the one that is on its way there. */
let chosen = null;
let kind = "nothing";
/** Whether something is asked of the command that must not be asked twice. */
let busy = false;
let reportShown = false;
let alarmedUntil = 0;

const image = (key) => status.images.find((one) => one.key === key);

/* ---- what the command says ---- */

function take(news) {
  const before = status;
  status = news;
  document.body.dataset.phase = status.phase;
  const done = status.images.filter((one) => one.done).length;
  find("count").textContent = status.phase === "drawing" ? `${done} of ${status.images.length} done` : "";
  document.title = status.phase === "drawing" ? `${done}/${status.images.length} alserve: draw masks` : "alserve: draw masks";
  if (status.phase === "drawing") {
    fillList();
    if (before.phase !== "drawing") view.resize();
    if (!image(chosen)) choose(nextToDraw(-1) ?? status.images[0]?.key);
    else fillDesk();
    notice();
  } else {
    if (chosen) tools.reset();
    chosen = null;
  }
  if (status.phase === "learning") {
    find("doing").textContent = status.message;
    if (status.share) find("share").value = status.share;
    else find("share").removeAttribute("value");
  }
  if (status.phase === "ended") showEnd();
}

/** Loads a mask again that somebody else has changed, if nothing is being drawn here. */
function notice() {
  const one = image(chosen);
  const isOurs = !one || saver.key !== chosen || one.version === saver.version;
  if (!isOurs && saver.isSaved && !tools.isDrawing && !busy) open(chosen);
}

async function look() {
  const [changes, version] = [saver.changes, saver.version];
  try {
    const news = await service.getStatus();
    find("lost").hidden = true;
    const isNew = changes === saver.changes && version === saver.version && !busy;
    if (isNew) take(news); // else it is older than what was done here meanwhile
  } catch (error) {
    find("lost").hidden = false;
    if (error instanceof service.Refused) find("lost").textContent = error.message;
    else if (status.phase === "ended") find("lost").hidden = true;
    else find("lost").textContent = "The command has stopped. Start the same command again: this page then goes on.";
  }
  setTimeout(look, LOOK);
}

/** Asks something of the command and shows what comes of it; returns whether it was done. */
async function tell(what) {
  if (busy || !image(chosen) || saver.key !== chosen) return false;
  busy = true;
  const key = chosen;
  try {
    await saver.flush();
    const news = await service.say(key, what);
    saver.version = news.images.find((one) => one.key === key)?.version ?? saver.version;
    take(news);
    return true;
  } catch (error) {
    if (error.doubt) return await (error.doubt === "empty" ? askEmpty() : askFull());
    note(error.message, true);
    return false;
  } finally {
    busy = false;
  }
}

/* ---- the list ---- */

function fillList() {
  const list = find("list");
  const keys = status.images.map((one) => one.key).join();
  if (list.dataset.keys !== keys) {
    list.dataset.keys = keys;
    list.replaceChildren(...status.images.map(makeOption));
  }
  status.images.forEach((one, index) => {
    const option = list.children[index];
    const selected = one.key === chosen;
    option.ariaSelected = String(selected);
    option.tabIndex = selected ? 0 : -1;
    option.dataset.state = one.state;
    option.toggleAttribute("data-done", one.done);
    option.querySelector(".state").textContent = one.state;
  });
}

function makeOption(one) {
  const option = Object.assign(document.createElement("div"), { role: "option", tabIndex: -1, title: one.name });
  const part = (name, text) => Object.assign(document.createElement("span"), { className: name, textContent: text });
  const picture = new Image();
  picture.alt = "";
  picture.className = "bare";
  picture.addEventListener("load", () => picture.classList.remove("bare"));
  option.dataset.key = one.key;
  option.append(picture, part("name", one.name.split("/").at(-1)), part("state", one.state));
  option.addEventListener("click", () => choose(one.key));
  return option;
}

async function loadThumbnails() {
  for (const option of find("list").querySelectorAll(":not([data-pictured])[data-key]")) {
    try {
      option.dataset.pictured = "";
      const picture = option.querySelector("img");
      const url = URL.createObjectURL(await service.getThumbnail(option.dataset.key));
      picture.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      picture.src = url;
    } catch {
      // the list is as good without
    }
  }
}

/** Returns the first image after a place that is still to be drawn, from the first one on if there is none. */
function nextToDraw(place) {
  const all = [...status.images.slice(place + 1), ...status.images.slice(0, place + 1)];
  return all.find((one) => !one.done)?.key;
}

const placeOf = (key) => status.images.findIndex((one) => one.key === key);

async function step(by) {
  const one = status.images[placeOf(chosen) + by];
  if (one) await choose(one.key);
}

/* ---- the image on the desk ---- */

async function choose(key) {
  if (!key || key === chosen || busy) return;
  busy = true;
  try {
    await saver.flush();
  } finally {
    busy = false;
  }
  await open(key);
}

async function open(key) {
  const isSame = key === saver.key && key === chosen;
  chosen = key;
  tools.reset();
  tools.locked = true;
  fillList();
  find("name").textContent = image(key).name;
  note("Loading …");
  try {
    const [start, blob] = await Promise.all([service.getMask(key), isSame ? null : service.getPicture(key)]);
    if (chosen !== key) return;
    const mask = new Mask(start.width, start.height, start.bits);
    kind = start.kind;
    saver.open(key, mask, start.version);
    if (isSame) {
      view.mask = mask;
      view.redraw();
    } else {
      const bitmap = await createImageBitmap(blob).catch(() => {
        throw new Error("This browser cannot show an image of this size; draw it with another program, or skip it.");
      });
      if (chosen !== key) return;
      await view.show(bitmap, mask);
      view.resize();
    }
    document.querySelector(`[data-key="${key}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    showSaving("saved");
    fillDesk();
  } catch (error) {
    if (chosen === key) note(error.message, true);
    if (error instanceof service.Unreachable) chosen = null; // the next look opens it
  }
  loadThumbnails();
}

function note(text, isAlarm = false) {
  alarmedUntil = isAlarm ? Date.now() + ALARM : 0;
  find("note").textContent = text;
  find("note").classList.toggle("alarm", isAlarm);
}

/** Shows what can be done with the image. */
function fillDesk() {
  const one = image(chosen);
  if (!one || saver.key !== chosen) return;
  const reopens = { skipped: "Draw it after all", "nothing here": "There is something, after all" };
  tools.locked = one.locked;
  find("done").textContent = one.done ? "Next" : "Done";
  find("reopen").textContent = reopens[one.state] ?? "Not done yet";
  find("reopen").hidden = !one.done;
  find("empty").disabled = one.state === "nothing here";
  find("skip").disabled = one.state === "skipped";
  const { mask } = view;
  find("undo").disabled = one.locked || !mask?.done.length;
  find("redo").disabled = one.locked || !mask?.undone.length;
  find("clear").disabled = one.locked;
  const allDone = status.images.every((other) => other.done);
  find("all-done").hidden = !allDone;
  find("done").classList.toggle("primary", !allDone);
  find("finish").textContent = status.learns ? "Learn from these masks" : "Finish";
  const draft = mask?.isEmpty() ? "The model finds nothing here." : "This is the model's draft: correct it, or accept it with Enter.";
  const notes = {
    drawn: "Done. A stroke takes it back.",
    "nothing here": "Nothing here: the mask is empty.",
    skipped: "Skipped: another image may be asked for in its place.",
    "to draw": kind === "draft" ? draft : "",
  };
  if (one.problem) note(one.problem, true);
  else if (!tools.isDrawing && Date.now() > alarmedUntil) note(notes[one.state] ?? "");
  tools.refresh();
}

/** The mask was changed by a stroke, or by undoing one. */
function onChange() {
  kind = "mask";
  saver.changed();
  const one = image(chosen);
  if (one) Object.assign(one, { state: "begun", done: false, problem: "" });
  fillList();
  fillDesk();
  find("count").textContent = `${status.images.filter((other) => other.done).length} of ${status.images.length} done`;
}

function change(how) {
  if (tools.locked || !view.mask || busy) return;
  const { mask } = view;
  tools.reset();
  if (how === "undo" ? mask.undo() : how === "redo" ? mask.redo() : (fillAll(mask, how), mask.commit())) {
    view.redraw();
    onChange();
  }
}

async function markDone() {
  if (tools.corners.length) {
    tools.closePolygon();
    return;
  }
  const one = image(chosen);
  if (!one || busy) return;
  const place = placeOf(chosen);
  if (one.state === "to draw" && kind === "draft" && !view.mask.isEmpty()) saver.changed(); // accepted as it is
  if (one.done || (await tell("done"))) goOn(place);
}

async function markAnd(what) {
  const place = placeOf(chosen);
  if (await tell(what)) goOn(place);
}

/** Goes to the next image that is to be drawn; where all are done, to the button that says so. */
async function goOn(place) {
  const next = nextToDraw(place);
  if (next) await choose(next);
  else {
    await open(chosen);
    find("finish").focus();
  }
}

async function reopen() {
  const key = chosen;
  if (image(key)?.done && (await tell("reopen"))) await open(key);
}

async function finishAll() {
  if (busy) return;
  busy = true;
  try {
    await saver.flush();
    take(await service.finish());
  } catch (error) {
    note(error.message, true);
  } finally {
    busy = false;
  }
}

/* ---- questions ---- */

/** Asks, and returns the value of the button that was pressed; nothing where the question was closed. */
function ask(title, text, answers) {
  const dialog = find("question");
  find("question-title").textContent = title;
  find("question-text").textContent = text;
  find("answers").replaceChildren(
    ...answers.map(([value, label], index) =>
      Object.assign(document.createElement("button"), { value, textContent: label, className: index ? "" : "primary" }),
    ),
  );
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

async function askEmpty() {
  const answer = await ask("Nothing is drawn", "Is there nothing to find in this image?", [
    ["", "Keep drawing"],
    ["empty", "Nothing here"],
    ["skip", "Skip this image"],
  ]);
  busy = false;
  return answer ? tell(answer) : false;
}

async function askFull() {
  const answer = await ask(
    "Is the background painted?",
    "The mask covers nearly all of the image's border. Paint what the model is to find, and leave the background out.",
    [
      ["invert", "Invert the mask"],
      ["sure", "It is right as it is"],
      ["", "Keep drawing"],
    ],
  );
  busy = false;
  if (answer === "invert") change("invert");
  return answer === "sure" ? tell("sure") : false;
}

async function askWhichToKeep(message) {
  const answer = await ask("The mask was changed elsewhere", `${message[0].toUpperCase()}${message.slice(1)}.`, [
    ["ours", "Keep what is drawn here"],
    ["theirs", "Take the other one"],
  ]);
  if (answer !== "theirs") return true;
  setTimeout(() => open(chosen));
  return false;
}

/* ---- what is shown beside ---- */

function showSaving(state, error = null) {
  const texts = { saved: "Saved", saving: "Saving …", failed: "Not saved, trying again", lost: "Not saved" };
  find("saving").textContent = texts[state];
  find("saving").dataset.state = state;
  if (error instanceof service.Refused) note(error.message, true);
}

function showEnd() {
  if (reportShown) return;
  reportShown = true;
  find("ended-title").textContent = status.learns ? "The run is finished" : "All is drawn";
  find("ended-text").textContent = status.report
    ? `The model and this report are in ${status.report.replace(/[^/\\]*$/, "")}. You may close this page.`
    : "The masks are saved, and the command has ended. Go on with the same training command as before; you may close this page.";
  find("report").hidden = !status.report;
  if (status.report) find("report").src = service.reportAddress();
}

function setTool(tool) {
  tools.reset();
  tools.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    const checked = button.dataset.tool === tool;
    button.ariaChecked = String(checked);
    button.tabIndex = checked ? 0 : -1;
  }
  find("hint").textContent = HINTS[tool].slice(0, matchMedia("(any-pointer: fine)").matches ? 2 : 1).join(" ");
}

function setSize(size) {
  tools.size = Math.round(Math.min(SIZES[1], Math.max(SIZES[0], size)));
  find("size").value = Math.log(tools.size) / Math.log(SIZES[1]);
  find("size-value").textContent = `${tools.size} px`;
  find("size").ariaValueText = `${tools.size} pixels`;
  tools.refresh();
}

function setLooks() {
  const [opacity, brightness, contrast] = ["opacity", "brightness", "contrast"].map((id) => {
    find(`${id}-value`).textContent = `${Math.round(100 * find(id).valueAsNumber)} %`;
    return find(id).valueAsNumber;
  });
  find("picture").style.filter = `brightness(${brightness}) contrast(${contrast})`;
  view.opacity = opacity;
  view.redraw();
}

/* ---- keys ---- */

const onKey = {
  Enter: markDone,
  n: () => markAnd("empty"),
  s: () => markAnd("skip"),
  r: reopen,
  PageUp: () => step(-1),
  PageDown: () => step(1),
  b: () => setTool("brush"),
  e: () => setTool("eraser"),
  p: () => setTool("polygon"),
  f: () => setTool("fill"),
  "[": () => setSize(Math.min(tools.size - 1, tools.size / 1.25)),
  "]": () => setSize(Math.max(tools.size + 1, tools.size * 1.25)),
  z: () => change("undo"),
  y: () => change("redo"),
  c: () => change("clear"),
  i: () => change("invert"),
  "+": () => view.zoom(1.4),
  "=": () => view.zoom(1.4),
  "-": () => view.zoom(1 / 1.4),
  0: () => view.fit(),
  1: () => view.zoom(1 / view.scale),
  h: () => {
    view.shows = !view.shows;
    view.redraw();
  },
  x: () => tools.pressKey(),
  Escape: () => tools.dropPolygon(),
  Backspace: () => tools.dropCorner(),
  "?": () => find("help").showModal(),
  ArrowLeft: (event) => tools.moveKey(-1, 0, event.shiftKey),
  ArrowRight: (event) => tools.moveKey(1, 0, event.shiftKey),
  ArrowUp: (event) => tools.moveKey(0, -1, event.shiftKey),
  ArrowDown: (event) => tools.moveKey(0, 1, event.shiftKey),
};

function press(event) {
  if (status.phase !== "drawing" || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  const isCommand = event.ctrlKey || event.metaKey;
  const letter = key.length === 1 ? key.toLowerCase() : key;
  if (isCommand && !["z", "y"].includes(letter)) return;
  if (target.closest("input") && /^(Arrow|Page|Home|End)/.test(key)) return; // a slider's own
  if (target.closest("button, summary") && (key === "Enter" || key === " ")) return;
  if (key.startsWith("Arrow") && walk(event)) return;
  if (key === " ") {
    tools.space = true;
    tools.refresh();
    event.preventDefault();
  } else if (letter === "z" && event.shiftKey) change("redo");
  else if (onKey[letter] && !(event.repeat && ["Enter", "n", "s", "x"].includes(letter))) {
    onKey[letter](event);
    event.preventDefault();
  }
}

/** Arrow keys walk through the list and through the tools, where one of these has the focus. */
function walk(event) {
  const group = event.target.closest("#list, #tools");
  if (!group) return false;
  const by = event.key === "ArrowUp" || event.key === "ArrowLeft" ? -1 : 1;
  event.preventDefault();
  if (group.id === "list") {
    step(by).then(() => find("list").querySelector("[aria-selected=true]")?.focus());
  } else {
    const all = [...group.children];
    const next = all[(all.indexOf(event.target.closest("button")) + by + all.length) % all.length];
    setTool(next.dataset.tool);
    next.focus();
  }
  return true;
}

/* ---- what the person does ---- */

function setUp() {
  document.addEventListener("keydown", press);
  document.addEventListener("keyup", ({ key }) => {
    if (key === " ") tools.space = false;
    tools.refresh();
  });
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => setTool(button.dataset.tool));
  }
  const clicks = {
    done: markDone,
    empty: () => markAnd("empty"),
    skip: () => markAnd("skip"),
    reopen,
    finish: finishAll,
    undo: () => change("undo"),
    redo: () => change("redo"),
    clear: () => change("clear"),
    fit: () => view.fit(),
    out: () => view.zoom(1 / 1.4),
    in: () => view.zoom(1.4),
    "help-open": () => find("help").showModal(),
  };
  for (const [id, act] of Object.entries(clicks)) find(id).addEventListener("click", act);
  find("size").addEventListener("input", ({ target }) => setSize(SIZES[1] ** target.valueAsNumber));
  for (const id of ["opacity", "brightness", "contrast"]) find(id).addEventListener("input", setLooks);
  find("keys").tBodies[0].append(
    ...KEYS.map(([keys, what]) => {
      const row = document.createElement("tr");
      row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: keys }));
      row.insertCell().textContent = what;
      return row;
    }),
  );
  new ResizeObserver(() => view.resize()).observe(find("stage"));
  addEventListener("beforeunload", (event) => {
    if (!saver.isSaved) event.preventDefault();
  });
  find("looks").open = innerWidth > 900;
  for (const button of document.querySelectorAll("button[aria-keyshortcuts]")) {
    button.title = `Key: ${button.getAttribute("aria-keyshortcuts").split(" ").at(-1)}`;
  }
  setTool("brush");
  setSize(20);
  setLooks();
}

addEventListener("hashchange", () => location.reload()); // another token
setUp();
look();
