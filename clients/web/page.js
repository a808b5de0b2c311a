// The page: turns presses into speech, and what comes of it into words. All that is about sound and
// the gateway is in speech-client.js.

import { speak } from "./speech-client.js";

const HOLD_MS = 350; // a shorter press is a tap: it begins, and the next one ends
const SAID_BY_STATE = {
  idle: "",
  requesting: "Waiting for the microphone …",
  listening: "Listening.",
  finishing: "Storing what you said …",
  done: "Done.",
  error: "",
};
const LABEL_BY_STATE = { idle: "Speak", requesting: "Cancel", listening: "Stop", finishing: "Wait", done: "Speak", error: "Speak" };
const TOLD_SECONDS = [10, 5];

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const talk = $("talk");
const apiKey = /** @type {HTMLInputElement} */ ($("api-key"));
const parameters = new URLSearchParams(location.search);

/** @type {import("./speech-client.js").Speech | null} */
let speech = null;
let pressedAt = 0;
let told = 0;

// Behind an edge the gateway asks for a key: the page is then opened with ?key.
$("key").hidden = !parameters.has("key");

const gateway = () => {
  const url = new URL(parameters.get("gateway") ?? "ws/audio", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = "";
  return url;
};

/** @param {keyof typeof SAID_BY_STATE} state */
const enter = (state) => {
  main.dataset.state = state;
  $("label").textContent = LABEL_BY_STATE[state];
  $("status").textContent = SAID_BY_STATE[state];
  if (state !== "listening") {
    show(0);
    $("time").textContent = "";
  }
};

/** @param {number} level */
const show = (level) => {
  const loud = Math.min(1, Math.sqrt(level) * 1.6);
  main.style.setProperty("--loud", loud.toFixed(2));
  $("level").setAttribute("aria-valuenow", String(Math.round(loud * 100)));
  $("level").setAttribute("aria-valuetext", loud < 0.1 ? "silent" : loud < 0.6 ? "good" : "loud");
};

/** @param {number} left */
const tell = (left) => {
  const seconds = Math.ceil(left);
  $("time").textContent = seconds > 15 ? "" : `goes on in a new part in ${seconds} s`;
  if (TOLD_SECONDS.includes(seconds) && told !== seconds) {
    told = seconds;
    $("status").textContent = `${seconds} seconds left in this part. It goes on by itself.`;
  }
};

/** @param {import("./speech-client.js").Said[]} said */
const list = (said) => {
  const stored = said.filter((each) => each.receipt);
  $("stored-section").hidden = !stored.length;
  $("receipts").replaceChildren(...stored.map(item));
};

/** @param {import("./speech-client.js").Said} said */
const item = ({ correlationId, receipt, mayBeDoubled }) => {
  const row = document.createElement("li");
  row.dataset.correlationId = correlationId ?? "";
  row.dataset.partition = receipt?.partition;
  row.dataset.offset = receipt?.offset;
  const what = document.createElement("strong");
  what.textContent = `${(receipt?.duration_ms / 1000).toFixed(1)} s stored${mayBeDoubled ? ", perhaps twice" : ""}`;
  const id = document.createElement("code");
  id.textContent = correlationId;
  const copy = document.createElement("button");
  copy.className = "copy";
  copy.type = "button";
  copy.textContent = "Copy id";
  copy.setAttribute("aria-label", `Copy id ${correlationId}`);
  copy.onclick = async () => {
    await navigator.clipboard?.writeText(correlationId ?? "");
    copy.textContent = "Copied";
    copy.removeAttribute("aria-label");
  };
  row.append(what, id, copy);
  return row;
};

const begin = () => {
  $("message").textContent = "";
  $("transcript").textContent = "";
  list([]);
  told = 0;
  speech = speak({
    url: gateway(),
    apiKey: apiKey.value || undefined,
    language: parameters.get("language") ?? undefined,
    onState: (state, trouble) => {
      enter(state);
      if (trouble) $("message").textContent = trouble.message;
    },
    onLevel: show,
    onTime: tell,
    onReceipt: list,
    onText: (text, said) => {
      $("transcript").textContent = text;
      list(said);
    },
    onTrouble: ({ message }) => ($("status").textContent = message),
  });
  void speech.done.then((outcome) => {
    list(outcome.said);
    if (outcome.text) $("transcript").textContent = outcome.text;
    else if (!outcome.trouble) $("status").textContent = outcome.said.length ? "No words were heard." : "Nothing was recorded.";
    speech = null;
  });
};

const press = () => {
  pressedAt = performance.now();
  if (!speech) begin();
  else pressedAt = 0; // the second tap ends it, when it is released
};

const release = () => {
  if (speech && (!pressedAt || performance.now() - pressedAt > HOLD_MS)) void speech.finish();
};

talk.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  talk.setPointerCapture(event.pointerId);
  press();
});
talk.addEventListener("pointerup", release);
talk.addEventListener("pointercancel", release);
talk.addEventListener("contextmenu", (event) => event.preventDefault());
// A click without a pointer is a screen reader's, or a script's.
talk.addEventListener("click", (event) => {
  if (event.detail) return;
  press();
  if (!pressedAt) release();
});

const isTalkKey = (/** @type {KeyboardEvent} */ event) => event.key === " " || event.key === "Enter";
/** @param {KeyboardEvent} event */
const elsewhere = ({ target }) => target instanceof HTMLInputElement || (target instanceof HTMLButtonElement && target !== talk);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return void speech?.cancel();
  if (!isTalkKey(event) || elsewhere(event)) return;
  event.preventDefault(); // no click of the button besides
  if (!event.repeat) press();
});
document.addEventListener("keyup", (event) => {
  if (!isTalkKey(event) || elsewhere(event)) return;
  event.preventDefault();
  release();
});
$("key").addEventListener("submit", (event) => event.preventDefault());

enter("idle");
