// Draws the pictures of docs/slack.md from what the tests posted, with somebody else's renderer in a browser.
//
//   COUNTERSIGN_TEST_KEEP=/tmp/posted cargo test --test suite slack
//   npm i slack-blocks-to-jsx@1.1.1 react@19 react-dom@19 playwright-core esbuild
//   node docs/images/draw.mjs /tmp/posted docs/images     # where those are installed; CHROMIUM names the browser
import { readFileSync, writeFileSync, mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { tmpdir } from 'node:os';

const [posted, into] = process.argv.slice(2).map((p) => resolve(p));
const require = createRequire(join(process.cwd(), 'x.js'));
const { chromium } = require('playwright-core');
const esbuild = require('esbuild');

const read = (test) => JSON.parse(readFileSync(join(posted, `slack-${test}.json`), 'utf8'));
const text = (payload) => JSON.stringify(payload);
const first = (test, fits) => {
  const found = read(test).find(fits);
  if (!found) throw new Error(`nothing fits in ${test}`);
  return found;
};
const message = (start) => (p) => p.type === 'message' && p.blocks[0]?.text?.text?.startsWith(start);
const wanted = {
  asking: first('an_approver_decides_on_the_card_and_every_copy_tells', message('Approval needed')),
  half: first('a_critical_call_takes_two_people_and_the_typed_target', (p) => message('Approval needed')(p) && text(p).includes('1 of 2 have')),
  completed: first('an_approver_decides_on_the_card_and_every_copy_tells', message('Completed')),
  denied: first('a_denial_says_why_and_reaches_the_agent', message('Denied')),
  expired: first('the_question_goes_to_whoever_is_there', message('Expired')),
  long: first('what_does_not_fit_is_not_approved_on_the_card', (p) => p.type === 'message' && text(p).includes('do not fit here')),
  review: first('a_critical_call_takes_two_people_and_the_typed_target', (p) => p.callback_id === 'review' && p.submit),
  deny: first('a_denial_says_why_and_reaches_the_agent', (p) => p.callback_id === 'deny'),
};

const work = mkdtempSync(join(tmpdir(), 'pictures-'));
writeFileSync(join(work, 'page.jsx'), `
import { createRoot } from 'react-dom/client';
import { Message } from 'slack-blocks-to-jsx';
const data = { users: [{ id: 'U0ANNA', name: 'anna' }, { id: 'U0BERT', name: 'bert' }], channels: [], user_groups: [] };
const hooks = {};
window.draw = (p) => {
  const root = createRoot(document.getElementById('root'));
  const body = <Message blocks={p.blocks} name="Countersign" logo={"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 36 36'%3E%3Crect width='36' height='36' fill='%231f2937'/%3E%3Cpath d='M9 19l6 6 12-14' fill='none' stroke='white' stroke-width='4'/%3E%3C/svg%3E"} time={new Date('2026-11-23T10:00:00Z')} data={data} hooks={hooks} theme="light" withoutWrapper={p.type !== 'message'} />;
  if (p.type === 'message') return root.render(body);
  root.render(<div className="modal"><h2>{p.title.text}</h2>{body}<div className="foot"><span>{p.close.text}</span>{p.submit && <b>{p.submit.text}</b>}</div></div>);
};`);
const bundle = await esbuild.build({
  entryPoints: [join(work, 'page.jsx')], bundle: true, write: false, format: 'iife', jsx: 'automatic', nodePaths: [join(process.cwd(), 'node_modules')],
  define: { 'process.env.NODE_ENV': '"production"' },
});
const style = readFileSync(require.resolve('slack-blocks-to-jsx/dist/style.css'), 'utf8');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
for (const [name, payload] of Object.entries(wanted)) {
  const page = await browser.newPage({ viewport: { width: 460, height: 400 }, deviceScaleFactor: 2 });
  await page.setContent(`<style>${style}
    body{margin:0;font-family:sans-serif;background:#fff} #root{padding:12px;width:436px}
    .modal{border:1px solid #ccc;border-radius:8px;padding:8px 16px 16px} .modal h2{margin:4px 0 8px;font-size:18px}
    .foot{display:flex;gap:12px;justify-content:flex-end;align-items:center;margin-top:12px} .foot b{background:#007a5a;color:#fff;padding:6px 14px;border-radius:6px}
  </style><div id="root"></div><script>${bundle.outputFiles[0].text.replaceAll('</script', '<\\/script')}</script>`);
  await page.evaluate((p) => window.draw(p), payload);
  await page.waitForTimeout(400);
  await (await page.$('#root')).screenshot({ path: join(into, `${name}.png`) });
  await page.close();
}
await browser.close();
