/** The list of the images that are asked for. */

import { getThumbnail } from "./service.js";

export class ImageList {
  #element;
  #choose;
  #keys = "";

  /**
   * @param {HTMLElement} element
   * @param {(key: string) => void} choose  what a click does
   */
  constructor(element, choose) {
    [this.#element, this.#choose] = [element, choose];
  }

  /** Shows the images as the command describes them. */
  fill(images, chosen) {
    const keys = images.map((one) => one.key).join();
    if (this.#keys !== keys) this.#element.replaceChildren(...images.map((one) => this.#makeOption(one)));
    this.#keys = keys;
    images.forEach((one, index) => {
      const option = this.#element.children[index];
      const selected = one.key === chosen;
      option.ariaSelected = String(selected);
      option.tabIndex = selected ? 0 : -1;
      option.dataset.state = one.state;
      option.toggleAttribute("data-done", one.done);
      option.querySelector(".state").textContent = one.state;
    });
  }

  #makeOption(one) {
    const option = Object.assign(document.createElement("div"), { role: "option", tabIndex: -1, title: one.name });
    const part = (name, text) => Object.assign(document.createElement("span"), { className: name, textContent: text });
    const picture = Object.assign(new Image(), { alt: "", className: "bare" });
    picture.addEventListener("load", () => picture.classList.remove("bare"));
    option.dataset.key = one.key;
    option.append(picture, part("name", one.name.split("/").at(-1)), part("state", one.state));
    option.addEventListener("click", () => this.#choose(one.key));
    return option;
  }

  get selected() {
    return this.#element.querySelector("[aria-selected=true]");
  }

  /** Loads the small pictures that are not there yet, one after the other. */
  async loadThumbnails() {
    for (const option of this.#element.querySelectorAll(":not([data-pictured])[data-key]")) {
      option.dataset.pictured = "";
      try {
        const picture = option.querySelector("img");
        const url = URL.createObjectURL(await getThumbnail(option.dataset.key));
        picture.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
        picture.src = url;
      } catch {
        // the list is as good without
      }
    }
  }
}
