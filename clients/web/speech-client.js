// Speak to a gateway from a web page, and get the text. One ES module without dependencies; its
// worklet, microphone-worklet.js, lies beside it. README.md has a page in ten lines.
//
// The microphone comes first, and the connection is made meanwhile, so the first word is not lost.
// What was said is kept until the gateway's receipt for it is there. Whatever breaks before that is
// said again under the same `client_ref`, so that whoever counts by it counts it once.
//
//   Speech      one press of a button: opens an utterance after the other, and tells the page
//   Utterance   one utterance: keeps it, and sends it on a connection after the other
//   Microphone  where samples come from
//
// The rules of the wire are in docs/protocol.md.

/**
 * @typedef {"requesting" | "listening" | "finishing" | "done" | "error"} State
 * @typedef {{ code: string, message: string }} Trouble A code for programs, a sentence for people.
 *
 * @typedef {object} Said What became of one utterance.
 * @property {string} clientRef The name that its records bear as `client_ref`.
 * @property {string | null} correlationId The gateway's name for the last attempt.
 * @property {Record<string, any> | null} receipt The gateway's `accepted`.
 * @property {string | null} text What was heard; null without a text.
 * @property {boolean} mayBeDoubled An earlier attempt may be stored, too: count by `clientRef`.
 * @property {string | null} error The code of what it failed with, for good.
 * @property {Int16Array | null} audio With an error: what is not stored, for whoever keeps it.
 *
 * @typedef {{ said: Said[], text: string, trouble: Trouble | null }} Outcome
 *
 * @typedef {object} AudioSource Where samples come from: PCM16, 16 kHz, mono.
 * @property {(take: (pcm: Int16Array, level: number) => void, report: (code: string) => void)
 *   => Promise<void>} start Resolves once it listens; rejects with an error that has a `code`.
 * @property {() => Promise<void>} stop Resolves once every sample has been taken and the device is
 *   free. It may be called at any time, also twice.
 *
 * @typedef {object} Options
 * @property {string | URL} url The gateway: wss://HOST/ws/audio.
 * @property {string} [language] A hint for the recogniser, such as "en-US".
 * @property {string} [apiKey] What an edge in front of the gateway asks for.
 * @property {boolean} [results] Whether to wait for the text; true unless said.
 * @property {"repeat" | "give up"} [whenUnknown] What to do about an utterance that may be stored
 *   already: say it again (the default), or end with an error.
 * @property {AudioSource} [source] The microphone, unless said.
 * @property {AbortSignal} [signal] Cancels, as `cancel()` does.
 * @property {(state: State, trouble: Trouble | null) => void} [onState]
 * @property {(level: number) => void} [onLevel] Ten times a second: the loudness, 0 to 1.
 * @property {(secondsLeft: number) => void} [onTime] Likewise: until it goes on in a new utterance.
 * @property {(said: Said[]) => void} [onReceipt] One more is stored.
 * @property {(text: string, said: Said[]) => void} [onText] All of the text so far.
 * @property {(trouble: Trouble) => void} [onTrouble] What it mends, or bears with, by itself.
 */

const SUBPROTOCOL = "speech-ingress.v1";
/** What every gateway takes by default; its greeting says what it really takes. */
const USUAL_LIMITS = { max_audio_bytes: 1_572_820, max_chunk_bytes: 65_536, max_messages_per_second: 200, max_session_seconds: 60 };
const BYTES_PER_SECOND = 32_000;
/** Of audio without a receipt: four utterances, 200 s of speech. Beyond that it stops listening. */
export const MAX_KEPT_BYTES = 4 * USUAL_LIMITS.max_audio_bytes;

const ATTEMPTS = 5;
const LONGEST_PAUSE_MS = 30_000;
const SESSION_MARGIN_MS = 3_000;
const DRAIN_MARGIN_MS = 1_000;
const LOOK_FOR_PAUSE_SECONDS = 8; // before it must go on in a new utterance
const QUIET = 0.3; // of the usual loudness: a cut there splits no word
const SILENT_PIECES = 30; // of exact zeros, which no microphone gives by itself
const FLUSH_MS = 2_000;

