/** Saves what is drawn, after every change, in order, until it is saved. */

import { putMask } from "./service.js";

/** After a change, wait for the next one this long, in milliseconds. */
const PAUSE = 300;
/** Between tries. */
const RETRY = 1500;

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Saver {
  #worker = new Worker(new URL("deflate.js", import.meta.url));
  #mask;
  #key = null;
  #version = "";
  /** Number of changes so far. */
  changes = 0;
  #saved = 0;
  #running = null;
  #tell;
  #ask;

  /**
   * @param {(state: "saved"|"saving"|"failed"|"lost", error?: Error) => void} tell
   * @param {(message: string) => Promise<boolean>} ask  what to do where somebody else has changed the mask: true replaces
   *   it, false leaves it as it is
   */
  constructor(tell, ask) {
    this.#tell = tell;
    this.#ask = ask;
  }

  /** From now on, this mask is saved; the one before has to be saved already. */
  open(key, mask, version) {
    this.#key = key;
    this.#mask = mask;
    this.#version = version;
    this.#saved = this.changes;
  }

  get key() {
    return this.#key;
  }

  get version() {
    return this.#version;
  }

  /** The version is another, for a reason that the page knows. */
  set version(version) {
    this.#version = version;
  }

  get isSaved() {
    return this.#saved === this.changes && !this.#running;
  }

  /** The mask was changed. */
  changed() {
    this.changes += 1;
    this.#tell("saving");
    this.#running ??= this.#run(PAUSE).finally(() => {
      this.#running = null;
    });
  }

  /** Waits until all is saved. */
  async flush() {
    while (this.#running) await this.#running;
  }

  async #run(pause) {
    await sleep(pause);
    while (this.#saved !== this.changes) {
      const change = this.changes;
      try {
        this.#version = await putMask(this.#key, await this.#pack(), this.#version);
        this.#saved = change;
        if (change === this.changes) this.#tell("saved");
      } catch (error) {
        if (error.status === 412) await this.#settle(error.message);
        else if (error.status === 404) {
          this.#saved = this.changes; // nobody asks for this image any more
          this.#tell("lost", error);
        } else {
          this.#tell("failed", error);
          await sleep(RETRY);
        }
      }
    }
  }

  async #settle(message) {
    if (await this.#ask(message)) this.#version = "*";
    else {
      this.#saved = this.changes;
      this.#tell("saved");
    }
  }

  /** @returns {Promise<ArrayBuffer>} */
  #pack() {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => resolve(data);
      this.#worker.onerror = reject;
      const copy = this.#mask.bits.slice();
      this.#worker.postMessage(copy, [copy.buffer]);
    });
  }
}
