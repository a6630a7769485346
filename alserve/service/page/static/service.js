/** Talks with the service that this page comes from. What it throws has a message for the user. */

/** The service refuses a larger body; the browser would only report a broken connection. */
const MAX_BYTES = 32 * 2 ** 20;

/** Answers of a server that has too much to do: try again a little later. */
const BUSY = new Set([429, 503]);
const TRIES = 8;

const TOKEN = "alserve-token";
let asking = null;

/**
 * @typedef {object} Answer
 * @property {string} label
 * @property {Record<string, number>} scores  0 to 1, by class
 * @property {number} width  of the image, upright, in pixels
 * @property {number} height
 * @property {number} threshold  0 to 1
 * @property {number} foreground  share of the image, 0 to 1
 * @property {?string} warning
 * @property {{png: string}} [probability]  base64, grey, 255 is a probability of 1
 * @property {{png: string, class: string}} [cam]  base64, grey
 * @property {{png: string}} [overlay]  base64, RGB
 */

/** What the server says of its model. */
export const getModel = async () => (await request("model")).json();

/** One of the pictures that come with the page. */
export const getExample = async (name) => (await request(`page/examples/${name}`)).blob();

/**
 * Has a picture predicted.
 * @param {Blob} file
 * @param {string} query  options of `POST /predict`
 * @returns {Promise<Answer>}
 */
export async function predict(file, query) {
  const response = await send(`predict?${query}`, file);
  return reach(() => response.json());
}

/**
 * Has a picture segmented.
 * @param {Blob} file
 * @param {string} query  options of `POST /segment`
 * @returns {Promise<Blob>}  the file of one output
 */
export async function segment(file, query) {
  const response = await send(`segment?${query}`, file);
  return reach(() => response.blob());
}

async function send(path, file) {
  if (file.size > MAX_BYTES) {
    throw new Error(`The file has ${Math.ceil(file.size / 2 ** 20)} MiB; the server takes ${MAX_BYTES / 2 ** 20} MiB.`);
  }
  const body = await file.arrayBuffer().catch(() => {
    throw new Error("The file cannot be read. Folders cannot be dropped, only pictures.");
  });
  if (!body.byteLength) throw new Error("The file is empty.");
  return request(path, { method: "POST", body }, { "Content-Type": "application/octet-stream" });
}

async function request(path, options = {}, headers = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const token = sessionStorage.getItem(TOKEN);
    const authorization = token ? { Authorization: `Bearer ${utf8(token)}` } : {};
    const response = await reach(() => fetch(path, { ...options, headers: { ...headers, ...authorization } }));
    if (response.ok) return response;
    if (response.status === 401) await askToken(token);
    else if (BUSY.has(response.status) && attempt < TRIES) await pause(response.headers.get("Retry-After"));
    else throw new Error(await reason(response));
  }
}

/** A header holds bytes: the text's UTF-8, one byte a character. */
const utf8 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

async function reach(ask) {
  try {
    return await ask();
  } catch {
    throw new Error("The server does not answer. See that it is running, then try again.");
  }
}

async function reason(response) {
  const answer = await response.json().catch(() => ({}));
  return answer.error ?? `The server answered ${response.status} ${response.statusText}.`;
}

function pause(retryAfter) {
  const seconds = Math.min(Number(retryAfter) || 1, 30);
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** Asks the user for a token, once for all requests that wait for one. */
async function askToken(refused) {
  if (sessionStorage.getItem(TOKEN) !== refused) return;
  asking ??= new Promise((resolve) => {
    const dialog = document.querySelector("#ask");
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "send"), { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  }).finally(() => {
    asking = null;
  });
  if (!(await asking)) throw new Error("The server asks for a token.");
  sessionStorage.setItem(TOKEN, document.querySelector("#token").value.trim());
}
