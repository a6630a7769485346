/** The chosen picture, large, with what the model saw in it. */

import { CASING, OUTLINE, countLevels, infernoPalette, loadImage, loadPng, paint, readGrey, reduce, stepPalette, trace } from "./maps.js";

/** Long side of the maps drawn over the picture, in pixels; shares and masks are taken from the whole map. */
const MAP_SIDE = 1024;
/** Long side of the picture under them. */
const PICTURE_SIDE = 2560;
/** A small picture is enlarged up to this factor. */
const ENLARGED = 4;

const YELLOW = [240, 228, 66, 255];
const CLEAR = [0, 0, 0, 0];

/**
 * What is drawn of one picture.
 * @typedef {object} Layers
 * @property {?HTMLImageElement} image  null where the browser cannot show it
 * @property {HTMLCanvasElement} [picture]  the image, reduced
 * @property {import("./maps.js").Grey} [whole]  the probability map, as large as the picture
 * @property {import("./maps.js").Grey} [probability]  the same, reduced
 * @property {number[]} [counts]  pixels of each grey level of the whole probability map
 * @property {HTMLCanvasElement} [heat]
 */

/**
 * Loads all that is drawn of a picture.
 * @returns {Promise<Layers>}
 */
export async function loadLayers(url, answer) {
  const image = await loadImage(url).catch(() => null);
  const picture = image && reduce(image, PICTURE_SIDE).canvas;
  if (!answer) return { image, picture };
  const [probability, cam] = await Promise.all([loadPng(answer.probability.png), loadPng(answer.cam.png)]);
  const whole = readGrey(probability);
  return {
    image,
    picture,
    whole,
    probability: readGrey(probability, MAP_SIDE),
    counts: countLevels(whole),
    heat: paint(readGrey(cam, MAP_SIDE), infernoPalette()),
  };
}

/**
 * Draws a picture and its layers as large as its place allows, as sharp as the screen is.
 * @param {HTMLCanvasElement} canvas
 * @param {Layers} layers
 * @param {number} share  of the window's height that it may fill
 * @param {{outline: boolean, fill?: number, heat: boolean, opacity: number, threshold?: number,
 *   marked?: ?import("./objects.js").MaskObject}} settings
 */
export function draw(canvas, { image, picture, probability, heat }, share, settings) {
  canvas.hidden = !image;
  if (!image) return;
  const { naturalWidth, naturalHeight } = image;
  const scale = Math.min(
    canvas.parentElement.clientWidth / naturalWidth,
    (window.innerHeight * share) / naturalHeight,
    ENLARGED,
  );
  const width = Math.max(1, Math.round(naturalWidth * scale * devicePixelRatio));
  const height = Math.max(1, Math.round(naturalHeight * scale * devicePixelRatio));
  Object.assign(canvas, { width, height });
  canvas.style.width = `${width / devicePixelRatio}px`;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  if (probability && settings.heat) drawHeat(context, heat, settings.opacity);
  if (probability && settings.outline) drawMask(context, probability, settings);
  if (settings.marked) drawBox(context, settings.marked, width / naturalWidth);
}

/** Draws a box around an object, a little outside of it. */
function drawBox(context, { left, top, width, height }, scale) {
  const margin = 4 * devicePixelRatio;
  const box = [left * scale - margin, top * scale - margin, width * scale + 2 * margin, height * scale + 2 * margin];
  for (const [colour, line] of [[CASING, 5], ["#ffffff", 2.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * devicePixelRatio;
    context.strokeRect(...box);
  }
}

/** The server's mask image: white above the threshold, of the picture's own size. */
export async function maskBlob(answer, threshold) {
  const whole = readGrey(await loadPng(answer.probability.png));
  const canvas = paint(whole, stepPalette(threshold, [0, 0, 0, 255], [255, 255, 255, 255]));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Draws the heat over the picture in grey, so that colour means heat alone. */
function drawHeat(context, heat, opacity) {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.globalAlpha = opacity;
  context.drawImage(heat, 0, 0, width, height);
  context.globalAlpha = 1;
}

function drawMask(context, probability, { threshold, fill }) {
  const { width, height } = context.canvas;
  context.globalAlpha = fill;
  context.drawImage(paint(probability, stepPalette(threshold, CLEAR, YELLOW)), 0, 0, width, height);
  context.globalAlpha = 1;
  const outline = new Path2D();
  outline.addPath(trace(probability, threshold), new DOMMatrix().scale(width / probability.width, height / probability.height));
  context.lineCap = "round";
  for (const [colour, line] of [[CASING, 4], [OUTLINE, 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * devicePixelRatio;
    context.stroke(outline);
  }
}