/** A sentence for each code: what happened, and what a person can do. */
export const SENTENCES = {
  insecure_page: "This page cannot use the microphone: open it over https, or on localhost.",
  no_microphone_api: "This browser cannot record sound. Use a current version of Chrome, Firefox or Safari.",
  microphone_denied: "The microphone is blocked. Allow it in the browser's settings for this page, then try again.",
  no_microphone: "No microphone was found. Connect one, then try again.",
  microphone_busy: "Another program uses the microphone. Close it, then try again.",
  microphone_failed: "The microphone could not be started. Try again.",
  microphone_muted: "The microphone is muted. Unmute it, and go on.",
  microphone_silent: "The microphone gives no sound at all. Check whether it is muted.",
  microphone_interrupted: "Something else, such as a call, has taken the microphone. It goes on afterwards.",
  microphone_lost: "The microphone was disconnected. What you said until then is kept.",
  worklet_blocked: "The recorder could not be loaded: microphone-worklet.js is missing, or the page's policy blocks it.",
  samples_lost: "Some sound was lost between the microphone and this page.",
  too_much_unsent: "Too much is not stored yet, so it stopped listening. What you said until then is kept.",
  cancelled: "Cancelled. What was not stored yet was thrown away.",
  could_not_connect: "The service cannot be reached at the moment. Check the connection, then try again.",
  connection_lost: "The connection broke before everything was stored.",
  connection_lost_after_receipt: "What you said is stored, but the connection broke before its text came.",
  not_a_gateway: "What answers is not a speech service. Check the address.",
  receipt_mismatch: "What was stored is not what you said. Tell the operator the id.",
  idle_timeout: "No sound arrived in time.",
  session_expired: "It took too long to send what you said.",
  shutting_down: "The service was restarted while you spoke. Say it again.",
  audio_too_long: "What you said is longer than the service takes.",
  chunk_too_large: "The service refuses the size of the messages. Tell the operator.",
  protocol_error: "The service does not understand this page. Reload it.",
  rate_limited: "The service refuses so many messages. Try again later.",
  invalid_message: "The service does not understand this page. Reload it.",
  unsupported_audio: "The service does not take this sound. Reload the page.",
  empty_audio: "Nothing was recorded. Try again.",
  broker_unavailable: "The service could not store what you said. Try again in a moment.",
  rejected_by_broker: "The service is not permitted to store what you said. Tell the operator the id.",
  internal_error: "The service failed. Tell the operator the id.",
  not_recognized: "What you said is stored, but no text can be made of it.",
  result_timeout: "What you said is stored, but its text did not come in time.",
  unknown: "Something went wrong.",
};

/** @param {string} code @returns {Trouble} */
const troubleOf = (code) => ({ code, message: /** @type {any} */ (SENTENCES)[code] ?? SENTENCES.unknown });

const hex = (/** @type {Uint8Array} */ bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The SHA-256; null on pages that are not secure, where browsers have none. @param {Uint8Array} bytes */
const digest = async (bytes) =>
  crypto.subtle ? hex(new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)))) : null;

/**
 * Listen at once, until `finish()` or `cancel()`. Call it in the handler of a click or a key:
 * browsers on phones start a microphone only there.
 *
 * @param {Options} options
 */
export const speak = (options) => new Speech(options);

/** What one press of a button says: one utterance, or several in a row if it lasts long. */
export class Speech {
  /** @type {State} */
  state = "requesting";
  /** @type {Utterance[]} */
  #utterances = [];
  #name = hex(crypto.getRandomValues(new Uint8Array(8)));
  #silent = 0;
  #finished = false;
  /** @type {Trouble | null} */
  #trouble = null;
  /** @type {(outcome: Outcome) => void} */
  #resolve = () => {};

