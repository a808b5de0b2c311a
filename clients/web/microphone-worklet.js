// Runs beside the page on the browser's audio thread: takes what the microphone gives at any rate,
// and hands PCM16 at 16 kHz to the page, in pieces of 100 ms. `speech-client.js` loads it.
//
// It drops nothing: samples that do not fill a piece wait for the next ones, and "stop" is answered
// with everything that is left. It is a file of its own because a page with a strict
// Content-Security-Policy loads no worklet from a blob: or data: URL.

export const RATE_HZ = 16_000;
const PIECE_SAMPLES = RATE_HZ / 10;
const ZERO_CROSSINGS = 16; // of the sinc on each side: the transition band is 2 kHz at 48 kHz
const KAISER_BETA = 6; // some 63 dB of stop band

/** The modified Bessel function of order 0, by its series. @param {number} x */
const bessel = (x) => {
  let term = 1, sum = 1;
  for (let k = 1; term > 1e-12 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
};

/** @param {number} a @param {number} b @returns {number} */
const gcd = (a, b) => (b ? gcd(b, a % b) : a);

/**
 * Converts to 16 kHz by a windowed sinc, with exact rational steps, so that no rate drifts.
 *
 * Linear interpolation, which most recorders in browsers use, has no low-pass filter: a sound of
 * 9 kHz becomes one of 7 kHz at full strength. A context of 16 kHz would convert by itself in
 * Chromium, but Firefox refuses a microphone of another rate there.
 */
export class Resampler {
  /** @param {number} rate Samples a second of what comes in. */
  constructor(rate) {
    const shared = gcd(rate, RATE_HZ);
    this.up = RATE_HZ / shared;
    this.down = rate / shared;
    this.bandwidth = Math.min(1, RATE_HZ / rate);
    this.half = Math.ceil(ZERO_CROSSINGS / this.bandwidth);
    /** @type {Float32Array[]} */
    this.taps = [];
    this.held = new Float32Array(this.half - 1); // silence before the first sample
    this.at = 0; // the input sample before the next output, counted from the first one held
    this.phase = 0; // and how far behind it that output lies, in 1/up of an input sample
    this.taken = 0;
    this.made = 0;
  }

  /**
   * @param {Float32Array} samples
   * @returns {Float32Array} what can be told by now
   */
  push(samples) {
    this.taken += samples.length;
    const held = new Float32Array(this.held.length + samples.length);
    held.set(this.held);
    held.set(samples, this.held.length);
    const made = new Float32Array(Math.ceil((held.length * this.up) / this.down) + 1);
    let count = 0;
    for (; this.at + 2 * this.half <= held.length; count += 1) {
      made[count] = this.#filtered(held);
      const next = this.phase + this.down;
      this.at += Math.floor(next / this.up);
      this.phase = next % this.up;
    }
    const used = Math.min(this.at, held.length);
    this.held = held.slice(used);
    this.at -= used;
    this.made += count;
    return made.subarray(0, count);
  }

  /** @returns {Float32Array} the rest: as many samples in all as the time that came in has */
  flush() {
    const owed = Math.round((this.taken * this.up) / this.down) - this.made;
    const taken = this.taken;
    const rest = this.push(new Float32Array(2 * this.half + this.down)).subarray(0, Math.max(0, owed));
    this.taken = taken;
    return rest;
  }

  /** @param {Float32Array} held */
  #filtered(held) {
    const taps = (this.taps[this.phase] ??= this.#tapsOf(this.phase));
    let sum = 0;
    for (let k = 0; k < taps.length; k += 1) sum += held[this.at + k] * taps[k];
    return sum;
  }

  /** @param {number} phase */
  #tapsOf(phase) {
    const taps = new Float32Array(2 * this.half);
    let sum = 0;
    for (let k = 0; k < taps.length; k += 1) {
      const distance = k - this.half + 1 - phase / this.up;
      const x = Math.PI * distance * this.bandwidth;
      const window = 1 - (distance / this.half) ** 2;
      taps[k] = window <= 0 ? 0 : (x ? Math.sin(x) / x : 1) * bessel(KAISER_BETA * Math.sqrt(window));
      sum += taps[k];
    }
    return taps.map((tap) => tap / sum);
  }
}

/** Collects samples into pieces of PCM16, little-endian on every platform that has a browser. */
export class Pieces {
  pcm = new Int16Array(PIECE_SAMPLES);
  filled = 0;
  energy = 0;

  /** @param {(piece: { pcm: Int16Array, level: number }) => void} give */
  constructor(give) {
    this.give = give;
  }

  /** @param {Float32Array} samples */
  add(samples) {
    for (const sample of samples) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.pcm[this.filled] = Math.round(clipped * 32_767);
      this.filled += 1;
      this.energy += clipped * clipped;
      if (this.filled === PIECE_SAMPLES) this.flush();
    }
  }

  /** Give what there is. */
  flush() {
    if (!this.filled) return;
    const { pcm, filled, energy } = this;
    this.pcm = new Int16Array(PIECE_SAMPLES);
    this.filled = this.energy = 0;
    this.give({ pcm: pcm.slice(0, filled), level: Math.sqrt(energy / filled) });
  }
}

/** The mean of the channels of one block. @param {Float32Array[]} channels */
const mixed = (channels) => {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, each) => sum + each[i], 0) / channels.length);
};

/** What the audio thread has, and a test has not. @type {any} */
const scope = globalThis;

class Microphone extends (scope.AudioWorkletProcessor ?? Object) {
  constructor() {
    super();
    this.resampler = scope.sampleRate === RATE_HZ ? null : new Resampler(scope.sampleRate);
    this.running = true;
    this.samples = 0;
    this.pieces = new Pieces(({ pcm, level }) => {
      this.samples += pcm.length;
      this.port.postMessage({ pcm, level }, [pcm.buffer]);
    });
    this.port.onmessage = () => this.stop();
  }

  /** @param {Float32Array[][]} inputs One block of 128 samples, or none while nothing is connected. */
  process([channels]) {
    if (this.running && channels?.length) {
      const samples = mixed(channels);
      this.pieces.add(this.resampler ? this.resampler.push(samples) : samples);
    }
    return this.running;
  }

  /** Hand over the rest, and say how many samples there were in all. */
  stop() {
    if (!this.running) return;
    this.running = false;
    if (this.resampler) this.pieces.add(this.resampler.flush());
    this.pieces.flush();
    this.port.postMessage({ stopped: this.samples });
  }
}

scope.registerProcessor?.("speech-microphone", Microphone);
