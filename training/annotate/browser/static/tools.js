/** What hand, pen, mouse and keys do on the image. */

import { fillArea, fillPolygon, paintLine } from "./mask.js";

/** Clicking this near the first corner closes a polygon, in CSS pixels. */
const NEAR = 10;
const WHEEL = 1.0015;
/** A second finger that comes later than this after the first, in milliseconds, does not take the stroke of the first back. */
const TOGETHER = 400;
/** Steps of the arrow keys, in CSS pixels; with Shift it is one pixel of the image. */
const STEP = 8;

export class Tools {
  #stage;
  #view;
  #changed;
  #cornered;
  #refuse;
  #pointers = new Map();
  #mode = null;
  #last = null;
  #erases = false;
  #penSeen = false;
  /** Pointer of the pen while it is down: a hand that rests beside it does nothing. */
  #pen = null;
  /** When the stroke began, in milliseconds. */
  #began = 0;
  #keyDown = false;

  /**
   * @param {HTMLElement} stage
   * @param {import("./view.js").View} view
   * @param {{changed: () => void, cornered: () => void, refuse: (message: string) => void}} tell  the mask was changed by a
   *   whole stroke; the polygon that is drawn has more corners, or fewer; the mask was not changed, and why
   */
  constructor(stage, view, { changed, cornered, refuse }) {
    [this.#stage, this.#view, this.#changed, this.#cornered, this.#refuse] = [stage, view, changed, cornered, refuse];
    Object.assign(this, { tool: "brush", size: 1, locked: true, corners: [], at: null, space: false });
    const handlers = {
      pointerdown: this.#down,
      pointermove: this.#move,
      pointerup: this.#up,
      pointercancel: this.#up,
      wheel: this.#wheel,
    };
    for (const [type, handle] of Object.entries(handlers)) stage.addEventListener(type, handle.bind(this), { passive: false });
    stage.addEventListener("pointerleave", () => this.#guide(null));
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("dblclick", () => this.closePolygon());
    stage.addEventListener("drawn", () => this.#guide(this.at));
  }

  /** Nothing that was begun goes on: another image or tool comes. */
  reset() {
    if (this.#mode === "stroke") this.#view.mask?.cancel();
    Object.assign(this, { corners: [], at: null });
    [this.#mode, this.#last, this.#keyDown] = [null, null, false];
    this.#view.redraw();
    this.#guide(null);
  }

  get isDrawing() {
    return this.#mode === "stroke" || this.#keyDown || this.corners.length > 0;
  }

  /* ---- pointers ---- */

  #down(event) {
    if (!this.#view.mask) return;
    event.preventDefault();
    const { pointerId: id, pointerType: kind } = event;
    if (kind === "touch" && this.#pen !== null) return;
    if (kind === "pen") this.#takePen(id);
    if (event.isPrimary) this.#pointers.clear(); // of one before it the browser has not told the end
    this.#stage.focus({ preventScroll: true });
    this.#stage.setPointerCapture(id);
    this.#pointers.set(id, this.#view.place(event));
    if (this.#keyDown) this.pressKey();
    const [point, other] = [this.#view.point(event), event.altKey || event.button !== 0];
    if (this.#pointers.size > 1) this.#beginPinch(event);
    else if (this.space || event.button === 1 || (this.#penSeen && kind === "touch")) this.#mode = "pan";
    else if (kind === "touch" && !this.#paints) this.#mode = "tap"; // a second finger may come
    else if (event.button === 0 || event.button === 2 || event.button === 5) this.#begin(point, other, event.timeStamp);
  }

  /** A pen comes: what a finger or the palm has begun meanwhile was not meant. */
  #takePen(id) {
    this.#cancelStroke();
    this.#pointers.clear();
    [this.#mode, this.#pen, this.#penSeen] = [null, id, true];
  }

  #beginPinch(event) {
    if (event.timeStamp - this.#began < TOGETHER) this.#cancelStroke(); // the first finger only came before the second
    else if (this.#mode === "stroke") this.#commit();
    this.#mode = "pinch";
  }

  #move(event) {
    if (!this.#view.mask) return;
    const before = this.#pointers.get(event.pointerId);
    if (!before && event.pointerType === "touch") return;
    const place = this.#view.place(event);
    if (before) this.#pointers.set(event.pointerId, place);
    if (before && this.#mode === "pan") this.#view.pan(place[0] - before[0], place[1] - before[1]);
    else if (before && this.#mode === "pinch") this.#pinch(event.pointerId, before, place);
    else if (before && this.#mode === "stroke") {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const part of events.length ? events : [event]) this.#paintTo(this.#view.point(part));
    }
    this.#guide(event.pointerType === "touch" ? null : this.#view.point(event));
  }

  #up(event) {
    if (event.pointerId === this.#pen) this.#pen = null;
    if (!this.#pointers.delete(event.pointerId)) return;
    const isCancelled = event.type === "pointercancel";
    if (this.#mode === "stroke" && isCancelled) this.#cancelStroke();
    else if (this.#mode === "stroke") this.#commit();
    else if (this.#mode === "tap" && !isCancelled) this.#begin(this.#view.point(event), event.altKey);
    if (this.#mode !== "pinch" || !this.#pointers.size) this.#mode = null;
  }

  #pinch(id, before, place) {
    const other = [...this.#pointers].find(([key]) => key !== id)?.[1];
    if (!other) return;
    const distance = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    const middle = ([x, y]) => [(x + other[0]) / 2, (y + other[1]) / 2];
    const [from, to] = [middle(before), middle(place)];
    this.#view.pan(to[0] - from[0], to[1] - from[1]);
    if (distance(before) > 0) this.#view.zoom(distance(place) / distance(before), ...to);
  }

  #wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? 30 : 1) * (event.ctrlKey ? 6 : 1);
    this.#view.zoom(WHEEL ** -pixels, ...this.#view.place(event));
  }

  /* ---- tools ---- */

  get #paints() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  #begin(point, other, time = 0) {
    if (this.locked) return;
    this.#began = time;
    this.#erases = (this.tool === "eraser") !== other;
    const [x, y] = point.map(Math.floor);
    if (this.tool === "polygon") this.#addCorner(point);
    else if (this.tool === "fill") this.#fill(x, y);
    else {
      this.#mode = "stroke";
      this.#last = [x, y];
      this.#paintTo(point);
    }
  }

  #paintTo(point) {
    const pixel = point.map(Math.floor);
    this.#view.redraw(paintLine(this.#view.mask, this.#last, pixel, this.size, this.#erases ? 0 : 1));
    this.#last = pixel;
  }

  #cancelStroke() {
    if (this.#mode !== "stroke") return;
    this.#view.mask.cancel();
    this.#mode = null;
    this.#view.redraw();
  }

  #commit() {
    if (this.#view.mask.commit()) this.#changed();
  }

  #fill(x, y) {
    const { mask } = this.#view;
    if (x < 0 || y < 0 || x >= mask.width || y >= mask.height) return;
    const value = this.#erases ? 0 : 1;
    if (mask.get(x, y) === value) {
      this.#refuse(value ? "This is filled already; with Alt or the right button, a click removes an area." : "There is no mask here.");
      return;
    }
    if (fillArea(mask, x, y, value) && value) {
      mask.cancel();
      this.#refuse("Nothing is filled: the outline is open, and the area reaches all four sides of the image.");
    } else this.#commit();
    this.#view.redraw();
  }

  #addCorner(point) {
    const corner = point.map(Math.round);
    const [first] = this.corners;
    const near = (NEAR * devicePixelRatio) / this.#view.scale;
    if (first && this.corners.length > 2 && Math.hypot(point[0] - first[0], point[1] - first[1]) <= near) this.closePolygon();
    else {
      const last = this.corners.at(-1);
      if (!last || last[0] !== corner[0] || last[1] !== corner[1]) this.corners.push(corner);
      this.#guide(point);
      this.#cornered();
    }
  }

  /** Fills the polygon, if there is one. */
  closePolygon() {
    if (this.corners.length > 2) {
      fillPolygon(this.#view.mask, this.corners, this.#erases ? 0 : 1);
      this.#view.redraw();
      this.#commit();
    }
    this.dropPolygon();
  }

  dropPolygon() {
    this.corners = [];
    this.#guide(this.at);
    this.#cornered();
  }

  dropCorner() {
    this.corners.pop();
    this.#guide(this.at);
    this.#cornered();
  }

  /* ---- keys ---- */

  /** Moves a crosshair; where it is pressed down, it draws. */
  moveKey(x, y, isFine) {
    const { mask, scale } = this.#view;
    if (!mask) return;
    const step = isFine ? 1 : Math.max(1, Math.round((STEP * devicePixelRatio) / scale));
    const [px, py] = this.at ?? [mask.width / 2, mask.height / 2];
    const keep = (value, length) => Math.min(length - 0.5, Math.max(0.5, Math.floor(value) + 0.5));
    this.at = [keep(px + x * step, mask.width), keep(py + y * step, mask.height)];
    this.#view.reveal(this.at.map(Math.floor));
    if (this.#keyDown) this.#paintTo(this.at);
    this.#guide(this.at);
  }

  /** Presses at the crosshair, as a mouse button does; a brush stays pressed until the next time. */
  pressKey(other = false) {
    if (!this.#view.mask || this.locked) return;
    if (this.#keyDown) {
      [this.#keyDown, this.#mode] = [false, null];
      this.#commit();
      return;
    }
    if (!this.at) this.moveKey(0, 0, true);
    this.#begin(this.at, other);
    this.#keyDown = this.#mode === "stroke";
  }

  /* ---- what is seen of a tool ---- */

  /** Draws the brush's ring and the polygon so far. */
  #guide(point) {
    this.at = point;
    const view = this.#view;
    const seen = ([x, y]) => [(view.left + x * view.scale) / devicePixelRatio, (view.top + y * view.scale) / devicePixelRatio];
    const guide = this.#stage.querySelector("#guide");
    const radius = this.#paints ? Math.max(2, (this.size / 2) * view.scale / devicePixelRatio) : 3;
    const [x, y] = point && view.mask && !this.locked ? seen(point) : [-9999, -9999];
    for (const id of ["brush-ring", "brush-casing"]) place(guide.querySelector(`#${id}`), x, y, radius);
    const corners = this.corners.map(seen);
    const line = corners.length && point ? [...corners, seen(point)] : corners;
    for (const polyline of guide.querySelectorAll("polyline")) polyline.setAttribute("points", line.map((at) => at.join()).join(" "));
    for (const id of ["first", "first-casing"]) place(guide.querySelector(`#${id}`), ...(corners[0] ?? [-9999, -9999]), 5);
    const classes = { panning: this.space || this.#mode === "pan", pointing: !this.#paints, locked: this.locked };
    for (const [name, is] of Object.entries(classes)) this.#stage.classList.toggle(name, is);
  }

  /** The tool, its size or what keys are held have changed. */
  refresh() {
    this.#guide(this.at);
  }
}

function place(circle, x, y, radius) {
  circle.setAttribute("cx", x);
  circle.setAttribute("cy", y);
  circle.setAttribute("r", radius);
}