  /** @param {Options} options */
  constructor(options) {
    this.options = { results: true, ...options };
    this.source = options.source ?? microphone();
    /** Resolves at the end, whatever it is; it never rejects. @type {Promise<Outcome>} */
    this.done = new Promise((resolve) => (this.#resolve = resolve));
    options.signal?.addEventListener("abort", () => this.cancel(), { once: true });
    void this.#begin();
  }

  /** End the last utterance; the outcome comes with `done`. It may be called at any time. */
  async finish() {
    if (this.#finished) return;
    this.#finished = true;
    if (this.state === "listening") this.#enter("finishing");
    await this.source.stop();
    this.#utterances.at(-1)?.end();
    this.#look();
  }

  /** Throw away what is not stored yet, and free the microphone. */
  async cancel() {
    if (this.#over) return;
    this.#finished = true;
    this.#close("error", troubleOf("cancelled"));
    for (const each of this.#utterances) each.finish();
    await this.source.stop();
  }

  async #begin() {
    if (this.options.signal?.aborted) return this.cancel();
    try {
      // In the same turn as the click: a context that begins later stays suspended on phones.
      const starting = this.source.start((pcm, level) => this.#take(pcm, level), (code) => this.#report(code));
      await null; // the caller has its object before it is told anything
      if (!this.#over) this.#enter("requesting");
      await starting;
    } catch (error) {
      await this.source.stop();
      return this.#close("error", troubleOf(/** @type {any} */ (error)?.code ?? "microphone_failed"));
    }
    if (!this.#over) this.#enter(this.#finished ? "finishing" : "listening");
    return this.#look();
  }

  get #over() {
    return this.state === "done" || this.state === "error";
  }

  /** @param {Int16Array} pcm @param {number} level */
  #take(pcm, level) {
    if (this.#over) return;
    let left = 0;
    for (let rest = pcm; rest.length; ) {
      let current = this.#utterances.at(-1);
      if (!current || current.ended) {
        current = new Utterance(`${this.#name}-${this.#utterances.length + 1}`, this.options, () => this.#look());
        this.#utterances.push(current);
      }
      rest = current.take(rest, level);
      left = current.secondsLeft;
    }
    this.#silent = level === 0 ? this.#silent + 1 : 0;
    if (this.#silent === SILENT_PIECES) this.#report("microphone_silent");
    this.options.onLevel?.(level);
    this.options.onTime?.(left);
    const kept = this.#utterances.reduce((sum, each) => sum + each.keptBytes, 0);
    if (kept > MAX_KEPT_BYTES) this.#stopFor("too_much_unsent");
  }

  /** The source's trouble: one that nothing follows ends the listening. @param {string} code */
  #report(code) {
    if (code === "microphone_lost") this.#stopFor(code);
    else if (!this.#over) this.options.onTrouble?.(troubleOf(code));
  }

  /** @param {string} code */
  #stopFor(code) {
    if (this.#trouble) return;
    this.#trouble = troubleOf(code);
    this.options.onTrouble?.(this.#trouble);
    void this.finish();
  }

  /** Something has changed: tell the page, and see whether it is over. */
  #look() {
    if (this.#over) return;
    const { onReceipt, onText, onTrouble } = this.options;
    for (const each of this.#utterances) {
      for (const news of each.news.splice(0)) {
        if (news === "receipt") onReceipt?.(this.#said);
        else if (news === "text") onText?.(this.#text, this.#said);
        else onTrouble?.(troubleOf(news));
      }
    }
    const failed = this.#utterances.find((each) => each.said.error)?.said.error;
    if (failed) void this.finish();
    if (!this.#finished || this.state === "requesting" || !this.#utterances.every((each) => each.over)) return;
    this.#close(failed ? "error" : "done", failed ? troubleOf(failed) : this.#trouble);
  }

  get #said() {
    return this.#utterances.map((each) => each.said);
  }

  get #text() {
    return this.#said.map((said) => said.text?.trim()).filter(Boolean).join(" ");
  }

  /** @param {State} state */
  #enter(state) {
    this.state = state;
    this.options.onState?.(state, null);
  }

  /** @param {"done" | "error"} state @param {Trouble | null} trouble */
  #close(state, trouble) {
    if (this.#over) return;
    this.state = state;
    this.#resolve({ said: this.#said, text: this.#text, trouble });
    this.options.onState?.(state, trouble);
  }
}

/** One utterance: kept until its receipt, sent on one connection after the other. */
class Utterance {
  /** "receipt", "text", or the code of a trouble; the owner takes them out. @type {string[]} */
  news = [];
  ended = false;
  over = false;
  keptBytes = 0;
  #limits = USUAL_LIMITS;
  /** @type {Int16Array[]} */
  #pieces = [];
  #sentBytes = 0;
  #attempt = 0;
  #loudness = 0;
  #greeted = false;
  #doneSent = false;
  #endAt = Infinity;
  #tokens = 0;
  #tokensAt = 0;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #sendTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #connectTimer;

  /** @param {string} clientRef @param {Options} options @param {() => void} onNews */
  constructor(clientRef, options, onNews) {
    this.options = options;
    this.onNews = onNews;
    /** @type {Said} */
    this.said = { clientRef, correlationId: null, receipt: null, text: null, mayBeDoubled: false, error: null, audio: null };
    this.#connect();
  }

  get secondsLeft() {
    const room = (this.#limits.max_audio_bytes - this.keptBytes) / BYTES_PER_SECOND;
    return Math.max(0, Math.min(room, (this.#endAt - performance.now()) / 1_000));
  }

  /** Take samples; return those that belong to the next one. @param {Int16Array} pcm @param {number} level */
  take(pcm, level) {
    const mine = pcm.subarray(0, Math.max(0, (this.#limits.max_audio_bytes - this.keptBytes) >> 1));
    this.#pieces.push(mine);
    this.keptBytes += mine.byteLength;
    const pause = level < QUIET * this.#loudness && this.secondsLeft < LOOK_FOR_PAUSE_SECONDS;
    this.#loudness = this.#loudness ? 0.95 * this.#loudness + 0.05 * level : level;
    if (mine.length < pcm.length || this.secondsLeft <= 0 || pause) this.end();
    else this.#send();
    return pcm.subarray(mine.length);
  }

  /** No more samples come. */
  end() {
    this.ended = true;
    this.#send();
  }

  /** Nothing more is done about it. */
  finish() {
    this.over = this.ended = true;
    this.#drop();
    this.#pieces = [];
    this.keptBytes = this.#sentBytes = 0;
    this.onNews();
  }

  // The connection

  #connect() {
    const url = new URL(this.options.url, globalThis.location?.href);
    url.searchParams.set("client_ref", this.said.clientRef);
    url.searchParams.set("on_disconnect", "discard"); // because it is all said again
    if (this.options.results) url.searchParams.set("results", "text");
    if (this.options.language) url.searchParams.set("language", this.options.language);
    const key = this.options.apiKey; // browsers send no headers of ours
    const socket = new WebSocket(url, key ? [SUBPROTOCOL, `api-key.${key}`] : [SUBPROTOCOL]);
    this.#socket = socket;
    this.#attempt += 1;
    this.#sentBytes = 0;
    this.#greeted = this.#doneSent = false;
    this.#endAt = Infinity;
    socket.onmessage = ({ data }) => void (socket === this.#socket && this.#hear(data));
    // An error is always followed by a close, which says as much.
    socket.onclose = ({ code }) => void (socket === this.#socket && this.#lost(code));
  }

  #drop() {
    clearTimeout(this.#sendTimer);
    clearTimeout(this.#connectTimer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** End it after so many milliseconds at the latest. @param {number} milliseconds */
  #endWithin(milliseconds) {
    this.#endAt = Math.min(this.#endAt, performance.now() + Math.max(0, milliseconds));
  }

  /** Send what is kept and not sent. Each piece calls it: browsers slow the timers of a hidden page. */
  #send() {
    clearTimeout(this.#sendTimer);
    const socket = this.#socket;
    if (!this.#greeted || socket?.readyState !== WebSocket.OPEN) return;
    while (this.#sentBytes < this.keptBytes) {
      if (!this.#mayTalk()) return void (this.#sendTimer = setTimeout(() => this.#send(), 50));
      const chunk = this.#next();
      socket.send(/** @type {any} */ (chunk));
      this.#sentBytes += chunk.byteLength;
    }
    if (!this.ended || this.#doneSent) return;
    this.#doneSent = true;
    socket.send(JSON.stringify({ event: "done" }));
  }

  /** The gateway reads so many messages a second, and as many at once. */
  #mayTalk() {
    const now = performance.now();
    const rate = this.#limits.max_messages_per_second;
    this.#tokens = Math.min(rate, this.#tokens + ((now - this.#tokensAt) / 1_000) * rate);
    this.#tokensAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** What comes next, as much as one message may hold. */
  #next() {
    const whole = new Int16Array(Math.min(this.#limits.max_chunk_bytes, this.keptBytes - this.#sentBytes) >> 1);
    let at = -this.#sentBytes / 2; // of the piece, in the message
    for (const piece of this.#pieces) {
      const begin = Math.max(0, at);
      if (at + piece.length > 0 && begin < whole.length) whole.set(piece.subarray(begin - at, whole.length - at), begin);
      at += piece.length;
    }
    return whole;
  }

  #audio() {
    const whole = new Int16Array(this.keptBytes >> 1);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }

  // The answers

  /** @param {string} data */
  #hear(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return this.#fail("not_a_gateway");
    }
    if (message.status === "connected") return this.#greet(message);
    if (message.status === "draining") return this.#endWithin(message.deadline_ms - DRAIN_MARGIN_MS);
    if (message.status === "accepted") return void this.#accept(message);
    if (message.status === "recognized") return this.#recognize(message);
    if (message.status === "error") return this.#refuse(message);
    return undefined; // from a later version of the gateway
  }

  /** @param {any} greeting */
  #greet(greeting) {
    this.#greeted = true;
    this.#limits = { ...USUAL_LIMITS, ...greeting.limits };
    this.said.correlationId = greeting.correlation_id;
    this.#tokens = this.#limits.max_messages_per_second;
    this.#tokensAt = performance.now();
    this.#endWithin(this.#limits.max_session_seconds * 1_000 - SESSION_MARGIN_MS);
    this.#send();
  }

  /** @param {any} receipt */
  async #accept(receipt) {
    const stored = new Uint8Array(this.#audio().buffer).subarray(0, receipt.audio_bytes);
    const sha256 = (await digest(stored)) ?? receipt.sha256;
    if (stored.byteLength !== receipt.audio_bytes || sha256 !== receipt.sha256) return this.#fail("receipt_mismatch");
    if (stored.byteLength < this.keptBytes) return this.#fail(receipt.ended_by);
    this.said.receipt = receipt;
    this.#pieces = [];
    this.keptBytes = this.#sentBytes = 0;
    this.ended = true;
    this.#tell("receipt");
    if (!this.options.results) this.finish();
    return undefined;
  }

  /** @param {any} message */
  #recognize(message) {
    this.said.text = message.text;
    this.#tell("text");
    this.finish();
  }

  /** @param {any} error */
  #refuse(error) {
    if (this.said.receipt) {
      this.#tell(error.code);
      return this.finish();
    }
    const unknown = error.stored === "unknown";
    this.said.mayBeDoubled ||= unknown;
    if (!error.retryable || (unknown && this.options.whenUnknown === "give up")) return this.#fail(error.code);
    return this.#again(error.code);
  }

  /** The connection is gone. @param {number} code */
  #lost(code) {
    if (this.said.receipt) {
      this.#tell("connection_lost_after_receipt");
      return this.finish();
    }
    if (code === 1002 || code === 1007 || code === 1009) return this.#fail("protocol_error");
    this.said.mayBeDoubled ||= this.#doneSent; // it was complete, so nothing was discarded
    if (this.#doneSent && this.options.whenUnknown === "give up") return this.#fail("connection_lost");
    return this.#again(this.#greeted ? "connection_lost" : "could_not_connect");
  }

  /** Say it all again after a pause, or give up. @param {string} code */
  #again(code) {
    if (this.#attempt >= ATTEMPTS) return this.#fail(code);
    this.#drop();
    const pause = Math.min(LONGEST_PAUSE_MS, 1_000 * 2 ** (this.#attempt - 1)) * (0.5 + Math.random());
    this.#connectTimer = setTimeout(() => this.#connect(), pause);
    return this.#tell(code);
  }

  /** @param {string} code */
  #fail(code) {
    this.said.error = code;
    this.said.audio = this.#audio();
    this.finish();
  }

  /** @param {string} news */
  #tell(news) {
    this.news.push(news);
    this.onNews();
  }
}

/**
 * The microphone, at whatever rate the device has.
 *
 * @param {{ deviceId?: string }} [choice]
 * @returns {AudioSource}
 */
export const microphone = (choice = {}) => new Microphone(choice.deviceId);

const DEVICE_ERRORS = {
  NotAllowedError: "microphone_denied",
  SecurityError: "microphone_denied",
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
  NotReadableError: "microphone_busy",
  AbortError: "microphone_busy",
};

/** @param {string} code */
const failure = (code) => Object.assign(new Error(troubleOf(code).message), { code });

class Microphone {
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AudioWorkletNode | null} */
  #node = null;
  /** @type {MediaStream | null} */
  #stream = null;
  #stopped = false;
  #taken = 0;
  /** @type {(samples: number) => void} */
  #flushed = () => {};
  /** @type {(code: string) => void} */
  #report = () => {};

  /** @param {string} [deviceId] */
  constructor(deviceId) {
    this.deviceId = deviceId;
  }

  /** @param {(pcm: Int16Array, level: number) => void} take @param {(code: string) => void} report */
  async start(take, report) {
    if (!globalThis.isSecureContext) throw failure("insecure_page");
    if (!navigator.mediaDevices?.getUserMedia || !globalThis.AudioWorkletNode) throw failure("no_microphone_api");
    this.#report = report;
    const context = (this.#context = new AudioContext()); // of the device's rate: Firefox takes no other
    context.onstatechange = () => this.#stateChanged();
    const loading = context.audioWorklet.addModule(new URL("./microphone-worklet.js", import.meta.url));
    loading.catch(() => {}); // looked at below
    await this.#open();
    await loading.catch(() => {
      throw failure("worklet_blocked");
    });
    if (this.#stopped) return this.#free();
    const node = (this.#node = new AudioWorkletNode(context, "speech-microphone"));
    node.port.onmessage = ({ data }) => {
      if (data.stopped !== undefined) return this.#flushed(data.stopped);
      this.#taken += data.pcm.length;
      return take(data.pcm, data.level);
    };
    node.connect(context.destination); // it gives silence there; unconnected, some browsers never run it
    this.#plug();
    return void context.resume();
  }

  /** Take what is left in the worklet, and free the device. */
  async stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    const node = this.#node;
    if (node) {
      const samples = await new Promise((resolve) => {
        this.#flushed = resolve;
        setTimeout(resolve, FLUSH_MS); // a context that is interrupted answers nothing
        node.port.postMessage("stop");
      });
      if (samples !== this.#taken) this.#report("samples_lost");
    }
    await this.#free();
  }

  async #open() {
    const audio = { channelCount: 1, ...(this.deviceId ? { deviceId: { ideal: this.deviceId } } : {}) };
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw failure(/** @type {any} */ (DEVICE_ERRORS)[/** @type {any} */ (error)?.name] ?? "microphone_failed");
    }
    const [track] = this.#stream.getAudioTracks();
    track.onmute = () => !this.#stopped && this.#report("microphone_muted");
    track.onended = () => void (this.#stopped || this.#reopen());
  }

  #plug() {
    const { context, node, stream } = { context: this.#context, node: this.#node, stream: this.#stream };
    if (context && node && stream) context.createMediaStreamSource(stream).connect(node);
  }

  /** The device is gone, as after a call or an unplugged headset: take the one that is left. */
  async #reopen() {
    try {
      await this.#open();
      if (this.#stopped) return await this.#free();
      return this.#plug();
    } catch {
      return this.#report("microphone_lost");
    }
  }

  #stateChanged() {
    const state = /** @type {string | undefined} */ (this.#context?.state);
    if (this.#stopped) return;
    // To resume an interrupted context freezes it on iOS: it comes back by itself, as suspended.
    if (state === "interrupted") this.#report("microphone_interrupted");
    else if (state === "suspended") void this.#context?.resume();
  }

  async #free() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context && this.#context.state !== "closed") await this.#context.close();
  }
}
