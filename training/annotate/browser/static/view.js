/** What is seen of an image and its mask: where it lies in the window, and how it is drawn there. */

const YELLOW = [240, 228, 66];
/** Device pixels of an image pixel, at most; from `SHARP` on pixels are shown as squares. */
const MOST_SCALE = 64;
const SHARP = 4;

/** A colour as a number of `ImageData` holds it, on machines of either byte order. */
function packed(red, green, blue, alpha) {
  return new Uint32Array(Uint8ClampedArray.of(red, green, blue, alpha).buffer)[0];
}

/** Returns the smallest box around two, or around one of them. */
function around(one, other) {
  if (!one) return other;
  return {
    left: Math.min(one.left, other.left),
    top: Math.min(one.top, other.top),
    right: Math.max(one.right, other.right),
    bottom: Math.max(one.bottom, other.bottom),
  };
}

export class View {
  /**
   * @param {HTMLElement} stage
   * @param {HTMLCanvasElement} picture  lowest layer: the image
   * @param {HTMLCanvasElement} overlay  the mask
   */
  constructor(stage, picture, overlay) {
    Object.assign(this, { stage, picture, overlay, image: null, mask: null });
    Object.assign(this, { scale: 1, left: 0, top: 0, opacity: 0.4, shows: true });
    this.isFitted = true;
  }

  /** What the next frame draws anew: the image, all of the mask, or what of it lies in a box. */
  #dirty = { picture: true, all: true, box: null };
  #frame = 0;

  /**
   * Shows an image with its mask, whole.
   * @param {import("./picture.js").Picture} image
   * @param {import("./mask.js").Mask} mask
   */
  show(image, mask) {
    this.image?.close();
    Object.assign(this, { image, mask });
    this.fit();
  }

  /** Makes the layers as large as their place, in device pixels. */
  resize() {
    const width = Math.max(1, Math.round(this.stage.clientWidth * devicePixelRatio));
    const height = Math.max(1, Math.round(this.stage.clientHeight * devicePixelRatio));
    const [moved, lowered] = [(width - this.overlay.width) / 2, (height - this.overlay.height) / 2];
    for (const canvas of [this.picture, this.overlay]) Object.assign(canvas, { width, height });
    if (this.isFitted) this.fit();
    else this.pan(moved, lowered);
  }

  fit() {
    if (!this.mask) return;
    const { width, height } = this.overlay;
    this.scale = Math.min(width / this.mask.width, height / this.mask.height, MOST_SCALE) * 0.96;
    this.left = (width - this.mask.width * this.scale) / 2;
    this.top = (height - this.mask.height * this.scale) / 2;
    this.isFitted = true;
    this.redraw();
  }

