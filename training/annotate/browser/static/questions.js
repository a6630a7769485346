/** Questions that the person answers by a button; nothing is the answer where the question was closed. */

const find = (id) => document.getElementById(id);

function ask(title, text, answers) {
  const dialog = find("question");
  find("question-title").textContent = title;
  find("question-text").textContent = text;
  find("answers").replaceChildren(
    ...answers.map(([value, label], index) =>
      Object.assign(document.createElement("button"), { value, textContent: label, className: index ? "" : "primary" }),
    ),
  );
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

/** @returns {Promise<"empty"|"skip"|"">} */
export const askEmpty = () =>
  ask("Nothing is drawn", "Is there nothing to find in this image?", [
    ["", "Keep drawing"],
    ["empty", "Nothing here"],
    ["skip", "Skip this image"],
  ]);

/** @returns {Promise<"invert"|"sure"|"">} */
export const askFull = () =>
  ask(
    "Is the background painted?",
    "The mask covers nearly all of the image's border. Paint what the model is to find, and leave the background out.",
    [
      ["invert", "Invert the mask"],
      ["sure", "It is right as it is"],
      ["", "Keep drawing"],
    ],
  );

/** @returns {Promise<"ours"|"theirs"|"">} */
export const askWhichToKeep = (message) =>
  ask("The mask was changed elsewhere", `${message[0].toUpperCase()}${message.slice(1)}.`, [
    ["ours", "Keep what is drawn here"],
    ["theirs", "Take the other one"],
  ]);
