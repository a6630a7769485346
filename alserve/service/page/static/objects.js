/** The objects of a mask: its connected parts, pixels that touch at a corner included, as the server finds them. */

/** A larger map is not searched: it would hold up the page. */
const MOST_PIXELS = 2 ** 24;
/** The largest objects that the table lists. */
const ROWS = 100;

/**
 * @typedef {object} MaskObject
 * @property {number} number  from 1, in reading order of the first pixels
 * @property {number} area  in pixels
 * @property {number} mean  probability, 0 to 1
 * @property {number} left
 * @property {number} top
 * @property {number} width
 * @property {number} height
 */

/**
 * Finds the objects above a threshold.
 * @param {import("./maps.js").Grey} grey
 * @param {number} threshold  0 to 1
 * @returns {?MaskObject[]}  null where the map is too large
 */
export function findObjects({ width, height, levels }, threshold) {
  if (levels.length > MOST_PIXELS) return null;
  const limit = threshold * 255;
  const open = Uint8Array.from(levels, (level) => level > limit);
  const stack = new Int32Array(levels.length);
  const objects = [];
  for (let start = 0; start < open.length; start += 1) {
    if (!open[start]) continue;
    let [area, sum, count, left, right, bottom] = [0, 0, 1, width, 0, 0];
    stack[0] = start;
    open[start] = 0;
    while (count) {
      count -= 1;
      const pixel = stack[count];
      const x = pixel % width;
      const y = (pixel - x) / width;
      area += 1;
      sum += levels[pixel];
      left = Math.min(left, x);
      right = Math.max(right, x);
      bottom = Math.max(bottom, y);
      for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row += 1) {
        for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column += 1) {
          const near = row * width + column;
          if (!open[near]) continue;
          open[near] = 0;
          stack[count] = near;
          count += 1;
        }
      }
    }
    const top = Math.floor(start / width);
    const box = { left, top, width: right - left + 1, height: bottom - top + 1 };
    objects.push({ number: objects.length + 1, area, mean: sum / area / 255, ...box });
  }
  return objects;
}

/**
 * Lists objects, the largest first; the one under the pointer, or with the keyboard's focus, is marked.
 * @param {HTMLTableElement} table
 * @param {MaskObject[]} objects
 * @param {(object: ?MaskObject) => void} mark
 */
export function listObjects(table, objects, mark) {
  const largest = [...objects].sort((one, other) => other.area - one.area).slice(0, ROWS);
  table.tBodies[0].replaceChildren(
    ...largest.map((object, place) => {
      const row = document.createElement("tr");
      row.tabIndex = place ? -1 : 0;
      row.addEventListener("keydown", moveFocus);
      for (const text of [object.number, object.area.toLocaleString("en"), object.mean.toFixed(2)]) {
        row.insertCell().textContent = text;
      }
      for (const type of ["pointerenter", "focus"]) row.addEventListener(type, () => mark(object));
      for (const type of ["pointerleave", "blur"]) row.addEventListener(type, () => mark(null));
      return row;
    }),
  );
}

/** Moves the focus up and down the rows, of which the Tab key reaches one. */
function moveFocus(event) {
  const { currentTarget: row, key } = event;
  const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[key];
  if (!next) return;
  row.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  event.preventDefault();
}

/** Says in a line what was found. */
export function describeObjects(objects) {
  if (!objects) return "too large a picture to count here";
  if (!objects.length) return "none";
  const pixels = objects.reduce((total, { area }) => total + area, 0);
  const mean = Math.round(pixels / objects.length).toLocaleString("en");
  const listed = objects.length > ROWS ? `; the ${ROWS} largest` : "";
  const count = objects.length === 1 ? "1 object" : `${objects.length.toLocaleString("en")} objects`;
  return `${count}, ${mean} pixels on average${listed}`;
}