  /** Zooms so that the place under (x, y), in device pixels, stays where it is. */
  zoom(factor, x = this.overlay.width / 2, y = this.overlay.height / 2) {
    if (!this.mask) return;
    const least = Math.min(1, this.overlay.width / this.mask.width, this.overlay.height / this.mask.height) / 4;
    const scale = Math.min(MOST_SCALE, Math.max(least, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.pan(0, 0);
  }

  /** Moves the image by device pixels; a part of it always stays in sight. */
  pan(x, y) {
    if (!this.mask) return;
    const keep = (place, size, length) => Math.min(length * 0.9, Math.max(length * 0.1 - size, place));
    this.left = keep(this.left + x, this.mask.width * this.scale, this.overlay.width);
    this.top = keep(this.top + y, this.mask.height * this.scale, this.overlay.height);
    this.isFitted = false;
    this.redraw();
  }

  /** Moves the image, if need be, so that a pixel is in sight. */
  reveal([x, y]) {
    const margin = 40 * devicePixelRatio;
    const [px, py] = [this.left + (x + 0.5) * this.scale, this.top + (y + 0.5) * this.scale];
    const need = (place, length) => (place < margin ? margin - place : Math.min(0, length - margin - place));
    const [moveX, moveY] = [need(px, this.overlay.width), need(py, this.overlay.height)];
    if (moveX || moveY) this.pan(moveX, moveY);
  }

  /** Returns where in the layers an event is, in device pixels. */
  place(event) {
    const box = this.overlay.getBoundingClientRect();
    return [(event.clientX - box.left) * devicePixelRatio, (event.clientY - box.top) * devicePixelRatio];
  }

  /** Returns where in the image an event is: (0, 0) is the image's corner. */
  point(event) {
    const [x, y] = this.place(event);
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  /** Draws everything anew, or what of the mask lies in a box, in the next frame. */
  redraw(box = null) {
    if (!box) Object.assign(this.#dirty, { picture: true, all: true });
    else this.#dirty.box = around(this.#dirty.box, box);
    this.#plan();
  }

  /** Draws the image anew, in the next frame. */
  redrawPicture() {
    this.#dirty.picture = true;
    this.#plan();
  }

  #plan() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { picture, all, box } = this.#dirty;
    this.#dirty = { picture: false, all: false, box: null };
    if (!this.mask) return;
    const { width, height } = this.overlay;
    if (picture) this.#drawPicture();
    if (!all && !box) return;
    const region = all ? { left: 0, top: 0, right: width, bottom: height } : {
      left: Math.max(0, Math.floor(this.left + box.left * this.scale) - 2),
      top: Math.max(0, Math.floor(this.top + box.top * this.scale) - 2),
      right: Math.min(width, Math.ceil(this.left + box.right * this.scale) + 2),
      bottom: Math.min(height, Math.ceil(this.top + box.bottom * this.scale) + 2),
    };
    this.#drawMask(region);
    this.stage.dispatchEvent(new Event("drawn"));
  }

  #drawPicture() {
    const context = this.picture.getContext("2d");
    context.clearRect(0, 0, this.picture.width, this.picture.height);
    context.imageSmoothingEnabled = this.scale < SHARP;
    this.image.draw(context, this);
  }

  /** Draws a region of the mask: filled, with an outline as thick as the screen's pixels in any zoom. */
  #drawMask({ left, top, right, bottom }) {
    const [width, height] = [right - left, bottom - top];
    if (width <= 0 || height <= 0) return;
    const context = this.overlay.getContext("2d");
    if (!this.shows) {
      context.clearRect(left, top, width, height);
      return;
    }
    const pixels = context.createImageData(width, height);
    const colours = new Uint32Array(pixels.data.buffer);
    const fill = packed(...YELLOW, Math.round(255 * this.opacity));
    const [line, casing] = [packed(...YELLOW, 255), packed(0, 0, 0, 150)];
    const columns = Int32Array.from({ length: width + 2 }, (_, index) => {
      const x = Math.floor((left + index - 0.5 - this.left) / this.scale);
      return x >= 0 && x < this.mask.width ? x : -1;
    });
    const rowAt = (row) => {
      const y = Math.floor((row + 0.5 - this.top) / this.scale);
      return y >= 0 && y < this.mask.height ? y : -1;
    };
    const { bits, stride } = this.mask;
    const lines = [0, 1, 2].map(() => ({ y: -2, bits: new Uint8Array(width + 2), ones: 0 }));
    let [above, here] = [readLine(lines[0], rowAt(top - 1), bits, stride, columns), readLine(lines[1], rowAt(top), bits, stride, columns)];
    let known = "";
    for (let row = 0; row < height; row += 1) {
      const y = rowAt(top + row + 1);
      const spare = lines.find((line) => line !== above && line !== here);
      const below = y === here.y ? here : readLine(spare, y, bits, stride, columns);
      const ys = `${above.y} ${here.y} ${below.y}`;
      const ones = above.ones + here.ones + below.ones;
      if (ys === known) colours.copyWithin(row * width, (row - 1) * width, row * width); // the same pixels, enlarged
      else if (ones === 3 * columns.length) colours.fill(fill, row * width, (row + 1) * width);
      else if (ones) colourRow(colours, row * width, above.bits, here.bits, below.bits, fill, line, casing);
      known = ys;
      [above, here] = [here, below];
    }
    context.putImageData(pixels, left, top);
  }
}

/** Reads the pixels of some columns of row `y` into a line; a row or column of -1 lies outside of the mask and holds nothing. */
function readLine(line, y, bits, stride, columns) {
  const into = line.bits;
  let ones = 0;
  if (y < 0) into.fill(0);
  else {
    for (let index = 0; index < columns.length; index += 1) {
      const x = columns[index];
      const bit = x < 0 ? 0 : (bits[y * stride + (x >> 3)] >> (7 - (x & 7))) & 1;
      into[index] = bit;
      ones += bit;
    }
  }
  return Object.assign(line, { y, ones });
}

/** Colours a row of the screen, from that row of the mask and its neighbours, which begin one pixel further to the left. */
function colourRow(colours, start, above, here, below, fill, line, casing) {
  for (let index = 1; index < here.length - 1; index += 1) {
    const around = above[index] + below[index] + here[index - 1] + here[index + 1];
    if (here[index]) colours[start + index - 1] = around === 4 ? fill : line;
    else if (around) colours[start + index - 1] = casing;
  }
}
