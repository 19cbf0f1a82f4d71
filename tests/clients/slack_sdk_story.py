"""The official Python client against a Slack: Web API and Socket Mode."""

import os
import threading

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.models.blocks import ActionsBlock, ButtonElement, HeaderBlock
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse

api, bot, app = os.environ["API"], os.environ["BOT_TOKEN"], os.environ["APP_TOKEN"]
web = WebClient(token=bot, base_url=api)
me = web.auth_test()
assert me["team_id"] == "T0TEAM" and me["bot_id"], me
try:
    WebClient(token="xoxb-wrong", base_url=api).auth_test()
    raise SystemExit("a wrong token was taken")
except SlackApiError as error:
    assert error.response["error"] == "invalid_auth", error
assert web.users_info(user="U0ANNA")["user"]["team_id"] == "T0TEAM"
assert web.users_lookupByEmail(email="anna@example.com")["user"]["id"] == "U0ANNA"
assert web.usergroups_users_list(usergroup="S0TEAM")["users"] == ["U0ANNA"]
place = web.conversations_open(users="U0ANNA")["channel"]["id"]
try:
    web.chat_postMessage(channel=place, text="long", blocks=[{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}])
    raise SystemExit("a header of 151 characters was taken")
except SlackApiError as error:
    assert error.response["error"] == "invalid_blocks", error

done = threading.Event()
card = {}


def heard(client, request):
    kind = request.payload["type"]
    if kind == "block_actions":
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        assert request.payload["actions"][0]["value"] == "nonce", request.payload
        view = {"type": "modal", "callback_id": "c", "title": {"type": "plain_text", "text": "Why?"}, "submit": {"type": "plain_text", "text": "Send"},
                "blocks": [{"type": "input", "block_id": "reason", "label": {"type": "plain_text", "text": "Reason"},
                            "element": {"type": "plain_text_input", "action_id": "reason"}}]}
        client.web_client.views_open(trigger_id=request.payload["trigger_id"], view=view)
    if kind == "view_submission":
        assert request.payload["view"]["state"]["values"]["reason"]["reason"]["value"] == "because", request.payload
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id, payload={"response_action": "clear"}))
        web.chat_update(channel=card["channel"], ts=card["ts"], text="decided")
        done.set()


client = SocketModeClient(app_token=app, web_client=WebClient(token=bot, base_url=api))
client.socket_mode_request_listeners.append(heard)
client.connect()
blocks = [HeaderBlock(text="Approve?"), ActionsBlock(elements=[ButtonElement(text="Approve", action_id="approve", value="nonce")])]
card = web.chat_postMessage(channel=place, text="Approve?", blocks=blocks).data
assert done.wait(30), "no click came"
client.close()
print("every step came out as told")
