// A browser in a LiveKit room: Chromium with LiveKit's own client, told and heard in the JSON lines of room_caller.py.
//
//     LIVEKIT_URL=ws://… LIVEKIT_TOKEN=… target/tools/browser/node browser_caller.mjs --seconds 60 microphone.wav
//
// speaks the WAV file (48 kHz, mono, 16 bit) over and over. On stdin: {"chat": "text"}, {"attributes": {…}}, {"mute": true},
// {"leave": true}; the end of stdin is a leave.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

// installed by `make tools-browser`, away from the sources
const modules = createRequire(new URL('../../../../target/tools/browser/package.json', import.meta.url));
const { chromium } = modules('playwright-core');

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const started = performance.now();

function report(event, fields = {}, unixMs = Date.now()) {
  const atMs = performance.now() - started - (Date.now() - unixMs);
  console.log(JSON.stringify({ event, at_ms: Math.round(atMs * 10) / 10, unix_ms: unixMs, ...fields }));
}

const argument = process.argv.slice(2);
const secondsAt = argument.indexOf('--seconds');
const [seconds] = secondsAt < 0 ? [60] : argument.splice(secondsAt, 2).slice(1).map(Number);
const [microphone] = argument;

// the microphone is given to pages of a secure origin only, and loopback is one
const files = {
  '/': ['text/html', readFileSync(here('page.html'))],
  '/livekit-client.js': ['text/javascript', readFileSync(modules.resolve('livekit-client'))],
};
const site = createServer((request, response) => {
  const [type, body] = files[request.url] ?? ['text/plain', ''];
  response.writeHead(body ? 200 : 404, { 'content-type': type }).end(body);
});
await new Promise((ready) => site.listen(0, '127.0.0.1', ready));

const browser = await chromium.launch({
  executablePath: process.env.VOICED_CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox', // a sandbox needs rights that a container has not; the one page is ours
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    ...(microphone ? [`--use-file-for-fake-audio-capture=${microphone}`] : []),
    '--autoplay-policy=no-user-gesture-required',
  ],
});

let over;
const end = new Promise((resolve) => { over = resolve; });
try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => report('error', { reason: error.message }));
  await page.exposeFunction('report', report);
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  createInterface({ input: process.stdin })
    .on('line', async (line) => {
      try {
        const asked = JSON.parse(line);
        if (asked.leave) over();
        else await page.evaluate((asked) => command(asked), asked);
      } catch (error) {
        report('error', { reason: error.message });
      }
    })
    .on('close', over);
  await page.evaluate(([url, token]) => join(url, token), [process.env.LIVEKIT_URL, process.env.LIVEKIT_TOKEN]);
  setTimeout(over, seconds * 1000);
  await end;
  await page.evaluate(() => room.disconnect());
  report('left');
} catch (error) {
  report('error', { reason: error.message });
  process.exitCode = 1;
} finally {
  await browser.close();
  site.close();
  process.exit();
}
