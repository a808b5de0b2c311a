// Says a recording to the gateway until it is stored: node client.mjs URL FILE
//
// FILE is headerless PCM16, 16 kHz, mono. It prints the receipt, with the text if the URL ends with
// ?results=text. It ends with 0 only if all of the file is stored. Node's own WebSocket (22 and newer)
// does not tell why a handshake was refused. The package ws does; tried on Node 20.
import { createHash, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import WebSocket from "ws";

const ATTEMPTS = 5;

/** What cannot be mended by trying again. */
class Failure extends Error {}

/** The gateway refused the handshake, and says why in its body. */
class Refused extends Error {
  constructor(status, retryAfter, body) {
    super(`refused with ${status}: ${body}`);
    Object.assign(this, { status, retryAfter, body, forGood: status !== 429 && status !== 503 });
  }
}

/** Says the audio within the limits, then done; stops where the gateway has ended it. */
async function send(socket, pcm, limits) {
  const chunk = Math.min(3200, limits.max_chunk_bytes); // 100 ms
  for (let start = 0; start < pcm.length; start += chunk) {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(pcm.subarray(start, start + chunk));
    await pause(1000 / limits.max_messages_per_second);
  }
  if (socket.readyState === WebSocket.OPEN) socket.send('{"event": "done"}');
}

/** Resolves to the receipt, with its text if the URL asks for it, or to an error; else rejects. */
function speak(url, pcm) {
  return new Promise((resolve, reject) => {
    const headers = process.env.SPEECH_API_KEY ? { "X-API-Key": process.env.SPEECH_API_KEY } : {}; // what an edge asks for
    const socket = new WebSocket(url, "speech-ingress.v1", { headers, perMessageDeflate: false });
    let receipt = null;
    socket.on("unexpected-response", async (request, response) => {
      let body = "";
      for await (const piece of response.setEncoding("utf8")) body += piece;
      reject(new Refused(response.statusCode, Number(response.headers["retry-after"] ?? 0), body));
      request.destroy();
    });
    socket.on("message", (data) => {
      const message = JSON.parse(data);
      switch (message.status) { // what is not known is passed over
        case "connected":
          if (pcm.length > message.limits.max_audio_bytes) {
            reject(new Failure("the recording is longer than the gateway takes"));
            socket.terminate();
          } else {
            void send(socket, pcm, message.limits);
          }
          break;
        case "accepted":
          receipt = message;
          break;
        case "recognized":
          receipt.text = message.text;
          break;
        case "error":
          if (!receipt) resolve(message);
          break;
      }
    });
    socket.on("error", reject); // a promise settles once: after a refusal this does nothing
    socket.on("close", (code) => {
      if (receipt) resolve(receipt);
      else reject(new Error(`the connection ended without a final message (${code})`));
    });
  });
}

/** Returns what of the audio the receipt is not about: nothing, unless it was cut off. */
function unstored(receipt, pcm) {
  const stored = pcm.subarray(0, receipt.audio_bytes);
  const sha256 = createHash("sha256").update(stored).digest("hex");
  if (stored.length !== receipt.audio_bytes || sha256 !== receipt.sha256) {
    throw new Failure("the receipt is not about the audio that was sent");
  }
  return pcm.subarray(stored.length);
}

/**
 * Tries again where that helps, with pauses that grow and vary.
 *
 * Every attempt has the same name, and nothing is stored of one that breaks (1006). So whoever reads
 * counts one utterance, however often it was said.
 */
async function speakUntilStored(address, pcm) {
  const url = new URL(address);
  url.searchParams.set("client_ref", randomUUID());
  url.searchParams.set("on_disconnect", "discard");
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    let seconds = 2 ** attempt * (0.5 + Math.random());
    try {
      const final = await speak(url, pcm);
      if (final.status === "accepted") return final;
      if (!final.retryable) throw new Failure(JSON.stringify(final));
    } catch (error) {
      if (error instanceof Failure) throw error;
      if (error.forGood) throw new Failure(`refused for good: ${error.body}`);
      console.error(`attempt ${attempt + 1}: ${error.message}`);
      seconds = Math.max(seconds, error.retryAfter ?? 0);
    }
    await pause(1000 * seconds);
  }
  throw new Failure("gave up: the gateway did not take the utterance");
}

const [url, file] = process.argv.slice(2);
if (!file) {
  console.error("usage: node client.mjs URL FILE");
  process.exit(2);
}
try {
  const pcm = await readFile(file);
  const receipt = await speakUntilStored(url, pcm);
  const rest = unstored(receipt, pcm);
  console.log(JSON.stringify(receipt));
  // Say the rest in a new connection: it becomes an utterance of its own.
  if (rest.length) throw new Failure(`cut off by ${receipt.ended_by}: ${rest.length} bytes are not stored`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
