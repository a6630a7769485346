/** Which tool is used, how large the brush is, and how the image looks. */

/** Brush sizes, in pixels of the image. */
const SIZES = [1, 1000];
/** The first brush, in pixels, and what share of a large image's longest side it is. */
const [FIRST_SIZE, FIRST_SHARE] = [20, 1 / 40];

/** What each tool does, and what else where there is a mouse. */
const HINTS = {
  brush: ["Drag to paint.", "Alt or the right button erases."],
  eraser: ["Drag to erase.", "Alt or the right button paints."],
  polygon: ["Click the corners, and the first one again to close.", "Enter and a double click close it, too; Alt cuts out."],
  fill: ["Click inside a closed outline to fill it.", "Alt or the right button removes an area."],
};

const find = (id) => document.getElementById(id);
const buttons = () => [...document.querySelectorAll("[data-tool]")];

export class Settings {
  #tools;
  #view;
  #isChosen = false;

  /**
   * @param {import("./tools.js").Tools} tools
   * @param {import("./view.js").View} view
   */
  constructor(tools, view) {
    [this.#tools, this.#view] = [tools, view];
    for (const button of buttons()) button.addEventListener("click", () => this.setTool(button.dataset.tool));
    find("size").addEventListener("input", ({ target }) => this.#chooseSize(SIZES[1] ** target.valueAsNumber));
    for (const id of ["opacity", "brightness", "contrast"]) find(id).addEventListener("input", () => this.#setLooks());
    find("looks").open = innerWidth > 900 && innerHeight > 560;
    this.setTool("brush");
    this.setSize(FIRST_SIZE);
    this.#setLooks();
  }

  setTool(tool) {
    this.#tools.reset();
    this.#tools.tool = tool;
    for (const button of buttons()) {
      const checked = button.dataset.tool === tool;
      button.ariaChecked = String(checked);
      button.tabIndex = checked ? 0 : -1;
    }
    find("hint").textContent = HINTS[tool].slice(0, matchMedia("(any-pointer: fine)").matches ? 2 : 1).join(" ");
  }

  /** Takes up the next tool, or the one before. */
  walk(by) {
    const all = buttons();
    const next = all[(all.findIndex((button) => button.dataset.tool === this.#tools.tool) + by + all.length) % all.length];
    this.setTool(next.dataset.tool);
    next.focus();
  }

  setSize(size) {
    this.#tools.size = Math.round(Math.min(SIZES[1], Math.max(SIZES[0], size)));
    find("size").value = Math.log(this.#tools.size) / Math.log(SIZES[1]);
    find("size-value").textContent = `${this.#tools.size} px`;
    find("size").ariaValueText = `${this.#tools.size} pixels`;
    this.#tools.refresh();
  }

  /** Makes the brush, until its size was chosen, one that can be seen in an image of this longest side. */
  fitSize(side) {
    if (!this.#isChosen) this.setSize(Math.max(FIRST_SIZE, side * FIRST_SHARE));
  }

  #chooseSize(size) {
    this.#isChosen = true;
    this.setSize(size);
  }

  /** Makes the brush larger, or smaller, by a quarter or a pixel. */
  scaleSize(factor) {
    const { size } = this.#tools;
    this.#chooseSize(factor > 1 ? Math.max(size + 1, size * factor) : Math.min(size - 1, size * factor));
  }

  #setLooks() {
    const [opacity, brightness, contrast] = ["opacity", "brightness", "contrast"].map((id) => {
      find(`${id}-value`).textContent = `${Math.round(100 * find(id).valueAsNumber)} %`;
      return find(id).valueAsNumber;
    });
    const isPlain = brightness === 1 && contrast === 1; // a filter costs time in every frame
    find("picture").style.filter = isPlain ? "" : `brightness(${brightness}) contrast(${contrast})`;
    this.#view.opacity = opacity;
    this.#view.redraw();
  }
}
