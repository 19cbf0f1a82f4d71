// Bolt against a Slack: Web API, Socket Mode, actions and views.
import { setTimeout as sleep } from 'node:timers/promises';
import bolt from '@slack/bolt';

const { App, SocketModeReceiver, LogLevel } = bolt;
const { API, BOT_TOKEN, APP_TOKEN } = process.env;
const clientOptions = { slackApiUrl: API };
const receiver = new SocketModeReceiver({ appToken: APP_TOKEN, logLevel: LogLevel.ERROR, installerOptions: { clientOptions }, clientOptions });
const app = new App({ token: BOT_TOKEN, receiver, clientOptions, logLevel: LogLevel.ERROR });
let finish;
const done = new Promise((resolve) => { finish = resolve; });
let card;

app.action('approve', async ({ ack, action, body, client }) => {
  await ack();
  if (action.value !== 'nonce') throw new Error(JSON.stringify(action));
  await client.views.open({
    trigger_id: body.trigger_id,
    view: {
      type: 'modal', callback_id: 'c', title: { type: 'plain_text', text: 'Why?' }, submit: { type: 'plain_text', text: 'Send' },
      blocks: [{ type: 'input', block_id: 'reason', label: { type: 'plain_text', text: 'Reason' }, element: { type: 'plain_text_input', action_id: 'reason' } }],
    },
  });
});
app.view('c', async ({ ack, view, client }) => {
  if (view.state.values.reason.reason.value !== 'because') throw new Error(JSON.stringify(view.state));
  await ack({ response_action: 'clear' });
  await client.chat.update({ channel: card.channel, ts: card.ts, text: 'decided' });
  finish();
});
app.error(async (error) => { console.error(error); process.exit(1); });

await app.start();
const { channel } = await app.client.conversations.open({ users: 'U0ANNA' });
card = await app.client.chat.postMessage({
  channel: channel.id, text: 'Approve?',
  blocks: [{ type: 'actions', elements: [{ type: 'button', text: { type: 'plain_text', text: 'Approve' }, action_id: 'approve', value: 'nonce' }] }],
});
await Promise.race([done, sleep(30000).then(() => { throw new Error('no click came'); })]);
await app.stop();
console.log('every step came out as told');
process.exit(0);
