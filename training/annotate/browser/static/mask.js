/** A mask in memory, one bit a pixel, and everything that changes it. */

/** Bytes of earlier states that are kept to be undone. */
const MOST_BYTES = 128 * 2 ** 20;

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box  in pixels; right and bottom lie outside */

/**
 * One change: what some spans of the mask's bytes held before, and what they hold after.
 * @typedef {object} Edit
 * @property {{start: number, end: number}[]} spans  of each the first byte in the mask, and the first behind it
 * @property {Uint8Array} before  these bytes, one span after the other
 * @property {Uint8Array} after
 */

export class Mask {
  #before;
  #first;
  #last;

  /**
   * @param {number} width
   * @param {number} height
   * @param {Uint8Array} [bits]  rows of whole bytes, the leftmost pixel in the highest bit
   */
  constructor(width, height, bits) {
    Object.assign(this, { width, height, stride: (width + 7) >> 3 });
    this.#take(bits?.length ? bits : new Uint8Array(this.stride * height));
    /** The bits at the last `commit`, while they are being changed; of each row the first and the last byte that may differ. */
    this.#before = null;
    this.#first = new Int32Array(height).fill(this.stride);
    this.#last = new Int32Array(height).fill(-1);
    this.undone = [];
    this.done = [];
  }

  #take(bits) {
    this.bits = bits;
    /** The same, four bytes at a time; up to three at the end are left out. */
    this.words = new Uint32Array(bits.buffer, bits.byteOffset, bits.length >> 2);
  }

  get(x, y) {
    return (this.bits[y * this.stride + (x >> 3)] >> (7 - (x & 7))) & 1;
  }

  isEmpty() {
    for (let word = 0; word < this.words.length; word += 1) if (this.words[word]) return false;
    return !this.bits.subarray(4 * this.words.length).some(Boolean);
  }

  /** Returns the first pixel of a row, from `x` on, that has another value; the row's end if none has. */
  endOfRun(x, y, value) {
    const { bits, words } = this;
    const [row, end] = [y * this.stride, (y + 1) * this.stride];
    const [byte, word] = value ? [0xff, 0xffffffff] : [0, 0];
    let at = x;
    while (at < this.width) {
      let place = row + (at >> 3);
      if (at & 7 || bits[place] !== byte) {
        if (((bits[place] >> (7 - (at & 7))) & 1) !== value) return at;
        at += 1;
      } else {
        do place += 1;
        while (place & 3 && place < end && bits[place] === byte);
        while (place + 3 < end && words[place >> 2] === word) place += 4; // once it lies on a whole word
        at = 8 * (place - row);
      }
    }
    return this.width;
  }

  /** Returns the first pixel of the run of one value that ends before `x`. */
  startOfRun(x, y, value) {
    const [row, byte] = [y * this.stride, value ? 0xff : 0];
    let at = x;
    while (at > 0) {
      if (!(at & 7) && this.bits[row + (at >> 3) - 1] === byte) at -= 8;
      else if (this.get(at - 1, y) === value) at -= 1;
      else return at;
    }
    return 0;
  }

  /** Sets the pixels of a row from `start` up to `end`, which is left out. */
  setRun(y, start, end, value) {
    const from = Math.max(0, start);
    const to = Math.min(this.width, end);
    if (y < 0 || y >= this.height || from >= to) return;
    const row = y * this.stride;
    const first = from >> 3;
    const last = (to - 1) >> 3;
    this.#touch(y, first, last);
    const head = 0xff >> (from & 7);
    const tail = (0xff << (7 - ((to - 1) & 7))) & 0xff;
    const put = (byte, bits) => {
      if (value) this.bits[row + byte] |= bits;
      else this.bits[row + byte] &= ~bits;
    };
    if (first === last) put(first, head & tail);
    else {
      put(first, head);
      this.bits.fill(value ? 0xff : 0, row + first + 1, row + last);
      put(last, tail);
    }
  }

  #touch(y, first, last) {
    this.#before ??= this.bits.slice();
    if (first < this.#first[y]) this.#first[y] = first;
    if (last > this.#last[y]) this.#last[y] = last;
  }

  /** Sets all pixels to 0, or turns each round, as a change of its own. */
  changeAll(how) {
    const { bits, stride } = this;
    const after = new Uint8Array(bits.length);
    if (how === "invert") {
      const { words } = new Mask(this.width, this.height, after);
      for (let word = 0; word < words.length; word += 1) words[word] = ~this.words[word];
      for (let byte = 4 * words.length; byte < bits.length; byte += 1) after[byte] = ~bits[byte];
      const rest = (0xff << (8 * stride - this.width)) & 0xff;
      for (let last = stride - 1; last < after.length; last += stride) after[last] &= rest;
    }
    if (how === "clear" && this.isEmpty()) return false;
    this.#keep({ spans: [{ start: 0, end: bits.length }], before: bits, after });
    this.#take(after.slice());
    return true;
  }

  /** Ends a change, so that it can be undone; returns whether it changed anything. */
  commit() {
    const edit = this.#before && this.#changes();
    this.#forget();
    if (edit) this.#keep(edit);
    return Boolean(edit);
  }

  #forget() {
    this.#before = null;
    this.#first.fill(this.stride);
    this.#last.fill(-1);
  }

  #keep(edit) {
    this.done.push(edit);
    this.undone = [];
    let bytes = this.done.reduce((sum, { before }) => sum + 2 * before.length, 0);
    while (bytes > MOST_BYTES && this.done.length > 1) bytes -= 2 * this.done.shift().before.length;
  }

  /** Takes back what was changed since the last `commit`. */
  cancel() {
    if (this.#before) this.bits.set(this.#before);
    this.#forget();
  }

  /** @returns {?Edit} */
  #changes() {
    const spans = this.#differences();
    const bytes = spans.reduce((sum, { start, end }) => sum + end - start, 0);
    if (!bytes) return null;
    const edit = { spans, before: new Uint8Array(bytes), after: new Uint8Array(bytes) };
    let at = 0;
    for (const { start, end } of spans) {
      edit.before.set(this.#before.subarray(start, end), at);
      edit.after.set(this.bits.subarray(start, end), at);
      at += end - start;
    }
    return edit;
  }

  /** Returns where bytes differ from those before: one span a row, or one of rows that differ over all their width. */
  #differences() {
    const { bits, stride } = this;
    const before = this.#before;
    const spans = [];
    for (let y = 0; y < this.height; y += 1) {
      let start = y * stride + this.#first[y];
      let end = y * stride + this.#last[y] + 1;
      while (start < end && before[start] === bits[start]) start += 1;
      while (start < end && before[end - 1] === bits[end - 1]) end -= 1;
      if (start >= end) continue;
      if (spans.at(-1)?.end === start) spans.at(-1).end = end;
      else spans.push({ start, end });
    }
    return spans;
  }

  /** @returns {boolean} whether there was a change to take back */
  undo() {
    return this.#swap(this.done, this.undone, "before");
  }

  redo() {
    return this.#swap(this.undone, this.done, "after");
  }

  #swap(from, to, which) {
    const edit = from.pop();
    if (!edit) return false;
    let at = 0;
    for (const { start, end } of edit.spans) {
      this.bits.set(edit[which].subarray(at, at + end - start), start);
      at += end - start;
    }
    to.push(edit);
    return true;
  }
}

