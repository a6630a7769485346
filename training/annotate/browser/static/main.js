/** The page: the images asked for, the one that is drawn on, and what the person says of it. */

import { describeKeys, listen } from "./keys.js";
import { ImageList } from "./list.js";
import { Mask } from "./mask.js";
import { loadWhole, Picture } from "./picture.js";
import { askEmpty, askFull, askWhichToKeep } from "./questions.js";
import { Saver } from "./saver.js";
import * as service from "./service.js";
import { Settings } from "./settings.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

/** Between looks at the command, in milliseconds. */
const LOOK = 1000;
/** What went wrong is shown this long, in milliseconds. */
const ALARM = 6000;
const [SIZE_STEP, ZOOM_STEP] = [1.25, 1.4];
const find = (id) => document.getElementById(id);
const view = new View(find("stage"), find("picture"), find("overlay"));
const tools = new Tools(find("stage"), view, { changed: onChange, cornered: fillUndo, refuse: (message) => note(message, true) });
const settings = new Settings(tools, view);
const saver = new Saver(showSaving, keepOurs);
const list = new ImageList(find("list"), choose);

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
    list.fill(status.images, chosen);
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
    if (status.share && status.share < 1) find("share").value = status.share; // at 1, the next part has not begun to count
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
    if (!(error instanceof service.Refused || error instanceof service.Unreachable)) throw error;
    find("lost").hidden = status.phase === "ended";
    find("lost").textContent =
      error instanceof service.Refused ? error.message : "The command has stopped. Start the same command again: this page then goes on.";
  } finally {
    setTimeout(look, LOOK);
  }
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
    if (error.doubt) return await clear(error.doubt);
    note(error.message, true);
    return false;
  } finally {
    busy = false;
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
  list.fill(status.images, chosen);
  find("name").textContent = image(key).name;
  note("Loading …");
  try {
    const [start, whole] = await Promise.all([service.getMask(key), isSame ? null : loadWhole(key)]);
    if (chosen !== key) return;
    const mask = new Mask(start.width, start.height, start.bits);
    kind = start.kind;
    saver.open(key, mask, start.version);
    if (isSame) {
      view.mask = mask;
      view.redraw();
    } else {
      view.show(new Picture(key, whole, start.width, start.height, () => view.redrawPicture()), mask);
      view.resize();
      settings.fitSize(Math.max(start.width, start.height));
    }
    document.querySelector(`[data-key="${key}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    showSaving("saved");
    fillDesk();
  } catch (error) {
    if (chosen === key) note(error.message, true);
    if (error instanceof service.Unreachable) chosen = null; // the next look opens it
  }
  list.loadThumbnails();
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
  fillUndo();
  const allDone = status.images.every((other) => other.done);
  find("all-done").hidden = !allDone;
  find("done").classList.toggle("primary", !allDone);
  find("finish").textContent = status.learns ? "Learn from these masks" : "Finish";
  const notes = {
    drawn: "Done. A stroke takes it back.",
    "nothing here": "Nothing here: the mask is empty.",
    skipped: "Skipped: another image may be asked for in its place.",
    "to draw": one.state === "to draw" ? describeTask() : "",
  };
  if (one.problem) note(one.problem, true);
  else if (!tools.isDrawing && Date.now() > alarmedUntil) note(notes[one.state] ?? "");
  tools.refresh();
}

/** Returns what is to be done with an image that nobody has drawn on yet. */
function describeTask() {
  if (kind !== "draft") return "Paint all that the model is to find, then press Done.";
  return view.mask.isEmpty() ? "The model finds nothing here. Paint all that it is to find, then press Done." : "This is the model's draft: correct it, or accept it with Done.";
}

function fillUndo() {
  const { mask } = view;
  find("undo").disabled = tools.locked || !(mask?.done.length || tools.corners.length);
  find("redo").disabled = tools.locked || !mask?.undone.length;
  find("clear").disabled = tools.locked;
}

/** The mask was changed by a stroke, or by undoing one. */
function onChange() {
  kind = "mask";
  saver.changed();
  const one = image(chosen);
  if (one) Object.assign(one, { state: "begun", done: false, problem: "" });
  list.fill(status.images, chosen);
  fillDesk();
  find("count").textContent = `${status.images.filter((other) => other.done).length} of ${status.images.length} done`;
}

function change(how) {
  if (tools.locked || !view.mask || busy) return;
  if (how === "undo" && tools.corners.length) {
    tools.dropCorner();
    return;
  }
  const { mask } = view;
  tools.reset();
  if (how === "undo" ? mask.undo() : how === "redo" ? mask.redo() : mask.changeAll(how)) {
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

/** Asks what is meant by a mask that is probably not; returns whether the image is done then. */
async function clear(doubt) {
  const answer = await (doubt === "empty" ? askEmpty() : askFull());
  busy = false;
  if (answer === "invert") change("invert");
  return answer && answer !== "invert" ? tell(answer) : false;
}

/** Decides between the mask here and one that was saved by somebody else; returns whether this one is kept. */
async function keepOurs(message) {
  if ((await askWhichToKeep(message)) !== "theirs") return true;
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
  const [, folder, file] = /^(.*)[/\\](.*)$/.exec(status.report ?? "/");
  find("ended-text").textContent = status.report
    ? `The model, model.onnx, and this report, ${file}, are in ${folder}. The end of the report says how to use the model. You may close this page.`
    : "The masks are saved, and the command has ended. Go on with the same training command as before; you may close this page.";
  find("report").hidden = !status.report;
  if (status.report) find("report").src = service.reportAddress();
}

/* ---- keys ---- */

const actions = {
  Enter: markDone,
  n: () => markAnd("empty"),
  s: () => markAnd("skip"),
  r: reopen,
  PageUp: () => step(-1),
  PageDown: () => step(1),
  b: () => settings.setTool("brush"),
  e: () => settings.setTool("eraser"),
  p: () => settings.setTool("polygon"),
  f: () => settings.setTool("fill"),
  "[": () => settings.scaleSize(1 / SIZE_STEP),
  "]": () => settings.scaleSize(SIZE_STEP),
  z: () => change("undo"),
  y: () => change("redo"),
  c: () => change("clear"),
  i: () => change("invert"),
  "+": () => view.zoom(ZOOM_STEP),
  "=": () => view.zoom(ZOOM_STEP),
  "-": () => view.zoom(1 / ZOOM_STEP),
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

const walks = {
  list: (by) => step(by).then(() => list.selected?.focus()),
  tools: (by) => settings.walk(by),
};

function holdSpace(isDown) {
  tools.space = isDown;
  tools.refresh();
}

/* ---- what the person does ---- */

function setUp() {
  listen(actions, walks, holdSpace, () => status.phase === "drawing");
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
    out: () => view.zoom(1 / ZOOM_STEP),
    in: () => view.zoom(ZOOM_STEP),
    "help-open": () => find("help").showModal(),
  };
  for (const [id, act] of Object.entries(clicks)) find(id).addEventListener("click", act);
  describeKeys(find("keys"));
  new ResizeObserver(() => view.resize()).observe(find("stage"));
  addEventListener("beforeunload", (event) => {
    if (!saver.isSaved) event.preventDefault();
  });
}

addEventListener("hashchange", () => location.reload()); // another token
setUp();
look();
