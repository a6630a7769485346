/** Talks with the command that this page comes from. What it throws has a message for the person. */

/** The secret in the address; it stays there, so that the page can be loaded again. */
const token = location.hash.slice(1);

export class Refused extends Error {
  constructor(status, { error, doubt }) {
    super(error ?? `The command answered ${status}.`);
    Object.assign(this, { status, doubt });
  }
}

/** The command does not answer; it may be started again. */
export class Unreachable extends Error {
  constructor() {
    super("The command does not answer.");
  }
}

async function request(path, options = {}, headers = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, Authorization: `Bearer ${token}` } });
    if (response.ok) return response;
  } catch {
    throw new Unreachable();
  }
  throw new Refused(response.status, await response.json().catch(() => ({})));
}

const read = async (response, how) => {
  try {
    return await response[how]();
  } catch {
    throw new Unreachable();
  }
};

export const getStatus = async () => read(await request("status"), "json");

export const getPicture = async (key) => read(await request(`images/${key}/picture`), "blob");

export const getTile = async (key, tile) => read(await request(`images/${key}/tiles/${tile}`), "blob");

export const getThumbnail = async (key) => read(await request(`images/${key}/thumbnail`), "blob");

/**
 * What drawing starts from.
 * @returns {Promise<{kind: "mask"|"draft"|"nothing", width: number, height: number, version: string, bits: Uint8Array}>}
 */
export async function getMask(key) {
  const response = await request(`images/${key}/mask`);
  const [width, height] = response.headers.get("X-Size").split(" ").map(Number);
  const bits = new Uint8Array(await read(response, "arrayBuffer"));
  return { kind: response.headers.get("X-Start"), version: response.headers.get("X-Version"), width, height, bits };
}

/** Saves the deflated bits of a mask; returns its new version. */
export async function putMask(key, body, version) {
  const response = await request(`images/${key}/mask`, { method: "PUT", body }, { "If-Match": version });
  return (await read(response, "json")).version;
}

/** Says something of an image: done, sure, empty, skip or reopen. */
export const say = async (key, what) => read(await request(`images/${key}/${what}`, { method: "POST" }), "json");

export const finish = async () => read(await request("finish", { method: "POST" }), "json");

export const reportAddress = () => `report?token=${encodeURIComponent(token)}`;
