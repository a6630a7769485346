/** The image as it is shown: the whole of it, small, and of a large one the tiles that are seen, as sharp as they are seen. */

import { getPicture, getTile } from "./service.js";

/** Side of a tile, and longest side of the whole image as the server sends it, in pixels; see `pictures.py`. */
const SIDE = 1024;
/** Tiles that are kept, beside those in sight: four megabytes each. */
const KEPT = 24;
/** Tiles that are asked for at once. */
const AT_ONCE = 3;
/** After a tile could not be had, in milliseconds. */
const RETRY = 2000;

export class Picture {
  #key;
  #whole;
  /** Tiles that are there, by `level/column/row`, those that were seen last at the end. */
  #tiles = new Map();
  /** Tiles that are on their way. */
  #asked = new Set();
  #closed = false;
  #came;

  /**
   * @param {string} key
   * @param {ImageBitmap} whole
   * @param {number} width  of the image itself
   * @param {number} height
   * @param {() => void} came  more of the image can be drawn now
   */
  constructor(key, whole, width, height, came) {
    [this.#key, this.#whole, this.#came] = [key, whole, came];
    Object.assign(this, { width, height });
  }

  close() {
    this.#closed = true;
    for (const bitmap of [this.#whole, ...this.#tiles.values()]) bitmap.close();
    this.#tiles.clear();
  }

  /**
   * Draws what is in sight of it, and asks for what is missing.
   * @param {CanvasRenderingContext2D} context
   * @param {{scale: number, left: number, top: number}} view  pixels of the canvas a pixel of the image, and where its corner is
   */
  draw(context, view) {
    const { width, height } = context.canvas;
    const seen = {
      left: Math.max(0, Math.floor(-view.left / view.scale)),
      top: Math.max(0, Math.floor(-view.top / view.scale)),
      right: Math.min(this.width, Math.ceil((width - view.left) / view.scale)),
      bottom: Math.min(this.height, Math.ceil((height - view.top) / view.scale)),
    };
    if (seen.right <= seen.left || seen.bottom <= seen.top) return;
    const longest = Math.max(this.width, this.height);
    if (longest <= SIDE || longest * view.scale <= SIDE) this.#put(context, view, this.#whole, { left: 0, top: 0, right: this.width, bottom: this.height }, seen);
    else this.#drawTiles(context, view, seen);
  }

  #drawTiles(context, view, seen) {
    const level = Math.max(0, Math.floor(-Math.log2(view.scale)));
    const side = SIDE * 2 ** level;
    const missing = [];
    const inSight = new Set();
    for (let row = Math.floor(seen.top / side); row * side < seen.bottom; row += 1) {
      for (let column = Math.floor(seen.left / side); column * side < seen.right; column += 1) {
        const name = `${level}/${column}/${row}`;
        inSight.add(name);
        if (!this.#tiles.has(name)) missing.push(name);
        const box = cut(this, level, column, row);
        const part = { left: Math.max(box.left, seen.left), top: Math.max(box.top, seen.top), right: Math.min(box.right, seen.right), bottom: Math.min(box.bottom, seen.bottom) };
        this.#put(context, view, ...this.#best(level, column, row), part);
      }
    }
    for (const name of inSight) this.#renew(name);
    this.#drop(inSight);
    this.#ask(missing);
  }

  /** Returns the sharpest picture of a tile's place that is there, and what part of the image it shows. */
  #best(level, column, row) {
    for (let up = 0; SIDE * 2 ** (level + up) < Math.max(this.width, this.height); up += 1) {
      const place = [level + up, column >> up, row >> up];
      const bitmap = this.#tiles.get(place.join("/"));
      if (bitmap) return [bitmap, cut(this, ...place)];
    }
    return [this.#whole, { left: 0, top: 0, right: this.width, bottom: this.height }];
  }

  /** Draws a part of the image from a picture of a box around it; edges lie on pixels of the canvas, so that tiles have no seams. */
  #put(context, view, bitmap, box, part) {
    const [across, down] = [bitmap.width / (box.right - box.left), bitmap.height / (box.bottom - box.top)];
    const [x0, x1] = [part.left, part.right].map((x) => Math.round(view.left + x * view.scale));
    const [y0, y1] = [part.top, part.bottom].map((y) => Math.round(view.top + y * view.scale));
    context.drawImage(
      bitmap,
      (part.left - box.left) * across, (part.top - box.top) * down, (part.right - part.left) * across, (part.bottom - part.top) * down,
      x0, y0, x1 - x0, y1 - y0,
    );
  }

  #renew(name) {
    const bitmap = this.#tiles.get(name);
    if (this.#tiles.delete(name)) this.#tiles.set(name, bitmap);
  }

  #drop(inSight) {
    for (const [name, bitmap] of this.#tiles) {
      if (this.#tiles.size <= KEPT + inSight.size || inSight.has(name)) break;
      bitmap.close();
      this.#tiles.delete(name);
    }
  }

  #ask(names) {
    for (const name of names) {
      if (this.#asked.size >= AT_ONCE) return;
      if (!this.#asked.has(name)) this.#load(name);
    }
  }

  async #load(name) {
    this.#asked.add(name);
    try {
      const bitmap = await createImageBitmap(await getTile(this.#key, name));
      if (this.#closed) bitmap.close();
      else this.#tiles.set(name, bitmap);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY)); // the command was stopped; meanwhile it is less sharp
    }
    this.#asked.delete(name);
    if (!this.#closed) this.#came();
  }
}

/** Returns the part of an image that a tile shows. */
function cut({ width, height }, level, column, row) {
  const side = SIDE * 2 ** level;
  return { left: column * side, top: row * side, right: Math.min(width, (column + 1) * side), bottom: Math.min(height, (row + 1) * side) };
}

/** Loads the whole of an image as the server sends it. */
export async function loadWhole(key) {
  return createImageBitmap(await getPicture(key));
}
