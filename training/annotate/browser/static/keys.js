/** The keys: what they do is the page's; which is which is here. */

const KEYS = [
  ["Enter", "done, on to the next image (of a polygon: close it)"],
  ["N, S, R", "nothing here; skip; not done yet"],
  ["Page ↑, Page ↓", "the image before, the next one"],
  ["B, E, P, F", "brush, eraser, polygon, fill"],
  ["[ ]", "smaller, larger brush"],
  ["Z, Y", "undo, redo (also with Ctrl or ⌘)"],
  ["C, I", "clear the mask; invert it"],
  ["Wheel, + −", "zoom; on a touch screen, two fingers"],
  ["Space and drag", "move the image; also the middle button, or two fingers"],
  ["0, 1", "whole image; one pixel of it for one of the screen"],
  ["H", "hide the mask, show it again"],
  ["Arrows, X", "move a crosshair (with Shift by one pixel); X presses and lifts the tool there"],
  ["Esc, ⌫", "drop the polygon; its last corner"],
];

/** What is done once, however long the key is held. */
const ONCE = new Set(["Enter", "n", "s", "x"]);

/** Fills the table of the help. */
export function describeKeys(table) {
  table.tBodies[0].append(
    ...KEYS.map(([keys, what]) => {
      const row = document.createElement("tr");
      row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: keys }));
      row.insertCell().textContent = what;
      return row;
    }),
  );
  for (const button of document.querySelectorAll("button[aria-keyshortcuts]")) {
    button.title = `Key: ${button.getAttribute("aria-keyshortcuts").split(" ").at(-1)}`;
  }
}

/**
 * Listens to the keyboard.
 * @param {Record<string, (event: KeyboardEvent) => void>} actions  by key, letters small
 * @param {Record<string, (by: number) => void>} walks  what the arrow keys do in an element, by its id
 * @param {(isDown: boolean) => void} space
 * @param {() => boolean} isActive
 */
export function listen(actions, walks, space, isActive) {
  document.addEventListener("keyup", ({ key }) => key === " " && space(false));
  document.addEventListener("keydown", (event) => {
    if (!isActive() || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    const isCommand = event.ctrlKey || event.metaKey;
    const letter = key.length === 1 ? key.toLowerCase() : key;
    if (isCommand && !["z", "y"].includes(letter)) return;
    if (target.closest("input") && /^(Arrow|Page|Home|End)/.test(key)) return; // a slider's own
    if (target.closest("button, summary") && (key === "Enter" || key === " ")) return;
    const place = key.startsWith("Arrow") && Object.keys(walks).find((id) => target.closest(`#${id}`));
    let act = actions[letter];
    if (place) act = () => walks[place](key === "ArrowUp" || key === "ArrowLeft" ? -1 : 1);
    else if (key === " ") act = () => space(true);
    else if (letter === "z" && event.shiftKey) act = actions.y;
    if (!act || (event.repeat && ONCE.has(letter))) return;
    event.preventDefault();
    act(event);
  });
}
