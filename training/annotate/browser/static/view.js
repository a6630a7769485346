/** What is seen of an image and its mask: where it lies in the window, and how it is drawn there. */

const YELLOW = [240, 228, 66];
/** Longest side of the copy that is drawn while much of a large image is seen. */
const SMALL_SIDE = 2048;
/** Device pixels of an image pixel, at most; from `SHARP` on pixels are shown as squares. */
const MOST_SCALE = 64;
const SHARP = 4;

/** A colour as a number of `ImageData` holds it, on machines of either byte order. */
function packed(red, green, blue, alpha) {
  return new Uint32Array(Uint8ClampedArray.of(red, green, blue, alpha).buffer)[0];
}

export class View {
  /**
   * @param {HTMLElement} stage
   * @param {HTMLCanvasElement} picture  lowest layer: the image
   * @param {HTMLCanvasElement} overlay  the mask
   */
  constructor(stage, picture, overlay) {
    Object.assign(this, { stage, picture, overlay, image: null, small: null, mask: null });
    Object.assign(this, { scale: 1, left: 0, top: 0, opacity: 0.4, shows: true });
    this.isFitted = true;
  }

  /** What the next frame draws anew. */
  #dirty = { picture: true, box: null };
  #frame = 0;

  /** Shows an image with its mask, whole. */
  async show(image, mask) {
    const share = SMALL_SIDE / Math.max(image.width, image.height);
    const size = { resizeWidth: Math.max(1, Math.round(image.width * share)), resizeHeight: Math.max(1, Math.round(image.height * share)), resizeQuality: "high" };
    const small = share < 1 ? await createImageBitmap(image, size) : null;
    this.image?.close();
    this.small?.close();
    Object.assign(this, { image, mask, small });
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
    if (!box) this.#dirty = { picture: true, box: null };
    else if (!this.#dirty.picture) {
      const { box: old } = this.#dirty;
      this.#dirty.box = old ? { left: Math.min(old.left, box.left), top: Math.min(old.top, box.top), right: Math.max(old.right, box.right), bottom: Math.max(old.bottom, box.bottom) } : box;
    }
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { picture, box } = this.#dirty;
    this.#dirty = { picture: false, box: null };
    if (!this.mask) return;
    const { width, height } = this.overlay;
    let region = { left: 0, top: 0, right: width, bottom: height };
    if (picture) this.#drawPicture();
    else if (box) {
      region = {
        left: Math.max(0, Math.floor(this.left + box.left * this.scale) - 2),
        top: Math.max(0, Math.floor(this.top + box.top * this.scale) - 2),
        right: Math.min(width, Math.ceil(this.left + box.right * this.scale) + 2),
        bottom: Math.min(height, Math.ceil(this.top + box.bottom * this.scale) + 2),
      };
    }
    this.#drawMask(region);
    this.stage.dispatchEvent(new Event("drawn"));
  }

  #drawPicture() {
    const { width, height } = this.picture;
    const context = this.picture.getContext("2d");
    context.clearRect(0, 0, width, height);
    const source = this.small && this.scale * this.image.width <= this.small.width ? this.small : this.image;
    const share = source.width / this.image.width;
    context.imageSmoothingEnabled = this.scale < SHARP;
    context.imageSmoothingQuality = "high";
    // Only what is in sight: a browser would scale all of a large image.
    const x0 = Math.max(0, Math.floor(-this.left / this.scale));
    const y0 = Math.max(0, Math.floor(-this.top / this.scale));
    const x1 = Math.min(this.image.width, Math.ceil((width - this.left) / this.scale));
    const y1 = Math.min(this.image.height, Math.ceil((height - this.top) / this.scale));
    if (x1 <= x0 || y1 <= y0) return;
    context.drawImage(
      source,
      x0 * share, y0 * share, (x1 - x0) * share, (y1 - y0) * share,
      this.left + x0 * this.scale, this.top + y0 * this.scale, (x1 - x0) * this.scale, (y1 - y0) * this.scale,
    );
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
    const { bits, stride } = this.mask;
    const read = (row, into) => {
      const y = Math.floor((row + 0.5 - this.top) / this.scale);
      if (y < 0 || y >= this.mask.height) return into.fill(0);
      for (let index = 0; index < columns.length; index += 1) {
        const x = columns[index];
        into[index] = x < 0 ? 0 : (bits[y * stride + (x >> 3)] >> (7 - (x & 7))) & 1;
      }
      return into;
    };
    let above = read(top - 1, new Uint8Array(width + 2));
    let here = read(top, new Uint8Array(width + 2));
    let below = new Uint8Array(width + 2);
    for (let row = 0; row < height; row += 1) {
      read(top + row + 1, below);
      const offset = row * width - 1;
      for (let index = 1; index <= width; index += 1) {
        const around = above[index] + below[index] + here[index - 1] + here[index + 1];
        if (here[index]) colours[offset + index] = around === 4 ? fill : line;
        else if (around) colours[offset + index] = casing;
      }
      [above, here, below] = [here, below, above];
    }
    context.putImageData(pixels, left, top);
  }
}