/**
 * Moves a round brush along a line: pixels whose distance to it is at most half the brush's size.
 * @param {Mask} mask
 * @param {[number, number]} start  a pixel
 * @param {[number, number]} end  a pixel
 * @param {number} size  diameter in pixels
 * @returns {Box}  all that may have changed
 */
export function paintLine(mask, [ax, ay], [bx, by], size, value) {
  const [dx, dy, radius] = [bx - ax, by - ay, size / 2];
  const square = dx * dx + dy * dy;
  const isNear = (x, y, cx, cy) => 4 * ((x - cx) ** 2 + (y - cy) ** 2) <= size * size;
  const covers = (x, y) => {
    const along = (x - ax) * dx + (y - ay) * dy;
    if (along <= 0) return isNear(x, y, ax, ay);
    if (along >= square) return isNear(x, y, bx, by);
    return 4 * ((x - ax) * dy - (y - ay) * dx) ** 2 <= size * size * square;
  };
  const reach = Math.floor(radius);
  const box = {
    left: Math.min(ax, bx) - reach,
    top: Math.max(0, Math.min(ay, by) - reach),
    right: Math.max(ax, bx) + reach + 1,
    bottom: Math.min(mask.height, Math.max(ay, by) + reach + 1),
  };
  for (let y = box.top; y < box.bottom; y += 1) {
    let [low, high] = rowOf(y, ax, ay, bx, by, radius);
    while (low <= high && !covers(low, y)) low += 1;
    while (high >= low && !covers(high, y)) high -= 1;
    mask.setRun(y, low, high + 1, value);
  }
  return box;
}

