/** Grey maps from the server: read, counted, coloured, outlined. */

/** Okabe and Ito's yellow, on a dark line that shows it on any ground; as the server draws it. */
export const OUTLINE = "#f0e442";
export const CASING = "#181820";

/** Matplotlib's inferno, from low to high. */
const INFERNO = [
  "#000004", "#0b0724", "#210c4a", "#3d0965", "#57106e", "#71196e", "#8a226a", "#a32c61", "#bc3754",
  "#d04545", "#e35933", "#f1711f", "#f98c0a", "#fcaa0f", "#f9c932", "#f2e865", "#fcffa4",
];

/** @typedef {{width: number, height: number, levels: Uint8Array}} Grey */

/** Loads a picture; rejects where the browser cannot show it. */
export async function loadImage(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Loads a base64 PNG of the server. */
export const loadPng = (png) => loadImage(`data:image/png;base64,${png}`);

/**
 * Draws a picture with its long side reduced to at most `longest` pixels.
 * @param {HTMLImageElement} image
 * @returns {CanvasRenderingContext2D}
 */
export function reduce(image, longest) {
  const scale = Math.min(1, longest / Math.max(image.naturalWidth, image.naturalHeight));
  const width = Math.max(1, Math.round(image.naturalWidth * scale));
  const height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = blank(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return context;
}

/**
 * Reads a grey picture, see `reduce`.
 * @returns {Grey}
 */
export function readGrey(image, longest = Infinity) {
  const context = reduce(image, longest);
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const levels = new Uint8Array(width * height);
  for (let pixel = 0; pixel < levels.length; pixel += 1) levels[pixel] = data[4 * pixel];
  return { width, height, levels };
}

/** Counts the pixels of each grey level, 0 to 255. */
export function countLevels({ levels }) {
  const counts = new Array(256).fill(0);
  for (const level of levels) counts[level] += 1;
  return counts;
}

/** Share of the pixels above a threshold, both 0 to 1. */
export function shareAbove(counts, threshold) {
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  return sum(counts.slice(Math.floor(threshold * 255) + 1)) / sum(counts);
}

/**
 * Paints a map with a colour for each grey level.
 * @param {Grey} grey
 * @param {Uint8ClampedArray} palette  256 colours, RGBA
 * @returns {HTMLCanvasElement}
 */
export function paint({ width, height, levels }, palette) {
  const context = blank(width, height);
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const colours = new Uint32Array(palette.buffer);
  levels.forEach((level, pixel) => {
    pixels[pixel] = colours[level];
  });
  context.putImageData(picture, 0, 0);
  return context.canvas;
}

/** The palette of heat maps. */
export function infernoPalette() {
  const context = blank(256, 1);
  const gradient = context.createLinearGradient(0, 0, 256, 0);
  INFERNO.forEach((colour, index) => gradient.addColorStop(index / (INFERNO.length - 1), colour));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  return context.getImageData(0, 0, 256, 1).data;
}

/** A palette of two colours, each RGBA: up to the threshold, 0 to 1, and above it. */
export function stepPalette(threshold, below, above) {
  return Uint8ClampedArray.from({ length: 1024 }, (_, index) => (index >> 2 > threshold * 255 ? above : below)[index & 3]);
}

/**
 * Traces where a map crosses a threshold: marching squares, with corners at the pixels' centres.
 * The edge of the picture is no outline.
 * @param {Grey} grey
 * @param {number} threshold  0 to 1
 * @returns {Path2D}  in pixels of the map
 */
export function trace({ width, height, levels }, threshold) {
  const limit = threshold * 255;
  const path = new Path2D();
  const crossing = (one, other) => 0.5 + (limit - one) / (other - one);
  for (let y = 0; y + 1 < height; y += 1) {
    for (let x = 0; x + 1 < width; x += 1) {
      const at = y * width + x;
      const [a, b, c, d] = [levels[at], levels[at + 1], levels[at + width + 1], levels[at + width]];
      const inside = (a > limit) + 2 * (b > limit) + 4 * (c > limit) + 8 * (d > limit);
      if (inside === 0 || inside === 15) continue;
      const ends = [];
      if (a > limit !== b > limit) ends.push([x + crossing(a, b), y + 0.5]);
      if (b > limit !== c > limit) ends.push([x + 1.5, y + crossing(b, c)]);
      if (c > limit !== d > limit) ends.push([x + crossing(d, c), y + 1.5]);
      if (d > limit !== a > limit) ends.push([x + 0.5, y + crossing(a, d)]);
      if (inside === 5) ends.push(ends.shift()); // a saddle: keep its two corners apart
      for (let end = 0; end < ends.length; end += 2) {
        path.moveTo(...ends[end]);
        path.lineTo(...ends[end + 1]);
      }
    }
  }
  return path;
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d", { willReadFrequently: true });
}
