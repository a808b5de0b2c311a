// Runs the JavaScript client of docs/protocol.md: node speak.mjs CLIENT.mjs URL FILE.raw
// Prints the final message, or {"failed": …} if the client gave up.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [client, url, file] = process.argv.slice(2);
const { speakUntilStored } = await import(pathToFileURL(client));
const bytes = await readFile(file);
const pcm = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
try {
  console.log(JSON.stringify(await speakUntilStored(url, pcm)));
} catch (error) {
  console.log(JSON.stringify({ failed: error.message }));
}
