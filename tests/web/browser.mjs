// Drives the page in a real browser for tests/web: node browser.mjs, with a scenario as JSON on stdin.
// Prints what came of it as one line of JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const scenario = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(`${scenario.packages}/package.json`);
const { chromium } = require("playwright-core");

const flags = ["--no-sandbox", "--autoplay-policy=user-gesture-required", "--use-fake-device-for-media-stream"];
if (scenario.sound) flags.push(`--use-file-for-fake-audio-capture=${scenario.sound}%noloop`);
flags.push(scenario.denied ? "--deny-permission-prompts" : "--use-fake-ui-for-media-stream");
const browser = await chromium.launch({ executablePath: scenario.browser, args: flags });
const context = await browser.newContext({
  ignoreHTTPSErrors: true, // an edge that was just started has an authority of its own
  viewport: { width: scenario.width ?? 900, height: 900 },
  colorScheme: scenario.dark ? "dark" : "light",
  reducedMotion: scenario.still ? "reduce" : "no-preference",
});
const page = await context.newPage();
const complaints = [];
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));

// What the worklet hands to the page, and the tracks of the microphone, from beside the client.
await page.addInitScript(() => {
  globalThis.made = [];
  globalThis.tracks = [];
  const Node = globalThis.AudioWorkletNode;
  globalThis.AudioWorkletNode = class extends Node {
    constructor(...all) {
      super(...all);
      this.port.addEventListener("message", ({ data }) => data.pcm && globalThis.made.push(data.pcm.slice()));
    }
  };
  const devices = navigator.mediaDevices;
  const ask = devices?.getUserMedia.bind(devices);
  if (ask) {
    devices.getUserMedia = async (...all) => {
      const stream = await ask(...all);
      globalThis.tracks.push(...stream.getTracks());
      return stream;
    };
  }
});

const state = () => page.locator("main").getAttribute("data-state");
const button = page.locator("#talk");
const found = {};

const steps = {
  open: (path) => page.goto(new URL(path, scenario.url).href),
  down: async () => {
    const box = await button.boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
  },
  up: () => page.mouse.up(),
  press: (key) => page.keyboard.press(key),
  keydown: (key) => page.keyboard.down(key),
  keyup: (key) => page.keyboard.up(key),
  click: () => button.evaluate((it) => it.click()),
  type: (text) => page.fill("#api-key", text),
  pause: (seconds) => page.waitForTimeout(seconds * 1000),
  state: (wanted) => page.waitForFunction((all) => all.includes(document.querySelector("main").dataset.state), [wanted].flat(), { timeout: 90_000 }),
  receipts: (count) => page.waitForFunction((n) => document.querySelectorAll("#receipts li").length >= n, count, { timeout: 90_000 }),
  heard: (seconds) => page.waitForFunction((n) => globalThis.made.reduce((sum, each) => sum + each.length, 0) >= n, seconds * 16_000, { timeout: 90_000 }),
  heard_more: async (seconds) => {
    const before = await page.evaluate(() => globalThis.made.reduce((sum, each) => sum + each.length, 0));
    await steps.heard(seconds + before / 16_000);
  },
  say: (line) => console.log(JSON.stringify({ reached: line })),
  screenshot: (path) => page.screenshot({ path }),
  axe: async (name) => {
    await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    (found.axe ??= {})[name] = violations.map(({ id, nodes }) => `${id}: ${nodes.map((each) => each.html).join(" ")}`);
  },
  overflow: async () => (found.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)),
  run: async (code) => (found.result = await page.evaluate(code)),
};

try {
  for (const [step, argument] of scenario.steps) await steps[step](argument);
  found.state = await state();
  found.transcript = await page.locator("#transcript").textContent();
  found.message = await page.locator("#message").textContent();
  found.status = await page.locator("#status").textContent();
  found.label = await page.locator("#label").textContent();
  found.receipts = await page.locator("#receipts li").evaluateAll((all) => all.map((each) => each.dataset.correlationId));
  found.doubled = await page.locator("#receipts").innerText().then((text) => text.includes("perhaps twice"));
  found.live = await page.evaluate(() => globalThis.tracks.filter((each) => each.readyState === "live").length);
  found.made = await page.evaluate(() => {
    const whole = new Int16Array(globalThis.made.reduce((sum, each) => sum + each.length, 0));
    let at = 0;
    for (const each of globalThis.made) {
      whole.set(each, at);
      at += each.length;
    }
    let text = "";
    for (const byte of new Uint8Array(whole.buffer)) text += String.fromCharCode(byte);
    return btoa(text);
  });
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ...found, complaints }));
