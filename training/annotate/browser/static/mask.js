/** A mask in memory, one bit a pixel, and everything that changes it. */

/** Bytes of earlier states that are kept to be undone. */
const MOST_BYTES = 128 * 2 ** 20;

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box  in pixels; right and bottom lie outside */

/**
 * One change: what a rectangle of the mask held before, and what it holds after.
 * @typedef {object} Edit
 * @property {number} top  first row
 * @property {number} first  first byte of a row
 * @property {number} rows
 * @property {number} count  bytes of a row
 * @property {Uint8Array} before
 * @property {Uint8Array} after
 */

export class Mask {
  /**
   * @param {number} width
   * @param {number} height
   * @param {Uint8Array} [bits]  rows of whole bytes, the leftmost pixel in the highest bit
   */
  constructor(width, height, bits) {
    Object.assign(this, { width, height, stride: (width + 7) >> 3 });
    this.bits = bits?.length ? bits : new Uint8Array(this.stride * height);
    this.touched = new Map();
    this.undone = [];
    this.done = [];
  }

  get(x, y) {
    return (this.bits[y * this.stride + (x >> 3)] >> (7 - (x & 7))) & 1;
  }

  isEmpty() {
    return !this.bits.some(Boolean);
  }

  /** Sets the pixels of a row from `start` up to `end`, which is left out. */
  setRun(y, start, end, value) {
    const from = Math.max(0, start);
    const to = Math.min(this.width, end);
    if (y < 0 || y >= this.height || from >= to) return;
    const row = y * this.stride;
    if (!this.touched.has(y)) this.touched.set(y, this.bits.slice(row, row + this.stride));
    const first = from >> 3;
    const last = (to - 1) >> 3;
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

  /** Ends a change, so that it can be undone; returns whether it changed anything. */
  commit() {
    const edit = this.#changes();
    this.touched.clear();
    if (!edit) return false;
    this.done.push(edit);
    this.undone = [];
    let bytes = this.done.reduce((sum, { before }) => sum + 2 * before.length, 0);
    while (bytes > MOST_BYTES && this.done.length > 1) bytes -= 2 * this.done.shift().before.length;
    return true;
  }

  /** Takes back what was changed since the last `commit`. */
  cancel() {
    for (const [y, before] of this.touched) this.bits.set(before, y * this.stride);
    this.touched.clear();
  }

  /** @returns {?Edit} */
  #changes() {
    let [top, bottom, first, last] = [this.height, -1, this.stride, -1];
    for (const [y, before] of this.touched) {
      const row = y * this.stride;
      let start = 0;
      while (start < this.stride && before[start] === this.bits[row + start]) start += 1;
      if (start === this.stride) continue;
      let end = this.stride - 1;
      while (before[end] === this.bits[row + end]) end -= 1;
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      [first, last] = [Math.min(first, start), Math.max(last, end)];
    }
    if (bottom < 0) return null;
    const [rows, count] = [bottom - top + 1, last - first + 1];
    const edit = { top, first, rows, count, before: new Uint8Array(rows * count), after: new Uint8Array(rows * count) };
    for (let index = 0; index < rows; index += 1) {
      const row = (top + index) * this.stride;
      const now = this.bits.subarray(row + first, row + first + count);
      const before = this.touched.get(top + index)?.subarray(first, first + count) ?? now;
      edit.before.set(before, index * count);
      edit.after.set(now, index * count);
    }
    return edit;
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
    for (let index = 0; index < edit.rows; index += 1) {
      const part = edit[which].subarray(index * edit.count, (index + 1) * edit.count);
      this.bits.set(part, (edit.top + index) * this.stride + edit.first);
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
  const isOpen = (px, py) => mask.get(px, py) !== value;
  const starts = [x, y];
  while (starts.length) {
    const row = starts.pop();
    const place = starts.pop();
    if (!isOpen(place, row)) continue;
    let left = place;
    let right = place + 1;
    while (left > 0 && isOpen(left - 1, row)) left -= 1;
    while (right < mask.width && isOpen(right, row)) right += 1;
    mask.setRun(row, left, right, value);
    sides.left ||= left === 0;
    sides.right ||= right === mask.width;
    sides.top ||= row === 0;
    sides.bottom ||= row === mask.height - 1;
    for (const next of [row - 1, row + 1]) {
      if (next < 0 || next >= mask.height) continue;
      for (let px = left; px < right; px += 1) {
        if (isOpen(px, next) && (px === left || !isOpen(px - 1, next))) starts.push(px, next);
      }
    }
  }
  return sides.left && sides.top && sides.right && sides.bottom;
}

/** Sets all pixels, or turns each round. */
export function fillAll(mask, change) {
  for (let y = 0; y < mask.height; y += 1) {
    const row = y * mask.stride;
    mask.setRun(y, 0, mask.width, 0); // noted, to be undone
    const before = mask.touched.get(y);
    if (change === "invert") {
      for (let byte = 0; byte < mask.stride; byte += 1) mask.bits[row + byte] = ~before[byte];
      mask.bits[row + mask.stride - 1] &= (0xff << (8 * mask.stride - mask.width)) & 0xff;
    }
  }
}