/** Returns the pixels of a row between which the brush reaches, one more on each side: the shape has no dents. */
function rowOf(y, ax, ay, bx, by, radius) {
  const places = [];
  for (const [cx, cy] of [[ax, ay], [bx, by]]) {
    const rest = radius ** 2 - (y - cy) ** 2;
    if (rest >= 0) places.push(cx - Math.sqrt(rest), cx + Math.sqrt(rest));
  }
  const [dx, dy] = [bx - ax, by - ay];
  const length = Math.hypot(dx, dy);
  for (const side of dy ? [-radius, radius] : []) {
    const share = (y - ay - (side * dx) / length) / dy;
    if (share >= 0 && share <= 1) places.push(ax - (side * dy) / length + share * dx);
  }
  return places.length ? [Math.floor(Math.min(...places)) - 1, Math.ceil(Math.max(...places)) + 1] : [0, -1];
}

/**
 * Fills a polygon: pixels whose centre lies inside, by the even-odd rule.
 * @param {Mask} mask
 * @param {[number, number][]} corners  between pixels: (0, 0) is the image's corner
 */
export function fillPolygon(mask, corners, value) {
  const rows = corners.map(([, y]) => y);
  const last = Math.min(mask.height, Math.ceil(Math.max(...rows)));
  for (let y = Math.max(0, Math.floor(Math.min(...rows))); y < last; y += 1) {
    const middle = y + 0.5;
    const crossings = [];
    corners.forEach(([x0, y0], index) => {
      const [x1, y1] = corners[(index + 1) % corners.length];
      if (y0 <= middle !== y1 <= middle) crossings.push(x0 + ((middle - y0) / (y1 - y0)) * (x1 - x0));
    });
    crossings.sort((one, other) => one - other);
    for (let index = 0; index + 1 < crossings.length; index += 2) {
      mask.setRun(y, Math.ceil(crossings[index] - 0.5), Math.ceil(crossings[index + 1] - 0.5), value);
    }
  }
}

/**
 * Fills what is connected to a pixel over its sides and has its value.
 * @param {Mask} mask
 * @returns {boolean}  whether the area reached all four sides of the image: then the outline was open
 */
export function fillArea(mask, x, y, value) {
  const sides = { left: false, top: false, right: false, bottom: false };
  const open = 1 - value;
  const starts = [{ place: x, row: y, from: { row: -1, left: 0, right: 0 } }]; // `from` is filled: nothing is to be found there
  while (starts.length) {
    const { place, row, from } = starts.pop();
    if (mask.get(place, row) === value) continue;
    const left = mask.startOfRun(place, row, open);
    const right = mask.endOfRun(place, row, open);
    mask.setRun(row, left, right, value);
    sides.left ||= left === 0;
    sides.right ||= right === mask.width;
    sides.top ||= row === 0;
    sides.bottom ||= row === mask.height - 1;
    for (const next of [row - 1, row + 1]) {
      if (next < 0 || next >= mask.height) continue;
      const parts = next === from.row ? [[left, from.left], [from.right, right]] : [[left, right]];
      for (const [start, end] of parts) {
        let px = start < end ? mask.endOfRun(start, next, value) : end;
        while (px < end) {
          starts.push({ place: px, row: next, from: { row, left, right } });
          px = mask.endOfRun(mask.endOfRun(px, next, open), next, value);
        }
      }
    }
  }
  return sides.left && sides.top && sides.right && sides.bottom;
}
