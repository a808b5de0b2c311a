// Runs the JavaScript client of docs/protocol.md: node speak.mjs CLIENT.mjs URL FILE.raw
// Prints the final message and how many bytes are left to say, or {"failed": …} if it gave up.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [client, url, file] = process.argv.slice(2);
const { speakUntilStored } = await import(pathToFileURL(client));
const bytes = await readFile(file);
const pcm = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
try {
  const { final, rest } = await speakUntilStored(url, pcm);
  console.log(JSON.stringify(final));
  console.log(JSON.stringify({ rest: rest.byteLength }));
} catch (error) {
  console.log(JSON.stringify({ failed: error.message }));
}
