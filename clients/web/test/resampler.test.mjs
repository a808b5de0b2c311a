// The worklet's own arithmetic, by tones: what folds back, what passes, and how many samples.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Pieces, RATE_HZ, Resampler } from "../microphone-worklet.js";

const BLOCK = 128;

const tone = (hz, rate, seconds) =>
  Float32Array.from({ length: rate * seconds }, (_, i) => Math.sin((2 * Math.PI * hz * i) / rate));

const resampled = (samples, rate) => {
  const resampler = new Resampler(rate);
  const made = [];
  for (let at = 0; at < samples.length; at += BLOCK) made.push(...resampler.push(samples.subarray(at, at + BLOCK)));
  return Float32Array.from([...made, ...resampler.flush()]);
};

const decibels = (samples) => {
  const middle = samples.subarray(1_600, samples.length - 1_600); // without the edges
  const power = middle.reduce((sum, x) => sum + x * x, 0) / middle.length;
  return 10 * Math.log10(2 * power + 1e-20);
};

for (const rate of [44_100, 48_000, 96_000]) {
  test(`nothing from 9 kHz on folds back, from ${rate} Hz`, () => {
    for (let hz = 9_000; hz < Math.min(rate / 2, 23_000); hz += 700) {
      assert.ok(decibels(resampled(tone(hz, rate, 1), rate)) <= -40, `${hz} Hz`);
    }
  });

  test(`speech passes unchanged, from ${rate} Hz`, () => {
    for (const hz of [100, 300, 1_000, 3_400, 6_000]) {
      const heard = resampled(tone(hz, rate, 1), rate);
      const wanted = tone(hz, RATE_HZ, 1);
      const noise = heard.map((x, i) => x - wanted[i]);
      assert.ok(decibels(noise) < -40, `${hz} Hz: ${decibels(noise)} dB`);
    }
  });
}

for (const rate of [8_000, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000]) {
  test(`a minute at ${rate} Hz has as many samples as a minute`, () => {
    const made = resampled(new Float32Array(rate * 60), rate).length;
    assert.ok(Math.abs(made - RATE_HZ * 60) <= 1, `${made}`);
  });
}

test("how the sound is cut into blocks changes nothing", () => {
  const samples = tone(440, 44_100, 1);
  const whole = new Resampler(44_100);
  const once = Float32Array.from([...whole.push(samples), ...whole.flush()]);
  assert.deepEqual(resampled(samples, 44_100), once);
});

test("pieces hold every sample in its order, and the rest at the end", () => {
  const given = [];
  const pieces = new Pieces((piece) => given.push(piece));
  const samples = Float32Array.from({ length: 4_001 }, (_, i) => (i % 200) / 200);
  for (let at = 0; at < samples.length; at += 37) pieces.add(samples.subarray(at, at + 37));
  pieces.flush();
  assert.deepEqual(given.map((each) => each.pcm.length), [1_600, 1_600, 801]);
  const joined = given.flatMap((each) => [...each.pcm]);
  assert.deepEqual(joined, [...samples].map((x) => Math.round(x * 32_767)));
});

test("what is too loud is clipped, and does not wrap around", () => {
  const given = [];
  const pieces = new Pieces((piece) => given.push(piece));
  pieces.add(Float32Array.of(2, -2, 1, -1));
  pieces.flush();
  assert.deepEqual([...given[0].pcm], [32_767, -32_767, 32_767, -32_767]);
});
